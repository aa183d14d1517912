//! What makes a worker's thread known to DPDK, so that it keeps packet buffers at hand without a lock.

use crate::sys;

struct Registration {
    registered: bool,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.registered {
            // SAFETY: this thread was registered, and it ends.
            unsafe { sys::ws_thread_unregister() };
        }
    }
}

thread_local! {
    // SAFETY: DPDK runs, as only those who have a port come here. A thread that DPDK has no room for is only slower.
    static REGISTRATION: Registration = Registration { registered: unsafe { sys::ws_thread_register() } > 0 };
}

/// Registers the calling thread, once.
pub(crate) fn register() {
    REGISTRATION.with(|_| {});
}

//! Sending frames: to inject traffic into a `net_ring` device, which hands it back, in benchmarks and tests.

use std::io::IoSlice;
use std::sync::Arc;

use crate::port::Port;
use crate::{sys, thread};

pub use crate::port::open_to_send;

/// Sends on one queue of a port.
pub struct Transmitter {
    queue: u16,
    port: Arc<Port>,
}

impl Transmitter {
    pub(crate) fn new(port: &Arc<Port>, queue: u16) -> Self {
        Self { queue, port: Arc::clone(port) }
    }

    /// The queue.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Copies frames into buffers and sends them. Gives the number of those that went, the first ones: fewer than all
    /// when the queue or the pool is full, or at a frame that is longer than a buffer.
    pub fn send(&mut self, frames: &[IoSlice<'_>]) -> usize {
        thread::register();
        let Some(pool) = self.port.pools.get(usize::from(self.queue)) else { return 0 };
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        // SAFETY: the standard library lays an `IoSlice` out as the `iovec` that C takes; nobody else sends on this queue.
        let sent =
            unsafe { sys::ws_send(self.port.id, self.queue, pool.raw().mempool, frames.as_ptr(), count) };
        sent as usize
    }
}

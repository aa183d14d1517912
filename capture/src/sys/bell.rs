//! Waking a thread that waits for frames in the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use super::{check, wait_readable};

/// What one thread listens to while it waits, and others ring to end that.
pub struct Bell {
    fd: OwnedFd,
    /// The thread listens, and it has not rung since.
    armed: AtomicBool,
}

/// A thread listens for as long as this lives.
pub struct Listening<'a>(&'a Bell);

impl Bell {
    /// A bell that nobody listens to.
    ///
    /// # Errors
    /// The process has too many files open.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor is new and owned by nobody else.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, armed: AtomicBool::new(false) })
    }

    /// Listens. What was done before a ring is visible to a thread that looks after this, or the bell rings for it.
    pub fn listen(&self) -> Listening<'_> {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Listening(self)
    }

    /// Ends the wait of the thread that listens.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight live bytes; the sum cannot overflow, as every listener takes it.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

impl Listening<'_> {
    /// Readable from the ring on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// Whether the wait is over.
    pub fn has_rung(&self) -> bool {
        !self.0.armed.load(Ordering::Acquire)
    }

    /// Waits for the ring, at most so long.
    pub fn wait(&self, at_most: Duration) -> io::Result<()> {
        wait_readable(self.fd(), None, at_most)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.armed.store(false, Ordering::Release);
        let mut sum = [0; 8];
        // SAFETY: eight live bytes. It does not wait where nobody rang.
        unsafe { libc::read(self.0.fd.as_raw_fd(), sum.as_mut_ptr().cast(), sum.len()) };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_ring_ends_the_wait_of_who_listens_and_is_not_heard_later() {
        const LONG: Duration = Duration::from_secs(60);
        let bell = Bell::new().unwrap();
        bell.ring();
        let start = Instant::now();
        {
            let listening = bell.listen();
            assert!(!listening.has_rung(), "nobody listened when it rang");
            listening.wait(Duration::from_millis(5)).unwrap();
            assert!(start.elapsed() >= Duration::from_millis(5));
            std::thread::scope(|scope| {
                scope.spawn(|| bell.ring());
                listening.wait(LONG).unwrap();
            });
            assert!(listening.has_rung());
        }
        let listening = bell.listen();
        assert!(!listening.has_rung());
        listening.wait(Duration::from_millis(5)).unwrap();
        assert!(start.elapsed() < LONG);
    }
}

//! Sending out of one queue of an interface. Takes in frames that the caller writes where the driver reads them; hands them on
//! in batches, and takes their places back when they are gone. No XDP program is needed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::FRAME_BYTES;
use super::ring::Ring;
use super::socket::{Bound, Unbound, bind};
use crate::CaptureError;
use crate::interface::Interface;
use crate::sys::{self, Mapping};

/// Frames that may be on their way at the same time: as many as the longest queue of an ordinary driver.
const FRAMES: u32 = 4096;

/// A socket that sends only.
pub struct Transmitter {
    interface: Interface,
    memory: Mapping,
    tx: Ring<libc::xdp_desc>,
    completion: Ring<u64>,
    /// Where the frames lie that the kernel does not have.
    free: Vec<u64>,
    bound: Bound,
    fd: OwnedFd,
}

impl Transmitter {
    /// Sends out of the first queue of an interface of the caller's network namespace: zero-copy where the driver has it.
    pub fn open(interface: &str) -> Result<Self, CaptureError> {
        let interface = Interface::find(interface)?;
        let error = |source| CaptureError::system("map the rings", &interface.name, source);
        let Unbound { fd, memory, offsets, .. } = Unbound::new(&interface, FRAMES, true, libc::XDP_TX_RING)?;
        let tx = Ring::map(fd.as_fd(), libc::XDP_PGOFF_TX_RING, offsets.tx, FRAMES).map_err(error)?;
        let completion_offset = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
        let completion = Ring::map(fd.as_fd(), completion_offset, offsets.cr, FRAMES).map_err(error)?;
        let bound = bind(fd.as_fd(), &interface, 0, true)?;
        let free = (0..u64::from(FRAMES)).map(|frame| frame * FRAME_BYTES as u64).collect();
        Ok(Self { interface, memory, tx, completion, free, bound, fd })
    }

    /// The NIC reads from our memory; else the kernel copies.
    pub fn is_zero_copy(&self) -> bool {
        self.bound.zero_copy
    }

    /// Hands up to `most` frames over together, and says how many: none while all are on their way. `write` fills the memory of
    /// one and says how long it is.
    pub fn send(
        &mut self,
        most: usize,
        mut write: impl FnMut(&mut [u8]) -> usize,
    ) -> Result<usize, CaptureError> {
        self.reclaim();
        let frames = most.min(self.free.len());
        let memory = &self.memory;
        let written = self.free.drain(self.free.len() - frames..).map(|place| {
            let len = memory.pointers::<u8>(place as usize, FRAME_BYTES).map_or(0, |frame| {
                // SAFETY: the mapping is ours, and this frame of it is with nobody: neither the kernel's nor lent.
                let frame = unsafe { std::slice::from_raw_parts_mut(frame.as_ptr(), FRAME_BYTES) };
                write(frame).min(FRAME_BYTES)
            });
            libc::xdp_desc { addr: place, len: len as u32, options: 0 }
        });
        self.tx.give(written);
        self.wake_driver()?;
        Ok(frames)
    }

    /// Waits until all frames are gone; false when some are still on their way after this time.
    pub fn finish(&mut self, timeout: Duration) -> Result<bool, CaptureError> {
        let start = Instant::now();
        loop {
            self.reclaim();
            if self.free.len() == FRAMES as usize {
                return Ok(true);
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            self.wake_driver()?;
            std::thread::yield_now();
        }
    }

    /// Takes back the places of frames that are gone.
    fn reclaim(&mut self) {
        let gone = self.completion.ready();
        self.free.extend((0..gone).map(|ahead| self.completion.peek(ahead)));
        self.completion.release(gone);
    }

    fn wake_driver(&self) -> Result<(), CaptureError> {
        if !self.tx.needs_wakeup() {
            return Ok(());
        }
        sys::drive_transmit(self.fd.as_fd())
            .map_err(|source| CaptureError::system("send", &self.interface.name, source))
    }
}

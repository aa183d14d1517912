//! Frames that stay lent for longer than a batch, so that other threads can read them where they lie.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use wirespan_capture::{CaptureError, Descriptor, LendingSource, Listening, Memory, Region};

use crate::clock::now_ns;
use crate::port::Port;
use crate::{DpdkSource, sys, thread};

/// Of the places where frames begin, no two are this near to each other: a buffer has more, and devices begin in it at about
/// the same place.
const PLACE_BYTES: usize = 1024;
/// Mbufs that go back to the pool at a time.
const FREE_MBUFS: usize = 64;

/// What is lent.
#[derive(Default)]
pub(crate) struct Lending {
    /// The mbuf of a frame that begins here.
    mbufs: Vec<Option<NonNull<sys::Mbuf>>>,
    /// Bytes of the spare memory that are used, and by how many frames.
    spare: usize,
    in_spare: usize,
    /// Mbufs that are about to go back.
    free: Vec<*mut sys::Mbuf>,
}

impl Lending {
    /// Remembers the mbuf of a frame. False when it cannot be told from another one.
    fn keep(&mut self, offset: usize, mbuf: *mut sys::Mbuf, region_bytes: usize) -> bool {
        if self.mbufs.is_empty() {
            self.mbufs = vec![None; region_bytes.div_ceil(PLACE_BYTES)];
        }
        match self.mbufs.get_mut(offset / PLACE_BYTES) {
            Some(place @ None) => {
                *place = NonNull::new(mbuf);
                true
            }
            _ => false,
        }
    }

    fn free(&mut self, mbuf: *mut sys::Mbuf) {
        self.free.push(mbuf);
        if self.free.len() == FREE_MBUFS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.free.is_empty() {
            // SAFETY: these were received, and nobody reads them any more.
            unsafe { sys::ws_free(self.free.as_mut_ptr(), self.free.len() as u32) };
            self.free.clear();
        }
    }
}

/// The memory of a queue's frames, which keeps the port open.
struct QueueMemory {
    port: Arc<Port>,
    bytes: NonNull<[u8]>,
}

// SAFETY: it only says where the memory is.
unsafe impl Send for QueueMemory {}
// SAFETY: as above.
unsafe impl Sync for QueueMemory {}

// SAFETY: the pool's memory is mapped as long as the port has it.
unsafe impl Memory for QueueMemory {
    fn bytes(&self) -> NonNull<[u8]> {
        debug_assert!(!self.port.pools.is_empty());
        self.bytes
    }
}

impl DpdkSource {
    /// Describes received frames, as many as the spare memory allows. False when there is no room for the next one.
    fn lend_longer(&mut self, most: usize, into: &mut Vec<Descriptor>) -> bool {
        let now_ns = now_ns();
        self.clock.tick(now_ns);
        for _ in 0..most {
            let (Some(&mbuf), Some(frame)) = (self.mbufs.get(self.lent), self.frames.get(self.lent)) else {
                return true;
            };
            if self.lent == self.count {
                return true;
            }
            let Some(pool) = self.port.pools.get(usize::from(self.rx.queue)) else { return false };
            let (mut offset, mut len) = (frame.offset as usize, frame.len);
            let lies_there = frame.flags & sys::COPY == 0;
            if !lies_there || !self.lending.keep(offset, mbuf, self.rx.len as usize) {
                let used = if self.lending.in_spare == 0 { 0 } else { self.lending.spare };
                if used > 0 && frame.len as usize > pool.spare_bytes() - used {
                    return false;
                }
                // SAFETY: the mbuf is ours, and what lies behind `used` is lent to nobody.
                len = unsafe { pool.copy(mbuf, used) };
                offset = pool.spare_offset() + used;
                self.lending.spare = used + len as usize;
                self.lending.in_spare += 1;
                self.lending.free(mbuf);
                self.copied += 1;
            }
            into.push(self.describe(frame, offset, len, now_ns));
            // Batches have nothing to do with it.
            self.lent += 1;
            self.given_back = self.lent;
            self.received += 1;
        }
        true
    }
}

impl LendingSource for DpdkSource {
    fn region(&self) -> Region {
        let bytes = ptr::slice_from_raw_parts_mut(self.rx.base.cast_mut(), self.rx.len as usize);
        let bytes = NonNull::new(bytes).unwrap_or(NonNull::slice_from_raw_parts(NonNull::dangling(), 0));
        Region::new(Arc::new(QueueMemory { port: Arc::clone(&self.port), bytes }))
    }

    fn take(&mut self, most: usize, into: &mut Vec<Descriptor>) -> Result<(), CaptureError> {
        thread::register();
        let before = into.len();
        loop {
            let left = most.saturating_sub(into.len() - before);
            let has_room = self.lend_longer(left, into);
            if !has_room || into.len() - before >= most || !self.receive() {
                break;
            }
        }
        self.lending.flush();
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        thread::register();
        match self.lent == self.count {
            true => self.poll(timeout, bell),
            false => Ok(()),
        }
    }

    fn give_back(&mut self, offsets: &[usize]) {
        thread::register();
        let spare_offset = self.pool().map_or(usize::MAX, |pool| pool.spare_offset());
        for &offset in offsets {
            if offset >= spare_offset {
                self.lending.in_spare = self.lending.in_spare.saturating_sub(1);
            } else if let Some(mbuf) = self.lending.mbufs.get_mut(offset / PLACE_BYTES).and_then(Option::take)
            {
                self.lending.free(mbuf.as_ptr());
            }
        }
        self.lending.flush();
    }
}

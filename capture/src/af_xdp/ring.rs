//! The rings between an AF_XDP socket and the kernel: one side produces, the other consumes
//! (Documentation/networking/af_xdp.rst of the kernel).

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::{Mapping, Plain};

/// A ring of `T` that is either taken from or given to; the number of entries is a power of two.
pub(super) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    first: NonNull<T>,
    entries: u32,
    /// Our own index: of the next entry to take, or of the next one to give.
    next: u32,
    /// What the pointers point into.
    _mapping: Mapping,
}

// SAFETY: the pointers go with the mapping, and nothing in it is bound to a thread.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Plain> Ring<T> {
    /// Maps a ring whose size was already told to the kernel.
    pub fn map(
        socket: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: libc::xdp_ring_offset,
        entries: u32,
    ) -> io::Result<Self> {
        let bytes = offsets.desc as usize + entries as usize * size_of::<T>();
        let mapping = Mapping::shared(socket, bytes, page_offset)?;
        let word = |offset: u64| mapping.pointer(offset as usize);
        let parts = (|| {
            let first = mapping.pointers(offsets.desc as usize, entries as usize)?;
            Some((word(offsets.producer)?, word(offsets.consumer)?, word(offsets.flags)?, first))
        })();
        let (producer, consumer, flags, first) = parts.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { producer, consumer, flags, first, entries, next: 0, _mapping: mapping })
    }

    /// True when the kernel waits to be told of new entries.
    pub fn needs_wakeup(&self) -> bool {
        // SAFETY: an aligned integer in the mapping that both sides access atomically.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    pub fn entries(&self) -> u32 {
        self.entries
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: as for the flags.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the flags.
        unsafe { self.consumer.as_ref() }
    }

    fn place(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index lies in the ring, and the ring in the mapping.
        unsafe { self.first.add((index & (self.entries - 1)) as usize) }
    }

    /// Entries that the kernel has produced in all, modulo 2^32.
    pub fn produced(&self) -> u32 {
        self.producer().load(Ordering::Acquire)
    }

    /// Entries that the kernel has produced and we have not taken.
    pub fn ready(&self) -> u32 {
        // More than there are would be nonsense from the kernel.
        self.produced().wrapping_sub(self.next).min(self.entries)
    }

    /// The entry that is `ahead` of the next one: one of those that are ready.
    pub fn peek(&self, ahead: u32) -> T {
        // SAFETY: the kernel wrote it before it moved the producer, and leaves it until we move the consumer; and any bytes
        // are an entry.
        unsafe { self.place(self.next.wrapping_add(ahead)).read() }
    }

    /// Gives the places of the next entries back.
    pub fn release(&mut self, entries: u32) {
        self.next = self.next.wrapping_add(entries);
        self.consumer().store(self.next, Ordering::Release);
    }

    /// Gives entries to the kernel. The ring is as long as there are frames, so only one that is given twice finds no
    /// room; it is left out.
    pub fn give(&mut self, entries: impl Iterator<Item = T>) {
        let full = self.consumer().load(Ordering::Acquire).wrapping_add(self.entries);
        for value in entries {
            if self.next == full {
                break;
            }
            // SAFETY: the kernel reads the entry only after the producer has moved beyond it.
            unsafe { self.place(self.next).write(value) };
            self.next = self.next.wrapping_add(1);
        }
        self.producer().store(self.next, Ordering::Release);
    }
}

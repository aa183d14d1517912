//! The rings between an AF_XDP socket and the kernel: one side produces, the other consumes
//! (Documentation/networking/af_xdp.rst of the kernel).

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::{Mapping, Plain};

/// A ring of `T`; the number of entries is a power of two.
pub(super) struct Ring<T> {
    mapping: Mapping,
    offsets: libc::xdp_ring_offset,
    entries: u32,
    kind: PhantomData<T>,
}

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
        Ok(Self { mapping, offsets, entries, kind: PhantomData })
    }

    /// True when the kernel waits to be told of new entries.
    pub fn needs_wakeup(&self) -> bool {
        self.word(self.offsets.flags)
            .is_some_and(|flags| flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0)
    }

    fn producer_and_consumer(&self) -> Option<(&AtomicU32, &AtomicU32)> {
        Some((self.word(self.offsets.producer)?, self.word(self.offsets.consumer)?))
    }

    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        let word = self.mapping.pointer(offset as usize)?;
        // SAFETY: an aligned integer in the mapping that both sides access atomically.
        Some(unsafe { AtomicU32::from_ptr(word.as_ptr()) })
    }

    fn entry(&self, index: u32) -> Option<std::ptr::NonNull<T>> {
        let place = (index & (self.entries - 1)) as usize;
        self.mapping.pointer(self.offsets.desc as usize + place * size_of::<T>())
    }
}

impl Ring<libc::xdp_desc> {
    /// Takes up to `most` entries that the kernel produced.
    pub fn take(&mut self, most: u32, mut each: impl FnMut(libc::xdp_desc)) {
        let Some((producer, consumer)) = self.producer_and_consumer() else { return };
        let first = consumer.load(Ordering::Relaxed);
        let ready = producer.load(Ordering::Acquire).wrapping_sub(first).min(most);
        for index in 0..ready {
            let Some(entry) = self.entry(first.wrapping_add(index)) else { continue };
            // SAFETY: the kernel wrote the entry before it moved the producer, and leaves it until we move the consumer.
            each(unsafe { entry.read() });
        }
        consumer.store(first.wrapping_add(ready), Ordering::Release);
    }
}

impl Ring<u64> {
    /// Gives entries to the kernel. The ring must have room for them: it is as long as there are frames.
    pub fn give(&mut self, entries: impl Iterator<Item = u64>) {
        let Some((producer, _)) = self.producer_and_consumer() else { return };
        let mut next = producer.load(Ordering::Relaxed);
        for value in entries {
            let Some(entry) = self.entry(next) else { continue };
            // SAFETY: the kernel reads the entry after the producer has moved beyond it.
            unsafe { entry.write(value) };
            next = next.wrapping_add(1);
        }
        producer.store(next, Ordering::Release);
    }
}

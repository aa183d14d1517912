//! Numbered places in chunks that never move, so that growing copies nothing. What is given back is used again with the
//! memory it holds, so that in a steady state nothing is allocated.

use super::memory::prefer_huge_pages;
use std::ops::{Index, IndexMut};

/// No place.
pub(crate) const NONE: u32 = u32::MAX;

/// Chunks are about this large: an allocation need not begin where a huge page does, and what lies before the first and
/// behind the last is in small ones. What is not in use takes no memory.
const CHUNK_BYTES: usize = 32 << 20;

/// What a slab can keep.
pub(crate) trait Recycled: Default {
    /// The number of the next free place, which free places keep themselves.
    fn next_free(&mut self) -> &mut u32;

    /// Is as new, except for memory worth keeping.
    fn recycle(&mut self);
}

/// A store of `T` by number; numbers of what was given back are used again.
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: u32,
    places: u32,
    used: usize,
}

impl<T: Recycled> Slab<T> {
    /// A power of two, so that a number is split by shift and mask.
    const PER_CHUNK: usize = 1 << (CHUNK_BYTES / size_of::<T>()).ilog2();

    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, places: 0, used: 0 }
    }

    /// Places in use.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Numbers ever given out; all in use are below.
    pub(crate) fn places(&self) -> u32 {
        self.places
    }

    /// Memory that was ever in use.
    pub(crate) fn bytes(&self) -> usize {
        self.places as usize * size_of::<T>()
    }

    /// The number of a place that is as new.
    #[inline]
    pub(crate) fn take(&mut self) -> u32 {
        self.used += 1;
        if self.free == NONE {
            return self.grow();
        }
        let number = self.free;
        self.free = std::mem::replace(self[number].next_free(), NONE);
        number
    }

    #[inline]
    fn grow(&mut self) -> u32 {
        if self.places as usize == self.chunks.len() * Self::PER_CHUNK {
            let mut chunk = Vec::with_capacity(Self::PER_CHUNK);
            prefer_huge_pages(chunk.spare_capacity_mut());
            self.chunks.push(chunk);
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(T::default());
        }
        self.places += 1;
        self.places - 1
    }

    /// Gives back a place that is in use.
    pub(crate) fn release(&mut self, number: u32) {
        let next = std::mem::replace(&mut self.free, number);
        let value = &mut self[number];
        value.recycle();
        *value.next_free() = next;
        self.used -= 1;
    }

    #[inline(always)]
    fn place(number: u32) -> (usize, usize) {
        (number as usize / Self::PER_CHUNK, number as usize % Self::PER_CHUNK)
    }
}

impl<T: Recycled> Index<u32> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        let (chunk, at) = Self::place(number);
        &self.chunks[chunk][at]
    }
}

impl<T: Recycled> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        let (chunk, at) = Self::place(number);
        &mut self.chunks[chunk][at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Text {
        text: String,
        next_free: u32,
    }

    impl Recycled for Text {
        fn next_free(&mut self) -> &mut u32 {
            &mut self.next_free
        }

        fn recycle(&mut self) {
            self.text.clear();
        }
    }

    #[test]
    fn places_are_used_again_with_their_memory() {
        let mut slab = Slab::<Text>::new();
        let numbers: Vec<u32> = (0..Slab::<Text>::PER_CHUNK + 5).map(|_| slab.take()).collect();
        assert_eq!(slab.chunks.len(), 2);
        slab[numbers[7]].text.push_str("seven");
        let memory = slab[numbers[7]].text.as_ptr();
        slab.release(numbers[3]);
        slab.release(numbers[7]);
        assert_eq!(slab.len(), numbers.len() - 2);
        assert_eq!((slab.take(), slab.take()), (numbers[7], numbers[3]));
        assert!(slab[numbers[7]].text.is_empty());
        assert_eq!(slab[numbers[7]].text.as_ptr(), memory);
        assert_eq!(slab.places() as usize, numbers.len());
    }
}

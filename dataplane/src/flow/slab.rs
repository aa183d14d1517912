//! Numbered places for flows, in chunks that never move, so that growing copies nothing.

const CHUNK: usize = 1024;

/// A store of `T` by number; numbers of what was removed are used again.
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[Option<T>]>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Numbers ever given out; all live ones are below.
    pub(crate) fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if self.free.is_empty() {
            let first = self.capacity();
            self.chunks.push(std::iter::repeat_with(|| None).take(CHUNK).collect());
            self.free.extend((first..first + CHUNK as u32).rev());
        }
        let number = self.free.pop().unwrap_or_default();
        self.chunks[number as usize / CHUNK][number as usize % CHUNK] = Some(value);
        self.len += 1;
        number
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.chunks.get_mut(number as usize / CHUNK)?[number as usize % CHUNK].take()?;
        self.free.push(number);
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.chunks.get(number as usize / CHUNK)?[number as usize % CHUNK].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.chunks.get_mut(number as usize / CHUNK)?[number as usize % CHUNK].as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut slab = Slab::new();
        let numbers: Vec<u32> = (0..2000).map(|i| slab.insert(i)).collect();
        assert_eq!((slab.len(), slab.capacity()), (2000, 2048));
        assert_eq!(slab.remove(numbers[7]), Some(7));
        assert_eq!(slab.remove(numbers[7]), None);
        assert_eq!(slab.insert(99), numbers[7]);
        assert_eq!(slab.get(numbers[7]), Some(&99));
        assert_eq!(slab.get(5000), None);
    }
}

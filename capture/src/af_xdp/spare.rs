//! Memory for frames that came in parts: a reader wants each in one piece.
//!
//! The kernel starts each part at its own headroom in its own buffer, so that parts never touch and must be copied.

use crate::sys::Mapping;

/// As long as the longest frame that XDP knows: a page, and 17 fragments of a page (64 KiB and what is around it).
pub(super) const SPARE_BYTES: usize = 18 * 4096;
/// Frames in parts that can be lent at the same time. Memory is taken only as far as it was ever used.
const SPARES: usize = 64;
pub(super) const SPARE_AREA_BYTES: usize = SPARES * SPARE_BYTES;

/// Buffers behind the frames of a socket.
pub(super) struct Spares {
    first: usize,
    free: Vec<usize>,
}

impl Spares {
    /// The buffers that begin at `first`.
    pub fn new(first: usize) -> Self {
        Self { first, free: (0..SPARES).rev().map(|index| first + index * SPARE_BYTES).collect() }
    }

    /// Copies parts, which are ranges of `memory` of [`SPARE_BYTES`] at most, one after the other into a buffer, and
    /// says where it is and how much was copied.
    pub fn join(
        &mut self,
        memory: &Mapping,
        parts: impl Iterator<Item = (usize, usize)>,
    ) -> Option<(usize, usize)> {
        let spare = self.free.pop()?;
        let mut len = 0;
        for (offset, bytes) in parts {
            let bytes = bytes.min(SPARE_BYTES - len);
            let (Some(from), Some(to)) =
                (memory.pointers::<u8>(offset, bytes), memory.pointers(spare + len, bytes))
            else {
                continue;
            };
            // SAFETY: two places in the mapping; the kernel does not know the one, and has handed the other over.
            unsafe { from.copy_to_nonoverlapping(to, bytes) };
            len += bytes;
        }
        Some((spare, len))
    }

    /// Takes a buffer back. False when there is none at this place.
    pub fn give_back(&mut self, offset: usize) -> bool {
        if offset < self.first {
            return false;
        }
        if self.free.len() < SPARES {
            self.free.push(offset);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_together_in_a_buffer_that_can_be_used_again() {
        let frames = 4096;
        let (memory, _) = Mapping::anonymous(frames + SPARE_AREA_BYTES, false, None).unwrap();
        // SAFETY: nobody else knows the mapping.
        unsafe { memory.pointers::<u8>(0, 8).unwrap().cast::<[u8; 8]>().write(*b"xAByyCDE") };
        let mut spares = Spares::new(frames);
        let places: Vec<_> =
            std::iter::from_fn(|| spares.join(&memory, [(1, 2), (5, 3)].into_iter())).collect();
        assert_eq!(places.len(), SPARES);
        for (place, len) in places {
            // SAFETY: nobody writes.
            assert_eq!(unsafe { memory.slice(place, len) }, b"ABCDE");
            assert!(spares.give_back(place));
        }
        assert!(!spares.give_back(0), "a frame of the kernel's");
        assert!(spares.join(&memory, std::iter::empty()).is_some());
    }

    #[test]
    fn a_part_that_does_not_fit_is_cut() {
        let (memory, _) = Mapping::anonymous(1 << 17, false, None).unwrap();
        let mut spares = Spares::new(1 << 16);
        assert_eq!(spares.join(&memory, [(0, 40_000), (0, 40_000)].into_iter()).unwrap().1, 40_000);
        let (memory, _) = Mapping::anonymous(SPARE_BYTES * 2 + SPARE_AREA_BYTES, false, None).unwrap();
        let mut spares = Spares::new(SPARE_BYTES * 2);
        assert_eq!(spares.join(&memory, [(0, SPARE_BYTES), (0, 9)].into_iter()).unwrap().1, SPARE_BYTES);
    }
}

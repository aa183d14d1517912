//! From a key's hash to the number of its flow.
//!
//! Extendible hashing: segments of a fixed size, found by the top bits of the hash. A segment that gets full is split in
//! two, so growing moves some two thousand numbers at a time, never the whole table. In a segment, a bucket is one cache
//! line: a lookup most often reads that line and the flow's. A number whose bucket is full lies in one of the next;
//! each bucket it passes counts it, which tells a lookup where to stop without leaving marks behind when it goes.

use super::memory::prefer_huge_pages;
use wirespan_frame::prefetch;

const SLOTS: usize = 12;
const BUCKETS: usize = 256;
/// A segment with more numbers than this (three quarters of its slots) is split.
const SPLIT_ABOVE: u32 = (SLOTS * BUCKETS * 3 / 4) as u32;
/// Top bits of the hash that tell segments apart: at most 16 million segments.
const MAX_DEPTH: u8 = 24;
/// 32 MiB, for the same reason as in a slab.
const SEGMENTS_PER_CHUNK: usize = 2048;

/// Twelve numbers; how many passed by follows the tags.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Some bits of each number's hash; 0 where there is none.
    tags: [u8; SLOTS],
    /// Numbers that belong here or before, and lie behind.
    passed: u32,
    numbers: [u32; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// The slots with this tag.
    #[inline(always)]
    fn slots_with(&self, tag: u8) -> Slots {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        // The top bit of each byte that is zero, of eight bytes at a time.
        let zeros = |bytes: u64| !(((bytes & LOW) + LOW) | bytes | LOW);
        let wanted = u64::from(tag) * 0x0101_0101_0101_0101;
        let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11] = self.tags;
        let low = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]) ^ wanted;
        let high = u64::from_le_bytes([t8, t9, t10, t11, 0, 0, 0, 0]) ^ wanted;
        Slots(u128::from(zeros(high) & 0xffff_ffff) << 64 | u128::from(zeros(low)))
    }
}

/// Slots of a bucket, one byte each: the top bit is set where a slot is one of them.
#[derive(Clone, Copy)]
struct Slots(u128);

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize / 8;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

#[derive(Clone, Copy, Default)]
struct Segment {
    /// Top bits of the hash that all its numbers have in common.
    depth: u8,
    len: u32,
}

/// The flows that an index speaks of.
pub(crate) trait Flows {
    /// The hash of a flow's key.
    fn hash_of(&self, number: u32) -> u64;
    /// Asks for what [`Self::hash_of`] will read.
    fn prefetch(&self, number: u32);
}

/// Numbers by hash.
pub(crate) struct Index {
    /// The segment for each value of the top `depth` bits.
    directory: Vec<u32>,
    depth: u8,
    segments: Vec<Segment>,
    /// The buckets of [`SEGMENTS_PER_CHUNK`] segments each.
    chunks: Vec<Vec<Bucket>>,
    /// Numbers of a segment that is being split.
    moved: Vec<u32>,
}

/// The bucket that a hash belongs to.
#[derive(Clone, Copy)]
struct Home {
    segment: usize,
    bucket: usize,
    tag: u8,
}

impl Home {
    /// The bucket after `steps` of probing: where it lies, in its chunk.
    #[inline(always)]
    fn place(self, steps: usize) -> (usize, usize) {
        let first = self.segment % SEGMENTS_PER_CHUNK * BUCKETS;
        (self.segment / SEGMENTS_PER_CHUNK, first + (self.bucket + steps) % BUCKETS)
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        let mut index = Self {
            directory: Vec::new(),
            depth: 0,
            segments: Vec::new(),
            chunks: Vec::new(),
            moved: Vec::new(),
        };
        let first = index.add_segment(0);
        index.directory.push(first);
        index
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        let segment = BUCKETS * size_of::<Bucket>() + size_of::<Segment>();
        self.segments.len() * segment + self.directory.len() * size_of::<u32>()
    }

    /// Asks for a hash's bucket before it is needed.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let (chunk, at) = self.home(hash).place(0);
        prefetch(&self.chunks[chunk][at]);
    }

    /// A number that may well be the one with this hash.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        let home = self.home(hash);
        let bucket = self.bucket(home, 0);
        bucket.slots_with(home.tag).next().map(|slot| bucket.numbers[slot])
    }

    /// The number with this hash that `is_it` says is the one.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = self.home(hash);
        for steps in 0..BUCKETS {
            let bucket = self.bucket(home, steps);
            let mut numbers = bucket.slots_with(home.tag).map(|slot| bucket.numbers[slot]);
            if let Some(number) = numbers.find(|&number| is_it(number)) {
                return Some(number);
            }
            if bucket.passed == 0 {
                return None;
            }
        }
        None
    }

    /// Takes in a number that is not there yet. False when there is no room, which a seeded hash does not let happen.
    pub(crate) fn insert(&mut self, hash: u64, number: u32, flows: &impl Flows) -> bool {
        let segment = self.segments[self.home(hash).segment];
        if segment.len >= SPLIT_ABOVE && segment.depth < MAX_DEPTH {
            self.split(hash, flows);
        }
        self.place(self.home(hash), number)
    }

    /// Forgets a number that is there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let home = self.home(hash);
        for steps in 0..BUCKETS {
            let bucket = self.bucket_mut(home, steps);
            let slot = bucket.slots_with(home.tag).find(|&slot| bucket.numbers[slot] == number);
            if let Some(slot) = slot {
                bucket.tags[slot] = 0;
                (0..steps).for_each(|passed| self.bucket_mut(home, passed).passed -= 1);
                self.segments[home.segment].len -= 1;
                return;
            }
            if bucket.passed == 0 {
                return;
            }
        }
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> Home {
        // In two steps, because a shift by all 64 bits is none.
        let top = (hash >> 1 >> (63 - self.depth)) as usize;
        Home {
            segment: self.directory[top] as usize,
            bucket: (hash >> 32) as usize % BUCKETS,
            tag: (hash as u8).max(1),
        }
    }

    #[inline(always)]
    fn bucket(&self, home: Home, steps: usize) -> &Bucket {
        let (chunk, at) = home.place(steps);
        &self.chunks[chunk][at]
    }

    #[inline(always)]
    fn bucket_mut(&mut self, home: Home, steps: usize) -> &mut Bucket {
        let (chunk, at) = home.place(steps);
        &mut self.chunks[chunk][at]
    }

    fn place(&mut self, home: Home, number: u32) -> bool {
        let free = |steps| self.bucket(home, steps).slots_with(0).next().map(|slot| (steps, slot));
        let Some((steps, slot)) = (0..BUCKETS).find_map(free) else { return false };
        let bucket = self.bucket_mut(home, steps);
        (bucket.tags[slot], bucket.numbers[slot]) = (home.tag, number);
        (0..steps).for_each(|passed| self.bucket_mut(home, passed).passed += 1);
        self.segments[home.segment].len += 1;
        true
    }

    fn add_segment(&mut self, depth: u8) -> u32 {
        if self.segments.len().is_multiple_of(SEGMENTS_PER_CHUNK) {
            let mut chunk = Vec::with_capacity(SEGMENTS_PER_CHUNK * BUCKETS);
            prefer_huge_pages(chunk.spare_capacity_mut());
            self.chunks.push(chunk);
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.extend([Bucket::default(); BUCKETS]);
        }
        self.segments.push(Segment { depth, len: 0 });
        self.segments.len() as u32 - 1
    }

    /// Splits the segment of `hash` by one more bit.
    fn split(&mut self, hash: u64, flows: &impl Flows) {
        let home = self.home(hash);
        let depth = self.segments[home.segment].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|&segment| [segment; 2]).collect();
            self.depth = depth;
        }
        let upper = self.add_segment(depth);
        // The segment's entries of the directory lie side by side; the upper half of them is the new one's.
        let entries = 1_usize << (self.depth - depth);
        let top = (hash >> 1 >> (63 - self.depth)) as usize;
        let first_upper = (top & !(2 * entries - 1)) + entries;
        self.directory[first_upper..first_upper + entries].fill(upper);
        self.segments[home.segment] = Segment { depth, len: 0 };

        let mut moved = std::mem::take(&mut self.moved);
        for at in 0..BUCKETS {
            let bucket = std::mem::take(self.bucket_mut(Home { bucket: 0, ..home }, at));
            let used = bucket.numbers.iter().zip(bucket.tags).filter(|(_, tag)| *tag != 0);
            moved.extend(used.map(|(&number, _)| number).inspect(|&number| flows.prefetch(number)));
        }
        for number in moved.drain(..) {
            self.place(self.home(flows.hash_of(number)), number);
        }
        self.moved = moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Numbers are their own place in a list of hashes.
    struct Hashes(Vec<u64>);

    impl Flows for Hashes {
        fn hash_of(&self, number: u32) -> u64 {
            self.0[number as usize]
        }

        fn prefetch(&self, _: u32) {}
    }

    fn scattered(n: u64) -> u64 {
        (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    #[test]
    fn grows_by_splitting_and_loses_nothing() {
        let hashes = Hashes((0..60_000).map(scattered).collect());
        let mut index = Index::new();
        for number in 0..60_000 {
            assert!(index.insert(hashes.hash_of(number), number, &hashes));
        }
        assert!(index.segments.len() > 20 && index.bytes() < 60_000 * 15);
        for number in 0..60_000 {
            assert_eq!(index.find(hashes.hash_of(number), |n| n == number), Some(number));
        }
        for number in (0..60_000).step_by(2) {
            index.remove(hashes.hash_of(number), number);
        }
        for number in 0..60_000 {
            let found = index.find(hashes.hash_of(number), |n| n == number);
            assert_eq!(found, (number % 2 == 1).then_some(number));
        }
        (1..60_000).step_by(2).for_each(|number| index.remove(hashes.hash_of(number), number));
        assert!(index.chunks.iter().flatten().all(|bucket| bucket.passed == 0 && bucket.tags == [0; SLOTS]));
    }

    #[test]
    fn hashes_that_all_collide_end_in_no_room() {
        let hashes = Hashes(vec![77; SLOTS * BUCKETS + 1]);
        let mut index = Index::new();
        let taken = (0..hashes.0.len() as u32).filter(|&number| index.insert(77, number, &hashes)).count();
        assert_eq!(taken, SLOTS * BUCKETS);
    }

    proptest! {
        /// Against a map, with hashes that often share their bucket and tag.
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((any::<bool>(), 0u32..300), 1..900)) {
            let hashes = Hashes((0..300).map(|n| ((n % 3) << 32) | (n % 2)).collect());
            let (mut index, mut model) = (Index::new(), HashMap::new());
            for (insert, number) in steps {
                let hash = hashes.hash_of(number);
                if insert && model.insert(number, ()).is_none() {
                    prop_assert!(index.insert(hash, number, &hashes));
                } else if !insert && model.remove(&number).is_some() {
                    index.remove(hash, number);
                }
                let found = index.find(hash, |n| n == number);
                prop_assert_eq!(found, model.contains_key(&number).then_some(number));
            }
        }
    }
}

//! Which sequence numbers of one direction were seen: tells retransmissions from segments that come late.
//!
//! A segment that fills a hole was overtaken on its way when it comes within a round trip; when it comes later its sender
//! learned of the loss and sent it again, and the first copy was lost before it was captured.

/// Holes kept per direction. When there are more the lowest is forgotten, and its segment, should it still come, counts
/// as a retransmission.
const MAX_HOLES: usize = 256;

/// What a segment is to those seen before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// Begins where the last ended, or is the first.
    InOrder,
    /// Leaves a hole.
    Ahead,
    /// Fills (part of) a hole, within a round trip.
    OutOfOrder,
    /// Holds nothing that was not seen, or fills a hole later than that.
    Retransmission,
}

/// `a < b` in sequence space, RFC 9293 section 3.4.
#[inline]
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The sequence ranges seen of one direction.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// One past the highest sequence number seen; meaningless until `known`.
    next: u32,
    known: bool,
    /// Ranges below `next` that were not seen, lowest first.
    holes: Vec<Hole>,
}

/// A range `[from, to)` that was not seen, and since when.
#[derive(Clone, Copy, Debug)]
struct Hole {
    from: u32,
    to: u32,
    since_ns: u64,
}

impl Sequence {
    /// One past the highest sequence number seen.
    pub(crate) fn next(&self) -> Option<u32> {
        self.known.then_some(self.next)
    }

    /// Takes note of the segment `[seq, seq + len)`, `len` counting SYN and FIN as one each, captured at `ts_ns`.
    #[inline]
    pub(crate) fn observe(&mut self, seq: u32, len: u32, ts_ns: u64, round_trip_ns: u64) -> SegmentKind {
        let end = seq.wrapping_add(len);
        if !self.known {
            self.known = true;
            self.next = end;
            return SegmentKind::InOrder;
        }
        if seq == self.next {
            self.next = end;
            return SegmentKind::InOrder;
        }
        if before(self.next, seq) {
            let holes = &mut self.holes;
            if holes.len() == MAX_HOLES {
                holes.remove(0);
            }
            holes.push(Hole { from: self.next, to: seq, since_ns: ts_ns });
            self.next = end;
            return SegmentKind::Ahead;
        }
        let hole_since = self.fill(seq, end);
        let extends = before(self.next, end);
        if extends {
            self.next = end;
        }
        match hole_since {
            Some(since_ns) if ts_ns.saturating_sub(since_ns) <= round_trip_ns => SegmentKind::OutOfOrder,
            _ => SegmentKind::Retransmission,
        }
    }

    /// Takes `[from, to)` out of the holes and says since when the first one it touched was there.
    fn fill(&mut self, from: u32, to: u32) -> Option<u64> {
        let holes = &mut self.holes;
        let mut touched = None;
        let mut index = 0;
        while let Some(&hole) = holes.get(index)
            && before(hole.from, to)
        {
            if !before(from, hole.to) {
                index += 1;
                continue;
            }
            touched.get_or_insert(hole.since_ns);
            match (before(hole.from, from), before(to, hole.to)) {
                (true, true) => {
                    holes[index].to = from;
                    holes.insert(index + 1, Hole { from: to, ..hole });
                    break;
                }
                (true, false) => {
                    holes[index].to = from;
                    index += 1;
                }
                (false, true) => {
                    holes[index].from = to;
                    break;
                }
                (false, false) => {
                    holes.remove(index);
                }
            }
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SegmentKind::{Ahead, InOrder, OutOfOrder, Retransmission};
    use proptest::prelude::*;

    fn kinds(segments: &[(u32, u32)]) -> Vec<SegmentKind> {
        let mut sequence = Sequence::default();
        segments.iter().map(|&(seq, len)| sequence.observe(seq, len, 0, 0)).collect()
    }

    #[test]
    fn tells_late_from_repeated() {
        assert_eq!(
            kinds(&[(100, 10), (110, 10), (130, 10), (120, 10), (120, 10), (100, 40), (140, 1)]),
            [InOrder, InOrder, Ahead, OutOfOrder, Retransmission, Retransmission, InOrder]
        );
    }

    #[test]
    fn goes_on_over_the_wrap() {
        assert_eq!(
            kinds(&[(u32::MAX - 4, 10), (5, 10), (u32::MAX - 4, 10), (20, 5), (15, 5)]),
            [InOrder, InOrder, Retransmission, Ahead, OutOfOrder]
        );
    }

    #[test]
    fn what_fills_a_hole_later_than_a_round_trip_was_sent_again() {
        let mut sequence = Sequence::default();
        let kinds = [(100, 0), (120, 5), (110, 9), (140, 20), (130, 31)]
            .map(|(seq, ts_ns)| sequence.observe(seq, 10, ts_ns, 10));
        assert_eq!(kinds, [InOrder, Ahead, OutOfOrder, Ahead, Retransmission]);
    }

    proptest! {
        /// Against a model that remembers every byte.
        #[test]
        fn agrees_with_a_bitmap(start: u32, segments in proptest::collection::vec((0u32..400, 1u32..40), 1..60)) {
            let mut sequence = Sequence::default();
            let mut seen = vec![false; 500];
            let mut top = None;
            for (offset, len) in segments {
                // The first segment sets the base; bytes below it count as seen.
                let first = *top.get_or_insert_with(|| {
                    seen[..offset as usize].fill(true);
                    offset
                });
                let range = offset as usize..(offset + len) as usize;
                let fresh = range.clone().any(|i| !seen[i] && (i as u32) < first);
                let expected = match offset.cmp(&first) {
                    _ if seen[offset as usize..].iter().all(|s| !s) && offset == first => InOrder,
                    std::cmp::Ordering::Greater => Ahead,
                    std::cmp::Ordering::Equal => InOrder,
                    std::cmp::Ordering::Less if fresh => OutOfOrder,
                    std::cmp::Ordering::Less => Retransmission,
                };
                prop_assert_eq!(sequence.observe(start.wrapping_add(offset), len, 0, 0), expected);
                seen[range].fill(true);
                top = Some(first.max(offset + len));
            }
        }
    }
}

//! Which sequence numbers of one direction were seen: tells retransmissions from segments that come late.
//!
//! A segment that fills a hole was overtaken on its way when it comes within a round trip; when it comes later, or after the
//! receiver asked for it often enough, its sender learned of the loss and sent it again, and the first copy was lost before
//! it was captured.

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
    /// Holds nothing that was not seen, or fills a hole later than that, or one whose loss the sender was told.
    Retransmission,
}

/// `a < b` in sequence space, RFC 9293 section 3.4.
#[inline]
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The largest window there is, RFC 7323 section 2.3: a segment further away belongs to another stream.
const MAX_WINDOW: u32 = 1 << 30;

/// `b` is so far from `a`, before or behind, that it cannot belong to the same stream.
#[inline]
pub(crate) fn out_of_window(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32).unsigned_abs() > MAX_WINDOW
}

/// A range `[from, to)` that was not seen, and since when.
#[derive(Clone, Copy, Debug)]
struct Hole {
    from: u32,
    to: u32,
    since_ns: u64,
}

/// So many acknowledgments of the same byte make a sender send it again, RFC 5681 section 3.2.
const ASKED_ENOUGH: u8 = 3;

/// The ranges of one direction that were not seen, below the highest sequence number that was; lowest first.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    ranges: Vec<Hole>,
    /// The last byte that the receiver asked for although bytes behind it had come, and how often it did.
    asked: (u32, u8),
}

/// Where the holes of a direction are kept once there are any.
pub(crate) trait Keeper {
    /// The holes, if there ever were any.
    fn holes(&mut self) -> Option<&mut Holes>;
    /// The holes, to add one.
    fn holes_to_add(&mut self) -> &mut Holes;
}

/// A segment `[seq, seq + len)`, `len` counting SYN and FIN as one each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub seq: u32,
    pub len: u32,
    pub ts_ns: u64,
}

/// Takes note of a segment; `next` is one past the highest sequence number seen, once any was.
#[inline]
pub(crate) fn observe(
    next: &mut Option<u32>,
    segment: Range,
    round_trip_ns: u64,
    keeper: &mut impl Keeper,
) -> SegmentKind {
    let Range { seq, len, ts_ns } = segment;
    let end = seq.wrapping_add(len);
    let known = match *next {
        Some(known) if seq != known => known,
        _ => {
            *next = Some(end);
            return SegmentKind::InOrder;
        }
    };
    if out_of_window(known, seq) {
        if let Some(holes) = keeper.holes() {
            holes.clear();
        }
        *next = Some(end);
        return SegmentKind::InOrder;
    }
    if before(known, seq) {
        keeper.holes_to_add().add(known, seq, ts_ns);
        *next = Some(end);
        return SegmentKind::Ahead;
    }
    let hole_since = keeper.holes().and_then(|holes| holes.fill(seq, end));
    if before(known, end) {
        *next = Some(end);
    }
    match hole_since {
        Some(since_ns) if ts_ns.saturating_sub(since_ns) <= round_trip_ns => SegmentKind::OutOfOrder,
        _ => SegmentKind::Retransmission,
    }
}

impl Holes {
    /// Forgets all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.asked = Default::default();
    }

    pub(crate) fn any(&self) -> bool {
        !self.ranges.is_empty()
    }

    fn add(&mut self, from: u32, to: u32, since_ns: u64) {
        if self.ranges.len() == MAX_HOLES {
            self.ranges.remove(0);
        }
        self.ranges.push(Hole { from, to, since_ns });
    }

    /// The receiver acknowledged all below `ack`, and sent nothing else with it.
    pub(crate) fn acknowledged(&mut self, ack: u32) {
        let Some(first) = self.ranges.first_mut().filter(|first| first.from == ack) else { return };
        let times = if self.asked.0 == ack { self.asked.1.saturating_add(1) } else { 1 };
        self.asked = (ack, times);
        if times >= ASKED_ENOUGH {
            // Whatever fills it from now on was sent again.
            first.since_ns = 0;
        }
    }

    /// Takes `[from, to)` out of the holes and says since when the first one it touched was there.
    fn fill(&mut self, from: u32, to: u32) -> Option<u64> {
        let holes = &mut self.ranges;
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

    /// One direction.
    #[derive(Default)]
    struct Sequence {
        next: Option<u32>,
        holes: Option<Holes>,
    }

    impl Keeper for Option<Holes> {
        fn holes(&mut self) -> Option<&mut Holes> {
            self.as_mut()
        }

        fn holes_to_add(&mut self) -> &mut Holes {
            self.get_or_insert_default()
        }
    }

    impl Sequence {
        fn observe(&mut self, seq: u32, len: u32, ts_ns: u64, round_trip_ns: u64) -> SegmentKind {
            observe(&mut self.next, Range { seq, len, ts_ns }, round_trip_ns, &mut self.holes)
        }
    }

    fn kinds(segments: &[(u32, u32)]) -> Vec<SegmentKind> {
        let mut sequence = Sequence::default();
        segments.iter().map(|&(seq, len)| sequence.observe(seq, len, 0, 0)).collect()
    }

    #[test]
    fn a_jump_beyond_any_window_begins_another_stream() {
        let far = 0x6000_0000;
        assert_eq!(
            kinds(&[(100, 10), (120, 10), (far, 10), (far + 10, 10), (100, 10), (110, 10)]),
            [InOrder, Ahead, InOrder, InOrder, InOrder, InOrder]
        );
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

    #[test]
    fn what_the_receiver_asked_for_three_times_was_sent_again() {
        for (times, expected) in [(2, OutOfOrder), (3, Retransmission)] {
            let mut sequence = Sequence::default();
            let now = 1_000_000;
            sequence.observe(100, 10, now, 10);
            sequence.observe(120, 10, now, 10);
            let holes = sequence.holes.as_mut().unwrap();
            holes.acknowledged(105);
            (0..times).for_each(|_| holes.acknowledged(110));
            assert_eq!(sequence.observe(110, 10, now, 10), expected);
            assert!(!sequence.holes.unwrap().any());
        }
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

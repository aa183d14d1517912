//! Puts the segments of one direction in order for L7. What comes in order is lent straight from the packet; only what
//! comes early is copied and kept, within bounds.

use super::sequence::{before, out_of_window};

/// A segment that came early.
#[derive(Debug)]
struct Early {
    seq: u32,
    /// Payload bytes that the capture cut off.
    missing: u32,
    ts_ns: u64,
    data: Box<[u8]>,
}

/// What is handed on, in stream order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes, when they were captured and their sequence number.
    Data { data: &'a [u8], ts_ns: u64, seq: u32 },
    /// Bytes that will not come.
    Gap(u32),
    /// What follows is another stream: its sequence numbers are beyond any window.
    Restart,
}

/// One segment's payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub seq: u32,
    pub data: &'a [u8],
    /// Payload bytes that the capture cut off behind `data`.
    pub missing: u32,
    pub ts_ns: u64,
}

/// Bounds of all streams of one worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes that one direction keeps.
    pub bytes_per_direction: usize,
    /// Segments that one direction keeps.
    pub segments_per_direction: usize,
    /// Bytes that all directions keep.
    pub bytes_total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_per_direction: 256 << 10, segments_per_direction: 256, bytes_total: 64 << 20 }
    }
}

/// The order of one direction.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    /// Sequence number of the next byte to hand on; meaningless until `known`.
    next: u32,
    known: bool,
    early: Option<Box<EarlySegments>>,
}

#[derive(Debug, Default)]
struct EarlySegments {
    bytes: usize,
    /// Lowest sequence number first.
    segments: Vec<Early>,
}

impl Reassembly {
    /// The stream begins at `seq` (the SYN's sequence number plus one).
    pub(crate) fn start(&mut self, seq: u32) {
        self.next = seq;
        self.known = true;
    }

    /// Sequence number of the next byte to hand on, once it is known.
    #[inline]
    pub(crate) fn next(&self) -> Option<u32> {
        self.known.then_some(self.next)
    }

    /// Something came early and waits for a hole to be filled.
    pub(crate) fn waits(&self) -> bool {
        self.early.is_some()
    }

    /// Takes a segment and hands on what is in order. `total` counts the bytes kept by all directions.
    #[inline]
    pub(crate) fn push(
        &mut self,
        segment: Segment<'_>,
        limits: &Limits,
        total: &mut usize,
        mut hand_on: impl FnMut(Piece<'_>),
    ) {
        if !self.known {
            self.start(segment.seq);
        }
        if out_of_window(self.next, segment.seq) {
            self.finish(total, &mut hand_on);
            hand_on(Piece::Restart);
            self.start(segment.seq);
        }
        if before(self.next, segment.seq) {
            self.keep(segment, limits, total, &mut hand_on);
            return;
        }
        self.deliver(segment, &mut hand_on);
        if self.early.is_some() {
            self.drain(total, &mut hand_on);
        }
    }

    /// The other side acknowledged everything below `ack`: a hole below it is the capture's, not the network's.
    pub(crate) fn acknowledged(&mut self, ack: u32, total: &mut usize, mut hand_on: impl FnMut(Piece<'_>)) {
        while let Some(first) = self.early.as_ref().and_then(|early| early.segments.first())
            && !before(ack, first.seq)
        {
            let hole = first.seq.wrapping_sub(self.next);
            self.next = first.seq;
            hand_on(Piece::Gap(hole));
            self.drain(total, &mut hand_on);
        }
    }

    /// What was not seen below `ack` will not come.
    pub(crate) fn lost_below(&mut self, ack: u32, total: &mut usize, mut hand_on: impl FnMut(Piece<'_>)) {
        if !self.known {
            self.start(ack);
        }
        self.acknowledged(ack, total, &mut hand_on);
        if before(self.next, ack) {
            hand_on(Piece::Gap(ack.wrapping_sub(self.next)));
            self.next = ack;
            self.drain(total, &mut hand_on);
        }
    }

    /// No more segments will come: hands on what is kept, holes and all.
    pub(crate) fn finish(&mut self, total: &mut usize, mut hand_on: impl FnMut(Piece<'_>)) {
        while self.early.is_some() {
            self.give_up_first_hole(total, &mut hand_on);
        }
    }

    /// Forgets what is kept.
    pub(crate) fn discard(&mut self, total: &mut usize) {
        if let Some(early) = self.early.take() {
            *total -= early.bytes;
        }
    }

    /// Hands on the part of an in-order segment that is new.
    fn deliver(&mut self, segment: Segment<'_>, hand_on: &mut impl FnMut(Piece<'_>)) {
        let known = self.next.wrapping_sub(segment.seq) as usize;
        let len = segment.data.len();
        if known < len {
            let data = &segment.data[known..];
            hand_on(Piece::Data { data, ts_ns: segment.ts_ns, seq: self.next });
            self.next = self.next.wrapping_add(data.len() as u32);
        }
        let end = segment.seq.wrapping_add(len as u32).wrapping_add(segment.missing);
        if before(self.next, end) {
            hand_on(Piece::Gap(end.wrapping_sub(self.next)));
            self.next = end;
        }
    }

    fn keep(
        &mut self,
        segment: Segment<'_>,
        limits: &Limits,
        total: &mut usize,
        hand_on: &mut impl FnMut(Piece<'_>),
    ) {
        let len = segment.data.len();
        // Too much is kept: the hole is given up, which makes room, or lets this segment through.
        while let Some(early) = &self.early
            && (early.bytes + len > limits.bytes_per_direction
                || early.segments.len() >= limits.segments_per_direction
                || *total + len > limits.bytes_total)
        {
            self.give_up_first_hole(total, hand_on);
        }
        if !before(self.next, segment.seq)
            || *total + len > limits.bytes_total
            || len > limits.bytes_per_direction
        {
            if before(self.next, segment.seq) {
                hand_on(Piece::Gap(segment.seq.wrapping_sub(self.next)));
                self.next = segment.seq;
            }
            self.deliver(segment, hand_on);
            return;
        }
        let early = self.early.get_or_insert_default();
        let at = early.segments.partition_point(|kept| before(kept.seq, segment.seq));
        if early.segments.get(at).is_some_and(|kept| kept.seq == segment.seq && kept.data.len() >= len) {
            return;
        }
        early.bytes += len;
        *total += len;
        let Segment { seq, missing, ts_ns, data } = segment;
        early.segments.insert(at, Early { seq, missing, ts_ns, data: data.into() });
    }

    fn give_up_first_hole(&mut self, total: &mut usize, hand_on: &mut impl FnMut(Piece<'_>)) {
        if let Some(first) = self.early.as_ref().and_then(|early| early.segments.first())
            && before(self.next, first.seq)
        {
            hand_on(Piece::Gap(first.seq.wrapping_sub(self.next)));
            self.next = first.seq;
        }
        self.drain(total, hand_on);
    }

    /// Hands on the kept segments that are in order now.
    fn drain(&mut self, total: &mut usize, hand_on: &mut impl FnMut(Piece<'_>)) {
        let Some(mut early) = self.early.take() else { return };
        let ready = early.segments.iter().scan(self.next, |next, kept| {
            let in_order = !before(*next, kept.seq);
            let end = kept.seq.wrapping_add(kept.data.len() as u32).wrapping_add(kept.missing);
            if before(*next, end) {
                *next = end;
            }
            Some(in_order)
        });
        let ready = ready.take_while(|in_order| *in_order).count();
        for kept in early.segments.drain(..ready) {
            early.bytes -= kept.data.len();
            *total -= kept.data.len();
            let Early { seq, missing, ts_ns, data } = &kept;
            self.deliver(Segment { seq: *seq, missing: *missing, ts_ns: *ts_ns, data }, hand_on);
        }
        if !early.segments.is_empty() {
            self.early = Some(early);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(seq: u32, data: &[u8]) -> Segment<'_> {
        Segment { seq, data, missing: 0, ts_ns: 0 }
    }

    /// Pieces as text, `[n]` for a hole of n bytes.
    #[derive(Default)]
    struct Stream(String);

    impl Stream {
        fn take(&mut self, piece: Piece<'_>) {
            match piece {
                Piece::Data { data, .. } => self.0.push_str(std::str::from_utf8(data).unwrap()),
                Piece::Gap(n) => self.0.push_str(&format!("[{n}]")),
                Piece::Restart => self.0.push('|'),
            }
        }
    }

    #[test]
    fn puts_in_order_and_drops_what_is_known() {
        let (mut order, mut total, mut out) = (Reassembly::default(), 0, Stream::default());
        order.start(100);
        for (seq, data) in [(103, "def"), (106, "ghi"), (100, "abc"), (104, "efghijk"), (100, "xyz")] {
            order.push(segment(seq, data.as_bytes()), &Limits::default(), &mut total, |p| out.take(p));
        }
        assert_eq!((out.0.as_str(), total), ("abcdefghijk", 0));
    }

    #[test]
    fn an_acknowledged_hole_is_a_gap() {
        let (mut order, mut total, mut out) = (Reassembly::default(), 0, Stream::default());
        order.start(0);
        order.push(segment(5, b"fgh"), &Limits::default(), &mut total, |p| out.take(p));
        order.acknowledged(4, &mut total, |p| out.take(p));
        assert_eq!(out.0, "");
        order.acknowledged(8, &mut total, |p| out.take(p));
        order.push(segment(8, b"i"), &Limits::default(), &mut total, |p| out.take(p));
        assert_eq!((out.0.as_str(), total), ("[5]fghi", 0));
    }

    #[test]
    fn a_jump_beyond_any_window_is_no_gap() {
        let (mut order, mut total, mut out) = (Reassembly::default(), 0, Stream::default());
        for (seq, data) in [(0, "ab"), (5, "fg"), (0x5000_0000, "new"), (0, "old")] {
            order.push(segment(seq, data.as_bytes()), &Limits::default(), &mut total, |p| out.take(p));
        }
        assert_eq!((out.0.as_str(), total), ("ab[3]fg|new|old", 0));
    }

    #[test]
    fn what_the_capture_cut_off_is_a_gap() {
        let (mut order, mut total, mut out) = (Reassembly::default(), 0, Stream::default());
        let cut = Segment { seq: 0, data: b"ab", missing: 3, ts_ns: 0 };
        order.push(cut, &Limits::default(), &mut total, |p| out.take(p));
        order.push(segment(5, b"f"), &Limits::default(), &mut total, |p| out.take(p));
        assert_eq!(out.0, "ab[3]f");
    }

    #[test]
    fn gives_up_a_hole_when_too_much_waits() {
        let limits = Limits { bytes_per_direction: 4, segments_per_direction: 8, bytes_total: 100 };
        let (mut order, mut total, mut out) = (Reassembly::default(), 0, Stream::default());
        order.start(0);
        for (seq, data) in [(2, "cd"), (6, "gh"), (10, "kl")] {
            order.push(segment(seq, data.as_bytes()), &limits, &mut total, |p| out.take(p));
        }
        order.finish(&mut total, |p| out.take(p));
        assert_eq!((out.0.as_str(), total), ("[2]cd[2]gh[2]kl", 0));
    }

    proptest! {
        /// Any cut and any order gives the stream; with segments left out, what is handed on never contradicts it.
        #[test]
        fn any_order_gives_the_stream(
            start: u32,
            cuts in proptest::collection::vec((0usize..200, 1usize..30), 1..80),
            complete: bool,
        ) {
            let text: Vec<u8> = (0..230u32).map(|i| b'a' + (i % 26) as u8).collect();
            let (mut order, mut total) = (Reassembly::default(), 0);
            order.start(start);
            let mut position = 0usize;
            let mut check = |piece: Piece<'_>| match piece {
                Piece::Data { data, seq, .. } => {
                    assert_eq!(seq, start.wrapping_add(position as u32));
                    assert_eq!(data, &text[position..position + data.len()]);
                    position += data.len();
                }
                Piece::Gap(n) => position += n as usize,
                Piece::Restart => panic!("all segments are within a window"),
            };
            let limits = Limits { bytes_per_direction: 100, segments_per_direction: 10, bytes_total: 150 };
            for (offset, len) in &cuts {
                let data = &text[*offset..offset + len];
                order.push(segment(start.wrapping_add(*offset as u32), data), &limits, &mut total, &mut check);
                prop_assert!(total <= 150);
            }
            if complete {
                order.push(segment(start, &text), &limits, &mut total, &mut check);
            }
            order.finish(&mut total, &mut check);
            prop_assert_eq!(total, 0);
            if complete {
                prop_assert_eq!(position, text.len());
            }
        }
    }
}

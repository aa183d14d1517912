//! Segments that were captured before what they answer, as where each direction is mirrored over a port or queue of its own.
//!
//! A segment acknowledges what its sender had received when it was sent. When that is more than was seen of the other
//! side, the segment waits for it: handed on at once, a response would meet no request, and every later response of the
//! connection the request before its own.

use super::reassembly::{Limits, Segment};
use super::sequence::before;
use std::collections::VecDeque;
use wirespan_l7::Side;

/// What was not seen by then was lost: longer than one direction of a mirror lags behind the other.
const MAX_WAIT_NS: u64 = 10_000_000;

/// More than this is not on its way at once: the acknowledgment belongs to another connection.
const MAX_UNSEEN: u32 = 1 << 20;

/// A segment that waits.
#[derive(Debug)]
pub(crate) struct Answer {
    pub side: Side,
    /// What has to be seen of the other side: all below.
    pub ack: u32,
    seq: u32,
    missing: u32,
    ts_ns: u64,
    data: Box<[u8]>,
}

impl Answer {
    pub(crate) fn segment(&self) -> Segment<'_> {
        Segment { seq: self.seq, data: &self.data, missing: self.missing, ts_ns: self.ts_ns }
    }

    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.data.len() as u32).wrapping_add(self.missing)
    }
}

/// Those of one connection. Mostly there are none.
#[derive(Debug, Default)]
pub(crate) struct Answers(Option<Box<Waiting>>);

/// As they were captured.
#[derive(Debug, Default)]
struct Waiting(VecDeque<Answer>);

/// Bytes below `ack` are on their way, of a side of which all below `seen` was seen.
#[inline]
pub(crate) fn is_ahead(seen: u32, ack: u32) -> bool {
    before(seen, ack) && ack.wrapping_sub(seen) <= MAX_UNSEEN
}

impl Answers {
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.0.is_some()
    }

    /// Waiting has no end in sight: what is waited for is late, or `segment` of `side`, whose next byte would be `next`,
    /// shows that bytes were lost.
    pub(crate) fn are_in_vain(
        &self,
        now_ns: u64,
        side: Side,
        next: Option<u32>,
        segment: Option<u32>,
    ) -> bool {
        let Some(Waiting(answers)) = self.0.as_deref() else { return false };
        let late = answers.front().is_some_and(|answer| now_ns.saturating_sub(answer.ts_ns) > MAX_WAIT_NS);
        let last = answers.iter().rfind(|answer| answer.side == side).map(Answer::end);
        let hole = |seq| last.or(next).is_some_and(|next| before(next, seq));
        late || segment.is_some_and(hole)
    }

    /// Lets a segment wait; false where there is no room. `total` counts the bytes kept by all directions.
    #[inline(never)]
    pub(crate) fn keep(
        &mut self,
        side: Side,
        ack: u32,
        segment: Segment<'_>,
        limits: &Limits,
        total: &mut usize,
    ) -> bool {
        let len = segment.data.len();
        let Waiting(answers) = &mut **self.0.get_or_insert_default();
        let kept: usize = answers.iter().map(|answer| answer.data.len()).sum();
        let fits = answers.len() < limits.segments_per_direction
            && kept + len <= limits.bytes_per_direction
            && *total + len <= limits.bytes_total;
        if fits {
            *total += len;
            let Segment { seq, data, missing, ts_ns } = segment;
            answers.push_back(Answer { side, ack, seq, missing, ts_ns, data: data.into() });
        } else if answers.is_empty() {
            self.0 = None;
        }
        fits
    }

    /// Takes the first that `is_ready`.
    pub(crate) fn take(
        &mut self,
        total: &mut usize,
        is_ready: impl FnMut(&Answer) -> bool,
    ) -> Option<Answer> {
        let Waiting(answers) = self.0.as_deref_mut()?;
        let index = answers.iter().position(is_ready)?;
        let answer = answers.remove(index)?;
        *total -= answer.data.len();
        if answers.is_empty() {
            self.0 = None;
        }
        Some(answer)
    }

    /// Forgets them.
    pub(crate) fn discard(&mut self, total: &mut usize) {
        while self.take(total, |_| true).is_some() {}
    }
}

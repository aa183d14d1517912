//! By which event each byte of a direction came: who sent or received it, and when.

use crate::context::{Moment, ProcessKey, Wait};
use std::collections::VecDeque;
use wirespan_event::{Header, Kind};

/// Events of one direction that are remembered.
const MAX_FACTS: usize = 32;

/// Calls that move this little do so again and again: those of one thread in one turn, without an answer between, count as one.
const SMALL: u32 = 16;

/// One event, and the bytes that it moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fact {
    /// Position of its first byte.
    pub pos: u32,
    /// Bytes.
    pub len: u32,
    /// Sequence number of the next byte of the other direction, at the same instant; 0 where that is not known.
    pub opposite: u32,
    /// TCP's smoothed round trip, microseconds.
    pub srtt_us: u32,
    /// Segments that TCP sent again so far.
    pub retrans: u32,
    /// Who, and when.
    pub moment: Moment,
}

impl Fact {
    /// What `header` tells of bytes at `pos`.
    pub(crate) fn new(header: &Header, pos: u32, len: u32) -> Self {
        Self {
            pos,
            len,
            opposite: header.opposite_seq,
            srtt_us: header.srtt_us,
            retrans: header.retrans,
            moment: moment(header),
        }
    }
}

/// Who made an event, and when.
pub(crate) fn moment(header: &Header) -> Moment {
    Moment {
        process: ProcessKey { tgid: header.tgid, start_ns: header.process_start_ns },
        tid: header.tid,
        turn: header.turn,
        wait: wait(header),
        stream: header.stream(),
        coroutine: header.coroutine,
        time_ns: header.time_ns(),
        thread_event: header.thread_event,
    }
}

/// How long the thread's last wait was to last: `enum wait_limit`.
fn wait(header: &Header) -> Wait {
    if !matches!(header.kind(), Some(Kind::Data | Kind::Open | Kind::Look | Kind::Stream)) {
        return Wait::Unknown;
    }
    match header.other_tgid {
        0 => Wait::Unknown,
        1 => Wait::Forever,
        2 => Wait::Look,
        u32::MAX => Wait::Timers,
        ms => Wait::Until(ms - 2),
    }
}

/// The newest events of one direction.
#[derive(Default)]
pub(crate) struct Facts(VecDeque<Fact>);

impl Facts {
    pub(crate) fn push(&mut self, fact: Fact) {
        if let Some(last) = self.0.back_mut()
            && fact.len <= SMALL
            && fact.pos == last.pos.wrapping_add(last.len)
            && fact.opposite == last.opposite
            && (fact.moment.process, fact.moment.tid) == (last.moment.process, last.moment.tid)
            && (fact.moment.turn, fact.moment.coroutine) == (last.moment.turn, last.moment.coroutine)
        {
            last.len += fact.len;
            return;
        }
        if self.0.len() >= MAX_FACTS {
            self.0.pop_front();
        }
        self.0.push_back(fact);
    }

    /// The event that moved the byte at `pos`.
    pub(crate) fn at(&self, pos: u32) -> Option<&Fact> {
        self.0.iter().rfind(|fact| pos.wrapping_sub(fact.pos) < fact.len)
    }

    /// Forgets them, and their memory.
    pub(crate) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_event_of_a_byte_also_where_numbers_wrap() {
        let mut facts = Facts::default();
        for n in 0..100u32 {
            let pos = 0xffff_ff00u32.wrapping_add(20 * n);
            facts.push(Fact { pos, len: 20, srtt_us: n, ..Fact::default() });
        }
        let found =
            |n: u32, byte: u32| facts.at(0xffff_ff00u32.wrapping_add(20 * n + byte)).map(|fact| fact.srtt_us);
        assert_eq!((found(99, 19), found(68, 0)), (Some(99), Some(68)));
        assert_eq!((found(67, 19), found(100, 0)), (None, None));
    }
}

//! Where TLS records begin in the bytes of a socket, as far as their heads were copied.

use crate::context::Moment;
use crate::facts::Fact;
use std::collections::VecDeque;

/// Bytes of a record's head (RFC 8446, section 5.1).
pub(crate) const HEAD: u32 = 5;
const APPLICATION_DATA: u8 = 23;
/// The longest payload: 2^14, and 2048 for what encryption adds.
const MAX_PAYLOAD: u32 = (1 << 14) + 2048;
/// Records that are remembered of one direction.
const MAX_RECORDS: usize = 64;

/// A goroutine, which may go from thread to thread, or a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    Coroutine(u64),
    Thread(u32),
}

impl Actor {
    pub(crate) fn new(tid: u32, coroutine: u64) -> Self {
        if coroutine == 0 { Self::Thread(tid) } else { Self::Coroutine(coroutine) }
    }
}

/// A record of application data. With TLS 1.3 it may be a message of the handshake as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Bytes behind its head.
    pub body: u32,
    /// When its head was sent or received, by CLOCK_BOOTTIME.
    pub time_ns: u64,
    /// Who did.
    pub actor: Actor,
    /// Waits of the thread so far.
    pub turn: u32,
}

/// The records of one direction that no plaintext was found for yet, oldest first.
#[derive(Default)]
pub(crate) struct Records {
    /// Position of the next head; `None` while that is not known.
    next: Option<u32>,
    /// What is there of a head that goes on in the next event.
    partial: Vec<u8>,
    pub recent: VecDeque<Record>,
    /// Bytes were lost before the oldest of them.
    pub hole: bool,
    /// When the first bytes behind the last of such holes came.
    pub hole_ns: u64,
    /// There were too many to remember the oldest.
    pub overflowed: bool,
    /// Heads were not copied behind the newest.
    pub cut: bool,
    /// Which event of which thread was the newest.
    pub newest: Option<(u32, u32)>,
    /// And when it was.
    pub newest_ns: u64,
    /// Position behind the newest bytes.
    end: Option<u32>,
}

impl Records {
    /// Bytes of the socket, the first of which are in `payload`.
    pub(crate) fn walk(&mut self, fact: &Fact, payload: &[u8]) {
        let payload = payload.get(..fact.len as usize).unwrap_or(payload);
        if self.end.is_some_and(|end| end != fact.pos) {
            self.lose();
            self.recent.clear();
            self.hole = true;
            self.hole_ns = fact.moment.time_ns;
        }
        self.end = Some(fact.pos.wrapping_add(fact.len));
        self.newest = Some((fact.moment.tid, fact.moment.thread_event));
        self.newest_ns = fact.moment.time_ns;
        let ahead = self.next.map(|next| next.wrapping_sub(fact.pos));
        if ahead != Some((self.partial.len() as u32).wrapping_neg()) {
            self.partial.clear();
        }
        let mut at = match ahead {
            Some(ahead) if ahead < fact.len || !self.partial.is_empty() => ahead,
            // The record goes on behind these bytes.
            Some(ahead) if ahead.cast_signed() > 0 => return,
            // A head was not seen. Most likely one begins where a call begins.
            _ if head(payload).is_some() => 0,
            _ => return self.lose(),
        };
        if !self.partial.is_empty() {
            let missing = HEAD as usize - self.partial.len();
            self.partial.extend_from_slice(payload.get(..missing).unwrap_or(payload));
            at = match (head(&self.partial), self.partial.len()) {
                (Some((kind, body)), _) => {
                    let seq = self.next.unwrap_or_default();
                    self.partial.clear();
                    self.found(kind, Record { seq, body, ..of(fact) });
                    seq.wrapping_add(HEAD + body).wrapping_sub(fact.pos)
                }
                (None, have) if have < HEAD as usize && payload.len() == fact.len as usize => return,
                _ => return self.lose(),
            };
        }
        while at < fact.len {
            let rest = payload.get(at as usize..).unwrap_or_default();
            let Some((kind, body)) = head(rest) else {
                let is_cut = rest.len() < HEAD as usize && at as usize + rest.len() == fact.len as usize;
                if !is_cut {
                    return self.lose();
                }
                self.next = Some(fact.pos.wrapping_add(at));
                self.partial.extend_from_slice(rest);
                return;
            };
            self.found(kind, Record { seq: fact.pos.wrapping_add(at), body, ..of(fact) });
            at += HEAD + body;
        }
        self.next = Some(fact.pos.wrapping_add(at));
    }

    fn found(&mut self, kind: u8, record: Record) {
        if kind != APPLICATION_DATA {
            return;
        }
        if self.recent.len() >= MAX_RECORDS {
            self.recent.pop_front();
            self.overflowed = true;
        }
        self.recent.push_back(record);
    }

    /// Of all records up to here the heads were seen.
    pub(crate) fn is_in_step(&self) -> bool {
        self.next.is_some()
    }

    fn lose(&mut self) {
        self.next = None;
        self.cut = true;
        self.partial.clear();
    }
}

fn of(fact: &Fact) -> Record {
    let Moment { time_ns, turn, tid, coroutine, .. } = fact.moment;
    Record { seq: 0, body: 0, time_ns, actor: Actor::new(tid, coroutine), turn }
}

/// Type and length of the record that begins here.
fn head(data: &[u8]) -> Option<(u8, u32)> {
    let [kind @ 20..=24, 3, 0..=4, high, low, ..] = data else { return None };
    let body = u32::from(u16::from_be_bytes([*high, *low]));
    (body > 0 && body <= MAX_PAYLOAD).then_some((*kind, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, body: usize) -> Vec<u8> {
        [&[kind, 3, 3], &(body as u16).to_be_bytes()[..], &vec![0xee; body]].concat()
    }

    fn fact(pos: u32, len: usize) -> Fact {
        Fact {
            pos,
            len: len as u32,
            moment: Moment { time_ns: 5, tid: 7, ..Moment::default() },
            ..Fact::default()
        }
    }

    fn found(records: &Records) -> Vec<(u32, u32)> {
        records.recent.iter().map(|record| (record.seq, record.body)).collect()
    }

    proptest! {
        #[test]
        fn records_are_found_however_they_are_cut(
            bodies in prop::collection::vec((20..25u8, 1..400usize), 1..12),
            sizes in prop::collection::vec(1..300usize, 1..20),
        ) {
            let start = 0xffff_fff0u32;
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for (kind, body) in &bodies {
                if *kind == APPLICATION_DATA {
                    expected.push((start.wrapping_add(stream.len() as u32), *body as u32));
                }
                stream.extend(record(*kind, *body));
            }
            let (mut records, mut pos, mut rest) = (Records::default(), start, &stream[..]);
            // The first call shows a whole head.
            let mut sizes = std::iter::once(&5).chain(sizes.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                records.walk(&fact(pos, piece.len()), piece);
                pos = pos.wrapping_add(piece.len() as u32);
                rest = after;
            }
            prop_assert_eq!(found(&records), expected);
        }

        #[test]
        fn any_bytes_are_survived(pieces in prop::collection::vec((any::<u32>(), 1..70_000u32, prop::collection::vec(0..25u8, 0..12)), 0..40)) {
            let mut records = Records::default();
            for (pos, len, payload) in pieces {
                records.walk(&fact(pos, len as usize), &payload);
            }
            prop_assert!(records.recent.len() <= MAX_RECORDS);
        }
    }

    #[test]
    fn the_first_bytes_of_a_call_are_enough() {
        let mut records = Records::default();
        records.walk(&fact(100, 5), &record(23, 300)[..5]);
        records.walk(&fact(105, 300), &[0xee; 5]);
        let two = [record(22, 40), record(23, 50)].concat();
        records.walk(&fact(405, two.len()), &two[..60]);
        records.walk(&fact(405 + 100, 205), &record(23, 200)[..5]);
        assert_eq!(found(&records), [(100, 300), (450, 50), (505, 200)]);
    }

    #[test]
    fn after_a_head_that_was_not_copied_the_next_call_that_begins_with_one_counts() {
        let mut records = Records::default();
        let two = [record(23, 100), record(23, 50)].concat();
        records.walk(&fact(0, two.len()), &two[..20]);
        records.walk(&fact(160, 10), &[0xee; 10]);
        records.walk(&fact(170, 45), &record(23, 40));
        assert_eq!(found(&records), [(0, 100), (170, 40)]);
    }
}

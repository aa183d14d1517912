//! In which record the bytes of a TLS session went: plaintext and records are put side by side, in order, by their lengths and by
//! the time of the calls.

use super::records::{Actor, Record, Records};
use std::collections::VecDeque;

/// What encryption adds to a record: a tag of 16 bytes and, with TLS 1.3, the type, or, with GCM of TLS 1.2, a nonce.
const OVERHEADS: [u32; 3] = [17, 24, 16];
/// The most that one record holds.
const MAX_PLAIN: u32 = 1 << 14;
/// Calls that are remembered of one direction.
const MAX_CALLS: usize = 64;
/// Runs of bytes with one record that are: of a connection of HTTP/2, those of all requests that wait for their responses.
const MAX_PLACED: usize = 512;

/// A call of a TLS library that moved bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Position of its first byte in the plaintext.
    pub pos: u32,
    /// Bytes that have no record yet.
    pub len: u32,
    pub enter_ns: u64,
    pub exit_ns: u64,
    pub tid: u32,
    pub actor: Actor,
    pub turn: u32,
    pub thread_event: u32,
    /// Events of the thread were lost that were before this time; 0 for none.
    pub lost_ns: u64,
    /// The caller accepted the connection.
    pub is_server: bool,
}

impl Call {
    /// The record was sent within the call.
    fn made(&self, record: &Record) -> bool {
        record.actor == self.actor && (self.enter_ns..=self.exit_ns).contains(&record.time_ns)
    }
}

/// Bytes whose record is known, or will not be.
#[derive(Clone, Copy, Debug)]
struct Placed {
    pos: u32,
    len: u32,
    seq: Option<u32>,
}

/// What is known of the record of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    /// Sequence number of the record's head.
    Record(u32),
    /// It may be found yet.
    Later,
    Never,
}

/// One direction of a session.
#[derive(Default)]
pub(crate) struct Way {
    calls: VecDeque<Call>,
    placed: VecDeque<Placed>,
    /// A record that was read in part: its head, and how much of its body is left.
    open: Option<(u32, u32)>,
    /// No record lies between the one that was read last and those that are left.
    in_step: bool,
}

impl Way {
    /// The record that the byte at `pos` went in.
    pub(crate) fn find(&self, pos: u32) -> Find {
        if let Some(placed) = self.placed.iter().rfind(|placed| pos.wrapping_sub(placed.pos) < placed.len) {
            return placed.seq.map_or(Find::Never, Find::Record);
        }
        match self.calls.iter().any(|call| pos.wrapping_sub(call.pos) < call.len) {
            true => Find::Later,
            false => Find::Never,
        }
    }

    /// A call took bytes out of the session: they came in records that were received before.
    /// With `nested`, the last of them may have been received within the call.
    pub(crate) fn received(
        &mut self,
        call: Call,
        records: Option<&mut Records>,
        overhead: &mut Option<u32>,
        nested: bool,
    ) {
        let seq = records.and_then(|records| self.record_of(&call, records, overhead, nested));
        self.in_step = seq.is_some();
        self.put(Placed { pos: call.pos, len: call.len, seq });
    }

    fn record_of(
        &mut self,
        call: &Call,
        records: &mut Records,
        overhead: &mut Option<u32>,
        nested: bool,
    ) -> Option<u32> {
        let is_whole = !(std::mem::take(&mut records.hole) | std::mem::take(&mut records.overflowed));
        let mut in_step = is_whole && self.in_step;
        if let Some((seq, left)) = self.open.take()
            && is_whole
        {
            if let Some(rest) = left.checked_sub(call.len)
                && rest >= least(*overhead)
            {
                self.go_on(seq, rest, overhead);
                return Some(seq);
            }
            in_step = false;
        }
        // The record may have come with an event that was lost, if no bytes came since that follow on those before.
        if records.newest_ns < call.lost_ns {
            records.recent.clear();
            return None;
        }
        // A goroutine goes on where it was, on whatever thread.
        let is_coroutine = matches!(call.actor, Actor::Coroutine(_));
        let is_same_turn =
            |record: &Record| record.actor == call.actor && (is_coroutine || record.turn == call.turn);
        let fits = |record: &Record| {
            let is_before = record.time_ns <= call.exit_ns;
            fit(record.body, call.len, *overhead).is_some() && is_before && (nested || is_same_turn(record))
        };
        let is_within = |record: &Record| record.time_ns >= call.enter_ns;
        let recent = &records.recent;
        // Of what was received within the call, a library that does not read ahead wanted the last.
        let last = recent.iter().rposition(|record| is_within(record) && fits(record));
        let same = |last: usize| recent.get(last).map(|record| record.time_ns);
        // Who reads part of a record goes on with the rest, and then with the next, which may fit by chance or not at all. A client
        // finds records without plaintext before the first that it reads: tickets.
        let holds = |record: &Record| {
            let is_enough = overhead.is_some_and(|overhead| record.body >= call.len + overhead);
            nested && is_enough && record.time_ns <= call.exit_ns
        };
        let next = (in_step && recent.front().is_some_and(holds)).then_some(0);
        let first_within = || recent.iter().position(|record| is_within(record) && holds(record));
        let next = next.or_else(|| call.is_server.then(first_within).flatten());
        let index = next.or_else(|| match last {
            Some(last) => recent.iter().position(|record| Some(record.time_ns) == same(last) && fits(record)),
            // What came before the first plaintext was the handshake.
            None if overhead.is_none() => recent.iter().rposition(fits),
            None => recent.iter().position(fits),
        });
        // Or less was asked for than there is in the record, which is then the last one, if nothing was missed.
        let index = index.or_else(|| {
            let is_longer =
                |record: &Record| record.body > call.len + least(*overhead) && record.time_ns <= call.exit_ns;
            let is_adjacent = records.newest == Some((call.tid, call.thread_event.wrapping_sub(1)));
            (nested && is_adjacent && records.is_in_step() && recent.back().is_some_and(is_longer))
                .then(|| recent.len() - 1)
        });
        let record = records.recent.drain(..=index?).next_back()?;
        self.go_on(record.seq, record.body - call.len, overhead);
        Some(record.seq)
    }

    /// `rest` of the body of a record is left behind the bytes that were taken.
    fn go_on(&mut self, seq: u32, rest: u32, overhead: &mut Option<u32>) {
        match overhead {
            None if OVERHEADS.contains(&rest) => *overhead = Some(rest),
            None => self.open = Some((seq, rest)),
            Some(overhead) if rest > *overhead => self.open = Some((seq, rest)),
            Some(_) => {}
        }
    }

    /// A call gave bytes to the session: they go in records that are sent within the call or after it.
    pub(crate) fn sent(&mut self, call: Call) {
        if self.calls.len() >= MAX_CALLS {
            self.give_up();
        }
        self.calls.push_back(call);
    }

    /// Finds records of the bytes that were sent. With `nested`, they are sent within the calls only.
    pub(crate) fn match_sent(&mut self, records: &mut Records, overhead: &mut Option<u32>, nested: bool) {
        // What they gave may be among the bytes that were lost.
        self.expire(records.hole_ns);
        while let Some(call) = self.calls.front().copied() {
            while records.recent.pop_front_if(|record| record.time_ns < call.enter_ns).is_some() {}
            let expected = call.len.min(MAX_PLAIN);
            let fits = |record: &Record| fit(record.body, expected, *overhead).is_some();
            let within = records.recent.iter().take_while(|record| call.made(record)).count();
            let index = match within {
                0 if nested => None,
                // After the call, from where only the length tells.
                0 => records.recent.iter().position(fits),
                _ => records.recent.iter().take(within).position(fits).or(Some(0)),
            };
            let Some(record) = index.and_then(|index| records.recent.drain(..=index).next_back()) else {
                if nested || std::mem::take(&mut records.cut) {
                    self.give_up();
                    continue;
                }
                return;
            };
            let part = match fit(record.body, expected, *overhead) {
                Some(found) => {
                    *overhead = Some(found);
                    expected
                }
                // A short record of a long call.
                None => {
                    overhead.map_or(call.len, |overhead| record.body.saturating_sub(overhead)).min(call.len)
                }
            };
            self.put(Placed { pos: call.pos, len: part, seq: Some(record.seq) });
            let Some(front) = self.calls.front_mut() else { return };
            front.pos = front.pos.wrapping_add(part);
            front.len -= part;
            if front.len == 0 || part == 0 {
                self.calls.pop_front();
            }
        }
        records.cut = false;
    }

    /// Calls were lost.
    pub(crate) fn lose(&mut self) {
        self.open = None;
        self.in_step = false;
        self.expire(u64::MAX);
    }

    /// Would the next bytes that were sent fit one of these records?
    pub(crate) fn fits_sent(&self, records: &Records, overhead: Option<u32>) -> bool {
        let Some(call) = self.calls.front() else { return false };
        let expected = call.len.min(MAX_PLAIN);
        let mut after = records.recent.iter().filter(|record| record.time_ns >= call.enter_ns);
        after.any(|record| fit(record.body, expected, overhead).is_some())
    }

    /// The record of the oldest call will not be found.
    fn give_up(&mut self) {
        if let Some(Call { pos, len, .. }) = self.calls.pop_front() {
            self.put(Placed { pos, len, seq: None });
        }
    }

    /// Nor will those of calls that ended before `before_ns`.
    pub(crate) fn expire(&mut self, before_ns: u64) {
        while self.calls.front().is_some_and(|call| call.exit_ns < before_ns) {
            self.give_up();
        }
    }

    fn put(&mut self, placed: Placed) {
        if let Some(last) = self.placed.back_mut()
            && (last.pos.wrapping_add(last.len), last.seq) == (placed.pos, placed.seq)
        {
            last.len = last.len.saturating_add(placed.len);
            return;
        }
        if self.placed.len() >= MAX_PLACED {
            self.placed.pop_front();
        }
        self.placed.push_back(placed);
    }
}

/// Would bytes that were received fit one of these records?
pub(crate) fn fits_received(len: u32, records: &Records, overhead: Option<u32>) -> bool {
    records.recent.iter().any(|record| fit(record.body, len, overhead).is_some())
}

/// What encryption adds, if a body of this length holds `plain` bytes.
fn fit(body: u32, plain: u32, overhead: Option<u32>) -> Option<u32> {
    let added = body.checked_sub(plain)?;
    match overhead {
        Some(overhead) => (added == overhead).then_some(added),
        None => OVERHEADS.contains(&added).then_some(added),
    }
}

/// The least that encryption adds.
fn least(overhead: Option<u32>) -> u32 {
    overhead.unwrap_or(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERHEAD: u32 = 17;

    /// Records that one read of the socket had, with so many bytes in them; each head is at a hundred times its number.
    fn records(plain: &[u32], time_ns: u64, records: &mut Records) {
        records.recent.extend((1..).zip(plain).map(|(number, plain)| Record {
            seq: number * 100,
            body: plain + OVERHEAD,
            time_ns,
            actor: Actor::Coroutine(7),
            turn: 1,
        }));
    }

    /// A server's call that reads the socket.
    fn call(pos: u32) -> Call {
        let actor = Actor::Coroutine(7);
        let (enter_ns, exit_ns) = (45, 54);
        Call {
            pos,
            len: 0,
            enter_ns,
            exit_ns,
            tid: 9,
            actor,
            turn: 1,
            thread_event: 3,
            lost_ns: 0,
            is_server: true,
        }
    }

    /// Takes so many bytes each; the first call reads the socket. Gives the records.
    fn read(way: &mut Way, lens: &[u32], is_server: bool, records: &mut Records) -> Vec<Find> {
        let mut pos = 1000;
        let mut found = Vec::new();
        for (later, &len) in (0..).step_by(10).zip(lens) {
            let call = call(pos);
            let (enter_ns, exit_ns) = (call.enter_ns + later, call.exit_ns + later);
            let call = Call { len, enter_ns, exit_ns, is_server, ..call };
            way.received(call, Some(records), &mut Some(OVERHEAD), true);
            found.push(way.find(pos));
            pos += len;
        }
        found
    }

    /// As Go reads frames of HTTP/2: a head of nine bytes, then the rest.
    #[test]
    fn parts_of_records_are_read_in_order_whatever_else_fits() {
        let expected = [100, 100, 200, 300, 300].map(Find::Record);
        let (mut way, mut there) = (Way::default(), Records::default());
        records(&[55, 9, 31], 50, &mut there);
        assert_eq!(read(&mut way, &[9, 46, 9, 9, 22], true, &mut there), expected);
        // A client is in step behind the first.
        let (mut way, mut there) = (Way::default(), Records::default());
        records(&[55], 50, &mut there);
        assert_eq!(read(&mut way, &[55], false, &mut there), expected[..1]);
        records(&[55, 9, 31], 50, &mut there);
        assert_eq!(read(&mut way, &[9, 46, 9, 9, 22], false, &mut there), expected);
        assert!(there.recent.is_empty());
    }

    #[test]
    fn tickets_before_the_first_bytes_are_passed_over() {
        let (mut way, mut there) = (Way::default(), Records::default());
        records(&[130, 261, 33, 22], 50, &mut there);
        assert_eq!(read(&mut way, &[33, 22], false, &mut there), [300, 400].map(Find::Record));
    }

    /// As many requests as a server takes at the same time, each in two parts.
    #[test]
    fn records_are_remembered_until_the_last_answer() {
        let (mut way, mut there) = (Way::default(), Records::default());
        for number in 0..250 {
            records(&[32], 50, &mut there);
            there.recent.iter_mut().for_each(|record| record.seq = number);
            let found = [9, 23].map(|len| {
                let pos = way.placed.back().map_or(0, |placed| placed.pos + placed.len);
                way.received(Call { len, ..call(pos) }, Some(&mut there), &mut Some(OVERHEAD), true);
                way.find(pos)
            });
            assert_eq!(found, [Find::Record(number); 2]);
        }
        assert_eq!(way.find(0), Find::Record(0));
    }

    #[test]
    fn where_events_were_lost_since_the_last_bytes_the_record_may_be_among_them() {
        let (mut way, mut there) = (Way::default(), Records::default());
        for (pos, newest_ns, expected) in [(0, 50, Find::Never), (55, 52, Find::Record(100))] {
            records(&[55], 50, &mut there);
            there.newest_ns = newest_ns;
            let call = Call { len: 55, lost_ns: 51, ..call(pos) };
            way.received(call, Some(&mut there), &mut Some(OVERHEAD), true);
            assert_eq!(way.find(pos), expected);
        }
    }

    #[test]
    fn behind_a_hole_nothing_is_in_order() {
        let (mut way, mut there) = (Way::default(), Records::default());
        records(&[55, 40, 9], 50, &mut there);
        assert_eq!(read(&mut way, &[55], true, &mut there), [Find::Record(100)]);
        there.hole = true;
        // They were received before the call.
        there.recent.iter_mut().for_each(|record| record.time_ns = 1);
        assert_eq!(read(&mut way, &[9], true, &mut there), [Find::Record(300)]);
    }
}

//! One TLS session of a process: a stream of plaintext of its own, and the socket below it.

use super::place::{Call, Find, Way};
use super::records::{Actor, Records};
use crate::connection::{Connection, side};
use crate::context::{Happening, ProcessKey};
use crate::facts::{Fact, moment};
use crate::shared::Shared;
use crate::talk::{HERE, Made, Positions, THERE, Talk};
use std::collections::VecDeque;
use wirespan_event::{Flags, Header};
use wirespan_l7::Side;
use wirespan_records::{Endpoint, L4Protocol};

/// Spans wait this long for their records, ns.
const PATIENCE_NS: u64 = 200_000_000;

/// Events of a session that come behind a higher number: as many as are read while a sender gets no CPU, as long as events wait.
const MAX_AWAITED: u32 = 8192;

/// Whose memory the session's structure is in, and its address.
pub(crate) type SessionKey = (ProcessKey, u64);

pub(crate) struct Session {
    pub talk: Talk,
    /// The socket, once it is known.
    pub conn: Option<u64>,
    /// The library reads and writes the socket itself.
    pub nested: bool,
    /// The socket's bytes have no sequence numbers.
    pub counted: bool,
    /// Sockets that fit so far, while several do.
    pub candidates: Vec<u64>,
    /// Events that wait for the socket to be known: headers, payloads, and since when.
    pub held: Vec<(Header, Box<[u8]>)>,
    ways: [Way; 2],
    /// What encryption adds to each record, once known.
    overhead: Option<u32>,
    numbers: Numbers,
    /// Spans whose records are looked for, and until when.
    waiting: VecDeque<(u64, Made)>,
}

impl Session {
    /// `nickname` stands for the socket while that is not known.
    pub(crate) fn new(nickname: u64) -> Self {
        let endpoints = [Endpoint::default(); 2];
        Self {
            talk: Talk::new(nickname, endpoints, L4Protocol::Tcp, Positions::InTls),
            conn: None,
            nested: false,
            counted: false,
            candidates: Vec::new(),
            held: Vec::new(),
            ways: Default::default(),
            overhead: None,
            numbers: Numbers::default(),
            waiting: VecDeque::new(),
        }
    }

    /// The socket is known now.
    pub(crate) fn bind(&mut self, connection: &Connection) {
        let flow = &connection.talk.flow;
        self.conn = Some(flow.flow_id);
        self.talk.flow.flow_id = flow.flow_id;
        self.talk.flow.endpoints = flow.endpoints;
        self.talk.flow.netns = flow.netns;
        self.talk.flow.client = flow.client;
        self.talk.unix.clone_from(&connection.talk.unix);
        self.candidates = Vec::new();
        if self.numbers.next.is_none() && connection.is_from_start() {
            self.talk.begin(HERE, None);
            self.talk.begin(THERE, None);
        }
    }

    /// Would this event's bytes fit into records of the socket?
    pub(crate) fn fits(&self, header: &Header, records: &[Records; 2]) -> bool {
        let records = &records[side(header) as usize];
        let call = call(header, 0, 0);
        match header.is_ingress() {
            true => super::place::fits_received(header.length, records, self.overhead),
            false => {
                let mut way = Way::default();
                way.sent(call);
                way.fits_sent(records, self.overhead)
            }
        }
    }

    /// The next event by time.
    pub(crate) fn data(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        payload: &[u8],
        records: Option<&mut [Records; 2]>,
    ) {
        let is_first = self.numbers.next.is_none();
        let mut records = records;
        if self.numbers.are_lost_before(header) {
            self.talk.lost_unknown(shared, &moment(header));
            self.ways.iter_mut().for_each(Way::lose);
            if let Some(records) = &mut records {
                // What they moved may have gone in any record before this event; those behind it are there already if it waited.
                records[HERE as usize].recent.retain(|record| record.time_ns >= header.enter_ns);
                records[THERE as usize].recent.retain(|record| record.time_ns > header.exit_ns);
            }
        }
        if is_first
            && !header.is_ingress()
            && let Some(records) = &mut records
        {
            // The handshake.
            records[THERE as usize].recent.clear();
        }
        let side = side(header);
        let pos = self.talk.next(side).unwrap_or_default();
        let (call, overhead) = (call(header, pos, shared.lost_ns(header.tid)), &mut self.overhead);
        let way = &mut self.ways[side as usize];
        if header.is_ingress() {
            way.received(call, records.map(|records| &mut records[THERE as usize]), overhead, self.nested);
        } else {
            way.sent(call);
            if let Some(records) = records {
                way.match_sent(&mut records[HERE as usize], overhead, self.nested);
            }
        }
        let fact = Fact::new(header, pos, header.length);
        shared.happen(
            &fact.moment,
            Happening::Data { conn: self.talk.flow.flow_id, ingress: header.is_ingress(), ahead: false },
        );
        self.talk.data(shared, &fact, side, payload);
        self.settle(shared, false);
    }

    /// More was sent on the socket.
    pub(crate) fn was_sent(&mut self, shared: &mut Shared, records: &mut [Records; 2]) {
        self.ways[HERE as usize].match_sent(&mut records[HERE as usize], &mut self.overhead, self.nested);
        self.settle(shared, false);
    }

    /// Gives up on requests and records that do not come.
    pub(crate) fn sweep(&mut self, shared: &mut Shared) {
        self.talk.sweep(shared);
        self.ways[HERE as usize].expire(shared.now_ns.saturating_sub(PATIENCE_NS));
        self.settle(shared, false);
    }

    /// Nothing will follow.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        self.talk.close(shared);
        self.settle(shared, true);
        shared.stats.tls_unbound += u64::from(self.conn.is_none());
    }

    /// Hands on the spans whose records are known, or will not be; with `all`, every one.
    fn settle(&mut self, shared: &mut Shared, all: bool) {
        let due_ns = shared.now_ns.saturating_add(PATIENCE_NS);
        self.waiting.extend(self.talk.in_tls.drain(..).map(|made| (due_ns, made)));
        while let Some((due_ns, made)) = self.waiting.front() {
            let is_last = all || *due_ns <= shared.now_ns;
            let (request, response) = self.sides(made.is_client);
            let find = |side: Side, pos: Option<u32>| {
                pos.filter(|_| !self.counted).map(|pos| self.ways[side as usize].find(pos))
            };
            let places = [find(request, made.span.req_tcp_seq), find(response, made.span.resp_tcp_seq)];
            let waits = places.contains(&Some(Find::Later)) || self.conn.is_none();
            if waits && !is_last {
                return;
            }
            let Some((_, mut made)) = self.waiting.pop_front() else { return };
            let mut seq = |place: Option<Find>| match place {
                Some(Find::Record(seq)) => Some(seq),
                Some(_) => {
                    shared.stats.tls_messages_without_record += 1;
                    None
                }
                None => None,
            };
            made.span.req_tcp_seq = seq(places[0]);
            made.span.resp_tcp_seq = seq(places[1]);
            made.span.flow_id = self.talk.flow.flow_id;
            let [here, there] = self.talk.flow.endpoints;
            (made.span.client, made.span.server) = if made.is_client { (here, there) } else { (there, here) };
            self.talk.label(&mut made);
            shared.desk.complete(made, shared.now_ns);
        }
    }

    /// The sides that send requests and responses.
    fn sides(&self, is_client: bool) -> (Side, Side) {
        if is_client { (HERE, THERE) } else { (THERE, HERE) }
    }
}

/// The numbers of a session's events. Calls get them when they end; but a send comes by when its bytes went, before what was received
/// until its call ended, which has lower numbers.
#[derive(Default)]
struct Numbers {
    /// Above the highest one that came.
    next: Option<u32>,
    /// Those below that come before any higher one, in their order as a rule.
    awaited: VecDeque<u32>,
}

impl Numbers {
    /// Takes the next event; true when some before it were lost.
    fn are_lost_before(&mut self, header: &Header) -> bool {
        let number = header.conn_event;
        let next = self.next.unwrap_or(0);
        if number < next {
            let place = self.awaited.iter().position(|awaited| *awaited == number);
            place.and_then(|place| self.awaited.remove(place));
            return false;
        }
        let ended = number - header.events_meanwhile().min(number - next);
        let are_lost = ended > next || !self.awaited.is_empty() || number - ended > MAX_AWAITED;
        self.next = Some(number.saturating_add(1));
        self.awaited.clear();
        if !are_lost {
            self.awaited.extend(ended..number);
        }
        are_lost
    }
}

fn call(header: &Header, pos: u32, lost_ns: u64) -> Call {
    let Header { length: len, enter_ns, exit_ns, tid, turn, thread_event, .. } = *header;
    let actor = Actor::new(tid, header.coroutine);
    let is_server = header.flags.has(Flags::SERVER);
    Call { pos, len, enter_ns, exit_ns, tid, actor, turn, thread_event, lost_ns, is_server }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wirespan_event::{Kind, Source};

    /// A send while `meanwhile` others got their numbers, or a receive.
    fn event(number: u32, meanwhile: Option<u32>) -> Header {
        Header {
            kind: Kind::Data as u8,
            source: Source::GoTls as u8,
            flags: if meanwhile.is_some() { Flags::default() } else { Flags::INGRESS },
            conn_event: number,
            other_tid: meanwhile.unwrap_or_default(),
            ..Header::default()
        }
    }

    #[test]
    fn what_is_received_while_a_sender_waits_for_the_cpu_is_not_lost() {
        for many in [1, 100, 5000] {
            let mut numbers = Numbers::default();
            assert!(!numbers.are_lost_before(&event(0, None)));
            assert!(!numbers.are_lost_before(&event(many + 1, Some(many))));
            for number in 1..=many {
                assert!(!numbers.are_lost_before(&event(number, None)), "{number} of {many}");
            }
            assert!(!numbers.are_lost_before(&event(many + 2, None)));
            // Of these, one does not come.
            assert!(!numbers.are_lost_before(&event(many + 5, Some(2))));
            assert!(!numbers.are_lost_before(&event(many + 4, None)));
            assert!(numbers.are_lost_before(&event(many + 6, None)));
        }
    }
}

//! One stream socket: its events in the order of the bytes. What comes too early on the stream waits for what belongs before it;
//! what does not come within the watermark is lost.

use crate::context::{Happening, Moment};
use crate::facts::{Fact, moment};
use crate::shared::Shared;
use crate::talk::{HERE, Positions, THERE, Talk, Unix};
use crate::tls::SessionKey;
use crate::tls::records::Records;
use std::collections::VecDeque;
use wirespan_event::header::AF_UNIX;
use wirespan_event::{Flags, Header};
use wirespan_l7::Side;
use wirespan_records::{Endpoint, L4Protocol, L7Protocol};

const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
/// Bytes that one connection holds back; beyond, what is missing is lost.
const MAX_HELD: usize = 256 << 10;

/// One stream socket.
pub(crate) struct Connection {
    pub talk: Talk,
    held: Option<Box<Held>>,
    /// Number of the next event, where positions are counted.
    next_event: Option<u32>,
    /// Its opening was told of.
    opened: bool,
    /// The TLS records in its bytes, if there are any: sent, received.
    pub records: Option<Box<[Records; 2]>>,
    /// The TLS session that it carries.
    pub session: Option<SessionKey>,
}

/// Events that wait for one that comes before them on the stream.
#[derive(Default)]
struct Held {
    bytes: usize,
    /// In order of time. The first one waits for bytes that are missing.
    events: VecDeque<HeldEvent>,
}

struct HeldEvent {
    since_ns: u64,
    header: Header,
    payload: Box<[u8]>,
}

/// Where an event lies to the next byte of its direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Next,
    /// Bytes are missing in this direction: before it, or before it was sent.
    Ahead(Side),
    /// So many of its first bytes were there before.
    Behind(u32),
}

/// The direction of an event.
pub(crate) fn side(header: &Header) -> Side {
    if header.is_ingress() { THERE } else { HERE }
}

/// The call received the end of its direction too: the number that it takes was counted as if it were a byte, and the event's own
/// is one too high.
fn has_seen_end(header: &Header) -> bool {
    header.is_ingress() && header.flags.has(Flags::SEQ_AMBIGUOUS) && header.tcp_state != TCP_ESTABLISHED
}

/// Both ends, this one first.
pub(crate) fn endpoints(header: &Header) -> [Endpoint; 2] {
    if header.family == AF_UNIX { Default::default() } else { [header.local(), header.remote()] }
}

/// What a UNIX socket has in the place of an address; 0 for one that was not accepted yet.
fn inode(address: &[u8; 16]) -> u64 {
    address.first_chunk().map_or(0, |inode| u64::from_ne_bytes(*inode))
}

impl Connection {
    pub(crate) fn new(header: &Header) -> Self {
        // Without sequence numbers it is MPTCP, or another protocol for streams.
        let has_seq = header.tcp_seq != 0 || header.opposite_seq != 0;
        let is_tcp = header.family != AF_UNIX && header.protocol == IPPROTO_TCP && has_seq;
        let positions = if is_tcp { Positions::Tcp } else { Positions::Counted };
        // What is not TCP but a stream is read as one.
        let mut talk = Talk::new(header.conn, endpoints(header), L4Protocol::Tcp, positions);
        talk.flow.netns = header.netns;
        if header.family == AF_UNIX {
            let inodes = Some([inode(&header.local), inode(&header.remote)]);
            talk.unix = Some(Unix { inodes, name: None });
        }
        let mut connection =
            Self { talk, held: None, next_event: None, opened: false, records: None, session: None };
        connection.role(header);
        connection
    }

    /// The connection is told of from its beginning on.
    pub(crate) fn opened(&mut self, header: &Header) {
        let is_tcp = self.talk.positions == Positions::Tcp;
        for (side, seq) in [(HERE, header.tcp_seq), (THERE, header.opposite_seq)] {
            self.talk.begin(side, Some(seq).filter(|seq| is_tcp && *seq != 0));
        }
        self.next_event = self.next_event.or(Some(header.conn_event));
        self.role(header);
        self.opened = true;
        self.talk.last = moment(header);
    }

    /// It is told of from its beginning on.
    pub(crate) fn is_from_start(&self) -> bool {
        self.opened
    }

    /// Takes over what an event says of who opened the connection.
    fn role(&mut self, header: &Header) {
        if header.flags.has(Flags::CLIENT) {
            self.talk.flow.client = Some(HERE);
        } else if header.flags.has(Flags::SERVER) {
            self.talk.flow.client = Some(THERE);
        }
    }

    /// Since when an event of it waits for one before it, if any does.
    pub(crate) fn held_since_ns(&self) -> Option<u64> {
        Some(self.held.as_ref()?.events.front()?.since_ns)
    }

    /// Bytes are missing that belong before this event's, or others that wait.
    pub(crate) fn is_ahead(&self, header: &Header) -> bool {
        self.held.is_some() || matches!(self.place(header), Place::Ahead(_))
    }

    /// Tells whether an event of it waits, where that may be a request.
    pub(crate) fn tell_held(&self, shared: &mut Shared, at: &Moment) {
        let (conn, held) = (self.talk.flow.flow_id, self.held.is_some());
        if self.talk.flow.client != Some(HERE) {
            shared.happen(at, Happening::Held { conn, held });
        }
    }

    /// The next event by time.
    pub(crate) fn data(&mut self, shared: &mut Shared, header: &Header, payload: &[u8]) {
        if header.flags.has(Flags::KTLS) && self.talk.positions == Positions::Tcp {
            // The kernel encrypts, or will: sequence numbers are not those of the bytes.
            self.give_up(shared);
            self.talk.positions = Positions::Counted;
            self.next_event = Some(header.conn_event);
        }
        if let Some(Unix { inodes: Some([_, there @ 0]), .. }) = &mut self.talk.unix {
            // A request may be sent before the server accepts.
            *there = inode(&header.remote);
        }
        match self.awaited() {
            None if !matches!(self.place(header), Place::Ahead(_)) => self.deliver(shared, header, payload),
            None => {
                self.held = Some(Box::default());
                self.hold(shared, header, payload);
            }
            Some(awaited) => {
                if self.is_awaited(awaited, header) {
                    self.deliver(shared, header, payload);
                    self.go_on(shared);
                } else {
                    self.hold(shared, header, payload);
                }
            }
        }
    }

    /// The direction of which bytes are missing, while events are held back.
    fn awaited(&self) -> Option<Side> {
        match self.place(&self.held.as_ref()?.events.front()?.header) {
            Place::Ahead(awaited) => Some(awaited),
            _ => None,
        }
    }

    /// What `header` tells of belongs before what is held back. Whatever it may itself wait for was told of later.
    fn is_awaited(&self, awaited: Side, header: &Header) -> bool {
        let is_counted = self.talk.positions != Positions::Tcp;
        (is_counted || side(header) == awaited) && !matches!(self.own_place(header), Place::Ahead(_))
    }

    fn hold(&mut self, shared: &mut Shared, header: &Header, payload: &[u8]) {
        let Some(held) = &mut self.held else { return };
        shared.stats.held_events += 1;
        held.bytes += size_of::<HeldEvent>() + payload.len();
        held.events.push_back(HeldEvent {
            since_ns: shared.now_ns,
            header: *header,
            payload: payload.into(),
        });
        if held.bytes > MAX_HELD {
            self.give_up(shared);
        }
    }

    /// Delivers what was held back and for which nothing is missing any more.
    fn go_on(&mut self, shared: &mut Shared) {
        while let Some(mut held) = self.held.take() {
            let index = match held.events.front().map(|first| self.place(&first.header)) {
                None => return,
                Some(Place::Ahead(awaited)) => {
                    held.events.iter().position(|event| self.is_awaited(awaited, &event.header))
                }
                Some(_) => Some(0),
            };
            let Some(event) = index.and_then(|index| held.events.remove(index)) else {
                self.held = Some(held);
                return;
            };
            held.bytes -= size_of::<HeldEvent>() + event.payload.len();
            self.held = Some(held);
            self.deliver(shared, &event.header, &event.payload);
        }
    }

    /// What is missing is lost.
    pub(crate) fn give_up(&mut self, shared: &mut Shared) {
        while let (Some(awaited), Some(held)) = (self.awaited(), &mut self.held) {
            let next = self.talk.next(awaited).unwrap_or_default();
            let Some(first) = held.events.front() else { break };
            let moment = moment(&first.header);
            if self.talk.positions != Positions::Tcp {
                let from = self.next_event.unwrap_or_default();
                let numbers = held.events.iter().map(|event| event.header.conn_event);
                self.next_event = numbers.min_by_key(|number| number.wrapping_sub(from));
                self.talk.lost_unknown(shared, &moment);
                self.go_on(shared);
                continue;
            }
            // Up to what was sent or received next, as far as that is known.
            let mut missing = match side(&first.header) == awaited {
                true => u32::MAX,
                false => first.header.opposite_seq.wrapping_sub(next),
            };
            let same = held.events.iter_mut().filter(|event| side(&event.header) == awaited);
            if let Some(nearest) = same.min_by_key(|event| event.header.tcp_seq.wrapping_sub(next)) {
                missing = missing.min(nearest.header.tcp_seq.wrapping_sub(next));
                if nearest.header.flags.has(Flags::SEQ_AMBIGUOUS) {
                    shared.stats.ambiguous_events += 1;
                    nearest.payload = Box::default();
                }
            }
            self.talk.lost(shared, &moment, awaited, missing);
            self.go_on(shared);
        }
        self.held = None;
    }

    fn place(&self, header: &Header) -> Place {
        let own = self.own_place(header);
        if self.talk.positions != Positions::Tcp || header.opposite_seq == 0 || matches!(own, Place::Ahead(_))
        {
            return own;
        }
        let other = side(header).other();
        // The end of a direction takes a number too.
        let is_missing = |next: u32| header.opposite_seq.wrapping_sub(next).cast_signed() > 1;
        if self.talk.next(other).is_some_and(is_missing) { Place::Ahead(other) } else { own }
    }

    /// By its own direction alone.
    fn own_place(&self, header: &Header) -> Place {
        let side = side(header);
        if self.talk.positions != Positions::Tcp {
            let Some(next) = self.next_event else { return Place::Next };
            return match header.conn_event.wrapping_sub(next).cast_signed() {
                0 => Place::Next,
                1.. => Place::Ahead(side),
                _ => Place::Behind(header.length),
            };
        }
        let Some(next) = self.talk.next(side) else { return Place::Next };
        match header.tcp_seq.wrapping_sub(next).cast_signed() {
            0 => Place::Next,
            1 if has_seen_end(header) => Place::Next,
            1.. => Place::Ahead(side),
            _ if self.talk.is_assumed(side) => Place::Next,
            behind => Place::Behind(behind.unsigned_abs()),
        }
    }

    /// The event's bytes are the next ones of its direction, apart from those that were there before.
    fn deliver(&mut self, shared: &mut Shared, header: &Header, payload: &[u8]) {
        let side = side(header);
        let behind = match self.own_place(header) {
            Place::Behind(behind) => behind,
            _ => 0,
        };
        shared.stats.repeated_bytes += u64::from(behind.min(header.length));
        if behind >= header.length {
            return;
        }
        let pos = match self.talk.positions {
            Positions::Tcp if has_seen_end(header) => self.talk.next(side).unwrap_or(header.tcp_seq),
            Positions::Tcp => header.tcp_seq.wrapping_add(behind),
            _ => {
                self.next_event = Some(header.conn_event.wrapping_add(1));
                self.talk.next(side).unwrap_or_default()
            }
        };
        let mut payload = payload.get(behind as usize..).unwrap_or_default();
        if behind > 0 && header.flags.has(Flags::SEQ_AMBIGUOUS) {
            shared.stats.ambiguous_events += 1;
            payload = &[];
        }
        let fact = Fact::new(header, pos, header.length - behind);
        if self.talk.positions == Positions::Tcp && header.opposite_seq != 0 {
            self.talk.assume_next(side.other(), header.opposite_seq);
        }
        self.talk.data(shared, &fact, side, payload);
        if self.records.is_none() && self.talk.protocol() == Some(L7Protocol::Tls) {
            self.records = Some(Box::default());
        }
        if let Some(records) = &mut self.records {
            records[side as usize].walk(&fact, payload);
        }
    }

    /// Nothing will follow.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        self.give_up(shared);
        self.talk.close(shared);
    }
}

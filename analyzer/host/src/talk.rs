//! One conversation: the bytes that a process sends and receives on a socket, with one peer, or in a TLS session. The L7 engine
//! reads them; what it understands is told to the context engine, and becomes spans of the process.

use crate::context::{Happening, Moment, ProcessKey};
use crate::facts::{Fact, Facts};
use crate::shared::{Output, Shared};
use compact_str::ToCompactString;
use foldhash::fast::FixedState;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use wirespan_l7::parser::Role;
use wirespan_l7::{Chunk, FlowContext, Heard, Side, Stream};
use wirespan_records::{
    Endpoint, L4Protocol, L7Protocol, ObservationPoint, ResponseStatus, Session, Signal, Span, next_id,
};

/// This end: what it sends is side A of the flow.
pub(crate) const HERE: Side = Side::A;
/// The other end.
pub(crate) const THERE: Side = Side::B;

/// More bytes than any message has.
const UNKNOWN: u32 = 1 << 30;

/// What the positions of a conversation are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// TCP sequence numbers.
    Tcp,
    /// Counted here.
    Counted,
    /// Counted here; spans take the sequence numbers of TLS records.
    InTls,
}

/// A span of a conversation.
#[derive(Debug)]
pub(crate) struct Made {
    pub span: Box<Span>,
    /// The process is its client.
    pub is_client: bool,
    pub process: ProcessKey,
}

/// What is known of a UNIX socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unix {
    /// Of this and the other end of a stream.
    pub inodes: Option<[u64; 2]>,
    /// What it is bound to, and at which end.
    pub name: Option<(Side, Box<str>)>,
}

/// One conversation.
pub(crate) struct Talk {
    pub flow: FlowContext,
    pub positions: Positions,
    /// It goes over UNIX sockets.
    pub unix: Option<Unix>,
    /// Spans in TLS whose records have to be found.
    pub in_tls: Vec<Made>,
    /// Of the newest event.
    pub last: Moment,
    stream: Stream,
    directions: [Direction; 2],
    /// Requests whose span was not made yet, oldest first.
    exchanges: VecDeque<Exchange>,
    client: Side,
}

#[derive(Default)]
struct Direction {
    /// Position of the next byte.
    next: Option<u32>,
    /// It is known from the other direction only, and may be too far.
    is_assumed: bool,
    /// Nothing came since the connection was opened.
    is_new: bool,
    facts: Facts,
}

/// A request that was heard.
struct Exchange {
    /// Position of the request's first byte.
    pos: u32,
    id: u64,
    process: ProcessKey,
    retrans: u32,
    /// Of the response's first event, once it came.
    response: Option<Fact>,
    /// The response cannot be that of the request.
    mispaired: bool,
}

impl Talk {
    pub(crate) fn new(conn: u64, endpoints: [Endpoint; 2], l4: L4Protocol, positions: Positions) -> Self {
        let signal = if positions == Positions::InTls { Signal::Tls } else { Signal::Syscall };
        let flow = FlowContext {
            flow_id: conn,
            endpoints,
            l4,
            tunnel: None,
            tap: 0,
            netns: 0,
            signal,
            observation_point: ObservationPoint::ClientProcess,
            client: None,
        };
        Self {
            flow,
            positions,
            unix: None,
            in_tls: Vec::new(),
            last: Moment::default(),
            stream: Stream::default(),
            directions: Default::default(),
            exchanges: VecDeque::new(),
            client: HERE,
        }
    }

    /// One end, a UNIX socket, is bound to `address`: a path that ends with a zero byte, or behind one an abstract name.
    pub(crate) fn named(&mut self, side: Side, address: &[u8]) {
        let (mark, name) = match address {
            [0, name @ ..] => ("@", name),
            name => ("", name),
        };
        let name = String::from_utf8_lossy(name);
        let name = format!("{mark}{}", name.trim_end_matches('\0').replace('\0', "@"));
        self.unix.get_or_insert_default().name = Some((side, name.into()));
    }

    /// Nothing came before: the first byte of a direction will be at `pos`, as far as that is known.
    pub(crate) fn begin(&mut self, side: Side, pos: Option<u32>) {
        let direction = &mut self.directions[side as usize];
        if direction.next.is_none() || direction.is_assumed {
            *direction = Direction { next: pos, is_new: true, ..Direction::default() };
        }
    }

    /// Position of the next byte of a direction; `None` before the first one.
    pub(crate) fn next(&self, side: Side) -> Option<u32> {
        self.directions[side as usize].next
    }

    /// The next byte of a direction of which nothing came yet is at `pos`, or before.
    pub(crate) fn assume_next(&mut self, side: Side, pos: u32) {
        let direction = &mut self.directions[side as usize];
        if direction.next.is_none() {
            (direction.next, direction.is_assumed) = (Some(pos), true);
        }
    }

    /// [`Self::next`] is known from [`Self::assume_next`] only.
    pub(crate) fn is_assumed(&self, side: Side) -> bool {
        self.directions[side as usize].is_assumed
    }

    /// What is spoken, once known.
    pub(crate) fn protocol(&self) -> Option<L7Protocol> {
        self.stream.protocol()
    }

    /// `len` bytes at `pos`, of which the first are in `payload`.
    pub(crate) fn data(&mut self, shared: &mut Shared, fact: &Fact, side: Side, payload: &[u8]) {
        let direction = &mut self.directions[side as usize];
        direction.next = Some(fact.pos.wrapping_add(fact.len));
        direction.is_assumed = false;
        self.last = fact.moment;
        let is_new = std::mem::take(&mut direction.is_new);
        if self.stream.is_off() {
            direction.facts.clear();
            return;
        }
        direction.facts.push(*fact);
        let ts_ns = shared.clock.epoch_ns(fact.moment.time_ns);
        let payload = payload.get(..fact.len as usize).unwrap_or(payload);
        if !payload.is_empty() {
            let chunk = Chunk { data: payload, ts_ns, seq: Some(fact.pos), stream_start: is_new };
            shared.data(&mut self.stream, &self.flow, side, chunk);
        }
        let unseen = u64::from(fact.len) - payload.len() as u64;
        if unseen > 0 {
            shared.stats.unseen_bytes += unseen;
            shared.gap(&mut self.stream, &self.flow, side, unseen);
        }
        self.tell(shared, &fact.moment);
    }

    /// Events were lost, and nobody knows what they moved.
    pub(crate) fn lost_unknown(&mut self, shared: &mut Shared, at: &Moment) {
        for side in [HERE, THERE] {
            self.lose(shared, at, side, UNKNOWN);
        }
    }

    /// `missing` bytes were lost.
    pub(crate) fn lost(&mut self, shared: &mut Shared, at: &Moment, side: Side, missing: u32) {
        shared.stats.lost_bytes += u64::from(missing);
        self.lose(shared, at, side, missing);
    }

    fn lose(&mut self, shared: &mut Shared, at: &Moment, side: Side, missing: u32) {
        let direction = &mut self.directions[side as usize];
        direction.next = direction.next.map(|next| next.wrapping_add(missing));
        direction.is_new = false;
        shared.happen(at, Happening::Gap { conn: self.flow.flow_id });
        shared.gap(&mut self.stream, &self.flow, side, missing.into());
        self.tell(shared, at);
    }

    /// Gives up on requests that wait too long.
    pub(crate) fn sweep(&mut self, shared: &mut Shared) {
        let now_ns = shared.clock.epoch_ns(shared.now_ns);
        if self.stream.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
            shared.sweep(&mut self.stream, &self.flow);
            self.tell(shared, &self.last.clone());
        }
    }

    /// Nothing will follow.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        shared.close(&mut self.stream, &self.flow);
        self.tell(shared, &self.last.clone());
    }

    /// Goes on with what the engine understood.
    fn tell(&mut self, shared: &mut Shared, at: &Moment) {
        if shared.outputs.is_empty() {
            return;
        }
        let mut outputs = std::mem::take(&mut shared.outputs);
        for output in outputs.drain() {
            match output {
                Output::Heard(client, heard) => {
                    self.client = client;
                    shared.stats.messages += 1;
                    match heard.role {
                        Role::Client => self.request(shared, at, &heard),
                        Role::Server => self.response(shared, at, &heard),
                    }
                }
                Output::Unseen(client, open) => {
                    let conn = self.flow.flow_id;
                    let what = match client == HERE {
                        true => Happening::UnseenCalls,
                        false => Happening::Unseen { conn, open },
                    };
                    shared.happen(at, what);
                }
                Output::Span(span) => self.span(shared, at, span),
            }
        }
        shared.outputs = outputs;
    }

    /// Stands for the other end.
    fn peer(&self) -> u64 {
        let unix = self.unix.as_ref().and_then(|unix| unix.inodes).map(|[_, there]| there);
        let there = (self.flow.netns, self.flow.endpoints[THERE as usize], unix);
        FixedState::default().hash_one(there)
    }

    fn is_client(&self) -> bool {
        self.client == HERE
    }

    /// Its bytes have no sequence numbers that others know. Both ends of a UNIX stream count the same bytes.
    pub(crate) fn is_counted(&self) -> bool {
        let counts_the_same = self.unix.as_ref().is_some_and(|unix| unix.inodes.is_some());
        self.positions == Positions::Counted && !counts_the_same
    }

    /// Requests are answered beside each other, not one after the other.
    fn goes_on_beside(&self) -> bool {
        matches!(self.stream.protocol(), Some(L7Protocol::Http2 | L7Protocol::Grpc))
    }

    /// The event by which the first byte of a message of `side` came; else something like it.
    fn fact(&self, shared: &mut Shared, side: Side, pos: u32, at: &Moment) -> Fact {
        match self.directions[side as usize].facts.at(pos) {
            Some(fact) => *fact,
            None => {
                shared.stats.messages_without_event += 1;
                Fact { pos, moment: *at, ..Fact::default() }
            }
        }
    }

    fn request(&mut self, shared: &mut Shared, at: &Moment, heard: &Heard) {
        let Some(pos) = heard.seq else { return };
        let (id, conn) = (next_id(), self.flow.flow_id);
        let fact = self.fact(shared, self.client, pos, at);
        let (trace_id, x_request_id) = (heard.trace_id.as_deref(), heard.x_request_id.as_deref());
        let stream =
            heard.id.filter(|_| self.goes_on_beside()).and_then(|id| id.try_into().ok()).unwrap_or(0);
        let happening = if self.is_client() {
            shared.desk.expect(id);
            let (began, peer) = (fact.moment, self.peer());
            Happening::ClientRequest { span: id, conn, stream, peer, began, trace_id, x_request_id }
        } else {
            let beside = self.goes_on_beside();
            Happening::ServerRequest { span: id, conn, stream, beside, trace_id, x_request_id }
        };
        shared.happen(at, happening);
        let (process, retrans) = (fact.moment.process, fact.retrans);
        self.exchanges.push_back(Exchange { pos, id, process, retrans, response: None, mispaired: false });
    }

    fn response(&mut self, shared: &mut Shared, at: &Moment, heard: &Heard) {
        let Some(pos) = heard.seq else { return };
        let Some(request) = heard.request_seq else {
            let what = match self.is_client() {
                true => Happening::UnseenAnswer,
                false => Happening::UnseenResponse { conn: self.flow.flow_id },
            };
            shared.happen(at, what);
            return;
        };
        let fact = self.fact(shared, self.client.other(), pos, at);
        let knows_opposite = self.positions == Positions::Tcp && fact.opposite != 0;
        let is_client = self.is_client();
        let Some(exchange) = self.exchanges.iter_mut().find(|exchange| exchange.pos == request) else {
            return;
        };
        exchange.response = Some(fact);
        // Not even the first byte of the request had gone by.
        exchange.mispaired = knows_opposite && fact.opposite.wrapping_sub(request).cast_signed() <= 0;
        if exchange.mispaired {
            return;
        }
        let span = exchange.id;
        shared.happen(
            at,
            if is_client { Happening::ClientResponse { span } } else { Happening::ServerResponse { span } },
        );
    }

    fn span(&mut self, shared: &mut Shared, at: &Moment, mut span: Box<Span>) {
        let is_client = self.is_client();
        span.observation_point =
            if is_client { ObservationPoint::ClientProcess } else { ObservationPoint::ServerProcess };
        let exchange = span.req_tcp_seq.and_then(|pos| {
            let index = self.exchanges.iter().position(|exchange| exchange.pos == pos)?;
            self.exchanges.remove(index)
        });
        if self.is_counted() {
            (span.req_tcp_seq, span.resp_tcp_seq) = (None, None);
        }
        let Some(exchange) = exchange else {
            span.id = next_id();
            self.hand_on(shared, Made { span, is_client, process: at.process });
            return;
        };
        span.id = exchange.id;
        if span.session == Session::RequestOnly || exchange.mispaired {
            shared.happen(at, Happening::Over { span: span.id });
        }
        if is_client && self.goes_on_beside() && span.session == Session::Complete {
            shared.happen(at, Happening::ClientDone { span: span.id });
        }
        if let Some(response) = &exchange.response {
            if response.srtt_us > 0 {
                span.attributes.push(("tcp.srtt_us", response.srtt_us.to_compact_string()));
            }
            if response.retrans > exchange.retrans {
                let retrans = response.retrans - exchange.retrans;
                span.attributes.push(("tcp.retrans", retrans.to_compact_string()));
            }
            if exchange.mispaired {
                shared.stats.mispaired += 1;
                let response = Box::new(take_response(&mut span));
                let process = response_process(&exchange);
                self.hand_on(shared, Made { span: response, is_client, process });
            }
        }
        self.hand_on(shared, Made { span, is_client, process: exchange.process });
    }

    fn hand_on(&mut self, shared: &mut Shared, mut made: Made) {
        if self.positions == Positions::InTls {
            self.in_tls.push(made);
            return;
        }
        self.label(&mut made);
        shared.desk.complete(made, shared.now_ns);
    }

    /// Says of a span what socket it went through.
    pub(crate) fn label(&self, made: &mut Made) {
        if self.flow.netns != 0 {
            made.span.attributes.push(("netns", self.flow.netns.to_compact_string()));
        }
        let Some(Unix { inodes, name }) = &self.unix else { return };
        made.span.protocol = L4Protocol::Other(0);
        if let Some([here, there]) = inodes {
            let [client, server] = if made.is_client { [here, there] } else { [there, here] };
            made.span.attributes.push(("unix.client", client.to_compact_string()));
            made.span.attributes.push(("unix.server", server.to_compact_string()));
        }
        let end = if made.is_client { THERE } else { HERE };
        if let Some((_, name)) = name.as_ref().filter(|(side, _)| *side == end) {
            made.span.attributes.push(("unix.name", name.to_compact_string()));
        }
    }
}

fn response_process(exchange: &Exchange) -> ProcessKey {
    exchange.response.map_or(exchange.process, |response| response.moment.process)
}

/// Takes a response away from a request that it does not answer.
fn take_response(span: &mut Span) -> Span {
    let response = Span {
        id: next_id(),
        start_ns: span.end_ns,
        request_type: None,
        request_domain: None,
        request_resource: None,
        endpoint: None,
        request_id: None,
        request_bytes: 0,
        trace_id: None,
        span_id: None,
        x_request_id: None,
        req_tcp_seq: None,
        session: Session::ResponseOnly,
        truncated: true,
        attributes: Vec::new(),
        ..span.clone()
    };
    span.end_ns = span.start_ns;
    (span.response_status, span.response_code) = (ResponseStatus::Unknown, None);
    (span.response_exception, span.response_result, span.affected_rows) = (None, None, None);
    (span.response_bytes, span.resp_tcp_seq) = (0, None);
    (span.session, span.truncated) = (Session::RequestOnly, true);
    response
}

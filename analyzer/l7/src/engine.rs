//! Detection and the way of the bytes: buffers for messages that span segments, skipping of large bodies, holes.

use crate::exchange::{At, Exchanges, Out};
use crate::parser::{Cx, MAX_PROBE, ProbeInfo, Role, Step, Verdict};
use crate::protocols::{AnyParser, PROBES};
use std::collections::HashMap;
use wirespan_records::{Endpoint, L4Protocol, L7Counts, L7Protocol, ObservationPoint, Signal, Span, Tunnel};

/// One of the two ends of a flow, in the order the flow table stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Side {
    /// `endpoints[0]`.
    A = 0,
    /// `endpoints[1]`.
    B = 1,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What a stream's spans take from their flow.
#[derive(Clone, Debug)]
pub struct FlowContext {
    /// See `Flow::flow_id`.
    pub flow_id: u64,
    /// Both ends.
    pub endpoints: [Endpoint; 2],
    /// TCP or UDP.
    pub l4: L4Protocol,
    /// The innermost tunnel.
    pub tunnel: Option<Tunnel>,
    /// How the bytes are seen.
    pub signal: Signal,
    /// Where they are seen.
    pub observation_point: ObservationPoint,
    /// Which end opened the connection, when the handshake told.
    pub client: Option<Side>,
}

/// Bytes of one direction, in order.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Payload, not empty.
    pub data: &'a [u8],
    /// When it was seen.
    pub ts_ns: u64,
    /// TCP sequence number of the first byte.
    pub seq: Option<u32>,
    /// First bytes of their direction since the handshake.
    pub stream_start: bool,
}

/// Receives the spans.
pub trait SpanSink {
    /// One exchange is complete, or will not be.
    fn span(&mut self, span: Span);
}

impl SpanSink for Vec<Span> {
    fn span(&mut self, span: Span) {
        self.push(span);
    }
}

/// Limits and settings of the L7 engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes kept per direction while a message is not complete.
    pub max_buffer: usize,
    /// Bytes kept by all streams of this engine together.
    pub max_buffer_total: usize,
    /// Requests of one stream that wait for a response.
    pub max_pending: usize,
    /// Segments of a flow that are looked at before it counts as not parsed.
    pub max_probes: u8,
    /// Server endpoints whose protocol is remembered.
    pub max_endpoints: usize,
    /// Longest text kept of a resource, result or exception, in bytes.
    pub max_text: usize,
    /// Replace literals in SQL and values in Redis commands by `?`.
    pub obfuscate: bool,
    /// Headers that carry trace context and request ids.
    pub trace: crate::trace::TraceHeaders,
    /// Path segments that make an HTTP endpoint.
    pub endpoint_segments: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_buffer: 64 << 10,
            max_buffer_total: 64 << 20,
            max_pending: 4096,
            max_probes: 8,
            max_endpoints: 65_536,
            max_text: 4096,
            obfuscate: false,
            trace: crate::trace::TraceHeaders::default(),
            endpoint_segments: 2,
        }
    }
}

/// What the engine counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes given to the engine.
    pub bytes: u64,
    /// Bytes lost in the capture that a parser was waiting for.
    pub gap_bytes: u64,
    /// Times a parser lost its place.
    pub desyncs: u64,
    /// Bytes not buffered because `max_buffer_total` was reached.
    pub over_budget_bytes: u64,
}

/// One per worker: everything streams share.
pub struct Engine {
    config: Config,
    endpoints: HashMap<(Endpoint, L4Protocol), L7Protocol, foldhash::fast::RandomState>,
    buffered: usize,
    stats: Stats,
}

/// What a flow keeps about its L7 content; two words while nothing was found.
#[derive(Default)]
pub struct Stream(State);

#[derive(Default)]
enum State {
    #[default]
    Fresh,
    /// Probes that found nothing so far.
    Probing(u8),
    /// Probes want more bytes than the first segments had.
    Undecided(Box<Undecided>),
    Active(Box<Active>),
    /// Not parsed any more.
    Off(Option<L7Protocol>),
}

struct Undecided {
    tries: u8,
    side: Side,
    at: At,
    data: Vec<u8>,
}

struct Active {
    parser: AnyParser,
    exchanges: Exchanges,
    client: Side,
    directions: [Direction; 2],
}

#[derive(Default)]
struct Direction {
    buffer: Vec<u8>,
    /// Of the first byte in the buffer.
    at: At,
    /// When the newest segment came, and how many bytes before it are in the buffer.
    newest: (u64, usize),
    /// The parser does not need to be asked before the buffer holds this many bytes.
    wanted: usize,
    /// Bytes of the current message that are passed over as they come.
    skip: u64,
    /// Message boundaries are lost.
    lost: bool,
}

impl Stream {
    /// What it speaks, once known.
    pub fn protocol(&self) -> Option<L7Protocol> {
        match &self.0 {
            State::Active(active) => Some(active.parser.protocol()),
            State::Off(protocol) => *protocol,
            _ => None,
        }
    }

    /// The client's side by what is spoken, once known.
    pub fn client(&self) -> Option<Side> {
        match &self.0 {
            State::Active(active) => Some(active.client),
            _ => None,
        }
    }

    /// Nothing of this stream is looked at any more.
    pub fn is_off(&self) -> bool {
        matches!(self.0, State::Off(_))
    }
}

impl Engine {
    /// An engine with these settings.
    pub fn new(config: Config) -> Self {
        Self { config, endpoints: HashMap::default(), buffered: 0, stats: Stats::default() }
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The next bytes of one direction. `flow.l4` says whether they are a stream or one datagram.
    pub fn data(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        side: Side,
        chunk: Chunk<'_>,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        self.stats.bytes += chunk.data.len() as u64;
        if chunk.data.is_empty() {
            return;
        }
        match &mut stream.0 {
            State::Off(_) => {}
            State::Active(_) => self.feed(stream, flow, side, chunk, counts, sink),
            State::Fresh | State::Probing(_) | State::Undecided(_) => {
                self.detect(stream, flow, side, chunk, counts, sink);
            }
        }
    }

    /// `missing` bytes of one direction were not captured and will not come.
    pub fn gap(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        side: Side,
        missing: u64,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        match &mut stream.0 {
            State::Undecided(undecided) => {
                let tries = undecided.tries;
                self.buffered -= undecided.data.len();
                stream.0 = State::Probing(tries);
            }
            State::Active(active) => {
                let mut missing = missing;
                let direction = &mut active.directions[side as usize];
                if direction.skip == 0 && !direction.buffer.is_empty() {
                    // What is there of the message is all there will be.
                    self.parse(stream, flow, side, true, counts, sink);
                }
                let State::Active(active) = &mut stream.0 else { return };
                let role = active.role(side);
                let direction = &mut active.directions[side as usize];
                let skipped = direction.skip.min(missing);
                direction.skip -= skipped;
                missing -= skipped;
                active.exchanges.consumed(role, skipped);
                if missing > 0 {
                    self.stats.gap_bytes += missing;
                    active.lose(side, &mut self.buffered);
                }
                let mut out = out(flow, active.client, active.parser.protocol(), counts, sink);
                active.exchanges.flush(&mut out);
            }
            _ => {}
        }
    }

    /// Treats a stream as `protocol` with its client at `side`, whatever its content: for streams whose protocol is told
    /// from outside, and for tests of one parser.
    pub fn assume(&mut self, stream: &mut Stream, protocol: L7Protocol, client: Side) {
        if let Some(parser) = AnyParser::new(protocol) {
            let exchanges = Exchanges::new(parser.pairing(), self.config.max_pending);
            stream.0 =
                State::Active(Box::new(Active { parser, exchanges, client, directions: Default::default() }));
        }
    }

    /// Bytes that all streams keep at this moment.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Gives up on requests that wait too long at `now_ns`.
    pub fn sweep(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        now_ns: u64,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        if let State::Active(active) = &mut stream.0 {
            active.exchanges.expire(now_ns.saturating_sub(active.parser.timeout_ms() * 1_000_000));
            let mut out = out(flow, active.client, active.parser.protocol(), counts, sink);
            active.exchanges.flush(&mut out);
        }
    }

    /// The flow is over: what waits is handed on, what is buffered is parsed as far as it goes.
    pub fn close(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        for side in [Side::A, Side::B] {
            if let State::Active(active) = &stream.0
                && !active.directions[side as usize].buffer.is_empty()
            {
                self.parse(stream, flow, side, true, counts, sink);
            }
        }
        self.turn_off(stream, flow, counts, sink);
    }

    fn turn_off(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        let protocol = stream.protocol();
        match &mut stream.0 {
            State::Active(active) => {
                for direction in &mut active.directions {
                    self.buffered -= direction.buffer.len();
                }
                active.exchanges.close();
                let mut out = out(flow, active.client, active.parser.protocol(), counts, sink);
                active.exchanges.flush(&mut out);
            }
            State::Undecided(undecided) => self.buffered -= undecided.data.len(),
            _ => {}
        }
        stream.0 = State::Off(protocol);
    }

    fn detect(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        side: Side,
        chunk: Chunk<'_>,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        let (tries, kept) = match std::mem::take(&mut stream.0) {
            State::Probing(tries) => (tries, None),
            State::Undecided(undecided) => {
                self.buffered -= undecided.data.len();
                (undecided.tries, Some(undecided))
            }
            _ => (0, None),
        };
        let at = At { ts_ns: chunk.ts_ns, seq: chunk.seq, truncated: false };
        // Bytes kept of the other side are of no use once this side speaks: they did not tell and were answered.
        let kept = kept.filter(|undecided| undecided.side == side);
        let (data, at) = match &kept {
            Some(undecided) => (&[&undecided.data, chunk.data].concat()[..], undecided.at),
            None => (chunk.data, at),
        };
        let info = ProbeInfo {
            l4: flow.l4,
            src_port: flow.endpoints[side as usize].port,
            dst_port: flow.endpoints[side.other() as usize].port,
            role: flow.client.map(|client| role_of(client, side)),
            stream_start: chunk.stream_start || kept.is_some(),
        };
        match self.probe(data, flow, side, &info) {
            (Verdict::Yes(role), Some(parser)) => {
                let client = if role == Role::Client { side } else { side.other() };
                self.remember(flow.endpoints[client.other() as usize], flow.l4, parser.protocol());
                let exchanges = Exchanges::new(parser.pairing(), self.config.max_pending);
                stream.0 = State::Active(Box::new(Active {
                    parser,
                    exchanges,
                    client,
                    directions: Default::default(),
                }));
                let whole = Chunk { data, ts_ns: at.ts_ns, seq: at.seq, stream_start: info.stream_start };
                self.feed(stream, flow, side, whole, counts, sink);
            }
            (Verdict::Maybe, _)
                if flow.l4 == L4Protocol::Tcp
                    && data.len() < MAX_PROBE
                    && self.buffered + data.len() <= self.config.max_buffer_total =>
            {
                self.buffered += data.len();
                stream.0 = State::Undecided(Box::new(Undecided { tries, side, at, data: data.to_vec() }));
            }
            _ if tries + 1 >= self.config.max_probes => stream.0 = State::Off(None),
            _ => stream.0 = State::Probing(tries + 1),
        }
    }

    /// Asks the protocol remembered for either endpoint first, then all.
    fn probe(
        &self,
        data: &[u8],
        flow: &FlowContext,
        side: Side,
        info: &ProbeInfo,
    ) -> (Verdict, Option<AnyParser>) {
        let agrees = |verdict| match (verdict, info.role) {
            (Verdict::Yes(found), Some(known)) if found != known => Verdict::No,
            _ => verdict,
        };
        if !self.endpoints.is_empty() {
            for end in [side.other(), side] {
                if let Some(&protocol) = self.endpoints.get(&(flow.endpoints[end as usize], flow.l4))
                    && let Some(parser) = AnyParser::new(protocol)
                    && let yes @ Verdict::Yes(_) = agrees(parser.probe(data, info))
                {
                    return (yes, Some(parser));
                }
            }
        }
        let mut best = Verdict::No;
        for &(protocol, probe) in PROBES {
            match agrees(probe(data, info)) {
                yes @ Verdict::Yes(_) => return (yes, AnyParser::new(protocol)),
                Verdict::Maybe => best = Verdict::Maybe,
                Verdict::No => {}
            }
        }
        (best, None)
    }

    fn remember(&mut self, server: Endpoint, l4: L4Protocol, protocol: L7Protocol) {
        if self.endpoints.len() < self.config.max_endpoints || self.endpoints.contains_key(&(server, l4)) {
            self.endpoints.insert((server, l4), protocol);
        }
    }

    fn feed(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        side: Side,
        chunk: Chunk<'_>,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        let State::Active(active) = &mut stream.0 else { return };
        let role = active.role(side);
        let direction = &mut active.directions[side as usize];
        let skipped = usize::try_from(direction.skip).unwrap_or(usize::MAX).min(chunk.data.len());
        if skipped > 0 {
            direction.skip -= skipped as u64;
            active.exchanges.consumed(role, skipped as u64);
        }
        let data = &chunk.data[skipped..];
        if data.is_empty() {
            return;
        }
        let at = At {
            ts_ns: chunk.ts_ns,
            seq: chunk.seq.map(|seq| seq.wrapping_add(skipped as u32)),
            truncated: false,
        };
        if direction.lost {
            let info = ProbeInfo {
                l4: flow.l4,
                src_port: flow.endpoints[side as usize].port,
                dst_port: flow.endpoints[side.other() as usize].port,
                role: Some(role),
                stream_start: false,
            };
            if active.parser.probe(data, &info) != Verdict::Yes(role) {
                return;
            }
            direction.lost = false;
        }
        direction.newest = (at.ts_ns, direction.buffer.len());
        if direction.buffer.is_empty() {
            direction.at = at;
            self.run(stream, flow, side, data, flow.l4 != L4Protocol::Tcp, counts, sink);
            return;
        }
        let room = (self.config.max_buffer.saturating_sub(direction.buffer.len()))
            .min(self.config.max_buffer_total.saturating_sub(self.buffered));
        let taken = data.len().min(room);
        direction.buffer.extend_from_slice(&data[..taken]);
        self.buffered += taken;
        let full = taken < data.len();
        if full {
            self.stats.over_budget_bytes += (data.len() - taken) as u64;
        }
        if full || direction.buffer.len() >= direction.wanted {
            self.parse(stream, flow, side, full, counts, sink);
        }
        if full {
            // The rest of the segment: whatever the parser wants to pass over covers it, or the place is lost.
            self.gap(stream, flow, side, (data.len() - taken) as u64, counts, sink);
        }
    }

    /// Parses what is buffered.
    fn parse(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        side: Side,
        last: bool,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        let State::Active(active) = &mut stream.0 else { return };
        let direction = &mut active.directions[side as usize];
        let buffer = std::mem::take(&mut direction.buffer);
        self.buffered -= buffer.len();
        self.run(stream, flow, side, &buffer, last, counts, sink);
    }

    /// Lets the parser have `data`, which begins at `direction.at`, and buffers what it leaves.
    fn run(
        &mut self,
        stream: &mut Stream,
        flow: &FlowContext,
        side: Side,
        data: &[u8],
        last: bool,
        counts: &mut L7Counts,
        sink: &mut dyn SpanSink,
    ) {
        let State::Active(active) = &mut stream.0 else { return };
        let role = active.role(side);
        let mut rest = data;
        let mut turn = None;
        while !rest.is_empty() {
            let direction = &mut active.directions[side as usize];
            let mut cx = Cx {
                config: &self.config,
                l4: flow.l4,
                last: last || rest.len() >= self.config.max_buffer,
                role,
                exchanges: &mut active.exchanges,
                at: At { truncated: last && flow.l4 == L4Protocol::Tcp, ..direction.at },
            };
            let last = cx.last;
            match active.parser.parse(role, rest, &mut cx) {
                Step::Done(n) if n > 0 => {
                    active.exchanges.consumed(role, n.min(rest.len()) as u64);
                    direction.skip = n.saturating_sub(rest.len()) as u64;
                    let n = n.min(rest.len());
                    direction.at.seq = direction.at.seq.map(|seq| seq.wrapping_add(n as u32));
                    if n >= direction.newest.1 {
                        direction.at.ts_ns = direction.newest.0;
                    }
                    direction.newest.1 = direction.newest.1.saturating_sub(n);
                    rest = &rest[n..];
                }
                Step::More(wanted) if !last && self.buffered + rest.len() <= self.config.max_buffer_total => {
                    direction.wanted = wanted.max(rest.len() + 1);
                    direction.buffer.extend_from_slice(rest);
                    self.buffered += rest.len();
                    rest = &[];
                }
                step @ (Step::Opaque | Step::Switch) => {
                    turn = Some(step);
                    break;
                }
                Step::Done(_) | Step::More(_) | Step::Desync => {
                    self.stats.desyncs += 1;
                    if flow.l4 == L4Protocol::Tcp {
                        active.lose(side, &mut self.buffered);
                    }
                    rest = &[];
                }
            }
        }
        let at = active.directions[side as usize].at;
        match turn {
            Some(Step::Switch) => {
                self.turn_off(stream, flow, counts, sink);
                stream.0 = State::Fresh;
                let chunk = Chunk { data: rest, ts_ns: at.ts_ns, seq: at.seq, stream_start: true };
                self.detect(stream, flow, side, chunk, counts, sink);
            }
            Some(_) => self.turn_off(stream, flow, counts, sink),
            None => {
                let mut out = out(flow, active.client, active.parser.protocol(), counts, sink);
                active.exchanges.flush(&mut out);
            }
        }
    }
}

impl Active {
    fn role(&self, side: Side) -> Role {
        role_of(self.client, side)
    }

    /// Message boundaries of one direction are lost.
    fn lose(&mut self, side: Side, buffered: &mut usize) {
        let role = self.role(side);
        let direction = &mut self.directions[side as usize];
        *buffered -= direction.buffer.len();
        *direction = Direction { lost: true, ..Direction::default() };
        self.parser.lost(role);
        self.exchanges.lost(role);
    }
}

fn role_of(client: Side, side: Side) -> Role {
    if side == client { Role::Client } else { Role::Server }
}

fn out<'a>(
    flow: &'a FlowContext,
    client: Side,
    protocol: L7Protocol,
    counts: &'a mut L7Counts,
    sink: &'a mut dyn SpanSink,
) -> Out<'a> {
    Out { flow, client, protocol, counts, sink }
}

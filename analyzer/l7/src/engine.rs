//! What a worker shares between its streams, and the way of the bytes: from segments and holes to the parser.

use crate::detect::{Endpoints, Found, Probing, Undecided};
use crate::exchange::{At, Out};
use crate::parser::{Role, Step};
use crate::stream::{Active, State, Stream, role_of};
use wirespan_records::{
    Endpoint, L4Protocol, L7Counts, L7Protocol, ObservationPoint, Records, Signal, Span, Text, Tunnel,
};

/// One of the two ends of a flow, in the order the flow table stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
    /// The tap that saw it; see [`wirespan_records::NO_TAP`].
    pub tap: u16,
    /// Inode of the socket's network namespace: the same addresses are others' elsewhere. 0 where that is not known.
    pub netns: u32,
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

impl<'a> Chunk<'a> {
    /// The chunk without its first `n` bytes.
    pub(crate) fn skip(self, n: usize) -> Chunk<'a> {
        let data = self.data.get(n..).unwrap_or_default();
        let seq = self.seq.map(|seq| seq.wrapping_add(n as u32));
        Chunk { data, seq, stream_start: self.stream_start && n == 0, ..self }
    }
}

/// A message that was understood, told before its exchange is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it.
    pub role: Role,
    /// Sequence number of its first byte.
    pub seq: Option<u32>,
    /// When its first byte was seen.
    pub ts_ns: u64,
    /// Sequence number of the request: its own, or that of the request which it answers, if that was seen.
    pub request_seq: Option<u32>,
    /// What the protocol numbers the exchange by, as HTTP/2 its streams.
    pub id: Option<u64>,
    /// See [`Span::trace_id`].
    pub trace_id: Option<Text>,
    /// See [`Span::x_request_id`].
    pub x_request_id: Option<Text>,
}

/// Receives the spans.
pub trait SpanSink {
    /// One exchange is complete, or will not be.
    fn span(&mut self, span: Span);

    /// A message was understood; only told when [`Config::messages`] is set. `client` is the side that asks.
    fn message(&mut self, _flow: &FlowContext, _client: Side, _message: Heard) {}

    /// Whether the client may have made requests that were not seen and that are not answered as far as is known; told when that
    /// changes, and whenever more may have been lost, with the messages and behind those that were there.
    fn unseen(&mut self, _flow: &FlowContext, _client: Side, _unseen: bool) {}
}

impl SpanSink for Records {
    fn span(&mut self, span: Span) {
        self.spans.push(span);
    }
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
    /// Bytes of the requests that wait for a response in all streams of this engine together.
    pub max_pending_bytes: usize,
    /// Turns of a TCP conversation (datagrams of a UDP flow) that are looked at before it counts as not parsed.
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
    /// After a loss, any client may have sent several requests at once, not only one that was seen to; and pairs that are not proven
    /// yet are none, where else they wait for it.
    pub cautious: bool,
    /// Tell the sink of each message as soon as it is understood, not only of exchanges.
    pub messages: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_buffer: 64 << 10,
            max_buffer_total: 64 << 20,
            max_pending: 4096,
            max_pending_bytes: 32 << 20,
            max_probes: 8,
            max_endpoints: 65_536,
            max_text: 4096,
            obfuscate: false,
            trace: crate::trace::TraceHeaders::default(),
            endpoint_segments: 2,
            cautious: false,
            messages: false,
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
    /// Requests and responses told apart, because others may have been open when their stream was seen first.
    pub unpaired: u64,
    /// Bytes not buffered because `max_buffer_total` was reached.
    pub over_budget_bytes: u64,
}

/// One per worker: everything streams share.
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) endpoints: Endpoints,
    pub(crate) buffered: usize,
    pending_bytes: usize,
    stats: Stats,
}

impl Engine {
    /// An engine with these settings.
    pub fn new(config: Config) -> Self {
        let endpoints = Endpoints::new(config.max_endpoints);
        Self { config, endpoints, buffered: 0, pending_bytes: 0, stats: Stats::default() }
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes that all streams keep at this moment.
    pub fn buffered(&self) -> usize {
        self.buffered
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
        self.take(stream, side, chunk, &mut Out { flow, counts, sink });
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
        let out = &mut Out { flow, counts, sink };
        match &mut stream.0 {
            State::Undecided(undecided) if undecided.side == side => {
                self.buffered -= undecided.data.len();
                stream.0 = State::Probing(undecided.probing);
            }
            State::Active(active) => {
                if !active.directions[side as usize].buffer.is_empty() {
                    // What is there of the message is all there will be.
                    self.parse_buffer(stream, side, true, out);
                }
                if let State::Active(active) = &mut stream.0 {
                    let missing = missing - active.pass_over(side, missing);
                    if missing > 0 {
                        self.stats.gap_bytes += missing;
                        active.lose(side);
                    }
                    self.hand_on(active, out);
                }
            }
            _ => {}
        }
    }

    /// Treats a stream as `protocol` with its client at `side`, whatever its content: for streams whose protocol is told
    /// from outside, and for tests of one parser.
    pub fn assume(&mut self, stream: &mut Stream, protocol: L7Protocol, client: Side) {
        if let Some(active) = Active::new(protocol, client, Probing::default(), &self.config) {
            stream.0 = State::Active(Box::new(Active { proven: true, ..active }));
        }
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
            active.exchanges.settle(now_ns);
            self.hand_on(active, &mut Out { flow, counts, sink });
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
        let out = &mut Out { flow, counts, sink };
        for side in [Side::A, Side::B] {
            self.parse_buffer(stream, side, true, out);
        }
        if let State::Active(active) = &mut stream.0 {
            active.exchanges.close();
        }
        self.leave(stream, State::Off(stream.known()), out);
    }

    /// Bytes go where the stream is.
    fn take(&mut self, stream: &mut Stream, side: Side, chunk: Chunk<'_>, out: &mut Out<'_>) {
        if chunk.data.is_empty() {
            return;
        }
        match &mut stream.0 {
            State::Off(_) => {}
            State::Active(_) => self.feed(stream, side, chunk, out),
            State::Probing(_) | State::Undecided(_) => self.detect(stream, side, chunk, out),
        }
    }

    fn detect(&mut self, stream: &mut Stream, side: Side, chunk: Chunk<'_>, out: &mut Out<'_>) {
        let (mut probing, kept) = match std::mem::take(&mut stream.0) {
            State::Probing(probing) => (probing, None),
            State::Undecided(undecided) => {
                self.buffered -= undecided.data.len();
                // What was kept of the other side is of no use any more: it did not tell and was answered.
                (undecided.probing, Some(undecided).filter(|undecided| undecided.side == side))
            }
            state => {
                stream.0 = state;
                return;
            }
        };
        let wanted = probing.wants(side, chunk.stream_start, out.flow.l4, self.config.max_probes);
        let is_exhausted = probing.is_exhausted(out.flow.l4, self.config.max_probes);
        if !wanted && kept.is_none() {
            let is_over = is_exhausted && probing.is_whole();
            stream.0 = if is_over { State::Off(probing.known) } else { State::Probing(probing) };
            return;
        }
        let joined;
        let data = match &kept {
            Some(undecided) => {
                joined = [&undecided.data, chunk.data].concat();
                &joined[..]
            }
            None => chunk.data,
        };
        let stream_start = kept.as_ref().map_or(chunk.stream_start, |undecided| undecided.stream_start);
        match self.endpoints.find(data, out.flow, side, stream_start) {
            Found::Yes(protocol, client) => {
                let Some(mut active) = Active::new(protocol, client, probing, &self.config) else { return };
                if !stream_start {
                    active.exchanges.begins_in_the_middle();
                }
                stream.0 = State::Active(Box::new(active));
                if let Some(kept) = kept {
                    self.take(stream, side, kept.chunk(), out);
                }
                self.take(stream, side, chunk, out);
            }
            Found::Maybe if !is_exhausted && self.buffered + data.len() <= self.config.max_buffer_total => {
                self.buffered += data.len();
                let at = kept.as_ref().map_or(At::of(&chunk), |undecided| undecided.at);
                let data = data.to_vec();
                stream.0 = State::Undecided(Box::new(Undecided { probing, side, at, stream_start, data }));
            }
            _ if is_exhausted => stream.0 = State::Off(probing.known),
            _ => stream.0 = State::Probing(probing),
        }
    }

    fn feed(&mut self, stream: &mut Stream, side: Side, chunk: Chunk<'_>, out: &mut Out<'_>) {
        let State::Active(active) = &mut stream.0 else { return };
        active.exchanges.bytes(role_of(active.client, side), chunk.ts_ns);
        let passed = active.pass_over(side, chunk.data.len() as u64) as usize;
        let chunk = chunk.skip(passed);
        if chunk.data.is_empty() || !active.finds_place(side, chunk.data, out.flow) {
            return;
        }
        if active.guessed_wrongly(side, chunk.data, out.flow) {
            self.buffered -= std::mem::take(&mut active.directions[side as usize].buffer).len();
            active.lose(side);
            if !active.finds_place(side, chunk.data, out.flow) {
                return;
            }
        }
        let direction = &mut active.directions[side as usize];
        direction.newest = (chunk.ts_ns, direction.buffer.len());
        if direction.buffer.is_empty() {
            direction.at = At::of(&chunk);
            self.run(stream, side, chunk.data, false, out);
            return;
        }
        let total_room = self.config.max_buffer_total.saturating_sub(self.buffered);
        let room = self.config.max_buffer.saturating_sub(direction.buffer.len()).min(total_room);
        let taken = chunk.data.len().min(room);
        direction.buffer.extend_from_slice(&chunk.data[..taken]);
        self.buffered += taken;
        let is_full = taken < chunk.data.len();
        if is_full || direction.buffer.len() >= direction.wanted {
            if is_full && room == total_room {
                self.stats.over_budget_bytes += (chunk.data.len() - taken) as u64;
            }
            self.parse_buffer(stream, side, is_full, out);
            self.take(stream, side, chunk.skip(taken), out);
        }
    }

    /// Parses what is buffered; `ends` when nothing can be added to it.
    fn parse_buffer(&mut self, stream: &mut Stream, side: Side, ends: bool, out: &mut Out<'_>) {
        let State::Active(active) = &mut stream.0 else { return };
        let buffer = std::mem::take(&mut active.directions[side as usize].buffer);
        self.buffered -= buffer.len();
        self.run(stream, side, &buffer, ends, out);
    }

    /// Lets the parser have `data`, which begins at `direction.at`, and buffers what it leaves.
    fn run(&mut self, stream: &mut Stream, side: Side, data: &[u8], ends: bool, out: &mut Out<'_>) {
        let State::Active(active) = &mut stream.0 else { return };
        let mut rest = data;
        while !rest.is_empty() {
            match self.step(active, side, rest, ends, out.flow.l4) {
                Step::Done(n) => rest = active.advance(side, rest, n),
                Step::More(wanted) => {
                    let direction = &mut active.directions[side as usize];
                    direction.wanted = wanted.max(rest.len() + 1);
                    direction.buffer.extend_from_slice(rest);
                    self.buffered += rest.len();
                    break;
                }
                Step::Desync => {
                    self.stats.desyncs += 1;
                    // What was cut may well begin as it should.
                    active.desyncs = active.desyncs.saturating_add(u8::from(!ends));
                    if out.flow.l4 != L4Protocol::Tcp {
                        break;
                    }
                    match active.lose_before_newest(side, rest, out.flow) {
                        Some(newest) => rest = newest,
                        None => break,
                    }
                }
                Step::Opaque => {
                    self.leave(stream, State::Off(stream.known()), out);
                    return;
                }
                Step::Switch => {
                    self.switch(stream, side, rest, out);
                    return;
                }
            }
        }
        self.hand_on(active, out);
        self.judge(stream, out);
    }

    /// One step of the parser, who is asked again with what there is when more than that cannot be had. Any step but
    /// `Done` with progress, `More` when there may come more, and the turns becomes `Desync`.
    fn step(&mut self, active: &mut Active, side: Side, rest: &[u8], ends: bool, l4: L4Protocol) -> Step {
        let is_datagram = l4 != L4Protocol::Tcp;
        let can_wait = !ends
            && rest.len() < self.config.max_buffer
            && self.buffered + rest.len() <= self.config.max_buffer_total;
        let step = match active.parse(side, rest, is_datagram, false, l4, &self.config) {
            Step::More(_) if !is_datagram && !can_wait => {
                active.parse(side, rest, true, true, l4, &self.config)
            }
            step => step,
        };
        match step {
            Step::Done(0) => Step::Desync,
            Step::More(_) if is_datagram || !can_wait => Step::Desync,
            step => step,
        }
    }

    /// Hands on the exchanges that are ready, and keeps the memory of those that wait within bounds.
    fn hand_on(&mut self, active: &mut Active, out: &mut Out<'_>) {
        self.pending_bytes = self.pending_bytes - active.pending_bytes + active.exchanges.pending_bytes();
        if self.pending_bytes > self.config.max_pending_bytes {
            self.pending_bytes -= active.exchanges.pending_bytes();
            active.exchanges.shed();
        }
        active.pending_bytes = active.exchanges.pending_bytes();
        self.stats.unpaired += active.exchanges.take_unpaired();
        active.exchanges.flush(active.client, active.parser.protocol(), out);
    }

    /// Remembers what the server speaks once that is certain, and forgets what turns out wrong.
    fn judge(&mut self, stream: &mut Stream, out: &mut Out<'_>) {
        let State::Active(active) = &mut stream.0 else { return };
        let server = active.client.other();
        if active.proven {
            return;
        }
        if active.exchanges.has_paired() {
            active.proven = true;
            if !active.probing.has_switched() {
                self.endpoints.remember(out.flow, server, active.parser.protocol());
            }
        } else if active.desyncs >= MAX_UNPROVEN_DESYNCS
            || active.desyncs > 0 && !active.exchanges.has_messages()
        {
            self.endpoints.forget(out.flow, server, active.parser.protocol());
            let mut probing = active.probing;
            if active.exchanges.has_messages() {
                probing.known = stream.known();
            }
            self.leave(stream, State::Probing(probing), out);
        }
    }

    /// The stream changes its protocol: detects anew from `rest` on.
    fn switch(&mut self, stream: &mut Stream, side: Side, rest: &[u8], out: &mut Out<'_>) {
        let known = stream.known();
        let State::Active(active) = &mut stream.0 else { return };
        let at = active.directions[side as usize].at;
        let other = &mut active.directions[side.other() as usize];
        let (kept, kept_at) = (std::mem::take(&mut other.buffer), other.at);
        self.buffered -= kept.len();
        let next = active.probing.switch(known).map_or(State::Off(known), State::Probing);
        self.leave(stream, next, out);
        let kept = Chunk { data: &kept, ts_ns: kept_at.ts_ns, seq: kept_at.seq, stream_start: true };
        let rest = Chunk { data: rest, ts_ns: at.ts_ns, seq: at.seq, stream_start: true };
        self.take(stream, side.other(), kept, out);
        self.take(stream, side, rest, out);
    }

    /// Leaves a parser, or detection, for `next`: nothing of the stream stays behind.
    fn leave(&mut self, stream: &mut Stream, next: State, out: &mut Out<'_>) {
        match std::mem::replace(&mut stream.0, next) {
            State::Active(mut active) => {
                self.buffered -= active.directions.iter().map(|d| d.buffer.len()).sum::<usize>();
                active.exchanges.abandon();
                self.hand_on(&mut active, out);
            }
            State::Undecided(undecided) => self.buffered -= undecided.data.len(),
            State::Probing(_) | State::Off(_) => {}
        }
    }
}

/// Times an unproven parser may lose its place before the detection counts as wrong.
const MAX_UNPROVEN_DESYNCS: u8 = 3;

#[cfg(test)]
mod tests;

//! The flow table of one worker: finds the flow of a packet, follows the connection, lets L7 have its bytes in order,
//! and hands on flow records when a flow ends, when a report is due, and for each second it was active.
//!
//! | module | what |
//! |---|---|
//! | `key`, `slab`, `timers`, `clock` | the table's parts |
//! | `entry` | one flow |
//! | `role` | who is the client |
//! | `tcp`, `sequence`, `close` | TCP state, metrics, how it ended |
//! | `reassembly` | segments in order |

mod clock;
mod close;
mod entry;
mod key;
mod reassembly;
mod role;
mod sequence;
mod slab;
mod tcp;
mod timers;

pub use entry::Timeouts;
pub use key::KeyScope;

use crate::packet::{Packet, flags};
use clock::Clock;
use close::Leaves;
use entry::{Entry, NOT_ACTIVE};
use hashbrown::HashTable;
use key::FlowKey;
use reassembly::{Limits, Piece, Segment};
use slab::Slab;
use std::net::IpAddr;
use tcp::Phase;
use timers::TimerWheel;
use wirespan_l7::{Chunk, Engine, Side, SpanSink};
use wirespan_records::{CloseType, Flow, FlowMetrics, FlowTick, L4Protocol, L7Counts, Records};

/// Waiting requests of a flow are looked at this often.
const SWEEP_MS: u64 = 5_000;
/// Flows that are compared when one has to leave.
const EVICTION_CANDIDATES: u32 = 32;

/// Receives what a worker makes.
pub trait RecordSink: SpanSink {
    /// A flow ended, or a report of it is due.
    fn flow(&mut self, flow: Flow);
    /// What a flow did in one second.
    fn tick(&mut self, tick: FlowTick);
}

impl RecordSink for Records {
    fn flow(&mut self, flow: Flow) {
        self.flows.push(flow);
    }

    fn tick(&mut self, tick: FlowTick) {
        self.ticks.push(tick);
    }
}

/// Settings of a flow table.
#[derive(Clone, Debug)]
pub struct FlowConfig {
    /// Flows kept at the same time. When there are more, one that would be missed least leaves, and is counted.
    pub max_flows: usize,
    /// What is part of the key beside the 5-tuple.
    pub scope: KeyScope,
    /// Hand on [`FlowTick`]s.
    pub ticks: bool,
    /// Report flows that live longer than this each time it passes, in milliseconds.
    pub report_interval_ms: Option<u64>,
    /// How long flows live without a packet.
    pub timeouts: Timeouts,
    /// Goes into the high 16 bits of flow ids.
    pub worker: u16,
    /// Addresses of this host, sorted; they tell the observation point.
    pub local_addresses: Vec<IpAddr>,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_flows: 1 << 20,
            scope: KeyScope::default(),
            ticks: false,
            report_interval_ms: None,
            timeouts: Timeouts::default(),
            worker: 0,
            local_addresses: Vec::new(),
        }
    }
}

/// What a flow table counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Flows begun.
    pub flows: u64,
    /// Flows that left because the table was full.
    pub evicted: u64,
    /// Flows in the table.
    pub live: u64,
}

/// A flow and what was counted since its last record (without the current second, when seconds are reported).
struct Slot {
    entry: Entry,
    metrics: FlowMetrics,
}

/// What a flow did in the current second.
struct Active {
    flow: u32,
    metrics: FlowMetrics,
}

/// The flows of one worker.
pub struct FlowTable {
    config: FlowConfig,
    limits: Limits,
    hasher: foldhash::fast::RandomState,
    index: HashTable<u32>,
    flows: Slab<Slot>,
    wheel: TimerWheel,
    clock: Clock,
    engine: Engine,
    /// Flows with packets in the current second.
    active: Vec<Active>,
    second: u32,
    reassembly_bytes: usize,
    next_id: u64,
    eviction_hand: u32,
    stats: FlowStats,
}

impl FlowTable {
    /// An empty table that lets `engine` have the payload.
    pub fn new(config: FlowConfig, engine: Engine) -> Self {
        let next_id = u64::from(config.worker) << 48;
        Self {
            config,
            limits: Limits::default(),
            hasher: foldhash::fast::RandomState::default(),
            index: HashTable::new(),
            flows: Slab::new(),
            wheel: TimerWheel::new(),
            clock: Clock::default(),
            engine,
            active: Vec::new(),
            second: 0,
            reassembly_bytes: 0,
            next_id,
            eviction_hand: 0,
            stats: FlowStats::default(),
        }
    }

    /// What was counted.
    pub fn stats(&self) -> FlowStats {
        FlowStats { live: self.flows.len() as u64, ..self.stats }
    }

    /// What the L7 engine counted.
    pub fn l7_stats(&self) -> wirespan_l7::engine::Stats {
        self.engine.stats()
    }

    /// Time goes on to `ts_ns`: flows end, seconds are reported.
    #[inline]
    pub fn advance(&mut self, ts_ns: u64, sink: &mut dyn RecordSink) {
        self.clock.observe(ts_ns);
        let second = (ts_ns / 1_000_000_000) as u32;
        if self.config.ticks && second != self.second {
            self.end_second(sink);
            self.second = second;
        }
        while let Some((ticket, flows)) = self.wheel.due(self.clock.now_ms()) {
            for &number in &flows {
                self.look_at(number, ticket, sink);
            }
            self.wheel.recycle(ticket, flows);
        }
    }

    /// Takes a packet.
    pub fn packet(&mut self, packet: &Packet<'_>, sink: &mut dyn RecordSink) {
        self.advance(packet.ts_ns, sink);
        let (key, side) = FlowKey::of(packet, self.config.scope);
        let hash = key.hash(&self.hasher);
        let flows = &self.flows;
        let found =
            self.index.find(hash, |&n| flows.get(n).is_some_and(|flow| flow.entry.key == key)).copied();
        let number = match found {
            Some(number) if !self.begins_anew(number, packet, side) => number,
            Some(number) => {
                self.remove(number, Leaves::Over, sink);
                self.insert(key, hash, packet, side, sink)
            }
            None => self.insert(key, hash, packet, side, sink),
        };
        self.update(number, packet, side, sink);
    }

    /// The end of the input: every flow is handed on as it is.
    pub fn finish(&mut self, sink: &mut dyn RecordSink) {
        self.end_second(sink);
        for number in 0..self.flows.capacity() {
            self.remove(number, Leaves::StillAlive, sink);
        }
    }

    fn begins_anew(&self, number: u32, packet: &Packet<'_>, side: Side) -> bool {
        packet.l4 == L4Protocol::Tcp
            && packet.tcp.flags & flags::SYN != 0
            && self.flows.get(number).is_some_and(|flow| flow.entry.tcp.is_new_connection(packet, side))
    }

    fn insert(
        &mut self,
        key: FlowKey,
        hash: u64,
        packet: &Packet<'_>,
        side: Side,
        sink: &mut dyn RecordSink,
    ) -> u32 {
        if self.flows.len() >= self.config.max_flows {
            self.evict(sink);
        }
        self.next_id += 1;
        self.stats.flows += 1;
        let now_ms = self.clock.now_ms();
        let mut entry = Entry::new(key, hash, self.next_id, packet, side, &self.config);
        if let Some(interval) = self.config.report_interval_ms {
            entry.next_report_ms = now_ms + interval;
        }
        let number = self.flows.insert(Slot { entry, metrics: FlowMetrics::default() });
        let flows = &self.flows;
        self.index.insert_unique(hash, number, |&n| flows.get(n).map_or(0, |flow| flow.entry.hash));
        if let Some(slot) = self.flows.get_mut(number) {
            slot.entry.ticket = self.wheel.schedule(number, now_ms + SWEEP_MS);
        }
        number
    }

    fn update(&mut self, number: u32, packet: &Packet<'_>, side: Side, sink: &mut dyn RecordSink) {
        let now_ms = self.clock.now_ms();
        let Self { flows, active, engine, limits, reassembly_bytes, config, wheel, .. } = self;
        let Some(Slot { entry, metrics }) = flows.get_mut(number) else { return };
        let phase = entry.tcp.phase;
        if entry.learn_from_handshake(packet, side) {
            swap_roles(metrics, active, entry);
        }
        let m = if config.ticks { activate(active, entry, number) } else { &mut *metrics };
        entry.packet(packet, side, now_ms, m);
        if !entry.stream.is_off() {
            L7 { engine, limits, kept: reassembly_bytes, sink }.payload(entry, packet, side, m);
        }
        if entry.learn_from_l7() {
            swap_roles(metrics, active, entry);
        }
        if entry.tcp.phase != phase && matches!(entry.tcp.phase, Phase::Closed | Phase::Reset) {
            entry.ticket = wheel.schedule(number, now_ms + entry.timeout_ms(&config.timeouts));
        }
        if now_ms >= entry.next_report_ms {
            self.report(number, sink);
        }
    }

    /// The flow goes on, but a record of it is due.
    fn report(&mut self, number: u32, sink: &mut dyn RecordSink) {
        self.end_flow_second(number, None, sink);
        let Some(Slot { entry, metrics }) = self.flows.get_mut(number) else { return };
        entry.next_report_ms = self.clock.now_ms() + self.config.report_interval_ms.unwrap_or(u64::MAX / 2);
        sink.flow(entry.report(std::mem::take(metrics), CloseType::ForcedReport));
    }

    /// A flow's timer came up.
    fn look_at(&mut self, number: u32, ticket: u64, sink: &mut dyn RecordSink) {
        let now_ms = self.clock.now_ms();
        let Some(Slot { entry, metrics }) = self.flows.get_mut(number) else { return };
        if entry.ticket != ticket {
            return;
        }
        let deadline = entry.last_ms + entry.timeout_ms(&self.config.timeouts);
        if deadline <= now_ms {
            self.remove(number, Leaves::Over, sink);
            return;
        }
        let waits = entry.stream.protocol().is_some() && !entry.stream.is_off();
        let next = if waits { deadline.min(now_ms + SWEEP_MS) } else { deadline };
        entry.ticket = self.wheel.schedule(number, next);
        if waits {
            let context = entry.context();
            let mut counts = L7Counts::default();
            self.engine.sweep(&mut entry.stream, &context, self.clock.packet_ns(), &mut counts, sink);
            if counts != L7Counts::default() {
                let m = if self.config.ticks { activate(&mut self.active, entry, number) } else { metrics };
                m.l7.merge(&counts);
            }
        }
    }

    fn remove(&mut self, number: u32, leaves: Leaves, sink: &mut dyn RecordSink) {
        let Self { flows, index, active, engine, limits, reassembly_bytes, config, .. } = self;
        let Some(Slot { entry, metrics }) = flows.get_mut(number) else { return };
        if let Ok(found) = index.find_entry(entry.hash, |&n| n == number) {
            found.remove();
        }
        let m = if config.ticks { activate(active, entry, number) } else { &mut *metrics };
        L7 { engine, limits, kept: reassembly_bytes, sink }.close(entry, m);
        let mut requests = metrics.l7;
        if let Some(active) = active.get(entry.active as usize) {
            requests.merge(&active.metrics.l7);
        }
        let close_type = match entry.key.l4() {
            L4Protocol::Tcp => close::tcp_close_type(&entry.tcp, entry.client, &requests, leaves),
            _ => close::datagram_close_type(leaves),
        };
        self.end_flow_second(number, (leaves != Leaves::StillAlive).then_some(close_type), sink);
        if let Some(Slot { mut entry, metrics }) = self.flows.remove(number) {
            sink.flow(entry.report(metrics, close_type));
        }
    }

    /// Makes room: of some flows in turn, the one that would be missed least leaves.
    fn evict(&mut self, sink: &mut dyn RecordSink) {
        let capacity = self.flows.capacity().max(1);
        let mut candidates = 0;
        let mut chosen = None;
        for _ in 0..capacity {
            self.eviction_hand = (self.eviction_hand + 1) % capacity;
            if let Some(slot) = self.flows.get(self.eviction_hand) {
                let rank = slot.entry.keep_rank();
                if chosen.is_none_or(|(least, _)| rank < least) {
                    chosen = Some((rank, self.eviction_hand));
                }
                candidates += 1;
                if candidates == EVICTION_CANDIDATES {
                    break;
                }
            }
        }
        if let Some((_, number)) = chosen {
            self.stats.evicted += 1;
            self.remove(number, Leaves::Evicted, sink);
        }
    }

    /// Hands on the current second of every flow that was active in it.
    fn end_second(&mut self, sink: &mut dyn RecordSink) {
        for slot in 0..self.active.len() {
            let number = self.active[slot].flow;
            if number != NOT_ACTIVE {
                self.end_flow_second(number, None, sink);
            }
        }
        self.active.clear();
    }

    /// Hands on the current second of one flow and adds it to what the flow's next record says.
    fn end_flow_second(&mut self, number: u32, closed: Option<CloseType>, sink: &mut dyn RecordSink) {
        let Some(Slot { entry, metrics }) = self.flows.get_mut(number) else { return };
        let Some(active) = self.active.get_mut(entry.active as usize) else { return };
        active.flow = NOT_ACTIVE;
        entry.active = NOT_ACTIVE;
        metrics.merge(&active.metrics);
        let tick = entry.tick(self.second, active.metrics, closed);
        sink.tick(tick);
    }
}

/// Client and server turn out to be the other way round.
fn swap_roles(metrics: &mut FlowMetrics, active: &mut [Active], entry: &Entry) {
    metrics.swap_roles();
    if let Some(active) = active.get_mut(entry.active as usize) {
        active.metrics.swap_roles();
    }
}

/// The flow's place among those active in this second.
fn activate<'a>(active: &'a mut Vec<Active>, entry: &mut Entry, number: u32) -> &'a mut FlowMetrics {
    if entry.active == NOT_ACTIVE {
        entry.active = active.len() as u32;
        active.push(Active { flow: number, metrics: FlowMetrics::default() });
    }
    &mut active[entry.active as usize].metrics
}

/// The way of payload to the L7 engine.
struct L7<'a> {
    engine: &'a mut Engine,
    limits: &'a Limits,
    kept: &'a mut usize,
    sink: &'a mut dyn RecordSink,
}

impl L7<'_> {
    fn payload(&mut self, entry: &mut Entry, packet: &Packet<'_>, side: Side, m: &mut FlowMetrics) {
        match packet.l4 {
            L4Protocol::Tcp => self.segment(entry, packet, side, m),
            L4Protocol::Udp if !packet.payload.is_empty() => {
                let chunk =
                    Chunk { data: packet.payload, ts_ns: packet.ts_ns, seq: None, stream_start: false };
                let context = entry.context();
                self.engine.data(&mut entry.stream, &context, side, chunk, &mut m.l7, self.sink);
            }
            _ => {}
        }
    }

    fn segment(&mut self, entry: &mut Entry, packet: &Packet<'_>, side: Side, m: &mut FlowMetrics) {
        let tcp = &packet.tcp;
        let acknowledges =
            tcp.flags & flags::ACK != 0 && entry.tcp.sides[side.other() as usize].order.waits();
        let carries = packet.l4_wire > 0 && tcp.flags & flags::RST == 0;
        if !acknowledges && !carries {
            return;
        }
        let context = entry.context();
        let (stream, counts) = (&mut entry.stream, &mut m.l7);
        if acknowledges {
            let other = &mut entry.tcp.sides[side.other() as usize];
            let isn = other.isn;
            other.order.acknowledged(tcp.ack, self.kept, |piece| {
                hand_on(self.engine, stream, &context, side.other(), isn, piece, counts, self.sink);
            });
        }
        if carries {
            let this = &mut entry.tcp.sides[side as usize];
            let isn = this.isn;
            let segment = Segment {
                seq: tcp.seq.wrapping_add(u32::from(tcp.flags & flags::SYN != 0)),
                data: packet.payload,
                missing: packet.l4_len.saturating_sub(packet.payload.len() as u32),
                ts_ns: packet.ts_ns,
            };
            this.order.push(segment, self.limits, self.kept, |piece| {
                hand_on(self.engine, stream, &context, side, isn, piece, counts, self.sink);
            });
        }
        if entry.stream.is_off() {
            for side in &mut entry.tcp.sides {
                side.order.discard(self.kept);
            }
        }
    }

    fn close(&mut self, entry: &mut Entry, m: &mut FlowMetrics) {
        if entry.stream.is_off() {
            return;
        }
        let context = entry.context();
        for side in [Side::A, Side::B] {
            let this = &mut entry.tcp.sides[side as usize];
            let (isn, stream) = (this.isn, &mut entry.stream);
            this.order.finish(self.kept, |piece| {
                hand_on(self.engine, stream, &context, side, isn, piece, &mut m.l7, self.sink);
            });
        }
        self.engine.close(&mut entry.stream, &context, &mut m.l7, self.sink);
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a flow and of the worker, borrowed apart")]
fn hand_on(
    engine: &mut Engine,
    stream: &mut wirespan_l7::Stream,
    context: &wirespan_l7::FlowContext,
    side: Side,
    isn: Option<u32>,
    piece: Piece<'_>,
    counts: &mut L7Counts,
    sink: &mut dyn RecordSink,
) {
    match piece {
        Piece::Data { data, ts_ns, seq } => {
            let stream_start = isn.is_some_and(|isn| seq == isn.wrapping_add(1));
            let chunk = Chunk { data, ts_ns, seq: Some(seq), stream_start };
            engine.data(stream, context, side, chunk, counts, sink);
        }
        Piece::Gap(missing) => engine.gap(stream, context, side, u64::from(missing), counts, sink),
    }
}

#[cfg(test)]
pub(crate) mod tests;

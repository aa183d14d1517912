//! What becomes of a packet; how flows begin, are looked at and end.
//!
//! - `shunted`: what is different where the source keeps frames back

mod shunted;

use super::clock::Clock;
use super::close::{self, Leaves};
use super::entry::{Entry, Facts};
use super::eviction::Eviction;
use super::index::{Flows, Index};
use super::key::FlowKey;
use super::parts::{ExtraOf, Parts};
use super::payload::L7;
use super::reassembly::Limits;
use super::seconds::Seconds;
use super::shunt::Shunts;
use super::slab::{NONE, Slab};
use super::timers::{Link, Links, TimerWheel};
use super::{FlowConfig, FlowMemory, FlowStats, RecordSink, ShedPayload, Shedding, ShuntPolicy};
use crate::packet::{Packet, flags};
use crate::pending::Pending;
use crate::tap::Counted;
use std::ops::Range;
use wirespan_frame::{Mark, Shunt};
use wirespan_l7::{Engine, Side};
use wirespan_records::{CloseType, DropReason, Drops, L4Protocol, L7Counts};

/// The flows of one worker.
pub struct FlowTable {
    config: FlowConfig,
    limits: Limits,
    hasher: foldhash::fast::RandomState,
    index: Index,
    flows: Slab<Entry>,
    parts: Parts,
    wheel: TimerWheel,
    clock: Clock,
    engine: Engine,
    seconds: Seconds,
    eviction: Eviction,
    shedding: Shedding,
    shunts: Option<Shunts>,
    reassembly_bytes: usize,
    next_id: u64,
    /// Keys of the packets of a batch.
    keyed: Vec<Keyed>,
    refused: Drops,
    stats: FlowStats,
}

/// Packets that are worked on together: while they are, the flows of the next group and the index's lines of the one after
/// it are on their way from memory.
const GROUP: usize = 12;

/// Of `len` packets, the group that is `behind` groups before the one that begins at `at`.
#[inline(always)]
fn group(at: usize, behind: usize, len: usize) -> Range<usize> {
    match at.checked_sub(behind * GROUP) {
        Some(start) => start.min(len)..(start + GROUP).min(len),
        None => 0..0,
    }
}

/// What a packet's flow is found by, and the side that sent it.
struct Keyed {
    key: FlowKey,
    side: Side,
    hash: u64,
    /// The flow that it most likely is.
    candidate: u32,
}

/// Flows as the index sees them.
struct Hashed<'a> {
    flows: &'a Slab<Entry>,
    hasher: &'a foldhash::fast::RandomState,
}

impl Flows for Hashed<'_> {
    fn hash_of(&self, number: u32) -> u64 {
        self.flows[number].key.hash(self.hasher)
    }

    fn prefetch(&self, number: u32) {
        self.flows[number].prefetch(false);
    }
}

impl Links for Slab<Entry> {
    #[inline]
    fn link(&mut self, flow: u32) -> &mut Link {
        &mut self[flow].link
    }
}

impl FlowTable {
    /// An empty table that lets `engine` have the payload.
    pub fn new(config: FlowConfig, engine: Engine) -> Self {
        let next_id = u64::from(config.worker) << 48;
        Self {
            config,
            limits: Limits::default(),
            hasher: foldhash::fast::RandomState::default(),
            index: Index::new(),
            flows: Slab::new(),
            parts: Parts::new(),
            wheel: TimerWheel::new(),
            clock: Clock::default(),
            engine,
            seconds: Seconds::new(),
            eviction: Eviction::default(),
            shedding: Shedding::default(),
            shunts: None,
            reassembly_bytes: 0,
            next_id,
            keyed: Vec::new(),
            refused: Drops::default(),
            stats: FlowStats::default(),
        }
    }

    /// What was counted.
    pub fn stats(&self) -> FlowStats {
        let memory = FlowMemory {
            flows: self.flows.bytes() as u64,
            index: self.index.bytes() as u64,
            timers: (self.wheel.bytes() + self.seconds.bytes()) as u64,
            parts: self.parts.bytes() as u64,
            reassembly: self.reassembly_bytes as u64,
        };
        let shunt = self.shunts.as_ref().map(Shunts::stats).unwrap_or_default();
        FlowStats { live: self.flows.len() as u64, memory, shunt, ..self.stats }
    }

    /// Packets that were given in and are part of no flow, by reason.
    pub fn refused(&self) -> &Drops {
        &self.refused
    }

    /// What the L7 engine counted.
    pub fn l7_stats(&self) -> wirespan_l7::engine::Stats {
        self.engine.stats()
    }

    /// Bytes kept because they came early.
    #[cfg(test)]
    pub(super) fn reassembly_bytes(&self) -> usize {
        self.reassembly_bytes
    }

    /// From now on leaves out so much.
    pub fn shed(&mut self, shedding: Shedding) {
        self.shedding = shedding;
    }

    /// From now on asks `source` to keep back the frames of flows as `policy` says.
    pub(crate) fn set_shunt(&mut self, source: Box<dyn Shunt>, policy: ShuntPolicy, counted: Counted) {
        self.shunts = Some(Shunts::new(source, policy, counted));
    }

    /// Time goes on to `ts_ns`: flows end, seconds are reported.
    #[inline]
    pub fn advance(&mut self, ts_ns: u64, sink: &mut dyn RecordSink) {
        self.clock.observe(ts_ns);
        let second = (ts_ns / 1_000_000_000) as u32;
        if self.config.ticks && self.seconds.is_over(second) {
            self.end_second(second, sink);
        }
        if self.wheel.turns_at_ms() <= self.clock.now_ms() {
            self.turn_wheel(sink);
        }
    }

    #[inline(never)]
    fn turn_wheel(&mut self, sink: &mut dyn RecordSink) {
        while let Some(number) = self.wheel.due(self.clock.now_ms(), &mut self.flows) {
            self.look_at(number, sink);
        }
    }

    /// Takes packets in the order they came, and the times that pass between them.
    pub fn packets(&mut self, packets: &[Packet<'_>], marks: &[Mark], sink: &mut dyn RecordSink) {
        let mut pending = Pending::new(marks);
        let mut keyed = std::mem::take(&mut self.keyed);
        keyed.clear();
        let len = packets.len();
        for at in (0..len + 2 * GROUP).step_by(GROUP) {
            keyed.extend(packets[group(at, 0, len)].iter().map(|packet| self.key(packet)));
            keyed[group(at, 1, len)].iter_mut().for_each(|keyed| self.look_up(keyed));
            let taken = group(at, 2, len);
            let at = taken.start;
            for (index, (packet, keyed)) in packets[taken.clone()].iter().zip(&keyed[taken]).enumerate() {
                while let Some(mark) = pending.due(at + index) {
                    self.advance(mark.ns, sink);
                }
                self.take(packet, keyed, sink);
            }
        }
        while let Some(mark) = pending.due(usize::MAX) {
            self.advance(mark.ns, sink);
        }
        self.keyed = keyed;
    }

    /// The first step of a packet: asks for its place in the index.
    #[inline(always)]
    fn key(&self, packet: &Packet<'_>) -> Keyed {
        let (key, side) = FlowKey::of(packet, self.config.scope);
        let hash = key.hash(&self.hasher);
        self.index.prefetch(hash);
        Keyed { key, side, hash, candidate: NONE }
    }

    /// The second step: asks for its flow.
    #[inline(always)]
    fn look_up(&self, keyed: &mut Keyed) {
        if let Some(number) = self.index.candidate(keyed.hash) {
            let more_than_metrics = self.config.l7 || self.config.ticks;
            self.flows[number].prefetch(more_than_metrics);
            keyed.candidate = number;
        }
    }

    /// The number of a flow that is there.
    #[inline(always)]
    fn find(&self, keyed: &Keyed) -> Option<u32> {
        let is_it = |number: u32| {
            let entry = &self.flows[number];
            entry.key == keyed.key && entry.is_live()
        };
        if keyed.candidate != NONE && is_it(keyed.candidate) {
            return Some(keyed.candidate);
        }
        self.index.find(keyed.hash, is_it)
    }

    /// Takes one packet.
    pub fn packet(&mut self, packet: &Packet<'_>, sink: &mut dyn RecordSink) {
        self.packets(std::slice::from_ref(packet), &[], sink);
    }

    /// The end of the input: every flow is handed on as it is.
    pub fn finish(&mut self, sink: &mut dyn RecordSink) {
        self.end_second(self.seconds.second(), sink);
        for number in 0..self.flows.places() {
            if self.flows[number].is_live() {
                self.remove(number, Leaves::StillAlive, sink);
            }
        }
    }

    fn end_second(&mut self, next: u32, sink: &mut dyn RecordSink) {
        for number in self.shunts.as_ref().map(Shunts::flows).unwrap_or_default() {
            self.read_shunt(number);
        }
        self.seconds.end(next, &mut self.flows, &mut self.parts, sink);
    }

    #[inline]
    fn take(&mut self, packet: &Packet<'_>, keyed: &Keyed, sink: &mut dyn RecordSink) {
        self.advance(packet.ts_ns, sink);
        let number = match self.find(keyed) {
            Some(number) if !self.begins_anew(number, packet, keyed.side) => Ok(number),
            Some(number) => {
                self.wake(number);
                self.remove(number, Leaves::Over, sink);
                self.insert(packet, keyed, sink)
            }
            None => self.insert(packet, keyed, sink),
        };
        match number {
            Ok(number) if self.shunts.is_some() => self.update_with_shunt(number, packet, keyed.side, sink),
            Ok(number) => self.update(number, packet, keyed.side, sink),
            Err(reason) => self.refused.count(reason),
        }
    }

    #[inline]
    fn begins_anew(&self, number: u32, packet: &Packet<'_>, side: Side) -> bool {
        packet.l4 == L4Protocol::Tcp
            && packet.tcp.flags & flags::SYN != 0
            && self.flows[number].tcp.is_new_connection(packet, side)
    }

    #[inline(never)]
    fn insert(
        &mut self,
        packet: &Packet<'_>,
        keyed: &Keyed,
        sink: &mut dyn RecordSink,
    ) -> Result<u32, DropReason> {
        // The middle bits: the index uses those at the ends, and sampled flows should not share its segments.
        if let Some(n) = self.shedding.new_flows_one_in
            && (u64::from((keyed.hash >> 12) as u16) * u64::from(n)) >> 16 != 0
        {
            return Err(DropReason::SampledOut);
        }
        if self.flows.len() >= self.config.max_flows {
            self.evict(sink);
        }
        if self.flows.len() >= self.config.max_flows {
            return Err(DropReason::TableFull);
        }
        let number = self.flows.take();
        let hashed = Hashed { flows: &self.flows, hasher: &self.hasher };
        if !self.index.insert(keyed.hash, number, &hashed) {
            self.flows.release(number);
            return Err(DropReason::TableFull);
        }
        self.next_id += 1;
        self.stats.flows += 1;
        let now_ms = self.clock.now_ms();
        let entry = &mut self.flows[number];
        entry.begin(keyed.key, self.next_id, packet, keyed.side, &self.config);
        entry.next_report_ms = (now_ms + self.config.report_interval_ms.unwrap_or_default()) as u32;
        if packet.tunnel.is_some() {
            let Parts { extras, .. } = &mut self.parts;
            ExtraOf { place: &mut entry.extra, extras, side: keyed.side }.get_or_take().tunnel =
                packet.tunnel;
        }
        let deadline_ms = now_ms + entry.timeout_ms(&self.config.timeouts);
        self.wheel.schedule(number, deadline_ms, &mut self.flows);
        Ok(number)
    }

    #[inline]
    fn update(&mut self, number: u32, packet: &Packet<'_>, side: Side, sink: &mut dyn RecordSink) {
        let now_ms = self.clock.now_ms();
        let entry = &mut self.flows[number];
        let phase = entry.tcp.phase;
        if self.config.ticks {
            self.seconds.activate(number, entry, &mut self.parts);
        }
        if entry.learn_from_handshake(packet, side) {
            forget_responses(&mut self.seconds, entry, &mut self.parts);
        }
        entry.packet(packet, side, now_ms, &mut self.parts);
        let (changed, parsed) = (entry.tcp.phase != phase, !entry.facts.has(Facts::UNPARSED));
        if changed {
            self.shorten(number, phase);
        }
        if parsed {
            self.payload(number, packet, side, sink);
        }
        if self.config.report_interval_ms.is_some() && self.flows[number].is_report_due(now_ms) {
            self.report(number, sink);
        }
    }

    /// A flow that came from `phase` into one with a shorter time-out is looked at the earlier.
    #[inline(never)]
    fn shorten(&mut self, number: u32, phase: super::tcp::Phase) {
        let entry = &self.flows[number];
        let timeouts = &self.config.timeouts;
        if super::entry::phase_timeout_ms(entry.tcp.phase, timeouts)
            < super::entry::phase_timeout_ms(phase, timeouts)
        {
            let deadline_ms = self.clock.now_ms() + entry.timeout_ms(timeouts);
            self.wheel.schedule(number, deadline_ms, &mut self.flows);
        }
    }

    /// Lets L7 have the payload of a packet, unless it is shed.
    #[inline(never)]
    fn payload(&mut self, number: u32, packet: &Packet<'_>, side: Side, sink: &mut dyn RecordSink) {
        let Self { flows, parts, engine, limits, reassembly_bytes, .. } = self;
        let entry = &mut flows[number];
        let sheds = match self.shedding.payload {
            ShedPayload::None => false,
            ShedPayload::Unknown => entry.protocol.is_none(),
            ShedPayload::All => true,
        };
        if sheds {
            self.stats.payload_shed += u64::from(!packet.payload.is_empty());
            return;
        }
        let mut l7 = L7 { engine, limits, kept: reassembly_bytes, parts, sink };
        let deadline_ns = l7.packet(entry, packet, side);
        let client = match entry.payload {
            NONE => None,
            payload => self.parts.payloads[payload].stream.client(),
        };
        if client.is_some_and(|client| entry.learn_from_l7(client)) {
            forget_responses(&mut self.seconds, entry, &mut self.parts);
        }
        if let Some(deadline_ns) = deadline_ns {
            self.schedule(number, Some(deadline_ns));
        }
    }

    /// Queues a flow for its time-out, or for that of its requests, whichever is earlier.
    fn schedule(&mut self, number: u32, request_deadline_ns: Option<u64>) {
        let now_ms = self.clock.now_ms();
        let entry = &self.flows[number];
        let timeout_ms = entry.timeout_ms(&self.config.timeouts);
        let mut wait_ms = timeout_ms.saturating_sub(entry.quiet_ms(now_ms));
        if let Some(deadline_ns) = request_deadline_ns {
            let request_ms = deadline_ns.saturating_sub(self.clock.packet_ns()).div_ceil(1_000_000);
            wait_ms = wait_ms.min(request_ms);
        }
        if let Some(interval) = self.config.report_interval_ms
            && entry.facts.has(Facts::SHUNTED)
        {
            wait_ms = wait_ms.min(interval);
        }
        self.wheel.schedule(number, now_ms + wait_ms, &mut self.flows);
    }

    /// The flow goes on, but a record of it is due.
    #[inline(never)]
    fn report(&mut self, number: u32, sink: &mut dyn RecordSink) {
        let entry = &mut self.flows[number];
        self.seconds.end_of_flow(entry, None, &mut self.parts, sink);
        let interval = self.config.report_interval_ms.unwrap_or_default();
        entry.next_report_ms = (self.clock.now_ms() + interval) as u32;
        let mut metrics = std::mem::take(&mut entry.counts).take_metrics(&mut self.parts.wide);
        if entry.payload != NONE {
            metrics.l7 = std::mem::take(&mut self.parts.payloads[entry.payload].counts);
        }
        sink.flow(entry.report(metrics, CloseType::ForcedReport, &self.parts));
    }

    /// A flow's timer came up.
    fn look_at(&mut self, number: u32, sink: &mut dyn RecordSink) {
        let now_ms = self.clock.now_ms();
        if self.flows[number].facts.has(Facts::SHUNTED) {
            self.read_shunt(number);
            if self.config.report_interval_ms.is_some() && self.flows[number].is_report_due(now_ms) {
                self.report(number, sink);
            }
        }
        let entry = &mut self.flows[number];
        if entry.quiet_ms(now_ms) >= entry.timeout_ms(&self.config.timeouts) {
            self.remove(number, Leaves::Over, sink);
            return;
        }
        let mut deadline_ns = None;
        if entry.payload != NONE && self.parts.payloads[entry.payload].timed_ns.is_some() {
            let now_ns = self.clock.packet_ns();
            if self.config.ticks {
                self.seconds.activate(number, entry, &mut self.parts);
            }
            let Self { parts, engine, limits, reassembly_bytes, .. } = self;
            deadline_ns = L7 { engine, limits, kept: reassembly_bytes, parts, sink }.sweep(entry, now_ns);
        }
        self.schedule(number, deadline_ns);
    }

    #[inline(never)]
    fn remove(&mut self, number: u32, leaves: Leaves, sink: &mut dyn RecordSink) {
        self.end_shunt(number, false);
        self.wheel.cancel(number, &mut self.flows);
        let Self { flows, index, parts, engine, limits, reassembly_bytes, seconds, .. } = self;
        let entry = &mut flows[number];
        index.remove(entry.key.hash(&self.hasher), number);
        if self.config.ticks {
            seconds.activate(number, entry, parts);
        }
        L7 { engine, limits, kept: reassembly_bytes, parts, sink }.close(entry);
        let mut requests = seconds.requests_before(entry);
        if entry.payload != NONE {
            requests.merge(&parts.payloads[entry.payload].counts);
        }
        let close_type = close_type(entry, &requests, leaves);
        let closed = (leaves != Leaves::StillAlive).then_some(close_type);
        seconds.end_of_flow(entry, closed, parts, sink);
        let mut metrics = std::mem::take(&mut entry.counts).take_metrics(&mut parts.wide);
        metrics.l7 = requests;
        sink.flow(entry.report(metrics, close_type, parts));
        if entry.payload != NONE {
            parts.payloads.release(entry.payload);
        }
        if entry.extra != NONE {
            parts.extras.release(entry.extra);
        }
        flows.release(number);
    }

    /// Makes room: a flow that would be missed little leaves.
    fn evict(&mut self, sink: &mut dyn RecordSink) {
        if let Some(number) = self.eviction.choose(&self.flows, self.clock.now_ms()) {
            self.stats.evicted += 1;
            self.remove(number, Leaves::Evicted, sink);
        }
    }
}

/// Client and server turn out to be the other way round.
#[cold]
fn forget_responses(seconds: &mut Seconds, entry: &mut Entry, parts: &mut Parts) {
    entry.counts.forget_responses(&mut parts.wide);
    seconds.forget_responses(entry, parts);
}

fn close_type(entry: &Entry, requests: &L7Counts, leaves: Leaves) -> CloseType {
    match entry.key.l4() {
        L4Protocol::Tcp => close::tcp_close_type(&entry.tcp, entry.client, requests, leaves),
        _ => close::datagram_close_type(leaves),
    }
}

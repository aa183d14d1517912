//! One flow as the table keeps it: four cache lines, of which an ordinary packet needs two, and parts that only some flows
//! have.

use super::FlowConfig;
use super::counts::{Counts, Event, Response, by_direction};
use super::key::FlowKey;
use super::parts::{ExtraOf, Parts};
use super::role::{self, Certainty};
use super::sequence::Keeper;
use super::shunt::Now;
use super::slab::{NONE, Recycled};
use super::tcp::{Phase, Tcp};
use super::timers::Link;
use crate::packet::{Packet, flags};
use std::mem::offset_of;
use wirespan_frame::{ShuntCounters, prefetch};
use wirespan_l7::{FlowContext, Side};
use wirespan_records::{
    CloseType, Flow, FlowMetrics, FlowTick, L4Protocol, L7Protocol, ObservationPoint, PerDirection, Signal,
};

/// How long a flow of each kind lives without a packet, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// SYN or SYN-ACK seen, handshake not complete; longer than the pause between the first SYN retransmissions.
    pub opening_ms: u64,
    /// Established connections.
    pub established_ms: u64,
    /// One side sent FIN.
    pub closing_ms: u64,
    /// Both sides sent FIN, or one RST.
    pub closed_ms: u64,
    /// Only one direction was seen, no handshake.
    pub one_sided_ms: u64,
    /// UDP and everything else that is not TCP.
    pub datagram_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            opening_ms: 20_000,
            established_ms: 300_000,
            closing_ms: 35_000,
            closed_ms: 2_000,
            one_sided_ms: 60_000,
            datagram_ms: 60_000,
        }
    }
}

/// No VLAN tag.
const NO_VLAN: u16 = u16::MAX;

/// Facts of one bit each.
#[derive(Clone, Copy, Default)]
pub(super) struct Facts(u8);

impl Facts {
    /// No record of the flow was handed on.
    pub(super) const NEW: u8 = 1;
    /// No second of the flow was handed on.
    pub(super) const NEW_SECOND: u8 = 2;
    /// Side A is an address of this host.
    const LOCAL_A: u8 = 4;
    const LOCAL_B: u8 = 8;
    /// Its payload is not looked at any more.
    pub(super) const UNPARSED: u8 = 16;
    /// Its source keeps its frames back and counts them.
    pub(super) const SHUNTED: u8 = 32;
    /// Its source is not to be asked to: it would not, or delivers the headers alone.
    pub(super) const NOT_SHUNTED: u8 = 64;
    /// There is a flow in this place.
    const LIVE: u8 = 128;

    #[inline]
    pub(super) fn has(self, fact: u8) -> bool {
        self.0 & fact != 0
    }

    #[inline]
    pub(super) fn set(&mut self, fact: u8) {
        self.0 |= fact;
    }

    /// Is it so? It is not any more.
    pub(super) fn take(&mut self, fact: u8) -> bool {
        let had = self.has(fact);
        self.0 &= !fact;
        had
    }
}

/// One flow, line by line.
#[repr(C, align(64))]
pub(super) struct Entry {
    // For every packet.
    pub key: FlowKey,
    /// TCP flags of each side.
    flags: [u8; 2],
    end_ns: u64,
    /// Time without jumps of the last packet, in milliseconds modulo 2^32.
    last_ms: u32,
    pub client: Side,
    pub certainty: Certainty,
    pub protocol: Option<L7Protocol>,
    pub facts: Facts,

    // For timers, reports and payload.
    /// 0 in places that are free.
    pub flow_id: u64,
    start_ns: u64,
    /// As `last_ms`: when the next report is due.
    pub next_report_ms: u32,
    /// Place in the list of flows active in the current second.
    pub active: u32,
    /// Place of a part that only some flows have, as is `extra`.
    pub payload: u32,
    pub link: Link,
    vlan: u16,

    // The end of one and the start of the other are for every packet, and one line.
    pub tcp: Tcp,
    pub counts: Counts,
    pub extra: u32,
}

const _: () = assert!(size_of::<Entry>() == 256 && offset_of!(Entry, tcp) + Tcp::HOT == 128);

impl Default for Entry {
    fn default() -> Self {
        Self {
            key: FlowKey::default(),
            flags: [0; 2],
            end_ns: 0,
            last_ms: 0,
            client: Side::A,
            certainty: Certainty::FirstPacket,
            protocol: None,
            facts: Facts::default(),
            flow_id: 0,
            start_ns: 0,
            next_report_ms: 0,
            active: NONE,
            payload: NONE,
            link: Link::default(),
            vlan: NO_VLAN,
            tcp: Tcp::default(),
            counts: Counts::default(),
            extra: NONE,
        }
    }
}

impl Recycled for Entry {
    fn next_free(&mut self) -> &mut u32 {
        &mut self.active
    }

    fn recycle(&mut self) {
        self.flow_id = 0;
        self.facts = Facts::default();
    }
}

impl Entry {
    /// Begins a flow with its first packet.
    pub(super) fn begin(
        &mut self,
        key: FlowKey,
        flow_id: u64,
        packet: &Packet<'_>,
        side: Side,
        config: &FlowConfig,
    ) {
        let (client, certainty) = role::guess(packet, side);
        let mut facts = Facts(Facts::LIVE | Facts::NEW | Facts::NEW_SECOND);
        if !config.local_addresses.is_empty() {
            let [a, b] = key.endpoints().map(|end| config.local_addresses.binary_search(&end.ip).is_ok());
            facts.0 |= if a { Facts::LOCAL_A } else { 0 } | if b { Facts::LOCAL_B } else { 0 };
        }
        if !config.l7 {
            facts.set(Facts::UNPARSED);
        }
        *self = Self {
            key,
            flow_id,
            client,
            certainty,
            facts,
            vlan: packet.vlan.unwrap_or(NO_VLAN),
            start_ns: packet.ts_ns,
            end_ns: packet.ts_ns,
            ..Self::default()
        };
    }

    /// There is a flow in this place.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.facts.has(Facts::LIVE)
    }

    /// Asks for the lines that an ordinary packet needs; all but the seldom used when more than metrics is wanted.
    #[inline]
    pub(super) fn prefetch(&self, more_than_metrics: bool) {
        prefetch(self);
        prefetch(&self.tcp.phase);
        if more_than_metrics {
            prefetch(&self.flow_id);
        }
    }

    /// Counts a packet of `side` and follows the connection.
    #[inline]
    pub(super) fn packet(&mut self, packet: &Packet<'_>, side: Side, now_ms: u64, parts: &mut Parts) {
        self.last_ms = now_ms as u32;
        self.end_ns = self.end_ns.max(packet.ts_ns);
        self.counts.make_room(&mut parts.wide);
        self.counts.packet(packet, side);
        if packet.l4 == L4Protocol::Tcp {
            self.flags[side as usize] |= packet.tcp.flags;
            if self.facts.has(Facts::SHUNTED) {
                // On its way since before its flow was shunted; its place among those that were counted is not known.
                if packet.tcp.window == 0 {
                    self.counts.event(Event::ZeroWindow(side));
                }
                let next = packet.tcp.seq.wrapping_add(packet.l4_wire);
                self.tcp.passed_by(side, Some(next), packet.l4_len > 0);
                return;
            }
            let mut extra = ExtraOf { place: &mut self.extra, extras: &mut parts.extras, side };
            self.tcp.segment(packet, side, self.client, &mut self.counts, &mut extra);
            if packet.l4_len == 0 && self.tcp.has_holes(side.other()) {
                let holes = ExtraOf { place: &mut self.extra, extras: &mut parts.extras, side: side.other() };
                self.tcp.acknowledged(packet, side, { holes }.holes());
            }
        } else {
            // The kernel itself answers an echo, an application anything else.
            let which = if packet.l4 == L4Protocol::Udp { Response::Application } else { Response::System };
            self.tcp.datagram(packet.ts_ns, side == self.client, which, &mut self.counts);
        }
    }

    /// A SYN tells who the client is. True when it is the other side than was thought.
    #[inline]
    pub(super) fn learn_from_handshake(&mut self, packet: &Packet<'_>, side: Side) -> bool {
        if self.certainty == Certainty::Handshake || packet.tcp.flags & flags::SYN == 0 {
            return false;
        }
        self.set_client(role::guess(packet, side).0, Certainty::Handshake)
    }

    /// What is spoken tells who the client is. True when it is the other side than was thought.
    pub(super) fn learn_from_l7(&mut self, client: Side) -> bool {
        self.certainty < Certainty::L7 && self.set_client(client, Certainty::L7)
    }

    fn set_client(&mut self, client: Side, certainty: Certainty) -> bool {
        self.certainty = certainty;
        let changed = client != self.client;
        if changed {
            self.client = client;
            self.tcp.forget_requests();
        }
        changed
    }

    /// Takes note of packets of `side` that its source counted and kept back.
    pub(super) fn passed_by(&mut self, side: Side, counted: &ShuntCounters, now: Now, parts: &mut Parts) {
        self.flags[side as usize] |= counted.tcp_flags;
        self.end_ns = self.end_ns.max(counted.last_ns);
        let age_ms = now.packet_ns.saturating_sub(counted.last_ns) / 1_000_000;
        if age_ms < self.quiet_ms(now.ms) {
            self.last_ms = now.ms.saturating_sub(age_ms) as u32;
        }
        if self.key.l4() == L4Protocol::Tcp {
            let next = (counted.tcp_flags != 0).then_some(counted.next_seq);
            self.tcp.passed_by(side, next, counted.l4_bytes > 0);
            if let Some(holes) = (ExtraOf { place: &mut self.extra, extras: &mut parts.extras, side }).holes()
            {
                holes.clear();
            }
        }
    }

    /// Milliseconds since the last packet.
    #[inline]
    pub(super) fn quiet_ms(&self, now_ms: u64) -> u64 {
        (now_ms as u32).wrapping_sub(self.last_ms).into()
    }

    /// A report was due at or before `now_ms`.
    #[inline]
    pub(super) fn is_report_due(&self, now_ms: u64) -> bool {
        (now_ms as u32).wrapping_sub(self.next_report_ms) < 1 << 31
    }

    pub(super) fn timeout_ms(&self, timeouts: &Timeouts) -> u64 {
        if self.key.l4() != L4Protocol::Tcp {
            return timeouts.datagram_ms;
        }
        phase_timeout_ms(self.tcp.phase, timeouts)
    }

    /// It would be missed when it left: a connection, or something that is understood.
    pub(super) fn is_established(&self) -> bool {
        match self.key.l4() {
            L4Protocol::Tcp => matches!(self.tcp.phase, Phase::Established | Phase::Closing),
            _ => self.protocol.is_some(),
        }
    }

    /// Its packets carry nothing but more of the same: no handshake, no end.
    pub(super) fn is_shuntable(&self) -> bool {
        self.key.l4() != L4Protocol::Tcp || matches!(self.tcp.phase, Phase::Established | Phase::OneSided)
    }

    fn observation_point(&self) -> ObservationPoint {
        let local = [self.facts.has(Facts::LOCAL_A), self.facts.has(Facts::LOCAL_B)];
        match (local[self.client as usize], local[self.client.other() as usize]) {
            (true, true) => ObservationPoint::Local,
            (true, false) => ObservationPoint::Client,
            (false, true) => ObservationPoint::Server,
            (false, false) => ObservationPoint::Rest,
        }
    }

    /// What the flow's spans have in common.
    pub(super) fn context(&self, parts: &Parts) -> FlowContext {
        FlowContext {
            flow_id: self.flow_id,
            endpoints: self.key.endpoints(),
            l4: self.key.l4(),
            tunnel: parts.tunnel(self.extra),
            tap: self.key.tap(),
            netns: 0,
            signal: Signal::Packet,
            observation_point: self.observation_point(),
            client: (self.certainty == Certainty::Handshake).then_some(self.client),
        }
    }

    /// The flow's record of what was counted, by side, since the last one.
    pub(super) fn report(&mut self, metrics: FlowMetrics, close_type: CloseType, parts: &Parts) -> Flow {
        let [a, b] = self.key.endpoints();
        let (client, server) = if self.client == Side::A { (a, b) } else { (b, a) };
        Flow {
            flow_id: self.flow_id,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            observation_point: self.observation_point(),
            client,
            server,
            protocol: self.key.l4(),
            tunnel: parts.tunnel(self.extra),
            tap: self.key.tap(),
            vlan: (self.vlan != NO_VLAN).then_some(self.vlan),
            tcp_flags: PerDirection {
                tx: self.flags[self.client as usize],
                rx: self.flags[self.client.other() as usize],
            },
            metrics: by_direction(metrics, self.client),
            close_type,
            is_new: self.facts.take(Facts::NEW),
            l7_protocol: self.protocol,
        }
    }

    /// The flow's record of one second.
    pub(super) fn tick(
        &mut self,
        second: u32,
        metrics: FlowMetrics,
        closed: Option<CloseType>,
        parts: &Parts,
    ) -> FlowTick {
        let [a, b] = self.key.endpoints();
        let (client, server) = if self.client == Side::A { (a, b) } else { (b, a) };
        FlowTick {
            second,
            observation_point: self.observation_point(),
            client,
            server,
            protocol: self.key.l4(),
            tunnel: parts.tunnel(self.extra),
            tap: self.key.tap(),
            metrics: by_direction(metrics, self.client),
            is_new: self.facts.take(Facts::NEW_SECOND),
            closed,
        }
    }
}

/// How long a connection lives without a packet.
pub(super) fn phase_timeout_ms(phase: Phase, timeouts: &Timeouts) -> u64 {
    match phase {
        Phase::OneSided => timeouts.one_sided_ms,
        Phase::SynSent | Phase::SynChallenged | Phase::SynReceived => timeouts.opening_ms,
        Phase::Established => timeouts.established_ms,
        Phase::Closing => timeouts.closing_ms,
        Phase::Closed | Phase::Reset => timeouts.closed_ms,
    }
}

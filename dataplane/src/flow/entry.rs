//! One flow as the table keeps it.

use super::FlowConfig;
use super::key::FlowKey;
use super::role::{self, Certainty};
use super::tcp::{Phase, Tcp, of};
use crate::packet::{Packet, flags};
use wirespan_l7::{FlowContext, Side, Stream};
use wirespan_records::{
    CloseType, Flow, FlowMetrics, FlowTick, L4Protocol, Latency, ObservationPoint, PerDirection, Signal,
    Tunnel,
};

/// No slot in the list of flows that were active in the current second.
pub(super) const NOT_ACTIVE: u32 = u32::MAX;

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

/// One flow.
pub(super) struct Entry {
    pub key: FlowKey,
    pub hash: u64,
    pub flow_id: u64,
    pub client: Side,
    pub certainty: Certainty,
    pub stream: Stream,
    pub tcp: Tcp,
    /// Ticket of the timer wheel.
    pub ticket: u64,
    /// Time without jumps of the last packet, and of the next report.
    pub last_ms: u64,
    pub next_report_ms: u64,
    /// Place in the list of flows active in the current second.
    pub active: u32,
    start_ns: u64,
    end_ns: u64,
    /// Flags of each side.
    flags: [u8; 2],
    local: [bool; 2],
    vlan: Option<u16>,
    tunnel: Option<Box<Tunnel>>,
    is_new: bool,
    is_new_second: bool,
    /// UDP and ICMP: the last packet of the client, until the server sends one.
    request_ns: u64,
}

impl Entry {
    pub(super) fn new(
        key: FlowKey,
        hash: u64,
        flow_id: u64,
        packet: &Packet<'_>,
        side: Side,
        config: &FlowConfig,
    ) -> Self {
        let (client, certainty) = role::guess(packet, side);
        let is_local = |ip| config.local_addresses.binary_search(&ip).is_ok();
        let local = if config.local_addresses.is_empty() {
            [false; 2]
        } else {
            key.endpoints().map(|end| is_local(end.ip))
        };
        Self {
            key,
            hash,
            flow_id,
            client,
            certainty,
            stream: Stream::default(),
            tcp: Tcp::default(),
            ticket: 0,
            last_ms: 0,
            next_report_ms: u64::MAX,
            active: NOT_ACTIVE,
            start_ns: packet.ts_ns,
            end_ns: packet.ts_ns,
            flags: [0; 2],
            local,
            vlan: packet.vlan,
            tunnel: packet.tunnel.map(Box::new),
            is_new: true,
            is_new_second: true,
            request_ns: 0,
        }
    }

    /// Counts a packet of `side` and follows the connection.
    #[inline]
    pub(super) fn packet(&mut self, packet: &Packet<'_>, side: Side, now_ms: u64, m: &mut FlowMetrics) {
        self.last_ms = now_ms;
        self.end_ns = self.end_ns.max(packet.ts_ns);
        let from_client = side == self.client;
        *of(&mut m.packets, from_client) += 1;
        *of(&mut m.bytes, from_client) += u64::from(packet.wire_len);
        *of(&mut m.l3_bytes, from_client) += u64::from(packet.l3_len);
        *of(&mut m.l4_bytes, from_client) += u64::from(packet.l4_len);
        if packet.l4 == L4Protocol::Tcp {
            self.flags[side as usize] |= packet.tcp.flags;
            self.tcp.segment(packet, side, self.client, m);
        } else if from_client {
            self.request_ns = packet.ts_ns;
        } else if self.request_ns != 0 {
            let us = packet.ts_ns.saturating_sub(std::mem::take(&mut self.request_ns)) / 1000;
            // The kernel itself answers an echo, an application anything else.
            let latency: &mut Latency = if packet.l4 == L4Protocol::Udp { &mut m.art } else { &mut m.srt };
            latency.add(u32::try_from(us).unwrap_or(u32::MAX));
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
    #[inline]
    pub(super) fn learn_from_l7(&mut self) -> bool {
        match self.stream.client() {
            Some(client) if self.certainty < Certainty::L7 => self.set_client(client, Certainty::L7),
            _ => false,
        }
    }

    fn set_client(&mut self, client: Side, certainty: Certainty) -> bool {
        self.certainty = certainty;
        let changed = client != self.client;
        if changed {
            self.client = client;
            self.tcp.swap_roles();
            self.request_ns = 0;
        }
        changed
    }

    pub(super) fn timeout_ms(&self, timeouts: &Timeouts) -> u64 {
        if self.key.l4() != L4Protocol::Tcp {
            return timeouts.datagram_ms;
        }
        match self.tcp.phase {
            Phase::OneSided => timeouts.one_sided_ms,
            Phase::SynSent | Phase::SynChallenged | Phase::SynReceived => timeouts.opening_ms,
            Phase::Established => timeouts.established_ms,
            Phase::Closing => timeouts.closing_ms,
            Phase::Closed | Phase::Reset => timeouts.closed_ms,
        }
    }

    /// Would be missed least when the table is full: what never got established, then what is quiet for longest.
    pub(super) fn keep_rank(&self) -> (bool, u64) {
        let established = match self.key.l4() {
            L4Protocol::Tcp => matches!(self.tcp.phase, Phase::Established | Phase::Closing),
            _ => self.stream.protocol().is_some(),
        };
        (established, self.last_ms)
    }

    fn observation_point(&self) -> ObservationPoint {
        match (self.local[self.client as usize], self.local[self.client.other() as usize]) {
            (true, true) => ObservationPoint::Local,
            (true, false) => ObservationPoint::Client,
            (false, true) => ObservationPoint::Server,
            (false, false) => ObservationPoint::Rest,
        }
    }

    /// What the flow's spans have in common.
    pub(super) fn context(&self) -> FlowContext {
        FlowContext {
            flow_id: self.flow_id,
            endpoints: self.key.endpoints(),
            l4: self.key.l4(),
            tunnel: self.tunnel.as_deref().copied(),
            tap: self.key.tap(),
            signal: Signal::Packet,
            observation_point: self.observation_point(),
            client: (self.certainty == Certainty::Handshake).then_some(self.client),
        }
    }

    /// The flow's record of what was counted since the last one.
    pub(super) fn report(&mut self, metrics: FlowMetrics, close_type: CloseType) -> Flow {
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
            tunnel: self.tunnel.as_deref().copied(),
            tap: self.key.tap(),
            vlan: self.vlan,
            tcp_flags: PerDirection {
                tx: self.flags[self.client as usize],
                rx: self.flags[self.client.other() as usize],
            },
            metrics,
            close_type,
            is_new: std::mem::take(&mut self.is_new),
            l7_protocol: self.stream.protocol(),
        }
    }

    /// The flow's record of one second.
    pub(super) fn tick(&mut self, second: u32, metrics: FlowMetrics, closed: Option<CloseType>) -> FlowTick {
        let [a, b] = self.key.endpoints();
        let (client, server) = if self.client == Side::A { (a, b) } else { (b, a) };
        FlowTick {
            second,
            observation_point: self.observation_point(),
            client,
            server,
            protocol: self.key.l4(),
            tunnel: self.tunnel.as_deref().copied(),
            tap: self.key.tap(),
            metrics,
            is_new: std::mem::take(&mut self.is_new_second),
            closed,
        }
    }
}

//! What is remembered of a TCP connection, and how each segment changes it and the flow's metrics.
//!
//! Definitions of the metrics: ARCHITECTURE.md, "Metrics".

use super::reassembly::Reassembly;
use super::sequence::{SegmentKind, Sequence, before};
use crate::packet::{Packet, flags};
use wirespan_l7::Side;
use wirespan_records::{FlowMetrics, Latency, PerDirection};

/// Longest handshake and response times that are believed, as peers do, in microseconds.
const RTT_MAX_US: u64 = 30_000_000;
const ART_MAX_US: u64 = 30_000_000;
const SRT_MAX_US: u64 = 10_000_000;
/// See [`Times::round_trip_ns`].
const DEFAULT_ROUND_TRIP_NS: u64 = 3_000_000;

/// What one side of a connection did.
#[derive(Debug, Default)]
pub(crate) struct TcpSide {
    pub sequence: Sequence,
    pub order: Reassembly,
    /// Sequence number of the SYN or SYN-ACK.
    pub isn: Option<u32>,
    /// SYNs or SYN-ACKs sent.
    pub syns: u16,
    pub sent_fin: bool,
    pub sent_data: bool,
    pub sent_any: bool,
}

/// How far a connection got, by what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Only packets from the middle of a connection, in one direction.
    #[default]
    OneSided,
    /// A SYN, no answer.
    SynSent,
    /// A SYN was answered by an ACK that is not for it: the server still knows an older connection.
    SynChallenged,
    /// A SYN-ACK.
    SynReceived,
    /// The handshake was seen, or packets in both directions.
    Established,
    /// One side sent FIN.
    Closing,
    /// Both did.
    Closed,
    /// RST, by which side and in which phase.
    Reset,
}

/// A connection as far as it was seen.
#[derive(Debug, Default)]
pub(crate) struct Tcp {
    pub sides: [TcpSide; 2],
    pub phase: Phase,
    /// Who sent RST, and how far the connection was then.
    pub reset: Option<(Side, Phase)>,
    /// SYN-ACKs after the handshake.
    pub late_synacks: u16,
    times: Times,
}

/// Moments that latencies are measured from, ns since the epoch; 0 when there is none.
#[derive(Debug, Default)]
struct Times {
    syn: u64,
    synack: u64,
    handshake_done: bool,
    /// From the first SYN to the end of the handshake.
    round_trip_ns: u64,
    /// The last client data, until the server sends data.
    request: u64,
    /// The last client data and its end, until the server acknowledges it without data.
    unacked: Option<(u64, u32)>,
    /// The last server packet (or the end of the handshake), until the client sends data.
    idle_since: u64,
}

impl Times {
    /// By the handshake; while that is not known, longer than packets overtake each other in a data centre.
    fn round_trip_ns(&self) -> u64 {
        if self.round_trip_ns == 0 { DEFAULT_ROUND_TRIP_NS } else { self.round_trip_ns }
    }

    fn sample(latency: &mut Latency, from: u64, to: u64, max_us: u64) {
        if from != 0 && to >= from && (to - from) / 1000 <= max_us {
            latency.add(((to - from) / 1000) as u32);
        }
    }
}

/// The field of a direction-pair that counts packets of `side`.
pub(crate) fn of<T>(pair: &mut PerDirection<T>, from_client: bool) -> &mut T {
    if from_client { &mut pair.tx } else { &mut pair.rx }
}

impl Tcp {
    /// The segment starts another connection on the same ports: a SYN with a sequence number of its own.
    pub(crate) fn is_new_connection(&self, packet: &Packet<'_>, side: Side) -> bool {
        let tcp = &packet.tcp;
        tcp.flags & (flags::SYN | flags::ACK | flags::RST) == flags::SYN
            && self.sides[side as usize].isn != Some(tcp.seq)
            && (self.phase != Phase::OneSided || self.sides[side as usize].sent_any)
    }

    /// Takes note of a segment of `side`.
    pub(crate) fn segment(&mut self, packet: &Packet<'_>, side: Side, client: Side, m: &mut FlowMetrics) {
        let tcp = &packet.tcp;
        let from_client = side == client;
        let (syn, fin, rst) =
            (tcp.flags & flags::SYN != 0, tcp.flags & flags::FIN != 0, tcp.flags & flags::RST != 0);
        let ack = tcp.flags & flags::ACK != 0;
        if syn {
            self.synchronise(packet, side, ack, m);
        }
        if !rst {
            self.count_sequence(packet, side, from_client, m);
            if tcp.window == 0 && !syn && !fin && self.phase != Phase::SynSent {
                *of(&mut m.zero_win, from_client) += 1;
            }
        }
        if fin {
            m.fin_count += 1;
        }
        if !syn && ack {
            self.complete_handshake(packet, side, m);
        }
        self.measure(packet, from_client, syn || rst, m);
        self.advance(packet, side);
        let this = &mut self.sides[side as usize];
        this.sent_any = true;
        this.sent_data |= packet.l4_len > 0;
        this.sent_fin |= fin;
    }

    fn synchronise(&mut self, packet: &Packet<'_>, side: Side, ack: bool, m: &mut FlowMetrics) {
        let this = &mut self.sides[side as usize];
        let repeated = this.isn == Some(packet.tcp.seq);
        if this.isn.is_none() {
            this.isn = Some(packet.tcp.seq);
        }
        this.order.start(packet.tcp.seq.wrapping_add(1));
        this.syns = this.syns.saturating_add(1);
        if ack {
            m.synack_count += 1;
            m.retrans_synack += u32::from(repeated);
            if self.times.handshake_done {
                self.late_synacks = self.late_synacks.saturating_add(1);
            }
            if self.times.synack == 0 {
                self.times.synack = packet.ts_ns;
                Times::sample(&mut m.rtt_server, self.times.syn, packet.ts_ns, RTT_MAX_US);
            }
        } else {
            m.syn_count += 1;
            m.retrans_syn += u32::from(repeated);
            if self.times.syn == 0 {
                self.times.syn = packet.ts_ns;
            }
        }
    }

    fn count_sequence(&mut self, packet: &Packet<'_>, side: Side, from_client: bool, m: &mut FlowMetrics) {
        let tcp = &packet.tcp;
        let phantom = u32::from(tcp.flags & flags::SYN != 0) + u32::from(tcp.flags & flags::FIN != 0);
        let len = packet.l4_wire + phantom;
        let sequence = &mut self.sides[side as usize].sequence;
        if len == 0 {
            // A pure ACK carries nothing that could be repeated, but it shows where its sender is.
            if sequence.next().is_none() {
                sequence.observe(tcp.seq, 0, packet.ts_ns, 0);
            }
            return;
        }
        // A keep-alive repeats the last byte on purpose, RFC 9293 section 3.8.4.
        if packet.l4_wire <= 1 && phantom == 0 && sequence.next() == Some(tcp.seq.wrapping_add(1)) {
            return;
        }
        match sequence.observe(tcp.seq, len, packet.ts_ns, self.times.round_trip_ns()) {
            SegmentKind::Retransmission => *of(&mut m.retrans, from_client) += 1,
            SegmentKind::OutOfOrder => *of(&mut m.ooo, from_client) += 1,
            SegmentKind::InOrder | SegmentKind::Ahead => {}
        }
    }

    /// The client's first ACK of the SYN-ACK ends the handshake.
    fn complete_handshake(&mut self, packet: &Packet<'_>, side: Side, m: &mut FlowMetrics) {
        let answered = self.sides[side.other() as usize].isn;
        if self.times.handshake_done
            || self.times.synack == 0
            || answered.is_none_or(|isn| before(packet.tcp.ack, isn.wrapping_add(1)))
        {
            return;
        }
        self.times.handshake_done = true;
        self.times.idle_since = packet.ts_ns;
        Times::sample(&mut m.rtt_client, self.times.synack, packet.ts_ns, RTT_MAX_US);
        Times::sample(&mut m.rtt, self.times.syn, packet.ts_ns, RTT_MAX_US);
        if self.times.syn != 0 {
            self.times.round_trip_ns = packet.ts_ns.saturating_sub(self.times.syn);
        }
    }

    fn measure(&mut self, packet: &Packet<'_>, from_client: bool, control: bool, m: &mut FlowMetrics) {
        if control {
            return;
        }
        let (times, now) = (&mut self.times, packet.ts_ns);
        let end = packet.tcp.seq.wrapping_add(packet.l4_len);
        if from_client {
            if packet.l4_len > 1 {
                Times::sample(&mut m.cit, std::mem::take(&mut times.idle_since), now, u64::from(u32::MAX));
            }
            if packet.l4_len > 0 {
                times.request = now;
                times.unacked = Some((now, end));
            }
        } else {
            if packet.l4_len > 0 {
                Times::sample(&mut m.art, std::mem::take(&mut times.request), now, ART_MAX_US);
                times.unacked = None;
            } else if let Some((sent, end)) = times.unacked
                && !before(packet.tcp.ack, end)
            {
                Times::sample(&mut m.srt, sent, now, SRT_MAX_US);
                times.unacked = None;
            }
            times.idle_since = now;
        }
    }

    fn advance(&mut self, packet: &Packet<'_>, side: Side) {
        let tcp = &packet.tcp;
        let (syn, ack) = (tcp.flags & flags::SYN != 0, tcp.flags & flags::ACK != 0);
        if tcp.flags & flags::RST != 0 {
            if self.phase != Phase::Reset {
                self.reset = Some((side, self.phase));
                self.phase = Phase::Reset;
            }
            return;
        }
        let other = &self.sides[side.other() as usize];
        if tcp.flags & flags::FIN != 0 && !matches!(self.phase, Phase::Reset | Phase::Closed) {
            self.phase = if other.sent_fin { Phase::Closed } else { Phase::Closing };
            return;
        }
        self.phase = match self.phase {
            Phase::OneSided if syn && ack => Phase::SynReceived,
            Phase::OneSided if syn => Phase::SynSent,
            Phase::OneSided if other.sent_any => Phase::Established,
            Phase::SynSent | Phase::SynChallenged if syn && ack => Phase::SynReceived,
            Phase::SynSent if !syn && other.isn.is_some() => {
                let for_it = other.isn.is_some_and(|isn| tcp.ack == isn.wrapping_add(1));
                if for_it || packet.l4_len > 0 { Phase::Established } else { Phase::SynChallenged }
            }
            Phase::SynReceived if !syn && self.times.handshake_done => Phase::Established,
            phase => phase,
        };
    }

    /// A client and server that were mixed up are the right way round now: latencies begun in the wrong sense are void.
    pub(crate) fn swap_roles(&mut self) {
        self.times.request = 0;
        self.times.unacked = None;
        self.times.idle_since = 0;
    }
}

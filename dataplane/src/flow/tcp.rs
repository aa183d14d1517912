//! What is remembered of a TCP connection, and how each segment changes it and the flow's counters.
//!
//! Definitions of the metrics: ARCHITECTURE.md, "Metrics".

use super::counts::{Counts, Event, Handshake, Response};
use super::moment::Moment;
use super::sequence::{self, Holes, Keeper, Range, SegmentKind, before};
use crate::packet::{Packet, flags};
use wirespan_l7::Side;

/// Longest handshake and response times that are believed, as peers do, in microseconds.
const RTT_MAX_US: u64 = 30_000_000;
const ART_MAX_US: u64 = 30_000_000;
const SRT_MAX_US: u64 = 10_000_000;
/// The round trip while the handshake's is not known: longer than packets overtake each other in a data centre.
const DEFAULT_ROUND_TRIP_NS: u64 = 3_000_000;

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

/// What one side did, or what was seen of both, one bit each.
#[derive(Clone, Copy, Default)]
struct Marks(u8);

impl Marks {
    const SENT_ANY: u8 = 1;
    const SENT_DATA: u8 = 2;
    const SENT_FIN: u8 = 4;
    /// `isn` is known.
    const SYNCHRONISED: u8 = 8;
    /// `next` is known.
    const HAS_NEXT: u8 = 16;
    /// There are holes in what it sent.
    const HAS_HOLES: u8 = 32;

    // Of both.
    /// Client data waits for the server to acknowledge it without data.
    const UNACKED: u8 = 1;
    const HANDSHAKE_DONE: u8 = 2;
    /// SYN-ACKs after the handshake.
    const LATE_SYNACK: u8 = 4;
    /// SYNs or SYN-ACKs of the handshake came again.
    const HANDSHAKE_AGAIN: u8 = 8;

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    fn set(&mut self, mark: u8, on: bool) {
        self.0 |= if on { mark } else { 0 };
    }

    fn unset(&mut self, mark: u8) {
        self.0 &= !mark;
    }
}

/// A connection as far as it was seen. What every packet needs comes last, from [`Tcp::HOT`] on.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Tcp {
    /// Sequence number of each side's first SYN or SYN-ACK.
    isn: [u32; 2],
    /// The first SYN; after the handshake, its time and that of the whole round trip are one.
    syn: Moment,
    synack: Moment,
    /// Who sent RST, and how far the connection was then.
    pub reset: Option<(Side, Phase)>,
    /// One past the highest sequence number each side sent.
    next: [u32; 2],
    /// The end of the last client data, until the server acknowledges it without data; when it was sent is `request`.
    unacked_end: u32,
    /// The last client data, until the server sends data. Other protocols than TCP: the last packet of the client.
    request: Moment,
    /// The last server packet (or the end of the handshake), until the client sends data.
    idle_since: Moment,
    marks: [Marks; 2],
    both: Marks,
    pub phase: Phase,
}

/// Adds up to `max_us` to what `count` counts.
#[inline]
fn sample(from: Moment, to_ns: u64, max_us: u64, count: impl FnOnce(u32)) {
    if let Some(us) = from.until(to_ns).map(|ns| ns / 1000)
        && us <= max_us
        && let Ok(us) = u32::try_from(us)
    {
        count(us);
    }
}

impl Tcp {
    /// Where those fields begin that every packet needs.
    pub(crate) const HOT: usize = std::mem::offset_of!(Self, next);

    /// The segment starts another connection on the same ports: a SYN with a sequence number of its own. That of this
    /// connection may be captured after the SYN-ACK and what follows it.
    pub(crate) fn is_new_connection(&self, packet: &Packet<'_>, side: Side) -> bool {
        let tcp = &packet.tcp;
        tcp.flags & (flags::SYN | flags::ACK | flags::RST) == flags::SYN
            && self.isn(side) != Some(tcp.seq)
            && (self.sent_any(side)
                || match self.phase {
                    Phase::OneSided | Phase::SynReceived => false,
                    Phase::Established => self.isn(side.other()).is_none(),
                    _ => true,
                })
    }

    /// Sequence number of a side's SYN or SYN-ACK.
    pub(crate) fn isn(&self, side: Side) -> Option<u32> {
        self.marks[side as usize].has(Marks::SYNCHRONISED).then_some(self.isn[side as usize])
    }

    /// One past the highest sequence number a side sent.
    pub(crate) fn next(&self, side: Side) -> Option<u32> {
        self.marks[side as usize].has(Marks::HAS_NEXT).then_some(self.next[side as usize])
    }

    pub(crate) fn sent_any(&self, side: Side) -> bool {
        self.marks[side as usize].has(Marks::SENT_ANY)
    }

    pub(crate) fn sent_data(&self, side: Side) -> bool {
        self.marks[side as usize].has(Marks::SENT_DATA)
    }

    pub(crate) fn sent_fin(&self, side: Side) -> bool {
        self.marks[side as usize].has(Marks::SENT_FIN)
    }

    fn handshake_done(&self) -> bool {
        self.both.has(Marks::HANDSHAKE_DONE)
    }

    /// There were SYN-ACKs after the handshake.
    pub(crate) fn has_late_synack(&self) -> bool {
        self.both.has(Marks::LATE_SYNACK)
    }

    /// There are, or were, holes in what a side sent.
    #[inline]
    pub(crate) fn has_holes(&self, side: Side) -> bool {
        self.marks[side as usize].has(Marks::HAS_HOLES)
    }

    /// A pure ACK of `side`, where there are holes in what the other side sent.
    #[cold]
    pub(crate) fn acknowledged(&mut self, packet: &Packet<'_>, side: Side, holes: Option<&mut Holes>) {
        const KINDS: u8 = flags::SYN | flags::FIN | flags::RST | flags::ACK;
        match holes.filter(|holes| holes.any()) {
            Some(holes) if packet.tcp.flags & KINDS == flags::ACK => holes.acknowledged(packet.tcp.ack),
            Some(_) => {}
            None => self.marks[side.other() as usize].unset(Marks::HAS_HOLES),
        }
    }

    /// Takes note of a segment of `side`.
    #[inline]
    pub(crate) fn segment(
        &mut self,
        packet: &Packet<'_>,
        side: Side,
        client: Side,
        counts: &mut Counts,
        holes: &mut impl Keeper,
    ) {
        let tcp = &packet.tcp;
        let (syn, fin, rst) =
            (tcp.flags & flags::SYN != 0, tcp.flags & flags::FIN != 0, tcp.flags & flags::RST != 0);
        let ack = tcp.flags & flags::ACK != 0;
        // The byte that a keep-alive may carry is none of the stream's.
        let keep_alive = self.is_keep_alive(packet, side);
        let data_len = if keep_alive { 0 } else { packet.l4_len };
        if syn {
            self.synchronise(packet, side, ack, counts);
        }
        if !rst {
            if !keep_alive {
                self.count_sequence(packet, side, counts, holes);
            }
            if tcp.window == 0 && !syn && !fin && self.phase != Phase::SynSent {
                counts.event(Event::ZeroWindow(side));
            }
        }
        if fin {
            counts.event(Event::Fin);
        }
        if !syn && ack && side == client && !self.handshake_done() {
            self.complete_handshake(packet, side, counts);
        }
        if !syn && !rst {
            self.measure(packet, data_len, side == client, counts);
        }
        self.advance(packet, side);
        let marks = &mut self.marks[side as usize];
        marks.set(Marks::SENT_ANY, true);
        marks.set(Marks::SENT_DATA, data_len > 0);
        marks.set(Marks::SENT_FIN, fin);
    }

    /// It only asks for an acknowledgment of the last byte sent, with or without repeating it, RFC 9293 section 3.8.4.
    #[inline]
    fn is_keep_alive(&self, packet: &Packet<'_>, side: Side) -> bool {
        packet.l4_wire <= 1
            && packet.tcp.flags & (flags::SYN | flags::FIN) == 0
            && self.next(side) == Some(packet.tcp.seq.wrapping_add(1))
    }

    #[inline(never)]
    fn synchronise(&mut self, packet: &Packet<'_>, side: Side, ack: bool, counts: &mut Counts) {
        let repeated = self.isn(side) == Some(packet.tcp.seq);
        if self.isn(side).is_none() {
            self.isn[side as usize] = packet.tcp.seq;
            self.marks[side as usize].set(Marks::SYNCHRONISED, true);
        }
        let (event, repeated_event) =
            if ack { (Event::SynAck, Event::RepeatedSynAck) } else { (Event::Syn, Event::RepeatedSyn) };
        counts.event(event);
        if repeated {
            counts.event(repeated_event);
            self.both.set(Marks::HANDSHAKE_AGAIN, true);
        }
        if ack {
            self.both.set(Marks::LATE_SYNACK, self.handshake_done());
            if self.synack.is_none() {
                self.synack = Moment::at(packet.ts_ns);
                let count = |us| counts.handshake(Handshake::Server, us);
                sample(self.syn, packet.ts_ns, RTT_MAX_US, count);
            }
        } else if self.syn.is_none() {
            self.syn = Moment::at(packet.ts_ns);
        }
    }

    #[inline]
    fn count_sequence(
        &mut self,
        packet: &Packet<'_>,
        side: Side,
        counts: &mut Counts,
        holes: &mut impl Keeper,
    ) {
        let tcp = &packet.tcp;
        let phantom = u32::from(tcp.flags & flags::SYN != 0) + u32::from(tcp.flags & flags::FIN != 0);
        let segment = Range { seq: tcp.seq, len: packet.l4_wire + phantom, ts_ns: packet.ts_ns };
        let mut next = self.next(side);
        // A pure ACK carries nothing that could be repeated, but the first shows where its sender is.
        if segment.len == 0 && next.is_some() {
            return;
        }
        match sequence::observe(&mut next, segment, self.round_trip_ns(), holes) {
            SegmentKind::Retransmission => counts.event(Event::Retransmission(side)),
            SegmentKind::OutOfOrder => counts.event(Event::OutOfOrder(side)),
            SegmentKind::Ahead => self.marks[side as usize].set(Marks::HAS_HOLES, true),
            SegmentKind::InOrder => {}
        }
        self.set_next(side, next);
    }

    fn set_next(&mut self, side: Side, next: Option<u32>) {
        if let Some(next) = next {
            self.next[side as usize] = next;
            self.marks[side as usize].set(Marks::HAS_NEXT, true);
        }
    }

    /// The handshake's, from the first SYN to its end, unless a time-out lies in it.
    fn round_trip_ns(&self) -> u64 {
        let known = self.handshake_done() && !self.both.has(Marks::HANDSHAKE_AGAIN);
        let handshake = if known { self.synack.since(self.syn) } else { None };
        handshake.filter(|&ns| ns > 0).unwrap_or(DEFAULT_ROUND_TRIP_NS)
    }

    /// The client's first ACK of the SYN-ACK ends the handshake. With TCP Fast Open the server may send data before, RFC 7413.
    #[inline(never)]
    fn complete_handshake(&mut self, packet: &Packet<'_>, side: Side, counts: &mut Counts) {
        let answered = self.isn(side.other());
        if self.synack.is_none() || answered.is_none_or(|isn| before(packet.tcp.ack, isn.wrapping_add(1))) {
            return;
        }
        let now = packet.ts_ns;
        self.both.set(Marks::HANDSHAKE_DONE, true);
        self.idle_since = Moment::at(now);
        sample(self.synack, now, RTT_MAX_US, |us| counts.handshake(Handshake::Client, us));
        sample(self.syn, now, RTT_MAX_US, |us| counts.handshake(Handshake::Rtt, us));
        self.synack = Moment::at(now);
    }

    #[inline]
    fn measure(&mut self, packet: &Packet<'_>, data_len: u32, from_client: bool, counts: &mut Counts) {
        let now = packet.ts_ns;
        let end = packet.tcp.seq.wrapping_add(data_len);
        if from_client {
            if data_len > 1 {
                let count = |us| counts.response(Response::ClientIdle, us);
                sample(self.idle_since.take(), now, u64::from(u32::MAX), count);
            }
            if data_len > 0 {
                self.request = Moment::at(now);
                self.both.set(Marks::UNACKED, true);
                self.unacked_end = end;
            }
            return;
        }
        if data_len > 0 {
            let count = |us| counts.response(Response::Application, us);
            sample(self.request.take(), now, ART_MAX_US, count);
            self.both.unset(Marks::UNACKED);
        } else if self.both.has(Marks::UNACKED) && !before(packet.tcp.ack, self.unacked_end) {
            sample(self.request, now, SRT_MAX_US, |us| counts.response(Response::System, us));
            self.both.unset(Marks::UNACKED);
        }
        self.idle_since = Moment::at(now);
    }

    #[inline]
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
        let other = side.other();
        if tcp.flags & flags::FIN != 0 && !matches!(self.phase, Phase::Reset | Phase::Closed) {
            self.phase = if self.sent_fin(other) { Phase::Closed } else { Phase::Closing };
            return;
        }
        self.phase = match self.phase {
            Phase::OneSided if syn && ack => Phase::SynReceived,
            Phase::OneSided if syn => Phase::SynSent,
            Phase::OneSided if self.sent_any(other) => Phase::Established,
            Phase::SynSent | Phase::SynChallenged if syn && ack => Phase::SynReceived,
            Phase::SynSent if !syn && self.isn(other).is_some() => {
                let for_it = self.isn(other).is_some_and(|isn| tcp.ack == isn.wrapping_add(1));
                if for_it || packet.l4_len > 0 { Phase::Established } else { Phase::SynChallenged }
            }
            // One direction of it is not seen, and this one shows that the handshake was completed.
            Phase::SynSent if !syn && ack && !self.sent_any(other) => Phase::Established,
            Phase::SynReceived if !syn && (self.handshake_done() || packet.l4_len > 0) => Phase::Established,
            phase => phase,
        };
    }

    /// A datagram: the time from the client's last packet to the server's first.
    #[inline]
    pub(crate) fn datagram(&mut self, ts_ns: u64, from_client: bool, which: Response, counts: &mut Counts) {
        if from_client {
            self.request = Moment::at(ts_ns);
        } else {
            let max_us = if matches!(which, Response::System) { SRT_MAX_US } else { ART_MAX_US };
            sample(self.request.take(), ts_ns, max_us, |us| counts.response(which, us));
        }
    }

    /// Packets of a side went by that were not looked at one by one; `next` is one past the highest sequence number, where
    /// that is known.
    pub(crate) fn passed_by(&mut self, side: Side, next: Option<u32>, sent_data: bool) {
        match next {
            Some(next) if self.next(side).is_none_or(|known| before(known, next)) => {
                self.set_next(side, Some(next));
            }
            Some(_) => {}
            None => self.marks[side as usize].unset(Marks::HAS_NEXT),
        }
        let marks = &mut self.marks[side as usize];
        marks.set(Marks::SENT_ANY, true);
        marks.set(Marks::SENT_DATA, sent_data);
        if self.phase == Phase::OneSided && self.sent_any(side.other()) {
            self.phase = Phase::Established;
        }
        self.forget_requests();
    }

    /// Response times that were begun are void: client and server are the other way round, or packets were not seen.
    pub(crate) fn forget_requests(&mut self) {
        (self.request, self.idle_since) = (Moment::NONE, Moment::NONE);
        self.both.unset(Marks::UNACKED);
    }
}

//! The way of payload to the L7 engine.

use super::RecordSink;
use super::answers::{Answer, Answers, is_ahead};
use super::entry::{Entry, Facts};
use super::parts::{Parts, Payload};
use super::reassembly::{Limits, Piece, Reassembly, Segment};
use super::slab::NONE;
use super::tcp::Tcp;
use crate::packet::{Packet, flags};
use wirespan_l7::{Chunk, Engine, FlowContext, Side, Stream};
use wirespan_records::{L4Protocol, L7Counts};

/// The engine, and what the way to it needs of the worker.
pub(super) struct L7<'a> {
    pub engine: &'a mut Engine,
    pub limits: &'a Limits,
    /// Bytes that all flows keep because they came early.
    pub kept: &'a mut usize,
    pub parts: &'a mut Parts,
    pub sink: &'a mut dyn RecordSink,
}

/// A flow's stream on its way through one call.
struct Way<'a> {
    engine: &'a mut Engine,
    stream: &'a mut Stream,
    counts: &'a mut L7Counts,
    context: &'a FlowContext,
    sink: &'a mut dyn RecordSink,
}

impl L7<'_> {
    /// Lets the engine have what a packet carries. Gives when the first of the requests that now wait is given up, unless
    /// the wheel knows.
    pub(super) fn packet(&mut self, entry: &mut Entry, packet: &Packet<'_>, side: Side) -> Option<u64> {
        let carries = match packet.l4 {
            L4Protocol::Tcp => packet.l4_wire > 0 && packet.tcp.flags & flags::RST == 0,
            L4Protocol::Udp => !packet.payload.is_empty(),
            _ => false,
        };
        if entry.payload == NONE {
            if !carries || packet.payload.is_empty() {
                return None;
            }
            self.begin(entry);
        }
        let payload = &mut self.parts.payloads[entry.payload];
        let waits = payload.orders[side.other() as usize].waits() || payload.answers.any();
        let acknowledges = packet.tcp.flags & flags::ACK != 0 && waits;
        if packet.tcp.flags & flags::SYN != 0 {
            payload.orders[side as usize].start(packet.tcp.seq.wrapping_add(1));
        }
        if !carries && !acknowledges {
            return None;
        }
        let roles = (entry.client, entry.certainty);
        if payload.context.as_ref().is_none_or(|context| context.0 != roles) {
            let context = entry.context(self.parts);
            self.parts.payloads[entry.payload].context = Some((roles, context));
        }
        let Payload { stream, orders, answers, counts, timed_ns, context: Some((_, context)), .. } =
            &mut self.parts.payloads[entry.payload]
        else {
            return None;
        };
        let mut way = Way { engine: self.engine, stream, counts, context, sink: self.sink };
        if packet.l4 == L4Protocol::Udp {
            let chunk = Chunk { data: packet.payload, ts_ns: packet.ts_ns, seq: None, stream_start: false };
            way.data(side, chunk);
        } else {
            let way = &mut way;
            let mut streams = Streams { way, tcp: &entry.tcp, orders, answers, kept: self.kept };
            if acknowledges {
                streams.acknowledged(packet, side, carries, self.limits);
            }
            if carries {
                streams.segment(packet, side, self.limits);
            }
        }
        entry.protocol = stream.protocol();
        if stream.is_off() {
            self.stop(entry);
            return None;
        }
        let deadline = stream.deadline_ns().filter(|ns| timed_ns.is_none_or(|timed_ns| *ns < timed_ns))?;
        *timed_ns = Some(deadline);
        Some(deadline)
    }

    /// The flow is over: what waits is handed on.
    #[inline(never)]
    pub(super) fn close(&mut self, entry: &mut Entry) {
        if entry.payload == NONE || entry.facts.has(Facts::UNPARSED) {
            return;
        }
        let context = &entry.context(self.parts);
        let Payload { stream, orders, answers, counts, .. } = &mut self.parts.payloads[entry.payload];
        let way = &mut Way { engine: self.engine, stream, counts, context, sink: self.sink };
        let mut streams = Streams { way, tcp: &entry.tcp, orders, answers, kept: self.kept };
        streams.give_up_waiting(self.limits);
        for side in [Side::A, Side::B] {
            streams.finish(side);
        }
        way.engine.close(way.stream, context, way.counts, way.sink);
        entry.protocol = way.stream.protocol();
    }

    /// Gives up requests that wait too long at `now_ns`, and gives when the next is to be.
    pub(super) fn sweep(&mut self, entry: &Entry, now_ns: u64) -> Option<u64> {
        let context = entry.context(self.parts);
        let Payload { stream, counts, timed_ns, .. } = &mut self.parts.payloads[entry.payload];
        self.engine.sweep(stream, &context, now_ns, counts, self.sink);
        *timed_ns = stream.deadline_ns();
        *timed_ns
    }

    fn begin(&mut self, entry: &mut Entry) {
        entry.payload = self.parts.payloads.take();
        let orders = &mut self.parts.payloads[entry.payload].orders;
        for side in [Side::A, Side::B] {
            if let Some(isn) = entry.tcp.isn(side) {
                orders[side as usize].start(isn.wrapping_add(1));
            }
        }
    }

    /// Nothing of the stream is looked at any more.
    fn stop(&mut self, entry: &mut Entry) {
        entry.facts.set(Facts::UNPARSED);
        let payload = &mut self.parts.payloads[entry.payload];
        payload.orders.iter_mut().for_each(|order| order.discard(self.kept));
        payload.answers.discard(self.kept);
        if payload.counts == L7Counts::default() {
            self.parts.payloads.release(entry.payload);
            entry.payload = NONE;
        }
    }
}

/// Both directions of a connection on their way to the engine.
struct Streams<'a, 'w> {
    way: &'a mut Way<'w>,
    tcp: &'a Tcp,
    orders: &'a mut [Reassembly; 2],
    answers: &'a mut Answers,
    kept: &'a mut usize,
}

impl Streams<'_, '_> {
    /// What a packet acknowledges, where something waits.
    #[inline(never)]
    fn acknowledged(&mut self, packet: &Packet<'_>, side: Side, carries: bool, limits: &Limits) {
        let next = self.orders[side as usize].next();
        let seq = carries.then_some(packet.tcp.seq);
        if self.answers.are_in_vain(packet.ts_ns, side, next, seq) {
            self.give_up_waiting(limits);
        }
        let other = side.other();
        let Self { way, tcp, orders, kept, .. } = self;
        let hand_on = |piece: Piece<'_>| way.piece(other, tcp.isn(other), piece);
        orders[other as usize].acknowledged(packet.tcp.ack, kept, hand_on);
    }

    #[inline]
    fn segment(&mut self, packet: &Packet<'_>, side: Side, limits: &Limits) {
        let segment = Segment {
            seq: packet.tcp.seq.wrapping_add(u32::from(packet.tcp.flags & flags::SYN != 0)),
            data: packet.payload,
            missing: packet.l4_len.saturating_sub(packet.payload.len() as u32),
            ts_ns: packet.ts_ns,
        };
        if packet.tcp.flags & flags::ACK != 0
            && self.is_ahead(side, packet.tcp.ack)
            && self.answers.keep(side, packet.tcp.ack, segment, limits, self.kept)
        {
            return;
        }
        self.push(side, segment, limits);
        if self.answers.any() {
            self.push_ready(limits);
        }
    }

    /// What was acknowledged by a segment of `side` is not seen yet.
    #[inline]
    fn is_ahead(&self, side: Side, ack: u32) -> bool {
        let other = side.other();
        self.tcp.next(other).is_some_and(|seen| is_ahead(seen, ack))
            && self.orders[other as usize].next().is_none_or(|next| is_ahead(next, ack))
    }

    /// What was waited for came.
    #[inline(never)]
    fn push_ready(&mut self, limits: &Limits) {
        let Self { tcp, .. } = *self;
        let is_ready =
            |answer: &Answer| tcp.next(answer.side.other()).is_none_or(|seen| !is_ahead(seen, answer.ack));
        while let Some(answer) = self.answers.take(self.kept, is_ready) {
            self.push_answer(&answer, limits);
        }
    }

    #[inline(never)]
    fn push_answer(&mut self, answer: &Answer, limits: &Limits) {
        self.push(answer.side, answer.segment(), limits);
    }

    /// What is waited for was lost.
    #[inline(never)]
    fn give_up_waiting(&mut self, limits: &Limits) {
        while let Some(answer) = self.answers.take(self.kept, |_| true) {
            let other = answer.side.other();
            if self.is_ahead(answer.side, answer.ack) {
                let Self { way, tcp, orders, kept, .. } = self;
                let hand_on = |piece: Piece<'_>| way.piece(other, tcp.isn(other), piece);
                orders[other as usize].lost_below(answer.ack, kept, hand_on);
            }
            self.push_answer(&answer, limits);
        }
    }

    /// No more bytes of `side` will come.
    fn finish(&mut self, side: Side) {
        let Self { way, tcp, orders, kept, .. } = self;
        orders[side as usize].finish(kept, |piece| way.piece(side, tcp.isn(side), piece));
    }

    #[inline]
    fn push(&mut self, side: Side, segment: Segment<'_>, limits: &Limits) {
        let Self { way, tcp, orders, kept, .. } = self;
        orders[side as usize].push(segment, limits, kept, |piece| way.piece(side, tcp.isn(side), piece));
    }
}

impl Way<'_> {
    fn data(&mut self, side: Side, chunk: Chunk<'_>) {
        self.engine.data(self.stream, self.context, side, chunk, self.counts, self.sink);
    }

    fn piece(&mut self, side: Side, isn: Option<u32>, piece: Piece<'_>) {
        match piece {
            Piece::Data { data, ts_ns, seq } => {
                let stream_start = isn.is_some_and(|isn| seq == isn.wrapping_add(1));
                self.data(side, Chunk { data, ts_ns, seq: Some(seq), stream_start });
            }
            Piece::Gap(missing) => {
                let missing = missing.into();
                self.engine.gap(self.stream, self.context, side, missing, self.counts, self.sink);
            }
            Piece::Restart => {
                self.engine.close(self.stream, self.context, self.counts, self.sink);
                *self.stream = Stream::default();
            }
        }
    }
}

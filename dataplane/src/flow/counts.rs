//! What is counted on a flow, in a third of the room of its record: most flows are short. Before a small counter can
//! overflow, all of them are moved to wide ones, which only large flows have. What every packet changes comes first.

use super::slab::{NONE, Recycled, Slab};
use crate::packet::Packet;
use wirespan_l7::Side;
use wirespan_records::{FlowMetrics, Latency, PerDirection};

/// Latencies with one sample per connection.
#[derive(Clone, Copy)]
pub(crate) enum Handshake {
    /// First SYN to the ACK of the SYN-ACK.
    Rtt,
    /// First SYN-ACK to its ACK.
    Client,
    /// First SYN to the SYN-ACK.
    Server,
}

/// Latencies with many samples.
#[derive(Clone, Copy)]
pub(crate) enum Response {
    /// Client data to the server's pure ACK.
    System,
    /// Client data to the server's first data.
    Application,
    /// Previous server packet to the next client data.
    ClientIdle,
}

/// What happens seldom.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Syn,
    SynAck,
    Fin,
    RepeatedSyn,
    RepeatedSynAck,
    /// By the side that sent it.
    Retransmission(Side),
    OutOfOrder(Side),
    ZeroWindow(Side),
}

impl Event {
    const COUNT: usize = 11;

    fn index(self) -> usize {
        match self {
            Self::Syn => 0,
            Self::SynAck => 1,
            Self::Fin => 2,
            Self::RepeatedSyn => 3,
            Self::RepeatedSynAck => 4,
            Self::Retransmission(side) => 5 + side as usize,
            Self::OutOfOrder(side) => 7 + side as usize,
            Self::ZeroWindow(side) => 9 + side as usize,
        }
    }
}

/// Counters of one flow, by the side that sent.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Counts {
    /// A counter has come so far that another packet could overflow it.
    is_large: bool,
    packets: [u32; 2],
    bytes: [u32; 2],
    l3_bytes: [u32; 2],
    l4_bytes: [u32; 2],
    sums_us: [u32; 3],
    maxima_us: [u32; 3],
    samples: [u16; 3],
    events: [u8; Event::COUNT],
    /// Microseconds plus one; 0 is no sample.
    handshake: [u32; 3],
    /// The place of what does not fit here.
    wide: u32,
}

/// Counters of a large flow: `tx` is what side A sent.
#[derive(Default)]
pub(crate) struct Wide {
    metrics: FlowMetrics,
    next_free: u32,
}

impl Recycled for Wide {
    fn next_free(&mut self) -> &mut u32 {
        &mut self.next_free
    }

    fn recycle(&mut self) {
        self.metrics = FlowMetrics::default();
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            is_large: false,
            packets: [0; 2],
            bytes: [0; 2],
            l3_bytes: [0; 2],
            l4_bytes: [0; 2],
            sums_us: [0; 3],
            maxima_us: [0; 3],
            samples: [0; 3],
            events: [0; Event::COUNT],
            handshake: [0; 3],
            wide: NONE,
        }
    }
}

impl Counts {
    /// Sees to it that the next packet does not overflow anything.
    #[inline]
    pub(crate) fn make_room(&mut self, wide: &mut Slab<Wide>) {
        if self.is_large {
            self.widen(wide);
        }
    }

    /// Counts a packet. One that claims more bytes than there can be counts as the most there can be.
    #[inline]
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, side: Side) {
        let add = |counter: &mut [u32; 2], n: u32| {
            let counter = &mut counter[side as usize];
            *counter = counter.saturating_add(n);
            *counter
        };
        let packets = add(&mut self.packets, 1);
        let bytes = add(&mut self.bytes, packet.wire_len);
        let l3_bytes = add(&mut self.l3_bytes, packet.l3_len);
        let l4_bytes = add(&mut self.l4_bytes, packet.l4_len);
        self.is_large |= (packets | bytes | l3_bytes | l4_bytes) >> 31 != 0;
    }

    #[inline]
    pub(crate) fn event(&mut self, event: Event) {
        let counter = &mut self.events[event.index()];
        *counter = counter.saturating_add(1);
        self.is_large |= *counter >> 7 != 0;
    }

    pub(crate) fn handshake(&mut self, which: Handshake, us: u32) {
        self.handshake[which as usize] = us.saturating_add(1);
    }

    #[inline]
    pub(crate) fn response(&mut self, which: Response, us: u32) {
        let which = which as usize;
        self.maxima_us[which] = self.maxima_us[which].max(us);
        // Samples above half an hour, which would not fit, are longer than time-outs.
        self.sums_us[which] = self.sums_us[which].saturating_add(us);
        self.samples[which] = self.samples[which].saturating_add(1);
        self.is_large |= self.sums_us[which] >> 31 != 0 || self.samples[which] >> 15 != 0;
    }

    /// Client and server turn out to be the other way round: response times measured in the wrong sense are void.
    pub(crate) fn forget_responses(&mut self, wide: &mut Slab<Wide>) {
        (self.sums_us, self.maxima_us, self.samples) = ([0; 3], [0; 3], [0; 3]);
        if self.wide != NONE {
            let metrics = &mut wide[self.wide].metrics;
            (metrics.srt, metrics.art, metrics.cit) = Default::default();
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add(&mut self, metrics: &FlowMetrics, wide: &mut Slab<Wide>) {
        if self.wide == NONE {
            self.wide = wide.take();
        }
        wide[self.wide].metrics.merge(metrics);
    }

    /// Adds `other`, which ends.
    pub(crate) fn merge(&mut self, other: Self, wide: &mut Slab<Wide>) {
        let fits = self.handshake.iter().zip(other.handshake).all(|(&mine, theirs)| mine == 0 || theirs == 0);
        if other.wide != NONE || !fits || self.is_large || other.is_large {
            let metrics = other.take_metrics(wide);
            self.add(&metrics, wide);
            return;
        }
        let pairs = [
            (&mut self.packets, other.packets),
            (&mut self.bytes, other.bytes),
            (&mut self.l3_bytes, other.l3_bytes),
            (&mut self.l4_bytes, other.l4_bytes),
        ];
        for (mine, theirs) in pairs {
            mine[0] += theirs[0];
            mine[1] += theirs[1];
        }
        for at in 0..3 {
            self.sums_us[at] += other.sums_us[at];
            self.maxima_us[at] = self.maxima_us[at].max(other.maxima_us[at]);
            self.samples[at] += other.samples[at];
            self.handshake[at] |= other.handshake[at];
        }
        for (mine, theirs) in self.events.iter_mut().zip(other.events) {
            *mine += theirs;
        }
        self.is_large = self.has_large();
    }

    /// Two counts that are not large fit together in one.
    fn has_large(&self) -> bool {
        let pairs = [self.packets, self.bytes, self.l3_bytes, self.l4_bytes];
        pairs.as_flattened().iter().chain(&self.sums_us).any(|n| n >> 31 != 0)
            || self.samples.iter().any(|n| n >> 15 != 0)
            || self.events.iter().any(|n| n >> 7 != 0)
    }

    #[cold]
    #[inline(never)]
    fn widen(&mut self, wide: &mut Slab<Wide>) {
        let metrics = self.narrow_metrics();
        *self = Self { wide: self.wide, ..Self::default() };
        self.add(&metrics, wide);
    }

    /// Everything, by side: `tx` is what side A sent.
    pub(crate) fn metrics(&self, wide: &Slab<Wide>) -> FlowMetrics {
        let mut metrics = self.narrow_metrics();
        if self.wide != NONE {
            metrics.merge(&wide[self.wide].metrics);
        }
        metrics
    }

    /// As [`Self::metrics`], at the end: the room for what is wide is given back.
    pub(crate) fn take_metrics(self, wide: &mut Slab<Wide>) -> FlowMetrics {
        let metrics = self.metrics(wide);
        if self.wide != NONE {
            wide.release(self.wide);
        }
        metrics
    }

    /// Bytes on the wire of both sides.
    pub(crate) fn bytes(&self, wide: &Slab<Wide>) -> u64 {
        let narrow = u64::from(self.bytes[0]) + u64::from(self.bytes[1]);
        if self.wide == NONE {
            return narrow;
        }
        let PerDirection { tx, rx } = wide[self.wide].metrics.bytes;
        narrow + tx + rx
    }

    fn narrow_metrics(&self) -> FlowMetrics {
        let wide = |[a, b]: [u32; 2]| PerDirection { tx: a.into(), rx: b.into() };
        let count = |event: Event| u32::from(self.events[event.index()]);
        let both =
            |event: fn(Side) -> Event| PerDirection { tx: count(event(Side::A)), rx: count(event(Side::B)) };
        let handshake = |which: Handshake| match self.handshake[which as usize] {
            0 => Latency::default(),
            n => Latency { max_us: n - 1, count: 1, sum_us: u64::from(n - 1) },
        };
        let response = |which: Response| Latency {
            max_us: self.maxima_us[which as usize],
            count: self.samples[which as usize].into(),
            sum_us: self.sums_us[which as usize].into(),
        };
        FlowMetrics {
            packets: wide(self.packets),
            bytes: wide(self.bytes),
            l3_bytes: wide(self.l3_bytes),
            l4_bytes: wide(self.l4_bytes),
            syn_count: count(Event::Syn),
            synack_count: count(Event::SynAck),
            fin_count: count(Event::Fin),
            retrans: both(Event::Retransmission),
            retrans_syn: count(Event::RepeatedSyn),
            retrans_synack: count(Event::RepeatedSynAck),
            ooo: both(Event::OutOfOrder),
            zero_win: both(Event::ZeroWindow),
            rtt: handshake(Handshake::Rtt),
            rtt_client: handshake(Handshake::Client),
            rtt_server: handshake(Handshake::Server),
            srt: response(Response::System),
            art: response(Response::Application),
            cit: response(Response::ClientIdle),
            ..FlowMetrics::default()
        }
    }
}

/// By direction what was counted by side.
pub(crate) fn by_direction(mut metrics: FlowMetrics, client: Side) -> FlowMetrics {
    if client == Side::B {
        let counters =
            [&mut metrics.packets, &mut metrics.bytes, &mut metrics.l3_bytes, &mut metrics.l4_bytes];
        counters.into_iter().for_each(PerDirection::swap);
        [&mut metrics.retrans, &mut metrics.ooo, &mut metrics.zero_win]
            .into_iter()
            .for_each(PerDirection::swap);
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;
    use proptest::prelude::*;

    proptest! {
        /// However long a flow and however often it is cut into seconds: as if every counter had been wide.
        #[test]
        fn agrees_with_wide_counters(
            steps in proptest::collection::vec(
                (0u8..8, any::<bool>(), 0u32..1_000_000, 0u32..300_000_000, 1usize..400), 1..60),
        ) {
            let (mut wide, mut expected) = (Slab::new(), FlowMetrics::default());
            let (mut counts, mut before) = (Counts::default(), Counts::default());
            for (kind, by_b, len, us, times) in steps {
                let side = if by_b { Side::B } else { Side::A };
                for _ in 0..times {
                    counts.make_room(&mut wide);
                    match kind {
                        0..4 => {
                            let packet = Packet { wire_len: len, l3_len: len / 2, l4_len: len / 4, ..tcp(1, 2, 3, 4) };
                            counts.packet(&packet, side);
                            let lens = [(&mut expected.packets, 1), (&mut expected.bytes, len),
                                (&mut expected.l3_bytes, len / 2), (&mut expected.l4_bytes, len / 4)];
                            for (counter, n) in lens {
                                *(if by_b { &mut counter.rx } else { &mut counter.tx }) += u64::from(n);
                            }
                        }
                        4 => {
                            counts.event(Event::Retransmission(side));
                            *(if by_b { &mut expected.retrans.rx } else { &mut expected.retrans.tx }) += 1;
                        }
                        5 => {
                            counts.event(Event::Fin);
                            expected.fin_count += 1;
                        }
                        6 => {
                            counts.response(Response::ClientIdle, us);
                            expected.cit.add(us);
                        }
                        _ => {
                            before.merge(std::mem::take(&mut counts), &mut wide);
                        }
                    }
                }
            }
            before.merge(counts, &mut wide);
            prop_assert_eq!(before.take_metrics(&mut wide), expected);
            prop_assert_eq!(wide.len(), 0);
        }
    }
}

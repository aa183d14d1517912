//! One worker: from lent frames to records.

use crate::decode::{DecodeConfig, Decoder};
use crate::filter::Filter;
use crate::flow::{FlowConfig, FlowStats, FlowTable, RecordSink, ShuntPolicy};
use crate::overload::{Overload, OverloadConfig, OverloadStats};
use crate::packet::Packet;
use crate::pending::Pending;
use crate::tap::Counted;
use smallvec::SmallVec;
use std::time::Instant;
use wirespan_frame::{Batch, Filter as Wanted, Mark, Shunt, prefetch};
use wirespan_l7::Engine;
use wirespan_records::{DropReason, Drops, Endpoint};

/// Packets that go to the flow table together: while one is worked on, the memory for the others is on its way.
const STAGE_PACKETS: usize = 64;
/// Frames whose headers are asked for before they are decoded.
const FRAMES_AHEAD: usize = 8;
const CACHE_LINE_BYTES: usize = 64;

/// Packets that go to the flow table together, and the times that pass between them.
#[derive(Default)]
struct Stage<'a> {
    packets: SmallVec<[Packet<'a>; STAGE_PACKETS]>,
    marks: SmallVec<[Mark; STAGE_PACKETS]>,
}

impl Stage<'_> {
    fn hand_on(&mut self, flows: &mut FlowTable, sink: &mut dyn RecordSink) {
        flows.packets(&self.packets, &self.marks, sink);
        self.packets.clear();
        self.marks.clear();
    }
}

/// Settings of a worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerConfig {
    /// Of decoding.
    pub decode: DecodeConfig,
    /// Of the flow table.
    pub flow: FlowConfig,
    /// Of the L7 engine.
    pub l7: wirespan_l7::Config,
    /// Endpoints whose packets are not looked at: wirespan's own connections to its store.
    pub ignored: Vec<Endpoint>,
    /// The part of the flows that is looked at.
    pub sample: Option<Sample>,
    /// When payload and flows are left out.
    pub overload: OverloadConfig,
    /// When a source that can keep frames back is asked to; never when there is no policy.
    pub shunt: Option<ShuntPolicy>,
}

/// A part of the flows.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// 0.0 to 1.0.
    pub part: f64,
    /// Decides which they are: the same one, the same flows, whoever takes the sample.
    pub seed: u64,
    /// The source lends no others, but for IP fragments, which do not all tell their flow.
    pub by_source: bool,
}

/// Endpoints whose packets are not looked at.
struct Ignored {
    endpoints: Vec<Endpoint>,
    /// Theirs, each once: most packets have another.
    ports: Vec<u16>,
}

impl Ignored {
    fn new(endpoints: Vec<Endpoint>) -> Self {
        let mut ports: Vec<u16> = endpoints.iter().map(|end| end.port).collect();
        ports.sort_unstable();
        ports.dedup();
        Self { endpoints, ports }
    }

    #[inline]
    fn contains(&self, packet: &Packet<'_>) -> bool {
        let may_be = self.ports.iter().any(|&port| port == packet.src_port || port == packet.dst_port);
        may_be && self.contains_an_end_of(packet)
    }

    #[inline(never)]
    fn contains_an_end_of(&self, packet: &Packet<'_>) -> bool {
        let from = Endpoint { ip: packet.addresses.src_ip(), port: packet.src_port };
        let to = Endpoint { ip: packet.addresses.dst_ip(), port: packet.dst_port };
        self.endpoints.contains(&from) || self.endpoints.contains(&to)
    }
}

/// Why a packet is not looked at, if it is not.
#[inline]
fn left_out(ignored: &Ignored, filter: Option<&Filter>, packet: &Packet<'_>) -> Option<DropReason> {
    if ignored.contains(packet) {
        return Some(DropReason::OwnTraffic);
    }
    filter?.rejects(packet)
}

/// What a worker counted. `frames = packets + drops`.
#[derive(Clone, Debug, Default)]
pub struct WorkerStats {
    /// Frames taken in.
    pub frames: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Packets that went to the flow table.
    pub packets: u64,
    /// Frames that did not, by reason.
    pub drops: Drops,
    /// Packets that the search for duplicates forgot early: copies of them may have passed.
    pub dedup_forgotten: u64,
    /// Of the flow table.
    pub flow: FlowStats,
    /// Of the L7 engine.
    pub l7: wirespan_l7::engine::Stats,
    /// What was left out because frames came too fast.
    pub overload: OverloadStats,
}

/// Owns all the state of one core: decoder, flow table, L7 engine. Shares nothing.
pub struct Worker {
    decoder: Decoder,
    flows: FlowTable,
    overload: Overload,
    /// Until there is a source that can keep frames back.
    shunt: Option<(ShuntPolicy, Counted)>,
    ignored: Ignored,
    sample: Option<Sample>,
    /// Present when the source lends what is not wanted.
    filter: Option<Filter>,
    /// The same for packets that were put together from fragments.
    filter_of_datagrams: Option<Filter>,
    stats: WorkerStats,
}

impl Worker {
    /// A worker with these settings.
    pub fn new(config: WorkerConfig) -> Self {
        let shunt = config.shunt.map(|policy| (policy, Counted::new(&config.decode.mirror.taps)));
        let mut worker = Self {
            decoder: Decoder::new(config.decode),
            flows: FlowTable::new(config.flow, Engine::new(config.l7)),
            overload: Overload::new(config.overload),
            shunt,
            ignored: Ignored::new(config.ignored),
            sample: config.sample,
            filter: None,
            filter_of_datagrams: None,
            stats: WorkerStats::default(),
        };
        worker.set_filter(&Wanted::default(), false);
        worker
    }

    /// From now on only these packets, and of them the sample, are looked at. `by_source` says that the source lends no
    /// others, but for IP fragments, which do not all say their ports.
    pub fn set_filter(&mut self, wanted: &Wanted, by_source: bool) {
        let all = Wanted::default();
        let filter = |wanted: &Wanted, sample: Option<Sample>| {
            let (part, seed) = sample.map(|sample| (sample.part, sample.seed)).unzip();
            let is_needed = part.is_some() || *wanted != all;
            is_needed.then(|| Filter::new(wanted, part, seed.unwrap_or_default()))
        };
        let own_sample = self.sample.filter(|sample| !sample.by_source);
        self.filter = filter(if by_source { &all } else { wanted }, own_sample);
        self.filter_of_datagrams = filter(wanted, self.sample);
    }

    /// Lets the worker ask `source` to keep frames back, when its settings say so.
    pub fn set_shunt(&mut self, source: Box<dyn Shunt>) {
        if let Some((policy, counted)) = self.shunt.take() {
            self.flows.set_shunt(source, policy, counted);
        }
    }

    /// How far behind the worker is before the next batch, now: the part of its source's ring or queue that is full, 0 to 1.
    /// Of a file nothing is left out, as it waits: it has no backlog.
    pub fn set_backlog(&mut self, backlog: f32, now: Instant) {
        if let Some(shedding) = self.overload.observe(backlog, now) {
            self.flows.shed(shedding);
        }
    }

    /// Takes a batch of frames.
    pub fn batch(&mut self, batch: Batch<'_>, sink: &mut dyn RecordSink) {
        let mut stage = Stage::default();
        let mut pending = Pending::new(batch.marks());
        let mut ahead = batch.frames();
        ahead.nth(FRAMES_AHEAD - 1);
        for (index, frame) in batch.frames().enumerate() {
            while let Some(mark) = pending.due(index) {
                stage.marks.push(Mark { before: stage.packets.len(), ..mark });
            }
            if let Some(frame) = ahead.next() {
                prefetch(frame.data.as_ptr());
                prefetch(frame.data.as_ptr().wrapping_add(CACHE_LINE_BYTES));
            }
            self.stats.frames += 1;
            self.stats.bytes += u64::from(frame.wire_bytes());
            // By reference: a packet is moved once only, into the stage.
            let decoded = self.decoder.decode(&frame);
            let packet = match &decoded {
                Ok(packet) => packet,
                Err(reason) => {
                    self.stats.drops.count(*reason);
                    continue;
                }
            };
            if let Some(reason) = left_out(&self.ignored, self.filter.as_ref(), packet) {
                self.stats.drops.count(reason);
                continue;
            }
            match packet.lent_by(&frame) {
                Some(packet) => stage.packets.push(packet),
                // It lies in the decoder's memory until the next frame.
                None => {
                    if let Some(reason) = left_out(&self.ignored, self.filter_of_datagrams.as_ref(), packet) {
                        self.stats.drops.count(reason);
                        continue;
                    }
                    stage.hand_on(&mut self.flows, sink);
                    self.flows.packet(packet, sink);
                }
            }
            self.stats.packets += 1;
            if stage.packets.len() == STAGE_PACKETS {
                stage.hand_on(&mut self.flows, sink);
            }
        }
        while let Some(mark) = pending.due(usize::MAX) {
            stage.marks.push(Mark { before: stage.packets.len(), ..mark });
        }
        stage.hand_on(&mut self.flows, sink);
        self.count_lost_fragments();
    }

    /// It is `now_ns`, as other frames than this worker's tell, or a clock when none come: flows time out all the same.
    pub fn idle(&mut self, now_ns: u64, sink: &mut dyn RecordSink) {
        self.flows.advance(now_ns, sink);
    }

    /// The end of the input: everything that is kept is handed on.
    pub fn finish(&mut self, sink: &mut dyn RecordSink) {
        self.decoder.finish();
        self.count_lost_fragments();
        self.flows.finish(sink);
    }

    /// Fragments that waited in vain were counted as fragments when they came.
    fn count_lost_fragments(&mut self) {
        let lost = self.decoder.lost_fragments();
        self.stats.drops.reclassify(DropReason::Fragment, DropReason::FragmentLost, lost);
    }

    /// What was counted so far.
    pub fn stats(&self) -> WorkerStats {
        let mut stats = self.stats.clone();
        stats.packets -= self.flows.refused().total();
        stats.drops.merge(self.flows.refused());
        stats.dedup_forgotten = self.decoder.forgotten();
        stats.flow = self.flows.stats();
        stats.l7 = self.flows.l7_stats();
        stats.overload = self.overload.stats();
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;
    use wirespan_frame::{Descriptor, Hints, LinkType};
    use wirespan_records::Records;

    #[test]
    fn datagrams_of_fragments_meet_the_rules_that_the_source_has_for_all_else() {
        let fragment = |id: u8, place: [u8; 2], body: &[u8]| {
            let len = 20 + body.len() as u8;
            let mut ip =
                vec![0x45, 0, 0, len, 0, id, place[0], place[1], 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            ip.extend(body);
            ip
        };
        let datagram = |id: u8, port: u8| {
            let header = [0x9c, 0x40, 0, port, 0, 24, 0, 0];
            [fragment(id, [0x20, 0], &[&header[..], &[1; 8]].concat()), fragment(id, [0, 2], &[1; 8])]
        };
        let mut wanted = Wanted::default();
        wanted.deny.ports = [80].into();
        let sampled_out = Sample { part: 0.0, seed: 7, by_source: true };
        for (sample, packets, port, sampled) in [(None, 1, 1, 0), (Some(sampled_out), 0, 1, 1)] {
            let mut worker = Worker::new(WorkerConfig { sample, ..WorkerConfig::default() });
            worker.set_filter(&wanted, true);
            let (mut region, mut descriptors) = (Vec::new(), Vec::new());
            for frame in [datagram(1, 80), datagram(2, 81)].concat() {
                let len = frame.len() as u32;
                let link = LinkType::RawIp;
                let hints = Hints::default();
                descriptors.push(Descriptor {
                    offset: region.len(),
                    len,
                    wire_len: len,
                    ts_ns: 1,
                    link,
                    port: 0,
                    hints,
                });
                region.extend(frame);
            }
            worker.batch(Batch::new(&region, &descriptors), &mut Records::default());
            let stats = worker.stats();
            let of = |reason| stats.drops.get(reason);
            assert_eq!(
                (stats.packets, of(DropReason::FilteredPort), of(DropReason::SampledOut)),
                (packets, port, sampled)
            );
            assert_eq!(stats.frames, stats.packets + stats.drops.total());
        }
    }

    #[test]
    fn own_connections_are_ignored_in_both_directions() {
        let store = Endpoint { ip: [0, 0, 0, 2].into(), port: 8123 };
        let ignored = Ignored::new(vec![store]);
        let ignores = |packet| ignored.contains(&packet);
        assert!(ignores(tcp(1, 2, 40_000, 8123)) && ignores(tcp(2, 1, 8123, 40_000)));
        assert!(!ignores(tcp(1, 2, 40_000, 80)) && !ignores(tcp(1, 3, 40_000, 8123)));
        assert!(!Ignored::new(Vec::new()).contains(&tcp(1, 2, 40_000, 8123)));
    }
}

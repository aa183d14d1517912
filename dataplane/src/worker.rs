//! One worker: from lent frames to records.

use crate::decode::{DecodeConfig, Decoder};
use crate::flow::{FlowConfig, FlowStats, FlowTable, RecordSink};
use crate::packet::{Addresses, Packet};
use wirespan_frame::Batch;
use wirespan_l7::Engine;
use wirespan_records::{DropReason, Drops, Endpoint};

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
    /// The part of the flows that this worker takes, when several are given the same frames.
    pub shard: Shard,
}

/// One of `of` equal parts of all flows; both directions of a flow are in the same.
#[derive(Clone, Copy, Debug)]
pub struct Shard {
    /// From 0.
    pub index: u32,
    /// At least 1.
    pub of: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl Shard {
    #[inline]
    fn takes(&self, packet: &Packet<'_>) -> bool {
        if self.of == 1 {
            return true;
        }
        let Addresses { src, dst, .. } = packet.addresses;
        let mixed = (src ^ dst) as u64 ^ ((src ^ dst) >> 64) as u64;
        let ports = u64::from(packet.src_port ^ packet.dst_port);
        // Fibonacci hashing: the high bits depend on all of the input.
        let hash = (mixed ^ ports << 17).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (hash * u64::from(self.of)) >> 32 == u64::from(self.index)
    }
}

fn is_ignored(ignored: &[Endpoint], packet: &Packet<'_>) -> bool {
    !ignored.is_empty()
        && ignored.iter().any(|end| {
            let from = || end.port == packet.src_port && end.ip == packet.addresses.src_ip();
            let to = || end.port == packet.dst_port && end.ip == packet.addresses.dst_ip();
            from() || to()
        })
}

/// What a worker counted. `frames = packets + drops`. Of several that share the same frames, the first counts frames and
/// drops, each the packets it takes.
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
}

/// Owns all the state of one core: decoder, flow table, L7 engine. Shares nothing.
pub struct Worker {
    decoder: Decoder,
    flows: FlowTable,
    shard: Shard,
    ignored: Vec<Endpoint>,
    stats: WorkerStats,
}

impl Worker {
    /// A worker with these settings.
    pub fn new(config: WorkerConfig) -> Self {
        Self {
            decoder: Decoder::new(config.decode),
            flows: FlowTable::new(config.flow, Engine::new(config.l7)),
            shard: config.shard,
            ignored: config.ignored,
            stats: WorkerStats::default(),
        }
    }

    /// Takes a batch of frames.
    pub fn batch(&mut self, batch: Batch<'_>, sink: &mut dyn RecordSink) {
        let first = self.shard.index == 0;
        let stats = &mut self.stats;
        for frame in batch.frames() {
            if first {
                stats.frames += 1;
                stats.bytes += u64::from(frame.wire_len);
            }
            let dropped = match self.decoder.decode(&frame) {
                Ok(packet) if is_ignored(&self.ignored, &packet) => DropReason::OwnTraffic,
                Ok(packet) => {
                    if self.shard.takes(&packet) {
                        stats.packets += 1;
                        self.flows.packet(&packet, sink);
                    } else {
                        // Time goes on in all parts alike, so that their flows end as they would in one.
                        self.flows.advance(packet.ts_ns, sink);
                    }
                    continue;
                }
                Err(reason) => reason,
            };
            if first {
                stats.drops.count(dropped);
            }
        }
        self.count_lost_fragments();
    }

    /// Frames from now on come from these interfaces: a frame's number is the place in `names`. For taps.
    pub fn set_interfaces(&mut self, names: &[String]) {
        self.decoder.set_interfaces(names);
    }

    /// No frame came for a while and it is `now_ns`: flows time out all the same.
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
        if self.shard.index == 0 {
            self.stats.drops.reclassify(DropReason::Fragment, DropReason::FragmentLost, lost);
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> WorkerStats {
        let mut stats = self.stats.clone();
        stats.dedup_forgotten = self.decoder.forgotten();
        stats.flow = self.flows.stats();
        stats.l7 = self.flows.l7_stats();
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;

    #[test]
    fn own_connections_are_ignored_in_both_directions() {
        let store = Endpoint { ip: [0, 0, 0, 2].into(), port: 8123 };
        let ignores = |packet| is_ignored(&[store], &packet);
        assert!(ignores(tcp(1, 2, 40_000, 8123)) && ignores(tcp(2, 1, 8123, 40_000)));
        assert!(!ignores(tcp(1, 2, 40_000, 80)) && !ignores(tcp(1, 3, 40_000, 8123)));
        assert!(!is_ignored(&[], &tcp(1, 2, 40_000, 8123)));
    }

    #[test]
    fn shards_take_each_flow_once_and_both_its_directions() {
        let mut taken = [0; 3];
        for port in 1..1000 {
            let takes =
                |packet| (0..3).filter(|&index| Shard { index, of: 3 }.takes(&packet)).collect::<Vec<_>>();
            let shards = takes(tcp(1, 2, port, 80));
            assert_eq!((shards.len(), &shards), (1, &takes(tcp(2, 1, 80, port))));
            taken[shards[0] as usize] += 1;
        }
        assert!(taken.iter().all(|&n| n > 200), "{taken:?}");
    }
}

//! One worker: from lent frames to records.

use crate::decode::{DecodeConfig, Decoder};
use crate::flow::{FlowConfig, FlowStats, FlowTable, RecordSink};
use crate::packet::Packet;
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
}

fn is_ignored(ignored: &[Endpoint], packet: &Packet<'_>) -> bool {
    !ignored.is_empty()
        && ignored.iter().any(|end| {
            let from = || end.port == packet.src_port && end.ip == packet.addresses.src_ip();
            let to = || end.port == packet.dst_port && end.ip == packet.addresses.dst_ip();
            from() || to()
        })
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
}

/// Owns all the state of one core: decoder, flow table, L7 engine. Shares nothing.
pub struct Worker {
    decoder: Decoder,
    flows: FlowTable,
    ignored: Vec<Endpoint>,
    stats: WorkerStats,
}

impl Worker {
    /// A worker with these settings.
    pub fn new(config: WorkerConfig) -> Self {
        Self {
            decoder: Decoder::new(config.decode),
            flows: FlowTable::new(config.flow, Engine::new(config.l7)),
            ignored: config.ignored,
            stats: WorkerStats::default(),
        }
    }

    /// Takes a batch of frames.
    pub fn batch(&mut self, batch: Batch<'_>, sink: &mut dyn RecordSink) {
        let stats = &mut self.stats;
        for frame in batch.frames() {
            stats.frames += 1;
            stats.bytes += u64::from(frame.wire_len);
            match self.decoder.decode(&frame) {
                Ok(packet) if is_ignored(&self.ignored, &packet) => stats.drops.count(DropReason::OwnTraffic),
                Ok(packet) => {
                    stats.packets += 1;
                    self.flows.packet(&packet, sink);
                }
                Err(reason) => stats.drops.count(reason),
            }
        }
        self.count_lost_fragments();
    }

    /// Frames from now on come from these interfaces: a frame's number is the place in `names`. For taps.
    pub fn set_interfaces(&mut self, names: &[String]) {
        self.decoder.set_interfaces(names);
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
}

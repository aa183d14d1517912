//! What a capture thread counts, in the registry.

use std::collections::HashMap;
use wirespan_analyzer::{Counter, Registry};
use wirespan_capture::{KeptBack, Loss, SourceStats};
use wirespan_dataplane::WorkerStats;
use wirespan_records::DropReason;

/// Counts what is done on an interface in another way than was asked for.
#[derive(Clone)]
pub struct Fallbacks {
    registry: Registry,
    interface: String,
}

impl Fallbacks {
    pub fn new(registry: &Registry, interface: &str) -> Self {
        Self { registry: registry.clone(), interface: interface.to_owned() }
    }

    /// One was taken, as a sentence has said.
    pub fn count(&self, kind: &str) {
        let help = "Times that something asked for could not be had and another way was taken, by kind.";
        let labels = [("interface", self.interface.as_str()), ("kind", kind)];
        self.registry.counter("wirespan_fallbacks_total", help, &labels).add(1);
    }
}

pub struct Counters {
    received: Counter,
    cut: Counter,
    lost: Vec<(Loss, Counter)>,
    kept_back: Vec<(KeptBack, Counter)>,
    frames: Counter,
    bytes: Counter,
    packets: Counter,
    drops: HashMap<DropReason, Counter>,
    dedup_forgotten: Counter,
    flows: Counter,
    evicted: Counter,
    live: Counter,
    flow_memory: Counter,
    gap_bytes: Counter,
    unpaired: Counter,
    overload_level: Counter,
    overload_raised: Counter,
    overload_lowered: Counter,
    payload_shed: Counter,
    shunted: Counter,
    shunt_woken: Counter,
    shunt_refused: Counter,
    shunt_packets: Counter,
    shunt_bytes: Counter,
}

impl Counters {
    pub fn new(registry: &Registry, interface: &str, worker: u16) -> Self {
        let worker = worker.to_string();
        let labels = [("interface", interface), ("worker", worker.as_str())];
        let counter = |name, help| registry.counter(name, help, &labels);
        let gauge = |name, help| registry.gauge(name, help, &labels);
        let by_reason = |name, help, reason: &str| {
            registry.counter(name, help, &[labels[0], labels[1], ("reason", reason)])
        };
        let drop_counter = |&reason: &DropReason| {
            let help = "Frames that did not become a packet of a flow, by reason.";
            (reason, by_reason("wirespan_frames_dropped_total", help, reason.as_str()))
        };
        let loss_counter = |loss: Loss| {
            let help = "Frames that were lost before a worker had them, by reason.";
            (loss, by_reason("wirespan_capture_lost_total", help, &loss.to_string()))
        };
        let kept_back_counter = |reason: KeptBack| {
            let help = "Frames that the source did not lend because it was asked not to, by reason.";
            (reason, by_reason("wirespan_capture_kept_back_total", help, reason.as_str()))
        };
        Self {
            received: counter("wirespan_capture_received_total", "Frames lent by the source."),
            cut: counter(
                "wirespan_capture_cut_total",
                "Of them, without their last bytes, as they were longer than the source takes.",
            ),
            lost: Loss::ALL.into_iter().map(loss_counter).collect(),
            kept_back: KeptBack::ALL.into_iter().map(kept_back_counter).collect(),
            frames: counter("wirespan_frames_total", "Frames taken in: packets and the dropped ones."),
            bytes: counter("wirespan_frame_bytes_total", "Bytes of the frames on the wire."),
            packets: counter("wirespan_packets_total", "Packets that went to the flow table."),
            drops: DropReason::ALL.iter().map(drop_counter).collect(),
            dedup_forgotten: counter(
                "wirespan_dedup_forgotten_total",
                "Packets that the search for duplicates forgot early: copies of them may have passed.",
            ),
            flows: counter("wirespan_flows_total", "Flows begun."),
            evicted: counter("wirespan_flows_evicted_total", "Flows that left because the table was full."),
            live: gauge("wirespan_flows_live", "Flows in the table."),
            flow_memory: gauge("wirespan_flow_memory_bytes", "Memory of the flow table."),
            gap_bytes: counter(
                "wirespan_l7_gap_bytes_total",
                "Stream bytes that a parser waited for and that were not captured.",
            ),
            unpaired: counter(
                "wirespan_l7_unpaired_total",
                "Requests and responses told apart, because others may have been open when their connection was seen first.",
            ),
            overload_level: gauge(
                "wirespan_overload_level",
                "0 all, 1 payload of unknown protocols is left out, 2 all payload, 3 most new flows too.",
            ),
            overload_raised: counter("wirespan_overload_raised_total", "Times that more was left out."),
            overload_lowered: counter("wirespan_overload_lowered_total", "Times that less was left out."),
            payload_shed: counter(
                "wirespan_payload_shed_packets_total",
                "Packets whose payload was left out for lack of time.",
            ),
            shunted: counter(
                "wirespan_flows_shunted_total",
                "Times that a flow was kept back by the source.",
            ),
            shunt_woken: counter(
                "wirespan_flows_woken_total",
                "Times that a flow which the source kept back was handed on again for one of its packets.",
            ),
            shunt_refused: counter(
                "wirespan_flows_not_shunted_total",
                "Times that a flow was not kept back: the source had no room, or another tap may see the same flow.",
            ),
            shunt_packets: counter(
                "wirespan_shunt_packets_total",
                "Packets that the source counted and kept back.",
            ),
            shunt_bytes: counter("wirespan_shunt_bytes_total", "Their bytes on the wire."),
        }
    }

    pub fn set(&self, worker: &WorkerStats, source: &SourceStats) {
        self.received.set(source.received);
        self.cut.set(source.cut);
        for (loss, counter) in &self.lost {
            counter.set(frames(&source.drops, *loss));
        }
        for (reason, counter) in &self.kept_back {
            counter.set(frames(&source.kept_back, *reason));
        }
        self.frames.set(worker.frames);
        self.bytes.set(worker.bytes);
        self.packets.set(worker.packets);
        for (reason, counter) in &self.drops {
            counter.set(worker.drops.get(*reason));
        }
        self.dedup_forgotten.set(worker.dedup_forgotten);
        self.flows.set(worker.flow.flows);
        self.evicted.set(worker.flow.evicted);
        self.live.set(worker.flow.live);
        self.flow_memory.set(worker.flow.memory.total());
        self.gap_bytes.set(worker.l7.gap_bytes);
        self.unpaired.set(worker.l7.unpaired);
        self.overload_level.set(worker.overload.level as u64);
        self.overload_raised.set(worker.overload.raised);
        self.overload_lowered.set(worker.overload.lowered);
        self.payload_shed.set(worker.flow.payload_shed);
        self.shunted.set(worker.flow.shunt.shunted);
        self.shunt_woken.set(worker.flow.shunt.woken);
        self.shunt_refused.set(worker.flow.shunt.refused);
        self.shunt_packets.set(worker.flow.shunt.packets);
        self.shunt_bytes.set(worker.flow.shunt.bytes);
    }
}

fn frames<T: PartialEq>(by_reason: &[(T, u64)], reason: T) -> u64 {
    by_reason.iter().filter(|(of, _)| *of == reason).map(|(_, frames)| frames).sum()
}

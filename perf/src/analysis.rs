//! How far packets go: the stages of the packet path, for every source.

use clap::ValueEnum;
use std::hint::black_box;
use wirespan_capture::{Batch, Shunt};
use wirespan_dataplane::decode::Decoder;
use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, PerDirection, Span};

/// How far packets go; each stage does what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Frames are found: the loop by itself
    Frames,
    /// Frames are decoded
    Decode,
    /// Flows and TCP metrics are made; payload is not looked at
    L4,
    /// Requests too: what `wirespan replay --emit stats` does
    L7,
}

impl Stage {
    /// The name in measurements.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Decode => "decode",
            Self::L4 => "l4",
            Self::L7 => "l4+l7",
        }
    }
}

/// Counts records and lets go of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Frames that were lent.
    pub packets: u64,
    /// Flows handed on.
    pub flows: u64,
    /// Requests handed on.
    pub spans: u64,
    /// Packets of those flows, from clients and from servers.
    pub flow_packets: PerDirection<u64>,
    /// Their bytes.
    pub flow_bytes: PerDirection<u64>,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            flows: self.flows + other.flows,
            spans: self.spans + other.spans,
            flow_packets: sum(self.flow_packets, other.flow_packets),
            flow_bytes: sum(self.flow_bytes, other.flow_bytes),
        }
    }
}

fn sum(one: PerDirection<u64>, other: PerDirection<u64>) -> PerDirection<u64> {
    PerDirection { tx: one.tx + other.tx, rx: one.rx + other.rx }
}

impl SpanSink for Counts {
    fn span(&mut self, _: Span) {
        self.spans += 1;
    }
}

impl RecordSink for Counts {
    fn flow(&mut self, flow: Flow) {
        self.flows += 1;
        self.flow_packets = sum(self.flow_packets, flow.metrics.packets);
        self.flow_bytes = sum(self.flow_bytes, flow.metrics.bytes);
    }

    fn tick(&mut self, _: FlowTick) {}
}

/// One worker's work as far as a stage.
pub struct Analysis {
    path: Path,
    /// What came out.
    pub counts: Counts,
}

enum Path {
    Frames,
    Decode(Box<Decoder>),
    Worker(Box<Worker>),
}

impl Analysis {
    /// As far as this stage.
    pub fn new(stage: Stage, mut config: WorkerConfig) -> Self {
        config.flow.l7 = stage == Stage::L7;
        let path = match stage {
            Stage::Frames => Path::Frames,
            Stage::Decode => Path::Decode(Box::new(Decoder::new(config.decode))),
            Stage::L4 | Stage::L7 => Path::Worker(Box::new(Worker::new(config))),
        };
        Self { path, counts: Counts::default() }
    }

    /// Takes a batch.
    pub fn batch(&mut self, batch: Batch<'_>) {
        let counts = &mut self.counts;
        counts.packets += batch.len() as u64;
        match &mut self.path {
            Path::Frames => {
                black_box(batch.frames().map(|frame| frame.data.len()).sum::<usize>());
            }
            Path::Decode(decoder) => {
                for frame in batch.frames() {
                    let _ = black_box(decoder.decode(&frame));
                }
            }
            Path::Worker(worker) => worker.batch(batch, counts),
        }
    }

    /// Lets the worker ask the source to keep flows back, when its settings say so.
    pub fn set_shunt(&mut self, source: Box<dyn Shunt>) {
        if let Path::Worker(worker) = &mut self.path {
            worker.set_shunt(source);
        }
    }

    /// No frame came up to this time, in ns since the epoch.
    pub fn idle(&mut self, now_ns: u64) {
        match &mut self.path {
            Path::Frames | Path::Decode(_) => {}
            Path::Worker(worker) => worker.idle(now_ns, &mut self.counts),
        }
    }

    /// The end of the input.
    pub fn finish(&mut self) {
        match &mut self.path {
            Path::Frames | Path::Decode(_) => {}
            Path::Worker(worker) => worker.finish(&mut self.counts),
        }
    }
}

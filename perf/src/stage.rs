//! One pass over a capture as far as a stage. It runs in a process of its own, so that its memory is its own too.

use crate::measure::{Clock, Whose};
use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use wirespan_capture::pcap_file::{CHUNK_BYTES, PcapFile};
use wirespan_capture::{Batch, PacketSource};
use wirespan_dataplane::decode::Decoder;
use wirespan_dataplane::flow::FlowTable;
use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
use wirespan_l7::{Engine, SpanSink};
use wirespan_records::{Flow, FlowTick, Span};

/// How far packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The file's bytes are read
    Read,
    /// Frames are found in them
    Frames,
    /// Frames are decoded
    Decode,
    /// Flows and TCP metrics are made; payload is left out, as if the capture had been cut behind the headers
    L4,
    /// Requests too: what `wirespan replay --emit stats` does
    L7,
}

impl Stage {
    /// Every stage; each does what those before it do.
    pub const ALL: [Self; 5] = [Self::Read, Self::Frames, Self::Decode, Self::L4, Self::L7];

    /// The name in measurements.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "file read",
            Self::Frames => "frames",
            Self::Decode => "decode",
            Self::L4 => "l4",
            Self::L7 => "l4+l7",
        }
    }
}

/// What `wirespan-perf replay-once` is asked for.
#[derive(clap::Args)]
pub struct StageArgs {
    /// How far packets go
    #[arg(long, value_enum, default_value_t = Stage::L7)]
    pub stage: Stage,
    /// Capture file
    pub file: PathBuf,
}

/// What one pass saw and took; one line of JSON.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Pass {
    /// Wall clock of the pass, without the start of the process.
    pub wall_s: f64,
    /// CPU time of the pass.
    pub cpu_s: f64,
    /// Most memory that the process has had resident (`VmHWM`).
    pub peak_bytes: u64,
    /// Frames found, none by [`Stage::Read`].
    pub packets: u64,
    /// Flows handed on.
    pub flows: u64,
    /// Requests handed on.
    pub spans: u64,
}

/// Runs the command.
pub fn run(args: &StageArgs) -> anyhow::Result<()> {
    let clock = Clock::start(Whose::Own)?;
    let mut counts = Counts::default();
    match args.stage {
        Stage::Read => read(&args.file)?,
        Stage::Frames => {
            each_batch(&args.file, &mut counts, |batch, _| {
                black_box(batch.frames().map(|frame| frame.data.len()).sum::<usize>());
            })?;
        }
        Stage::Decode => decode(&args.file, &mut counts)?,
        Stage::L4 => l4(&args.file, &mut counts)?,
        Stage::L7 => l7(&args.file, &mut counts)?,
    }
    let times = clock.stop()?;
    let Counts { packets, flows, spans } = counts;
    let pass =
        Pass { wall_s: times.wall_s, cpu_s: times.cpu_s, peak_bytes: peak_bytes()?, packets, flows, spans };
    println!("{}", serde_json::to_string(&pass)?);
    Ok(())
}

/// Counts records and lets go of them.
#[derive(Default)]
struct Counts {
    packets: u64,
    flows: u64,
    spans: u64,
}

impl SpanSink for Counts {
    fn span(&mut self, _: Span) {
        self.spans += 1;
    }
}

impl RecordSink for Counts {
    fn flow(&mut self, _: Flow) {
        self.flows += 1;
    }

    fn tick(&mut self, _: FlowTick) {}
}

fn read(path: &Path) -> anyhow::Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(read_to_end(&mut file)?)
}

/// Reads what is left of a file, to the start of a page each time: the kernel copies there in half the time.
pub fn read_to_end(file: &mut File) -> std::io::Result<()> {
    const PAGE_BYTES: usize = 4096;
    let mut buffer = vec![0; CHUNK_BYTES + PAGE_BYTES];
    let start = buffer.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
    let chunk = &mut buffer[start..start + CHUNK_BYTES];
    while file.read(chunk)? > 0 {
        black_box(&mut *chunk);
    }
    Ok(())
}

fn each_batch(
    path: &Path,
    counts: &mut Counts,
    mut take: impl FnMut(Batch<'_>, &mut Counts),
) -> anyhow::Result<()> {
    let mut file = PcapFile::open(path)?;
    while let Some(batch) = file.next_batch()? {
        counts.packets += batch.len() as u64;
        take(batch, counts);
    }
    Ok(())
}

fn decode(path: &Path, counts: &mut Counts) -> anyhow::Result<()> {
    let mut decoder = Decoder::new(WorkerConfig::default().decode);
    each_batch(path, counts, |batch, _| {
        for frame in batch.frames() {
            let _ = black_box(decoder.decode(&frame));
        }
    })
}

fn l4(path: &Path, counts: &mut Counts) -> anyhow::Result<()> {
    let config = WorkerConfig::default();
    let mut decoder = Decoder::new(config.decode);
    let mut table = FlowTable::new(config.flow, Engine::new(config.l7));
    each_batch(path, counts, |batch, counts| {
        for frame in batch.frames() {
            if let Ok(mut packet) = decoder.decode(&frame) {
                packet.payload = &[];
                table.packet(&packet, counts);
            }
        }
    })?;
    table.finish(counts);
    Ok(())
}

fn l7(path: &Path, counts: &mut Counts) -> anyhow::Result<()> {
    let mut worker = Worker::new(WorkerConfig::default());
    each_batch(path, counts, |batch, counts| worker.batch(batch, counts))?;
    worker.finish(counts);
    Ok(())
}

/// `VmHWM` in proc_pid_status(5), which counts in KiB.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    Ok(kib.context("the kernel does not tell VmHWM in /proc/self/status")? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture;

    #[test]
    fn stages_see_the_same_packets_and_l7_sees_requests() {
        let count = |pass: fn(&Path, &mut Counts) -> anyhow::Result<()>| {
            let mut counts = Counts::default();
            pass(&fixture(), &mut counts).unwrap();
            counts
        };
        let (decoded, l4, l7) = (count(decode), count(l4), count(l7));
        assert!(decoded.packets > 0 && decoded.flows == 0);
        assert_eq!((l4.packets, l4.spans), (decoded.packets, 0));
        assert_eq!((l7.packets, l7.flows), (decoded.packets, l4.flows));
        assert!(l4.flows > 0 && l7.spans > 0);
    }

    #[test]
    fn this_process_has_a_peak() {
        assert!(peak_bytes().unwrap() > 100 * 1024);
    }
}

//! One pass over a capture as far as a stage. It runs in a process of its own, so that its memory is its own too.

use crate::analysis::{Analysis, Counts, Stage};
use crate::measure::{Clock, Whose};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use wirespan_capture::pcap_file::{CHUNK_BYTES, PcapFile};
use wirespan_capture::spread::{self, FileEnd};
use wirespan_capture::{PacketSource, placement};
use wirespan_dataplane::WorkerConfig;

/// What `wirespan-perf replay-once` is asked for.
#[derive(clap::Args)]
pub struct StageArgs {
    /// How far packets go; unless told, the file's bytes are only read
    #[arg(long, value_enum)]
    pub stage: Option<Stage>,
    /// Workers that share the packets
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
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
    /// Frames found.
    pub packets: u64,
    /// Flows handed on.
    pub flows: u64,
    /// Requests handed on.
    pub spans: u64,
}

/// Runs the command.
pub fn run(args: &StageArgs) -> anyhow::Result<()> {
    let clock = Clock::start(Whose::Own)?;
    let counts = match args.stage {
        None => read(&args.file).map(|()| Counts::default())?,
        Some(stage) if args.workers > 1 => spread(stage, &args.file, args.workers)?,
        Some(stage) => analyse(stage, &args.file)?,
    };
    let times = clock.stop()?;
    let Counts { packets, flows, spans, .. } = counts;
    let pass =
        Pass { wall_s: times.wall_s, cpu_s: times.cpu_s, peak_bytes: peak_bytes()?, packets, flows, spans };
    println!("{}", serde_json::to_string(&pass)?);
    Ok(())
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

fn analyse(stage: Stage, path: &Path) -> anyhow::Result<Counts> {
    let mut analysis = Analysis::new(stage, WorkerConfig::default());
    let mut file = PcapFile::open(path)?;
    while let Some(batch) = file.next_batch()? {
        analysis.batch(batch);
    }
    analysis.finish();
    Ok(analysis.counts)
}

/// Several workers, each on a thread and with a part of the flows, placed as `wirespan replay` does.
fn spread(stage: Stage, path: &Path, workers: usize) -> anyhow::Result<Counts> {
    let ends = spread::files(&[path.to_owned()], &[], workers)?;
    let cpus = placement::cpu_each(workers).unwrap_or_default();
    let work = |index: usize, mut end: FileEnd| {
        if let Some(&cpu) = cpus.get(index) {
            placement::pin_to_cpu(cpu)?;
        }
        let mut analysis = Analysis::new(stage, WorkerConfig::default());
        while let Some(batch) = end.next_batch()? {
            analysis.batch(batch);
        }
        analysis.finish();
        Ok(analysis.counts)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let start = |(index, end)| scope.spawn(move || work(index, end));
        let threads: Vec<_> = ends.into_iter().enumerate().map(start).collect();
        threads.into_iter().try_fold(Counts::default(), |sum, thread| {
            let one: anyhow::Result<Counts> =
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            one.map(|one| sum + one)
        })
    })
}

/// The most memory that this process has had resident.
pub fn peak_bytes() -> anyhow::Result<u64> {
    status("VmHWM:")
}

/// The memory of this process that is resident.
pub fn resident_bytes() -> anyhow::Result<u64> {
    status("VmRSS:")
}

/// A line of proc_pid_status(5), which counts in KiB.
fn status(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("the kernel does not tell {name} in /proc/self/status"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture;

    #[test]
    fn stages_see_the_same_packets_and_l7_sees_requests() {
        let [frames, decoded, l4, l7] = [Stage::Frames, Stage::Decode, Stage::L4, Stage::L7]
            .map(|stage| analyse(stage, &fixture()).unwrap());
        assert_eq!(frames.packets, decoded.packets);
        assert!(decoded.packets > 0 && decoded.flows == 0);
        assert_eq!((l4.packets, l4.spans), (decoded.packets, 0));
        assert_eq!((l7.packets, l7.flows), (decoded.packets, l4.flows));
        assert!(l4.flows > 0 && l7.spans > 0);
        let two = spread(Stage::L7, &fixture(), 2).unwrap();
        assert_eq!((two.packets, two.flows, two.spans), (l7.packets, l7.flows, l7.spans));
    }

    #[test]
    fn this_process_has_a_peak() {
        assert!(peak_bytes().unwrap() > 100 * 1024);
    }
}

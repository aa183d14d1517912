//! Packets per second of each stage over a long capture, on one core and on several; memory.

use crate::analysis::Stage;
use crate::capture::{Template, Written, fixture};
use crate::measure::{Measurement, OneCore, Output, Times};
use crate::stage::Pass;
use crate::traffic::TrafficArgs;
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What `wirespan-perf replay` is asked for.
#[derive(clap::Args)]
pub struct ReplayArgs {
    /// Capture that is repeated, of Ethernet frames; a recording of real servers from the repository unless told
    #[arg(long, value_name = "CAPTURE")]
    pub input: Option<PathBuf>,

    /// The long capture has more packets than this
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub packets: u64,

    /// Keep the long capture here
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Each measurement is the best of so many
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub rounds: u32,

    /// Made-up packets of 64 bytes in so many TCP connections, instead of a capture
    #[arg(long, conflicts_with = "input", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub flows: Option<u32>,

    /// Also with so many workers, each on a core; as many as there are cores unless told
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub workers: Option<u16>,
}

/// Runs the suite.
pub fn run(args: &ReplayArgs, output: &mut Output) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = args.out.clone().unwrap_or_else(|| dir.path().join("long.pcap"));
    let (name, written) = write(args, &file)?;
    let bench = format!("replay/{name}");
    let cores = std::thread::available_parallelism()?.get();
    {
        let _core = OneCore::pin()?;
        stages(&bench, &file, written, args.rounds, output)?;
    }
    match args.workers.map_or(cores, usize::from) {
        1 => Ok(()),
        workers => several(&bench, &file, workers, args.rounds, output),
    }
}

/// Makes the long capture.
fn write(args: &ReplayArgs, file: &Path) -> anyhow::Result<(String, Written)> {
    if let Some(flows) = args.flows {
        let traffic = TrafficArgs::connections(64, flows);
        traffic.write(args.packets, 1e6, file)?;
        return Ok((traffic.name(), Written { packets: args.packets, bytes: args.packets * 64 }));
    }
    let input = args.input.clone().unwrap_or_else(fixture);
    let name = input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, Template::read(&input)?.repeat(args.packets, file)?))
}

/// Several workers beside one that may use every core too, and beside what the machine itself gives when so many passes
/// that have nothing in common run at once, each on a core; in turn.
fn several(bench: &str, file: &Path, workers: usize, rounds: u32, output: &mut Output) -> anyhow::Result<()> {
    for stage in [Stage::L4, Stage::L7] {
        let [mut one, mut together, mut apart] = [0_f64; 3];
        for _ in 0..rounds {
            let rate = |pass: Pass| pass.packets as f64 / pass.wall_s;
            one = one.max(rate(pass(Some(stage), file, 1)?));
            together = together.max(rate(pass(Some(stage), file, workers)?));
            apart = apart.max(rate(passes_at_once(stage, file, workers)?));
        }
        let name = stage.name();
        let variant = format!("{name}, {workers} workers beside one");
        output.push(Measurement::new(bench, &variant, together, "packets/s", one))?;
        let variant = format!("{name}, {workers} passes at once beside one");
        output.push(Measurement::new(bench, &variant, apart, "packets/s", one))?;
    }
    Ok(())
}

/// One pass on each of so many cores at the same time: their packets, in the time of the slowest.
fn passes_at_once(stage: Stage, file: &Path, cores: usize) -> anyhow::Result<Pass> {
    let start = |core| {
        let _core = OneCore::nth(core)?;
        start(Some(stage), file, 1)
    };
    let started: Vec<_> = (0..cores).map(start).collect::<anyhow::Result<_>>()?;
    started.into_iter().try_fold(Pass::default(), |sum, child| {
        let pass = finish(Some(stage), child)?;
        Ok(Pass { packets: sum.packets + pass.packets, wall_s: sum.wall_s.max(pass.wall_s), ..pass })
    })
}

/// The best passes of each stage, which take turns.
fn stages(
    bench: &str,
    file: &Path,
    written: Written,
    rounds: u32,
    output: &mut Output,
) -> anyhow::Result<()> {
    let all = [None, Some(Stage::Frames), Some(Stage::Decode), Some(Stage::L4), Some(Stage::L7)];
    let mut best = all.map(|stage| (stage, Times::NONE, Pass::default()));
    for _ in 0..rounds {
        for (stage, times, last) in &mut best {
            let pass = pass(*stage, file, 1)?;
            if stage.is_some() && pass.packets != written.packets {
                bail!("{} packets of {} were read back", pass.packets, written.packets);
            }
            *times = times.best(Times { wall_s: pass.wall_s, cpu_s: pass.cpu_s });
            *last = Pass { peak_bytes: pass.peak_bytes.max(last.peak_bytes), ..pass };
        }
    }
    let [(_, limit, raw), ..] = best;
    let packets = written.packets as f64;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    for (stage, times, _) in best {
        let (wall, cpu) = (packets / times.wall_s, packets / times.cpu_s);
        if let Some(stage) = stage {
            let name = stage.name();
            output.push(Measurement::new(bench, name, wall, "packets/s", packets / limit.wall_s))?;
            output.push(Measurement::new(bench, name, cpu, "packets/CPU-s", packets / limit.cpu_s))?;
        } else {
            output.push(Measurement::limit(bench, "file read", wall, "packets/s"))?;
            output.push(Measurement::limit(bench, "file read", cpu, "packets/CPU-s"))?;
        }
    }
    let [.., (_, times, pass)] = best;
    let name = |what| format!("{}: {what}", Stage::L7.name());
    let peak = megabytes(pass.peak_bytes);
    output.push(Measurement::new(bench, &name("peak memory"), peak, "MB", megabytes(raw.peak_bytes)))?;
    let (flows, spans) = (pass.flows as f64, pass.spans as f64);
    output.push(Measurement::new(bench, &name("flows"), flows, "flows", packets))?;
    output.push(Measurement::new(bench, &name("requests"), spans, "requests", packets))?;
    let read = megabytes(written.bytes);
    output.push(Measurement::new(
        bench,
        &name("captured bytes"),
        read / times.wall_s,
        "MB/s",
        read / limit.wall_s,
    ))
}

/// One pass in a process of its own.
fn pass(stage: Option<Stage>, file: &Path, workers: usize) -> anyhow::Result<Pass> {
    finish(stage, start(stage, file, workers)?)
}

fn start(stage: Option<Stage>, file: &Path, workers: usize) -> anyhow::Result<Child> {
    let mut command = replay_once(stage, file)?;
    command.args(["--workers", &workers.to_string()]).stdout(Stdio::piped());
    command.spawn().context("cannot start a pass")
}

fn finish(stage: Option<Stage>, child: Child) -> anyhow::Result<Pass> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("a pass as far as {} ended with {}", stage.map_or("reading", Stage::name), output.status);
    }
    serde_json::from_slice(&output.stdout).context("a pass gave no measurement")
}

/// The command that makes one pass in a process of its own.
pub fn replay_once(stage: Option<Stage>, file: &Path) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut command = Command::new(program);
    command.arg("replay-once").arg(file);
    if let Some(value) = stage.and_then(|stage| stage.to_possible_value()) {
        command.args(["--stage", value.get_name()]);
    }
    Ok(command)
}

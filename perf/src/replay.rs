//! Packets per second of each stage over a long capture, on one core; memory; other programs on the same file.

use crate::analysis::Stage;
use crate::capture::{Template, Written, fixture};
use crate::measure::{Clock, Measurement, OneCore, Output, Times, Whose};
use crate::stage::Pass;
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `wirespan-perf replay` is asked for.
#[derive(clap::Args)]
pub struct ReplayArgs {
    /// Capture that is repeated, of Ethernet frames; a recording of real servers from the repository unless told
    #[arg(long, value_name = "CAPTURE")]
    pub input: Option<PathBuf>,

    /// The long capture has more packets than this
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub packets: u64,

    /// Keep the long capture here
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Each measurement is the best of so many
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub rounds: u32,

    /// Also run ndpiReader and tcpdump on the same file, where they are installed
    #[arg(long)]
    pub compare: bool,
}

/// Another program that reads captures.
struct Peer {
    name: &'static str,
    program: &'static str,
    package: &'static str,
    arguments: fn(&Path) -> Vec<&std::ffi::OsStr>,
}

const PEERS: [Peer; 2] = [
    Peer {
        name: "ndpiReader -q",
        program: "ndpiReader",
        package: "libndpi-bin",
        arguments: |file| vec!["-q".as_ref(), "-i".as_ref(), file.as_os_str()],
    },
    Peer {
        name: "tcpdump -w /dev/null",
        program: "tcpdump",
        package: "tcpdump",
        arguments: |file| vec!["-r".as_ref(), file.as_os_str(), "-w".as_ref(), "/dev/null".as_ref()],
    },
];

/// Runs the suite.
pub fn run(args: &ReplayArgs, output: &mut Output) -> anyhow::Result<()> {
    let input = args.input.clone().unwrap_or_else(fixture);
    let stem = input.file_stem().unwrap_or_default().to_string_lossy();
    let bench = format!("replay/{stem}");
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = args.out.clone().unwrap_or_else(|| dir.path().join("long.pcap"));
    let written = Template::read(&input)?.repeat(args.packets, &file)?;
    let _core = OneCore::pin()?;
    stages(&bench, &file, written, args.rounds, output)?;
    if args.compare {
        compare(&bench, &file, written, args.rounds, output)?;
    }
    Ok(())
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
            let pass = pass(*stage, file)?;
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
fn pass(stage: Option<Stage>, file: &Path) -> anyhow::Result<Pass> {
    let output = replay_once(stage, file)?.stderr(Stdio::inherit()).output()?;
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

/// Whole processes in turn: ours, then the others.
fn compare(
    bench: &str,
    file: &Path,
    written: Written,
    rounds: u32,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut ours = Times::NONE;
    let mut peers = Vec::new();
    for peer in PEERS {
        if Command::new(peer.program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            eprintln!(
                "wirespan-perf: {} is not there to compare with; install the package {}",
                peer.program, peer.package
            );
            continue;
        }
        peers.push((peer, Times::NONE));
    }
    for _ in 0..rounds {
        ours = ours.best(whole_process(&mut replay_once(Some(Stage::L7), file)?)?);
        for (peer, times) in &mut peers {
            let mut command = Command::new(peer.program);
            command.args((peer.arguments)(file));
            *times = times.best(whole_process(&mut command)?);
        }
    }
    let packets = written.packets as f64;
    for (peer, theirs) in peers {
        let variant = format!("l4+l7 against {}", peer.name);
        let (wall, cpu) = (packets / ours.wall_s, packets / ours.cpu_s);
        output.push(Measurement::new(bench, &variant, wall, "packets/s", packets / theirs.wall_s))?;
        output.push(Measurement::new(bench, &variant, cpu, "packets/CPU-s", packets / theirs.cpu_s))?;
    }
    Ok(())
}

fn whole_process(command: &mut Command) -> anyhow::Result<Times> {
    let clock = Clock::start(Whose::Children)?;
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let times = clock.stop()?;
    let name = || command.get_program().to_string_lossy().into_owned();
    let output = output.with_context(|| format!("cannot run {}", name()))?;
    if !output.status.success() {
        bail!("{} ended with {}: {}", name(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(times)
}

//! Whole processes on the same file, in turn: `wirespan-perf replay-once` as far as requests, then other programs.

use crate::analysis::Stage;
use crate::capture::{Template, fixture};
use crate::measure::{Clock, Measurement, OneCore, Output, Times, Whose};
use crate::replay::replay_once;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `wirespan-perf compare` is asked for.
#[derive(clap::Args)]
pub struct CompareArgs {
    /// Capture that is repeated, of Ethernet frames; a recording of real servers from the repository unless told
    #[arg(long, value_name = "CAPTURE")]
    pub input: Option<PathBuf>,

    /// The long capture has more packets than this; slow programs get a twentieth of it
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub packets: u64,

    /// Each measurement is the best of so many; of slow programs, the only one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub rounds: u32,
}

/// Another program that reads captures.
struct Peer {
    name: &'static str,
    program: PathBuf,
    install: &'static str,
    /// What comes before and after the file.
    before: &'static [&'static str],
    after: &'static [&'static str],
    slow: bool,
}

const SLOW_GET: u64 = 20;

const NFSTREAM: &str =
    "import sys, nfstream\nfor flow in nfstream.NFStreamer(source=sys.argv[1], n_meters=1): pass";

fn peers() -> Vec<Peer> {
    let peer = |name, program: &str, install, before, after, slow| Peer {
        name,
        program: program.into(),
        install,
        before,
        after,
        slow,
    };
    let nfstream = cache_dir().join("wirespan/nfstream/bin/python");
    vec![
        peer("ndpiReader -q", "ndpiReader", "the package libndpi-bin", &["-q", "-i"], &[], false),
        peer("tcpdump -w /dev/null", "tcpdump", "the package tcpdump", &["-r"], &["-w", "/dev/null"], false),
        peer("tshark -q -z io,phs", "tshark", "the package tshark", &["-r"], &["-q", "-z", "io,phs"], true),
        peer("nfstream", &nfstream.to_string_lossy(), "it with `make peers`", &["-c", NFSTREAM], &[], true),
    ]
}

/// Where programs keep what can be fetched again (XDG Base Directory Specification).
fn cache_dir() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache"))).unwrap_or_default()
}

/// Runs the suite.
pub fn run(args: &CompareArgs, output: &mut Output) -> anyhow::Result<()> {
    let input = args.input.clone().unwrap_or_else(fixture);
    let bench = format!("compare/{}", input.file_stem().unwrap_or_default().to_string_lossy());
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let template = Template::read(&input)?;
    let _core = OneCore::pin()?;
    for slow in [false, true] {
        let file = dir.path().join("long.pcap");
        let packets = if slow { args.packets / SLOW_GET } else { args.packets };
        let written = template.repeat(packets, &file)?;
        let rounds = if slow { 1 } else { args.rounds };
        let packets = written.packets as f64;
        let peers: Vec<_> = peers().into_iter().filter(|peer| peer.slow == slow && is_there(peer)).collect();
        let (ours, theirs) = in_turn(&peers, &file, rounds)?;
        for (peer, theirs) in peers.iter().zip(theirs) {
            let variant = format!("l4+l7 against {}", peer.name);
            let (wall, cpu) = (packets / ours.wall_s, packets / ours.cpu_s);
            output.push(Measurement::new(&bench, &variant, wall, "packets/s", packets / theirs.wall_s))?;
            output.push(Measurement::new(&bench, &variant, cpu, "packets/CPU-s", packets / theirs.cpu_s))?;
        }
    }
    Ok(())
}

/// The best times of ours and of each peer.
fn in_turn(peers: &[Peer], file: &Path, rounds: u32) -> anyhow::Result<(Times, Vec<Times>)> {
    let mut ours = Times::NONE;
    let mut theirs = vec![Times::NONE; peers.len()];
    for _ in 0..rounds {
        ours = ours.best(whole_process(&mut replay_once(Some(Stage::L7), file)?)?);
        for (peer, times) in peers.iter().zip(&mut theirs) {
            let mut command = Command::new(&peer.program);
            command.args(peer.before).arg(file).args(peer.after);
            *times = times.best(whole_process(&mut command)?);
        }
    }
    Ok((ours, theirs))
}

fn is_there(peer: &Peer) -> bool {
    let asked = Command::new(&peer.program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if asked.is_err() {
        eprintln!("wirespan-perf: {} is not there to compare with; install {}", peer.name, peer.install);
    }
    asked.is_ok()
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

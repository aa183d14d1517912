//! What tracing costs those who call TLS libraries: a session whose ends are both in the memory of a process of its own, so
//! that no system call is beside.

use super::{BENCH, ROUNDS, traced_with};
use crate::measure::{Measurement, Output};
use anyhow::{Context, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use wirespan_bpf::tracer::TracerOptions;
use wirespan_syscalls::tls::{Coverage, Libraries};

const OPENSSL: &str = include_str!("openssl.py");
const GO: &str = include_str!("go.go");
/// Rounds between two looks at the clock.
const AT_ONCE: u32 = 100;
/// What a process has mapped is looked at for so long.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// Runs this part of the suite.
pub fn run(time: Duration, output: &mut Output) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let openssl_calls = ["SSL_write", "SSL_read", "SSL_write_ex", "SSL_read_ex"].map(of_512_bytes);
    costs(openssl()?, &openssl_calls, time, output)?;
    let [write, read] = ["Go's tls.Conn.Write", "Go's tls.Conn.Read"].map(of_512_bytes);
    costs(go(directory.path())?, &[write, read, "Go's go statement".to_owned()], time, output)
}

fn of_512_bytes(call: &str) -> String {
    format!("{call}, 512 B")
}

fn costs(mut peer: Peer, calls: &[String], time: Duration, output: &mut Output) -> anyhow::Result<()> {
    let mut off = vec![f64::INFINITY; calls.len()];
    let mut on = off.clone();
    for _ in 0..ROUNDS {
        peer.each_ns(&mut off, time / 2)?;
        let pid = peer.child.id();
        let options = TracerOptions { only: Some(pid), uprobes: true, ..TracerOptions::default() };
        let (_, stats) =
            traced_with(&options, |tracer| probed(pid, tracer), || peer.each_ns(&mut on, time / 2))?;
        ensure!(stats.events > 0, "no event came of {}", calls.join(", "));
    }
    for ((call, off), on) in calls.iter().zip(off).zip(on) {
        output.push(Measurement::new(BENCH, call, on, "ns/call", off))?;
        output.push(Measurement::limit(BENCH, &format!("{call}, added"), on - off, "ns/call"))?;
    }
    Ok(())
}

/// The probes on what a process uses.
fn probed(pid: u32, tracer: &mut wirespan_bpf::tracer::Tracer) -> anyhow::Result<Libraries> {
    let mut libraries = Libraries::new(tracer.take_prober().context("the tracer attaches no probes")?);
    libraries.process_started(pid);
    let start = Instant::now();
    while !matches!(libraries.coverage(pid), Coverage::Plaintext(_)) {
        ensure!(start.elapsed() < FOUND_WITHIN, "the TLS library of process {pid} was not found");
        std::thread::sleep(Duration::from_millis(10));
        libraries.advance();
    }
    Ok(libraries)
}

/// A process that calls a library, and ends with this.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("{} has no pipes", program.display());
        };
        let mut peer = Self { child, input, output: BufReader::new(output) };
        let ready = peer.line()?;
        ensure!(ready == "ready", "{} says {ready:?}", program.display());
        Ok(peer)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// The lesser of what is there and what a call of each takes now.
    fn each_ns(&mut self, best: &mut [f64], time: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            writeln!(self.input, "{AT_ONCE}")?;
            let line = self.line()?;
            let times: Vec<f64> = line.split(' ').map_while(|time| time.parse().ok()).collect();
            ensure!(times.len() == best.len(), "a session in memory says {line:?}");
            for (best, time) in best.iter_mut().zip(times) {
                *best = best.min(time);
            }
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl() -> anyhow::Result<Peer> {
    Peer::start(Command::new("python3").args(["-c", OPENSSL]))
}

fn go(directory: &Path) -> anyhow::Result<Peer> {
    let (source, program) = (directory.join("peer.go"), directory.join("peer"));
    std::fs::write(&source, GO)?;
    let status = Command::new("go")
        .args(["build", "-o"])
        .args([&program, &source])
        .env("GO111MODULE", "off")
        .status()
        .context("cannot run go; install the package golang-go")?;
    ensure!(status.success(), "go cannot build a program ({status})");
    Peer::start(&mut Command::new(program))
}

//! How long it takes from the time stamp of a response's first frame to the span that tells of it, at a given rate.

use crate::measure::{Measurement, OneCore, Output, above_zero};
use crate::namespace::{VethPair, in_namespace};
use crate::receiver::{Backend, Board};
use crate::traffic::TrafficArgs;
use crate::traffic::sender::Sender;
use anyhow::bail;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wirespan_bpf::generate::Verdict;
use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, Span};

/// What `wirespan-perf latency` is asked for.
#[derive(clap::Args)]
pub struct LatencyArgs {
    /// Where frames come from; all unless told
    #[arg(long, value_enum, value_name = "BACKEND")]
    pub backend: Vec<Backend>,

    /// Frames per second, half of them responses
    #[arg(long, default_value_t = 200_000.0, value_parser = above_zero, value_name = "N")]
    pub rate: f64,

    /// How long to send
    #[arg(long, default_value_t = 2.0, value_parser = above_zero, value_name = "S")]
    pub seconds: f64,
}

const PERCENTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];
/// More than is sent in a minute, so that memory stays bounded.
const SAMPLES_MAX: usize = 20_000_000;

/// Runs the suite.
pub fn run(args: &LatencyArgs, output: &mut Output) -> anyhow::Result<()> {
    let all = Backend::ALL.to_vec();
    for backend in if args.backend.is_empty() { &all } else { &args.backend } {
        let mut samples = measure(*backend, args)?;
        samples.sort_unstable();
        let bench = format!("latency/{}", backend.name());
        for (part, name) in PERCENTILES {
            let us = percentile(&samples, part) as f64 / 1e3;
            let variant = format!("{name} at {:.0} packets/s", args.rate);
            output.push(Measurement::limit(&bench, &variant, us, "us"))?;
        }
    }
    Ok(())
}

fn measure(backend: Backend, args: &LatencyArgs) -> anyhow::Result<Vec<u64>> {
    let samples = in_namespace(|| {
        let veth = VethPair::new()?;
        let _taker = (backend == Backend::AfPacket).then(|| veth.take(Verdict::Pass)).transpose()?;
        let board = Board::default();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive(&board, backend, veth.receiver()));
            board.wait_ready(|| receiver.is_finished());
            let sent = send(veth.sender(), args);
            board.settled();
            board.stop();
            let samples = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.and(samples)
        })
    })?;
    if samples.is_empty() {
        bail!("no response was seen");
    }
    Ok(samples)
}

fn send(interface: &str, args: &LatencyArgs) -> anyhow::Result<()> {
    let _core = OneCore::first()?;
    let traffic = TrafficArgs::connections(256, 1_000);
    Sender::new(&traffic, interface, args.rate)?.send(args.rate, Duration::from_secs_f64(args.seconds))?;
    Ok(())
}

fn receive(board: &Board, backend: Backend, interface: &str) -> anyhow::Result<Vec<u64>> {
    let _core = OneCore::pin()?;
    let mut source = backend.open(interface, 0)?;
    let mut worker = Worker::new(WorkerConfig::default());
    let mut sink = Latencies(Vec::new());
    let mut received = 0;
    board.is_ready();
    while !board.is_stopped() {
        let Some(batch) = source.next_batch()? else { break };
        received += batch.len() as u64;
        worker.batch(batch, &mut sink);
        board.count(received);
    }
    Ok(sink.0)
}

/// Times from frame to span, in nanoseconds.
struct Latencies(Vec<u64>);

impl SpanSink for Latencies {
    fn span(&mut self, span: Span) {
        if self.0.len() < SAMPLES_MAX {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            self.0.push(now.saturating_sub(span.end_ns));
        }
    }
}

impl RecordSink for Latencies {
    fn flow(&mut self, _: Flow) {}

    fn tick(&mut self, _: FlowTick) {}
}

/// The value below which a part of the sorted samples lies.
fn percentile(sorted: &[u64], part: f64) -> u64 {
    let index = (sorted.len() as f64 * part) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_sorted_samples() {
        let samples: Vec<u64> = (1..=1_000).collect();
        let of = |part| percentile(&samples, part);
        assert_eq!((of(0.5), of(0.99), of(0.999), of(1.0)), (501, 991, 1_000, 1_000));
        assert_eq!(percentile(&[], 0.5), 0);
    }
}

//! What live flows cost: time per packet and memory per flow as their number grows, and flows that begin and never go on.
//!
//! Frames are made up in memory and only the worker is timed. They come a microsecond apart, each round in another order.

use crate::analysis::{Analysis, Stage};
use crate::measure::{Measurement, OneCore, Output};
use crate::stage::resident_bytes;
use crate::traffic::connections::{Connections, Shape};
use crate::traffic::short;
use crate::traffic::tunnel::Tunnel;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wirespan_capture::{Batch, Descriptor, Hints, LinkType};
use wirespan_dataplane::WorkerConfig;

/// What `wirespan-perf flows` is asked for.
#[derive(clap::Args)]
pub struct FlowsArgs {
    /// Numbers of live flows
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000, 10_000_000], value_parser = clap::value_parser!(u32).range(1..), value_name = "N,...")]
    pub flows: Vec<u32>,
}

/// What one process of `flows` is asked for.
#[derive(clap::Args)]
pub struct FlowsOnceArgs {
    /// Live flows
    flows: u32,
    /// Every packet begins a flow
    #[arg(long)]
    flood: bool,
}

/// What that process found; one line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Found {
    ns_per_new_flow: f64,
    ns_per_packet: f64,
    bytes_per_flow: f64,
}

/// More than a cache holds, so that the frames do not come out of one.
const CHUNK: usize = 1 << 16;
/// As sources lend them.
const BATCH: usize = 256;
/// The room for a flow that was asked for.
const BYTES_MAX: f64 = 384.0;
/// New flows in a second that were asked for.
const NEW_FLOWS: f64 = 1e6;
/// A flood fills a table of this size and then pushes others out.
const FLOOD_TABLE: u32 = 1 << 20;

/// Runs the suite.
pub fn run(args: &FlowsArgs, output: &mut Output) -> anyhow::Result<()> {
    let _core = OneCore::pin()?;
    let mut least = None;
    for &flows in &args.flows {
        let Found { ns_per_new_flow, ns_per_packet, bytes_per_flow } = once(flows, false)?;
        let name = |what: &str| format!("{} flows: {what}", short(flows.into()));
        let limit = *least.get_or_insert(ns_per_packet);
        output.push(Measurement::new("flows", &name("packet"), ns_per_packet, "ns", limit))?;
        let rate = 1e9 / ns_per_new_flow;
        output.push(Measurement::new("flows", &name("new flows"), rate, "flows/s", NEW_FLOWS))?;
        output.push(Measurement::new("flows", &name("memory"), bytes_per_flow, "bytes/flow", BYTES_MAX))?;
    }
    let rate = 1e9 / once(FLOOD_TABLE, true)?.ns_per_new_flow;
    output.push(Measurement::new("flows", "one-packet flows, table full", rate, "flows/s", NEW_FLOWS))
}

/// Each number in a process of its own, so that its memory is its own too.
fn once(flows: u32, flood: bool) -> anyhow::Result<Found> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut command = Command::new(program);
    command.args(["flows-once", &flows.to_string()]).args(flood.then_some("--flood"));
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("a pass with {flows} flows ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("a pass gave no measurement")
}

/// Runs one process of the suite.
pub fn run_once(args: &FlowsOnceArgs) -> anyhow::Result<()> {
    let mut feed = Feed::new(args.flows, args.flood)?;
    let flows = u64::from(args.flows);
    let found = if args.flood {
        feed.run(flows)?;
        let ns_per_new_flow = feed.run(2 * flows)?;
        Found { ns_per_new_flow, ns_per_packet: ns_per_new_flow, bytes_per_flow: 0.0 }
    } else {
        let before = resident_bytes()?;
        let ns_per_new_flow = feed.run(flows)?;
        let bytes_per_flow = resident_bytes()?.saturating_sub(before) as f64 / flows as f64;
        // The handshakes are finished before the clock starts.
        feed.run(2 * flows)?;
        let ns_per_packet = feed.run(flows.clamp(1_000_000, 4_000_000))?;
        Found { ns_per_new_flow, ns_per_packet, bytes_per_flow }
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Connections and a worker that takes them in.
pub struct Feed {
    connections: Connections,
    analysis: Analysis,
    bytes: Vec<u8>,
    descriptors: Vec<Descriptor>,
    now_ns: u64,
}

impl Feed {
    /// So many live flows, or a new one with every packet, into a table with room for so many.
    pub fn new(flows: u32, flood: bool) -> anyhow::Result<Self> {
        let shape =
            Shape { size: 64, flows, new_every: u32::from(flood), tunnel: Tunnel::None, opaque: false };
        let mut config = WorkerConfig::default();
        config.flow.max_flows = flows as usize;
        Ok(Self {
            connections: Connections::new(shape)?,
            analysis: Analysis::new(Stage::L7, config),
            bytes: vec![0; CHUNK * shape.size],
            descriptors: Vec::with_capacity(CHUNK),
            now_ns: crate::capture::START_NS,
        })
    }

    /// Makes so many packets and takes them in. Gives nanoseconds per packet, of the latter alone.
    pub fn run(&mut self, packets: u64) -> anyhow::Result<f64> {
        let mut spent = Duration::ZERO;
        let mut left = packets;
        while left > 0 {
            let frames = left.min(CHUNK as u64);
            self.make(frames as usize);
            let started = Instant::now();
            for descriptors in self.descriptors.chunks(BATCH) {
                self.analysis.batch(Batch::new(&self.bytes, descriptors));
            }
            spent += started.elapsed();
            left -= frames;
        }
        Ok(spent.as_nanos() as f64 / packets.max(1) as f64)
    }

    fn make(&mut self, frames: usize) {
        self.bytes.clear();
        self.descriptors.clear();
        let mut frame = Vec::new();
        for _ in 0..frames {
            self.connections.next(&mut frame);
            self.now_ns += 1_000;
            self.descriptors.push(Descriptor {
                offset: self.bytes.len(),
                len: frame.len() as u32,
                wire_len: frame.len() as u32,
                ts_ns: self.now_ns,
                link: LinkType::Ethernet,
                port: 0,
                hints: Hints::default(),
            });
            self.bytes.extend_from_slice(&frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_has_the_flows_asked_for() {
        let mut feed = Feed::new(100, false).unwrap();
        feed.run(1_000).unwrap();
        feed.analysis.finish();
        assert_eq!((feed.analysis.counts.packets, feed.analysis.counts.flows), (1_000, 100));
        let mut flood = Feed::new(100, true).unwrap();
        flood.run(1_000).unwrap();
        flood.analysis.finish();
        assert_eq!(flood.analysis.counts.flows, 1_000);
    }
}

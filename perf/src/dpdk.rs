//! The loops over DPDK: one thread sends into a ring, the worker takes from it. A full ring keeps the sender back, so that
//! nothing is lost and the rate is the worker's.

use crate::analysis::{Analysis, Stage};
use crate::measure::{Measurement, OneCore, Output};
use crate::traffic::connections::{Connections, Shape};
use crate::traffic::tunnel::Tunnel;
use anyhow::{Context, bail};
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wirespan_capture::PacketSource;
use wirespan_dataplane::WorkerConfig;
use wirespan_dpdk::transmit::open_to_send;
use wirespan_dpdk::{Eal, EalOptions, PortOptions, Transmitter};

/// Rings: DPDK forgets one when it is closed, and cannot be told of others once it was started. One for each loop.
const RINGS: usize = 4;
static USED: AtomicUsize = AtomicUsize::new(0);
const FLOWS: u32 = 100_000;
/// Frames that are made at once.
const CHUNK: usize = 1 << 16;
/// Frames that are sent together.
const BURST: usize = 64;

/// Runs the suite: the stages beside the empty loop.
pub fn run(seconds: f64, output: &mut Output) -> anyhow::Result<()> {
    let name = |what: &str| format!("{what}, 64 B, 100k flows");
    let empty = rate(Stage::Frames, seconds)?;
    output.push(Measurement::limit("live/DPDK", &name("empty loop"), empty, "packets/s"))?;
    for stage in [Stage::L4, Stage::L7] {
        let rate = rate(stage, seconds)?;
        output.push(Measurement::new("live/DPDK", &name(stage.name()), rate, "packets/s", empty))?;
    }
    Ok(())
}

/// Packets per second that a worker takes from the ring.
pub fn rate(stage: Stage, seconds: f64) -> anyhow::Result<f64> {
    let vdevs: Vec<_> = (0..RINGS).map(|ring| format!("net_ring{ring}")).collect();
    let device = vdevs.get(USED.fetch_add(1, Ordering::Relaxed)).context("all rings were used")?.clone();
    let eal = Eal::start(&EalOptions { no_huge: true, no_pci: true, vdevs, ..EalOptions::default() })?;
    let (mut sources, mut transmitters) = open_to_send(eal, &PortOptions::new(device))?;
    let (mut source, mut transmitter) =
        sources.pop().zip(transmitters.pop()).context("the ring has no queue")?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&mut transmitter, &stop));
        let rate = receive(&mut source, stage, Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        rate
    })
}

fn send(transmitter: &mut Transmitter, stop: &AtomicBool) -> anyhow::Result<()> {
    let _core = OneCore::first()?;
    let shape = Shape { size: 64, flows: FLOWS, new_every: 0, tunnel: Tunnel::None, opaque: false };
    let mut connections = Connections::new(shape)?;
    let (mut bytes, mut frame) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        bytes.clear();
        for _ in 0..CHUNK {
            connections.next(&mut frame);
            // The handshake's frames are padded, so that all are of one length.
            frame.resize(shape.size, 0);
            bytes.extend_from_slice(&frame);
        }
        for burst in bytes.chunks(shape.size * BURST) {
            let frames: Vec<_> = burst.chunks(shape.size).map(IoSlice::new).collect();
            let mut sent = 0;
            while sent < frames.len() && !stop.load(Ordering::Relaxed) {
                sent += transmitter.send(&frames[sent..]);
            }
        }
    }
    Ok(())
}

fn receive(source: &mut dyn PacketSource, stage: Stage, time: Duration) -> anyhow::Result<f64> {
    let _core = OneCore::pin()?;
    let mut analysis = Analysis::new(stage, WorkerConfig::default());
    let started = Instant::now();
    while started.elapsed() < time {
        let Some(batch) = source.next_batch()? else { break };
        analysis.batch(batch);
    }
    let rate = analysis.counts.packets as f64 / started.elapsed().as_secs_f64();
    if source.stats().kernel_drops > 0 {
        bail!("the ring lost frames though its sender waits");
    }
    Ok(rate)
}

//! A worker that receives from an interface on a core of its own, and says what it saw and lost.

use crate::analysis::{Analysis, Counts, Stage};
use crate::measure::{Clock, OneCore, Whose};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, UNIX_EPOCH};
use wirespan_capture::af_packet::{self, AfPacket};
use wirespan_capture::af_xdp::{self, AfXdp};
use wirespan_capture::{KeptBack, PacketSource, SourceStats};
use wirespan_dataplane::WorkerConfig;
use wirespan_dataplane::flow::ShuntPolicy;

/// An elephant is shunted early, so that nearly all of a short trial is counted in the kernel.
const SHUNT_AFTER_BYTES: u64 = 1_000_000;

/// Where frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// AF_XDP
    AfXdp,
    /// AF_PACKET
    AfPacket,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Self; 2] = [Self::AfXdp, Self::AfPacket];

    /// The name in measurements.
    pub fn name(self) -> &'static str {
        match self {
            Self::AfXdp => "AF_XDP",
            Self::AfPacket => "AF_PACKET",
        }
    }

    /// A source of this interface, with one queue, which keeps so many flows back as it is asked to.
    pub fn open(self, interface: &str, shunt_flows: u32) -> anyhow::Result<Box<dyn PacketSource>> {
        let poll_timeout = Duration::from_millis(10);
        match self {
            Self::AfXdp => {
                let mut options =
                    af_xdp::Options { frames_per_queue: 16 * 1024, poll_timeout, ..Default::default() };
                options.program.shunt_flows = shunt_flows;
                let source = AfXdp::open(interface, options)?.pop();
                Ok(Box::new(source.with_context(|| format!("{interface} has no queue"))?))
            }
            Self::AfPacket => {
                let options = af_packet::Options { poll_timeout, snap_len: 2048, ..Default::default() };
                Ok(Box::new(AfPacket::open(interface, options)?))
            }
        }
    }
}

/// What a receiver tells while it runs.
#[derive(Default)]
pub struct Board {
    received: AtomicU64,
    shunted: AtomicU64,
    dropped: AtomicU64,
    ready: AtomicBool,
    stop: AtomicBool,
}

/// Frames since the receiver began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// That went through the worker, or were counted in the kernel instead.
    pub received: u64,
    /// That the kernel dropped because the worker was too slow.
    pub dropped: u64,
}

impl Board {
    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        Seen {
            received: self.received.load(Ordering::Relaxed) + self.shunted.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Waits until no frame comes any more.
    pub fn settled(&self) -> Seen {
        let mut before = self.seen();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.seen();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// The receiver receives from now on.
    pub fn is_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Waits until the receiver receives, or has ended.
    pub fn wait_ready(&self, ended: impl Fn() -> bool) {
        while !self.ready.load(Ordering::Relaxed) && !ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the receiver is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What the source says of the frames that it did not lend.
    fn update(&self, stats: &SourceStats) {
        let shunted = stats.kept_back.iter().find(|(why, _)| *why == KeptBack::Shunted);
        self.shunted.store(shunted.map_or(0, |(_, frames)| *frames), Ordering::Relaxed);
        self.dropped.store(stats.kernel_drops, Ordering::Relaxed);
    }

    /// The receiver has taken so many frames in all.
    pub fn count(&self, received: u64) {
        self.received.store(received, Ordering::Relaxed);
    }

    /// Ends the receiver.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How a receiver receives.
#[derive(Clone, Copy, Debug)]
pub struct Receiving {
    /// Where frames come from.
    pub backend: Backend,
    /// How far they go.
    pub stage: Stage,
    /// Elephant flows are counted in the kernel.
    pub shunt: bool,
    /// The analysis is timed, which takes two system calls for each batch.
    pub timed: bool,
}

/// What a receiver has done.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// What came out of the analysis.
    pub counts: Counts,
    /// Seconds of CPU time in the analysis, without those to take frames and to wait; 0 where it is not timed.
    pub busy_s: f64,
}

/// A receiver that runs; gives what it has done when it has ended.
pub type Receiver<'scope> = ScopedJoinHandle<'scope, anyhow::Result<Received>>;

/// Starts a receiver in the caller's network namespace and waits until it receives.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    board: &'scope Board,
    receiving: Receiving,
    interface: &'scope str,
) -> anyhow::Result<Receiver<'scope>> {
    let thread = scope.spawn(move || receive(board, receiving, interface));
    board.wait_ready(|| thread.is_finished());
    if thread.is_finished() {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        bail!("the receiver has ended at once");
    }
    Ok(thread)
}

fn receive(board: &Board, receiving: Receiving, interface: &str) -> anyhow::Result<Received> {
    let _core = OneCore::pin()?;
    let policy = receiving.shunt.then(|| ShuntPolicy { bytes_min: SHUNT_AFTER_BYTES, ..Default::default() });
    let shunt_flows = policy.map_or(0, |policy| policy.entries_max as u32);
    let mut source = receiving.backend.open(interface, shunt_flows)?;
    let mut analysis = Analysis::new(receiving.stage, WorkerConfig { shunt: policy, ..Default::default() });
    if receiving.shunt {
        let shunt = source.shunt().with_context(|| format!("{interface} cannot keep flows back"))?;
        analysis.set_shunt(shunt);
    }
    let mut busy_s = 0.0;
    board.is_ready();
    while !board.is_stopped() {
        let Some(batch) = source.next_batch()? else { break };
        if batch.is_empty() {
            board.update(&source.stats());
            analysis.idle(UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64);
            continue;
        }
        let clock = receiving.timed.then(|| Clock::start(Whose::Thread)).transpose()?;
        analysis.batch(batch);
        if let Some(clock) = clock {
            busy_s += clock.stop()?.cpu_s;
        }
        board.count(analysis.counts.packets);
    }
    analysis.finish();
    Ok(Received { counts: analysis.counts, busy_s })
}

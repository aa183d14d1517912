//! A worker that receives from an interface on a core of its own, and says what it saw and lost.

use crate::analysis::{Analysis, Stage};
use crate::measure::OneCore;
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;
use wirespan_capture::PacketSource;
use wirespan_capture::af_packet::{self, AfPacket};
use wirespan_capture::af_xdp::{self, AfXdp};
use wirespan_dataplane::WorkerConfig;

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

    /// A source of this interface, with one queue.
    pub fn open(self, interface: &str) -> anyhow::Result<Box<dyn PacketSource>> {
        let poll_timeout = Duration::from_millis(10);
        match self {
            Self::AfXdp => {
                let options =
                    af_xdp::Options { frames_per_queue: 16 * 1024, poll_timeout, ..Default::default() };
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
    dropped: AtomicU64,
    ready: AtomicBool,
    stop: AtomicBool,
}

/// Frames since the receiver began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// That went through the worker.
    pub received: u64,
    /// That the kernel dropped because the worker was too slow.
    pub dropped: u64,
}

impl Board {
    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        Seen {
            received: self.received.load(Ordering::Relaxed),
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

    /// The receiver has taken so many frames in all.
    pub fn count(&self, received: u64) {
        self.received.store(received, Ordering::Relaxed);
    }

    /// Ends the receiver.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Starts a receiver in the caller's network namespace and waits until it receives.
pub fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    board: &'scope Board,
    backend: Backend,
    stage: Stage,
    interface: &'scope str,
) -> anyhow::Result<ScopedJoinHandle<'scope, anyhow::Result<()>>> {
    let thread = scope.spawn(move || receive(board, backend, stage, interface));
    board.wait_ready(|| thread.is_finished());
    if thread.is_finished() {
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        bail!("the receiver has ended at once");
    }
    Ok(thread)
}

fn receive(board: &Board, backend: Backend, stage: Stage, interface: &str) -> anyhow::Result<()> {
    let _core = OneCore::pin()?;
    let mut source = backend.open(interface)?;
    let mut analysis = Analysis::new(stage, WorkerConfig::default());
    board.is_ready();
    while !board.is_stopped() {
        let Some(batch) = source.next_batch()? else { break };
        if batch.is_empty() {
            board.dropped.store(source.stats().kernel_drops, Ordering::Relaxed);
            continue;
        }
        analysis.batch(batch);
        board.count(analysis.counts.packets);
    }
    Ok(())
}

//! Sends traffic out of an interface at a rate, from the kernel.

use super::TrafficArgs;
use anyhow::Context;
use std::time::{Duration, Instant};
use wirespan_bpf::generate::{Generator, Sent};

/// Frames that are sent together, as a NIC hands them over together.
const BURST: u32 = 32;
/// Runs of the program between two looks at the clock: about a hundredth of a second.
const RUNS: u32 = 1 << 17;

/// Traffic that can be sent again and again; each time it goes on where it was.
pub struct Sender {
    generator: Generator,
}

/// What was sent, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Frames and bytes.
    pub sent: Sent,
    /// Frames in a second.
    pub rate: f64,
}

impl Sender {
    /// Traffic out of this interface of the caller's network namespace. Connections are replaced as if `rate` frames were
    /// sent in a second.
    pub fn new(traffic: &TrafficArgs, interface: &str, rate: f64) -> anyhow::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("there is no interface named {interface}"))?;
        Ok(Self { generator: traffic.generator(rate, index)? })
    }

    /// Sends for this long; `rate` in frames per second, infinite for as fast as it goes.
    pub fn send(&mut self, rate: f64, time: Duration) -> anyhow::Result<Trial> {
        let interval_ns = if rate.is_finite() { (1e9 * f64::from(BURST) / rate).max(1.0) as u64 } else { 0 };
        self.generator.set_pace(interval_ns, BURST)?;
        let before = self.generator.sent()?;
        let started = Instant::now();
        while started.elapsed() < time {
            self.generator.run(RUNS)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let after = self.generator.sent()?;
        let sent = Sent { frames: after.frames - before.frames, bytes: after.bytes - before.bytes };
        Ok(Trial { sent, rate: sent.frames as f64 / seconds })
    }
}

//! Sends traffic out of an interface at a rate, from the kernel.

use super::TrafficArgs;
use anyhow::Context;
use std::time::Duration;
use wirespan_bpf::generate::{Generator, Sent};

/// Frames that are sent together, as a NIC hands them over together.
pub const BURST: u32 = 32;
/// Enough to know how long a run takes.
const TRIAL_RUNS: u32 = 1 << 14;

/// Traffic that can be sent again and again; each time it goes on where it was.
pub struct Sender {
    generator: Generator,
}

/// What was sent, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// All frames and bytes, those sent to find out how long a run takes too.
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
        let first = self.generator.sent()?;
        // One call for all: between two calls the kernel cleans up for longer than a pause may be.
        let one = self.generator.run(TRIAL_RUNS)?.as_nanos().max(1);
        let runs = u32::try_from(time.as_nanos() / one).unwrap_or(u32::MAX).max(1);
        let before = self.generator.sent()?;
        let took = self.generator.run(runs)?.as_secs_f64() * f64::from(runs);
        let after = self.generator.sent()?;
        let sent = Sent { frames: after.frames - first.frames, bytes: after.bytes - first.bytes };
        let rate = (after.frames - before.frames) as f64 / took.max(f64::MIN_POSITIVE);
        Ok(Trial { sent, rate })
    }
}

//! Whether memory stays flat over a long run in which flows come and go.

use crate::flows::Feed;
use crate::measure::{Measurement, OneCore, Output, above_zero};
use crate::stage::resident_bytes;
use std::time::{Duration, Instant};

/// What `wirespan-perf memory` is asked for.
#[derive(clap::Args)]
pub struct MemoryArgs {
    /// How long to run; the last three quarters are compared with the first
    #[arg(long, default_value_t = 60.0, value_parser = above_zero, value_name = "S")]
    pub seconds: f64,

    /// Room in the flow table; every packet begins a flow
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub flows: u32,
}

/// Packets between two looks at the clock and at the memory.
const PACKETS: u64 = 1 << 20;

/// Runs the suite.
pub fn run(args: &MemoryArgs, output: &mut Output) -> anyhow::Result<()> {
    let _core = OneCore::pin()?;
    let mut feed = Feed::new(args.flows, true)?;
    let mut samples = Vec::new();
    let started = Instant::now();
    let whole = Duration::from_secs_f64(args.seconds);
    while started.elapsed() < whole {
        feed.run(PACKETS)?;
        samples.push(resident_bytes()? as f64 / 1e6);
    }
    let (early, late) = peaks(&samples);
    let variant = format!("after {:.0} s, beside the first quarter", args.seconds);
    output.push(Measurement::new("memory", &variant, late, "MB", early))?;
    let packets = samples.len() as f64 * PACKETS as f64;
    output.push(Measurement::limit("memory", "packets in that time, each a new flow", packets, "packets"))
}

/// The most in the first quarter and in the rest.
fn peaks(samples: &[f64]) -> (f64, f64) {
    let (early, late) = samples.split_at(samples.len().div_ceil(4));
    let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    (most(early), if late.is_empty() { most(early) } else { most(late) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_shows_as_a_difference() {
        assert_eq!(peaks(&[5.0, 5.0, 5.0, 5.0]), (5.0, 5.0));
        assert_eq!(peaks(&[5.0, 6.0, 7.0, 8.0, 9.0]), (6.0, 9.0));
        assert_eq!(peaks(&[5.0]), (5.0, 5.0));
    }
}

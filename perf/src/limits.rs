//! What memory, file system and empty receive loops can do: the limits of everything that moves bytes.

use crate::analysis::Stage;
use crate::live::{self, LiveArgs};
use crate::measure::{Measurement, Output, above_zero};
use crate::receiver::Backend;
use crate::stage::read_to_end;
use crate::traffic::TrafficArgs;
use anyhow::Context;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::time::Instant;

/// What `wirespan-perf limits` is asked for.
#[derive(clap::Args)]
pub struct LimitsArgs {
    /// How long each trial of an empty loop takes
    #[arg(long, default_value_t = 1.0, value_parser = above_zero, value_name = "S")]
    pub seconds: f64,
}

/// More than any cache holds.
const BYTES: usize = 256 << 20;
const ROUNDS: u32 = 5;

/// Runs the suite.
pub fn run(args: &LimitsArgs, output: &mut Output) -> anyhow::Result<()> {
    let from = vec![1_u8; BYTES];
    let mut to = vec![2_u8; BYTES];
    let copy = best(|| {
        black_box(&mut to).copy_from_slice(black_box(&from));
        Ok(())
    })?;
    output.push(Measurement::limit("limits", "memory copy", copy, "GB/s"))?;

    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    file.write_all(&from).context("cannot write a temporary file")?;
    let read = best(|| {
        file.rewind()?;
        read_to_end(&mut file)
    })?;
    output.push(Measurement::limit("limits", "file read (page cache)", read, "GB/s"))?;
    loops(args, output)
}

/// What receiving alone takes, with nothing done to the frames.
fn loops(args: &LimitsArgs, output: &mut Output) -> anyhow::Result<()> {
    let live = LiveArgs {
        traffic: TrafficArgs::connections(64, 100_000),
        backend: Vec::new(),
        seconds: args.seconds,
        shunt: false,
    };
    for backend in Backend::ALL {
        let rate = live::loss_free(backend, Stage::Frames, &live)?;
        let variant = format!("empty {} loop, veth, 64 B", backend.name());
        output.push(Measurement::limit("limits", &variant, rate, "packets/s"))?;
    }
    #[cfg(feature = "dpdk")]
    output.push(Measurement::limit(
        "limits",
        "empty DPDK loop, net_ring, 64 B",
        crate::dpdk::rate(Stage::Frames, args.seconds)?,
        "packets/s",
    ))?;
    Ok(())
}

/// GB/s of the best round of something that moves [`BYTES`].
fn best(mut work: impl FnMut() -> std::io::Result<()>) -> anyhow::Result<f64> {
    let mut best_s = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        work().context("cannot read a temporary file")?;
        best_s = best_s.min(started.elapsed().as_secs_f64());
    }
    Ok(BYTES as f64 / 1e9 / best_s)
}

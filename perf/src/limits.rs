//! What memory and file system can do: the limits of everything that moves bytes.

use crate::measure::{Measurement, Output};
use crate::stage::read_to_end;
use anyhow::Context;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::time::Instant;

/// More than any cache holds.
const BYTES: usize = 256 << 20;
const ROUNDS: u32 = 5;

/// Runs the suite.
pub fn run(output: &mut Output) -> anyhow::Result<()> {
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
    output.push(Measurement::limit("limits", "file read (page cache)", read, "GB/s"))
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

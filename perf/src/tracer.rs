//! What tracing system calls costs those who make them, and how many events come through without loss.
//!
//! | module | what |
//! |---|---|
//! | `calls` | the calls that are timed |
//! | `load` | events per second |
//! | `nginx` | a web server under load |
//! | `tls` | calls of TLS libraries |
//!
//! Costs are the fastest of several rounds, each with the tracer off and on in turn; the reader runs on another core, as it does in use.

mod calls;
mod load;
mod nginx;
mod tls;

use crate::measure::{Measurement, OneCore, Output, above_zero};
use anyhow::Context;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wirespan_bpf::tracer::{Stats, Tracer, TracerOptions};

const BENCH: &str = "tracer";
/// How long events wait at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const ROUNDS: u32 = 3;

/// What `wirespan-perf tracer` is asked for.
#[derive(clap::Args)]
pub struct TracerArgs {
    /// How long each trial takes
    #[arg(long, default_value_t = 1.0, value_parser = above_zero, value_name = "S")]
    seconds: f64,

    /// What is measured; everything unless told, can be given several times
    #[arg(long, value_enum, value_name = "PART")]
    part: Vec<Part>,
}

impl Default for TracerArgs {
    fn default() -> Self {
        Self { seconds: 1.0, part: Vec::new() }
    }
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nanoseconds that a call takes longer
    Calls,
    /// Events per second without loss
    Events,
    /// Requests per second of nginx, with wrk
    Nginx,
    /// Nanoseconds that a call of OpenSSL or Go's crypto/tls takes longer
    Tls,
}

/// Runs the suite.
pub fn run(args: &TracerArgs, output: &mut Output) -> anyhow::Result<()> {
    let time = Duration::from_secs_f64(args.seconds);
    let wanted = |part| args.part.is_empty() || args.part.contains(&part);
    if wanted(Part::Calls) {
        costs(time, output)?;
    }
    if wanted(Part::Events) {
        load::run(time, output)?;
    }
    if wanted(Part::Nginx) {
        nginx::run(time, output)?;
    }
    if wanted(Part::Tls) {
        tls::run(time, output)?;
    }
    Ok(())
}

fn costs(time: Duration, output: &mut Output) -> anyhow::Result<()> {
    let mut calls = calls::all()?;
    let mut off = vec![f64::INFINITY; calls.len()];
    let mut on = off.clone();
    for _ in 0..ROUNDS {
        each_ns(&mut calls, &mut off, time / 4)?;
        traced(|| each_ns(&mut calls, &mut on, time / 4))?;
    }
    for ((call, off), on) in calls.iter().zip(off).zip(on) {
        output.push(Measurement::new(BENCH, call.name, on, "ns/call", off))?;
        output.push(Measurement::limit(BENCH, &format!("{}, added", call.name), on - off, "ns/call"))?;
    }
    Ok(())
}

/// The lesser of what is there and what a call of each takes now.
fn each_ns(calls: &mut [calls::Call], best: &mut [f64], time: Duration) -> anyhow::Result<()> {
    let _core = OneCore::first()?;
    for (call, best) in calls.iter_mut().zip(best) {
        let start = Instant::now();
        let mut times = 0;
        while start.elapsed() < time {
            let round = Instant::now();
            (call.make)(calls::AT_ONCE).with_context(|| format!("cannot time {}", call.name))?;
            times += 1;
            // A short round is rarely disturbed.
            *best = best.min(round.elapsed().as_nanos() as f64 / f64::from(calls::AT_ONCE * call.calls));
        }
        anyhow::ensure!(times > 0, "no time to measure {}", call.name);
    }
    Ok(())
}

/// Runs `load` while everything is traced, this process as well, with a reader on the last core. Hands on what the reader saw.
fn traced<T>(load: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Stats)> {
    traced_as(&TracerOptions { left_out: None, ..TracerOptions::default() }, load)
}

/// The same with other options.
fn traced_as<T>(
    options: &TracerOptions,
    load: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Stats)> {
    traced_with(options, |_| Ok(()), load)
}

/// The same, with what the tracer is given before; it stays as long as the load.
fn traced_with<P, T>(
    options: &TracerOptions,
    prepare: impl FnOnce(&mut Tracer) -> anyhow::Result<P>,
    load: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Stats)> {
    let mut tracer = Tracer::start(options)?;
    let _prepared = prepare(&mut tracer)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let reader = scope.spawn(move || {
            let _core = OneCore::pin()?;
            while !over.load(Ordering::Relaxed) {
                tracer.wait(LOOK_EVERY)?;
                tracer.drain(&mut |event| {
                    std::hint::black_box(event.payload.first());
                });
            }
            while tracer.drain(&mut |_| {}) > 0 {}
            Ok::<_, anyhow::Error>(tracer.stats()?)
        });
        let done = load();
        over.store(true, Ordering::Relaxed);
        let stats = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((done?, stats))
    })
}

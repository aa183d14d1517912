//! Requests into the embedded store at a fixed rate, as `wirespan up` hands them on: none may be lost. Then the time of an
//! answer over them, and the bytes they take on disk.

use crate::measure::{Clock, Measurement, Output, Times, Whose};
use crate::requests::Requests;
use anyhow::{Context, bail};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};
use wirespan_analyzer::query::Range;
use wirespan_analyzer::{Answers, Ingest, IngestOptions, Registry, Sink};
use wirespan_controller::Names;
use wirespan_records::Records;
use wirespan_store::{
    Client, Retention, ServeOptions, Supervisor, SupervisorOptions, Writer, WriterOptions, migrate,
};

const BENCH: &str = "store";
/// Records that a worker hands over together, and how often there are some.
const BATCH_RECORDS: u64 = 2048;
const HAND_ON_EVERY: Duration = Duration::from_millis(5);
/// How long the store may take for what waits at the end.
const PATIENCE: Duration = Duration::from_secs(120);
/// An answer's time is the median of so many.
const ANSWERS: usize = 10;
/// The service list is asked for so many seconds, as the page does.
const RANGE_S: u32 = 15 * 60;

/// What `wirespan-perf store` is asked for.
#[derive(clap::Args)]
pub struct StoreArgs {
    /// Requests per second
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub rate: u64,

    /// For so long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub seconds: u64,
}

/// What the store process is asked for.
#[derive(clap::Args)]
pub struct ServeArgs {
    /// Data directory
    #[arg(long)]
    data: PathBuf,

    /// libchdb.so, when it is not where `make setup` puts it
    #[arg(long, env = "WIRESPAN_LIBCHDB")]
    libchdb: Option<PathBuf>,
}

/// Runs the store process.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServeOptions { data: args.data, listen, library: args.libchdb, supervised: true };
    Ok(wirespan_store::serve(options)?)
}

/// Runs the suite.
pub fn run(args: &StoreArgs, output: &mut Output) -> anyhow::Result<()> {
    runtime()?.block_on(measure(args, output))
}

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn measure(args: &StoreArgs, output: &mut Output) -> anyhow::Result<()> {
    let data = tempfile::tempdir().context("cannot make a temporary directory")?;
    let supervisor = Supervisor::start(SupervisorOptions::new(store_command(data.path())?)).await?;
    let store = Whose::Process(Pid::from_raw(supervisor.pid() as i32));
    let result = measure_on(&Client::new(supervisor.url())?, store, args, output).await;
    supervisor.stop().await;
    result
}

/// CPU time per request, beside what one core has at this rate.
fn cpu(variant: &str, times: Times, total: u64, rate: u64, output: &mut Output) -> anyhow::Result<()> {
    let used_us = times.cpu_s * 1e6 / total as f64;
    output.push(Measurement::new(BENCH, variant, used_us, "us/request", 1e6 / rate as f64))
}

pub(crate) fn store_command(data: &Path) -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("cannot find this program to start its store")?;
    Ok(vec![program.into(), "serve-store".into(), "--data".into(), data.into()])
}

async fn measure_on(
    client: &Client,
    store: Whose,
    args: &StoreArgs,
    output: &mut Output,
) -> anyhow::Result<()> {
    migrate(client, &Retention::default()).await?;
    let writer = Writer::start(client.clone(), WriterOptions::default());
    let ingest = Ingest::start(writer, &IngestOptions::default(), &Registry::default())?;
    let (sink, rate, total) = (ingest.sink(), args.rate, args.rate * args.seconds);
    let (own_clock, store_clock) = (Clock::start(Whose::Own)?, Clock::start(store)?);
    let started = Instant::now();
    tokio::task::spawn_blocking(move || generate(&sink, rate, total))
        .await
        .context("the thread that makes requests ended early")?;
    let made_s = started.elapsed().as_secs_f64();
    let report = ingest.stop(PATIENCE).await;
    let (own, stores) = (own_clock.stop()?, store_clock.stop()?);

    let total_rows = total as f64;
    let rows = number(client, "SELECT count() FROM l7_log").await?;
    output.push(Measurement::new(BENCH, "requests made", total_rows / made_s, "requests/s", rate as f64))?;
    output.push(Measurement::new(BENCH, "requests stored", rows, "rows", total_rows))?;
    output.push(Measurement::new(
        BENCH,
        "requests stored, flush included",
        rows / own.wall_s,
        "rows/s",
        rate as f64,
    ))?;
    cpu("CPU to make and send them", own, total, rate, output)?;
    cpu("CPU to store them", stores, total, rate, output)?;
    if rows != total_rows {
        bail!("{total} requests were handed to the store and {rows} are in it: {report:?}");
    }
    services(client, store, total, output).await?;
    disk(client, output).await
}

/// Hands on requests at the rate, all of them: what a busy machine delays is caught up with.
fn generate(sink: &Sink, rate: u64, total: u64) {
    let mut requests = Requests::new();
    let started = Instant::now();
    let mut made = 0;
    while made < total {
        let due = ((started.elapsed().as_secs_f64() * rate as f64) as u64).min(total);
        while made < due {
            let now_ns = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
            let records = (due - made).min(BATCH_RECORDS);
            let spans = (0..records).map(|_| requests.next(now_ns)).collect();
            // What a full queue drops is missing in the count of rows at the end.
            sink.send(Records { spans, ..Records::default() });
            made += records;
        }
        std::thread::sleep(HAND_ON_EVERY);
    }
}

/// The service list over all requests, beside the shortest answer there is.
async fn services(client: &Client, store: Whose, total: u64, output: &mut Output) -> anyhow::Result<()> {
    let answers = Answers::new(client.clone(), Names::default());
    let to_s = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() as u32 + 1;
    let range = Range { from_s: to_s - RANGE_S, to_s };
    let mut asked = Vec::new();
    for _ in 0..ANSWERS {
        let clock = Clock::start(store)?;
        let list = answers.services(range).await?;
        asked.push(clock.stop()?);
        let requests: u64 = list.services.iter().map(|service| service.red.requests).sum();
        if requests != total {
            bail!("the service list tells of {requests} requests, {total} were stored");
        }
    }
    let mut nothing = Vec::new();
    for _ in 0..ANSWERS {
        let clock = Clock::start(store)?;
        number(client, "SELECT 1").await?;
        nothing.push(clock.stop()?);
    }
    for (variant, unit, of) in [
        ("service list, beside SELECT 1", "ms", (|times| times.wall_s) as fn(&Times) -> f64),
        ("service list: CPU of the store", "CPU-ms", |times| times.cpu_s),
    ] {
        let median_ms = |times: &[Times]| median(times.iter().map(of).collect()) * 1e3;
        output.push(Measurement::new(BENCH, variant, median_ms(&asked), unit, median_ms(&nothing)))?;
    }
    Ok(())
}

/// Bytes per request, beside those before compression.
async fn disk(client: &Client, output: &mut Output) -> anyhow::Result<()> {
    let sum = |column: &str, more: &str| {
        let parts = "system.parts WHERE active AND database = currentDatabase()";
        format!("SELECT sum({column}) / (SELECT count() FROM l7_log) FROM {parts} {more}")
    };
    for (variant, more) in [("l7_log on disk", "AND table = 'l7_log'"), ("all tables on disk", "")] {
        let packed = number(client, &sum("bytes_on_disk", more)).await?;
        let plain = number(client, &sum("data_uncompressed_bytes", more)).await?;
        output.push(Measurement::new(BENCH, variant, packed, "bytes/request", plain))?;
    }
    Ok(())
}

/// The answer to a question for one number.
pub(crate) async fn number(client: &Client, sql: &str) -> anyhow::Result<f64> {
    let answer = client.query_text(sql, "TabSeparated").await?;
    let text = String::from_utf8_lossy(&answer);
    text.trim().parse().with_context(|| format!("{sql} was answered by {text:?}"))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    let of = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len() % 2 == 1 { of(half) } else { (of(half.wrapping_sub(1)) + of(half)) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}

//! `wirespan replay`: capture files in, spans, flows and totals out.

mod output;
mod recorder;

use crate::analysis::AnalysisArgs;
use anyhow::{Context, ensure};
use clap::ValueEnum;
use output::{Emit, Output};
use recorder::Recorder;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_capture::{PacketSource, SourceStats};
use wirespan_dataplane::RecordSink;
use wirespan_dataplane::worker::{Worker, WorkerStats};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, L7Protocol, Records, Span};

/// Records are printed and stored when there are so many.
const HAND_ON_RECORDS: usize = 1024;

/// What `wirespan replay` is asked for.
#[derive(clap::Args)]
pub struct ReplayArgs {
    /// Capture files, pcap or pcapng, gzip too; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// What to print
    #[arg(long, value_enum, value_delimiter = ',', default_value = "spans")]
    emit: Vec<Emit>,

    /// Directory for Parquet files
    #[arg(long, value_name = "DIR", required_if_eq("format", "parquet"))]
    out: Option<PathBuf>,

    /// Store everything in this data directory too, for `wirespan up` and `wirespan store` to answer from
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// libchdb.so, when it is not where `make setup` puts it
    #[arg(long, value_name = "FILE", env = "WIRESPAN_LIBCHDB")]
    libchdb: Option<PathBuf>,

    /// Threads that analyse; each takes its part of the flows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,

    /// Replace literals in SQL, values in Redis commands and in URL queries by `?`
    #[arg(long)]
    obfuscate: bool,

    #[command(flatten)]
    analysis: AnalysisArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines to read
    Table,
    /// One JSON object per line
    Jsonl,
    /// Files spans.parquet and flows.parquet in the directory --out; needs the ClickHouse engine (`make setup`)
    Parquet,
}

/// Everything that was counted in one run.
#[derive(Default)]
struct Totals {
    worker: WorkerStats,
    source: SourceStats,
    spans: [u64; L7Protocol::ALL.len()],
}

/// Runs the command.
pub fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    // What cannot be opened or written is told before hours of work. Standard input can be opened only once.
    let (streams, files): (Vec<_>, Vec<_>) = args.files.iter().partition(|file| file.as_os_str() == "-");
    for file in files {
        PcapFile::open(file)?;
    }
    ensure!(
        streams.is_empty() || (streams.len() == 1 && args.workers == 1),
        "standard input can be read once, by one worker; save it to a file first"
    );
    let parquet = args.format == Format::Parquet;
    let exports = if parquet { exports(&args)? } else { Vec::new() };
    let scratch = if parquet && args.data.is_none() { Some(tempfile::tempdir()?) } else { None };
    let data = args.data.as_deref().or(scratch.as_ref().map(|dir| dir.path()));
    let recorder = data.map(|data| Recorder::open(data, args.libchdb.clone())).transpose()?;
    let output = Mutex::new(Output::new(args.format == Format::Jsonl, &args.emit));
    let totals = analyse_all(&args, &output, recorder.as_ref());
    let stored = recorder.map(|recorder| recorder.finish(&exports)).transpose();
    let totals = totals?;
    for (reason, count) in &totals.source.unreadable {
        eprintln!("wirespan: {count} x {reason}");
    }
    if let Some(counters) = stored? {
        eprintln!("wirespan: {} rows stored", counters.rows_stored);
    }
    let mut output = output.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    output.stats(&totals, started.elapsed())?;
    output.finish().context("cannot write the output")
}

/// The Parquet files that are asked for.
fn exports(args: &ReplayArgs) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let Some(directory) = &args.out else { return Ok(Vec::new()) };
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let tables = [(Emit::Spans, "l7_log", "spans.parquet"), (Emit::Flows, "flow_log", "flows.parquet")];
    let wanted = tables.into_iter().filter(|(what, ..)| args.emit.contains(what));
    Ok(wanted.map(|(_, table, file)| (table, directory.join(file))).collect())
}

fn analyse_all(
    args: &ReplayArgs,
    output: &Mutex<Output>,
    recorder: Option<&Recorder>,
) -> anyhow::Result<Totals> {
    std::thread::scope(|scope| {
        let start = |index| scope.spawn(move || analyse(args, index, output, recorder));
        let workers: Vec<_> = (0..args.workers).map(start).collect();
        let mut totals = Totals::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => totals.add(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(totals)
    })
}

/// One worker's part of all files.
fn analyse(
    args: &ReplayArgs,
    index: u32,
    output: &Mutex<Output>,
    recorder: Option<&Recorder>,
) -> anyhow::Result<Totals> {
    let mut config = args.analysis.worker_config(index as u16, args.workers);
    config.flow.ticks = recorder.is_some();
    config.l7.obfuscate = args.obfuscate;
    let mut worker = Worker::new(config);
    let printed = if args.format == Format::Parquet { &[] } else { &args.emit[..] };
    let kept = |what| recorder.is_some() || printed.contains(&what);
    let keep = (kept(Emit::Spans), kept(Emit::Flows));
    let mut sink = Sink { keep, pending: Records::default(), spans: [0; L7Protocol::ALL.len()] };
    let hand_on = |records: &mut Records| {
        print(records, output, printed)?;
        if let Some(recorder) = recorder {
            recorder.write(records)?;
        }
        records.clear();
        anyhow::Ok(())
    };
    let mut source = SourceStats::default();
    for file in &args.files {
        let mut frames = PcapFile::open(file)?;
        while let Some(batch) = frames.next_batch()? {
            worker.batch(batch, &mut sink);
            if sink.pending.len() >= HAND_ON_RECORDS {
                hand_on(&mut sink.pending)?;
            }
        }
        if index == 0 {
            let stats = frames.stats();
            source.received += stats.received;
            source.unreadable.extend(stats.unreadable);
        }
    }
    worker.finish(&mut sink);
    hand_on(&mut sink.pending)?;
    Ok(Totals { worker: worker.stats(), source, spans: sink.spans })
}

impl Totals {
    fn add(&mut self, other: Self) {
        let (mine, theirs) = (&mut self.worker, other.worker);
        mine.frames += theirs.frames;
        mine.bytes += theirs.bytes;
        mine.packets += theirs.packets;
        mine.drops.merge(&theirs.drops);
        mine.flow.flows += theirs.flow.flows;
        mine.flow.evicted += theirs.flow.evicted;
        mine.l7.gap_bytes += theirs.l7.gap_bytes;
        mine.l7.desyncs += theirs.l7.desyncs;
        mine.l7.over_budget_bytes += theirs.l7.over_budget_bytes;
        self.source.received += other.source.received;
        self.source.unreadable.extend(other.source.unreadable);
        for (mine, theirs) in self.spans.iter_mut().zip(other.spans) {
            *mine += theirs;
        }
    }
}

/// Counts what a worker makes and keeps what is to be printed or stored.
struct Sink {
    /// Spans, and flows.
    keep: (bool, bool),
    pending: Records,
    spans: [u64; L7Protocol::ALL.len()],
}

fn print(records: &Records, output: &Mutex<Output>, emit: &[Emit]) -> anyhow::Result<()> {
    let mut output = output.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let spans = if emit.contains(&Emit::Spans) { &records.spans[..] } else { &[] };
    let flows = if emit.contains(&Emit::Flows) { &records.flows[..] } else { &[] };
    let printed = spans.iter().try_for_each(|span| output.span(span));
    printed
        .and_then(|()| flows.iter().try_for_each(|flow| output.flow(flow)))
        .context("cannot write the output")
}

impl SpanSink for Sink {
    fn span(&mut self, span: Span) {
        self.spans[span.l7_protocol as usize] += 1;
        if self.keep.0 {
            self.pending.spans.push(span);
        }
    }
}

impl RecordSink for Sink {
    fn flow(&mut self, flow: Flow) {
        if self.keep.1 {
            self.pending.flows.push(flow);
        }
    }

    fn tick(&mut self, tick: FlowTick) {
        self.pending.ticks.push(tick);
    }
}

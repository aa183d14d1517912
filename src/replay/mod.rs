//! `wirespan replay`: capture files and event logs in, spans, flows and totals out.

mod events;
mod output;
mod recorder;

use crate::analysis::AnalysisArgs;
use anyhow::{Context, ensure};
use clap::ValueEnum;
use output::{Emit, Output};
use recorder::Recorder;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_capture::spread::{self, FileEnd};
use wirespan_capture::{Batch, PacketSource, Unreadable, placement};
use wirespan_dataplane::worker::{Worker, WorkerStats};
use wirespan_dataplane::{RecordSink, Taps};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, L7Protocol, Records, Span};
use wirespan_syscalls::LogFile;

/// Records are printed and stored when there are so many.
const HAND_ON_RECORDS: usize = 1024;

/// What `wirespan replay` is asked for.
#[derive(clap::Args)]
pub struct ReplayArgs {
    /// Capture files or pipes, pcap or pcapng, gzip too, `-` is standard input; and event logs of `wirespan up --record-events`
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

    /// Threads that analyse, each its part of the flows: as many as there are cores is fastest. With more than one, lines
    /// come in no particular order
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
    /// What could not be read of which capture file, and how often.
    unreadable: Vec<(String, Unreadable, u64)>,
    spans: [u64; L7Protocol::ALL.len()],
    /// Events of event logs.
    events: u64,
    /// Records of event logs that could not be read.
    events_unreadable: u64,
}

/// Runs the command.
pub fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let is_log = |file: &PathBuf| !is_stream(file) && LogFile::recognises(file);
    let (logs, captures): (Vec<_>, Vec<_>) = args.files.iter().cloned().partition(is_log);
    // What cannot be opened or written is told before hours of work.
    for file in captures.iter().filter(|file| !is_stream(file)) {
        PcapFile::open(file)?;
    }
    for log in &logs {
        LogFile::open(log)?;
    }
    let inputs = captures.iter().filter(|file| file.as_os_str() == "-").count();
    ensure!(inputs <= 1, "standard input can be read once; save it to a file first");
    let taps = args.analysis.taps()?;
    let parquet = args.format == Format::Parquet;
    let exports = if parquet { exports(&args)? } else { Vec::new() };
    let scratch = if parquet && args.data.is_none() { Some(tempfile::tempdir()?) } else { None };
    let data = args.data.as_deref().or(scratch.as_ref().map(|dir| dir.path()));
    let recorder = data.map(|data| Recorder::open(data, args.libchdb.clone(), &taps)).transpose()?;
    let output = Mutex::new(Output::new(args.format == Format::Jsonl, &args.emit, taps.clone()));
    let totals = analyse_all(&args, &captures, &taps, &output, recorder.as_ref()).and_then(|mut totals| {
        for log in &logs {
            totals.add(events::replay(log, &args, &output, printed(&args), recorder.as_ref())?);
        }
        Ok(totals)
    });
    let stored = recorder.map(|recorder| recorder.finish(&exports)).transpose();
    let totals = totals?;
    for (file, reason, count) in &totals.unreadable {
        let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
        eprintln!("wirespan: {file}: {reason}{times}; what could be read was analysed");
    }
    if totals.events_unreadable > 0 {
        eprintln!(
            "wirespan: {} records of event logs are cut or damaged; the others were analysed",
            totals.events_unreadable
        );
    }
    if let Some(counters) = stored? {
        eprintln!("wirespan: {} rows stored", counters.rows_stored);
    }
    let mut output = output.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    output.stats(&totals, started.elapsed())?;
    output.finish().context("cannot write the output")
}

/// What is read can be read once: standard input, a pipe such as `<(ssh host tcpdump -w -)`.
fn is_stream(file: &Path) -> bool {
    file.as_os_str() == "-" || file.metadata().is_ok_and(|about| !about.is_file() && !about.is_dir())
}

/// The Parquet files that are asked for.
fn exports(args: &ReplayArgs) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let Some(directory) = &args.out else { return Ok(Vec::new()) };
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let tables = [(Emit::Spans, "l7_log", "spans.parquet"), (Emit::Flows, "flow_log", "flows.parquet")];
    let wanted = tables.into_iter().filter(|(what, ..)| args.emit.contains(what));
    Ok(wanted.map(|(_, table, file)| (table, directory.join(file))).collect())
}

/// What is printed while it is found.
fn printed(args: &ReplayArgs) -> &[Emit] {
    if args.format == Format::Parquet { &[] } else { &args.emit }
}

fn analyse_all(
    args: &ReplayArgs,
    captures: &[PathBuf],
    taps: &Taps,
    output: &Mutex<Output>,
    recorder: Option<&Recorder>,
) -> anyhow::Result<Totals> {
    let analysis = |index| Analysis::new(args, captures, index, taps, output, recorder);
    if captures.is_empty() {
        return Ok(Totals::default());
    }
    if args.workers == 1 {
        return analysis(0).all(captures, taps);
    }
    let ends = spread::files(captures, &interfaces(captures, taps), args.workers as usize)?;
    let cpus = placement::cpu_each(ends.len()).unwrap_or_default();
    std::thread::scope(|scope| {
        let cpus = &cpus;
        let part = move |index: u16, end| {
            if let Some(&cpu) = cpus.get(usize::from(index)) {
                // Slower where it is refused, but not wrong.
                let _ = placement::pin_to_cpu(cpu);
            }
            analysis(index).part(end, captures)
        };
        let start = |(index, end)| scope.spawn(move || part(index, end));
        let workers: Vec<_> = (0..).zip(ends).map(start).collect();
        let mut totals = Totals::default();
        let mut failure = None;
        for worker in workers {
            match worker.join() {
                Ok(Ok(part)) => totals.add(part),
                Ok(Err(error)) => failure = failure.or(Some(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        failure.map_or(Ok(totals), Err)
    })
}

/// The names that taps know frames by, by number: those of the files, then those of interfaces in them that taps ask for.
fn interfaces(captures: &[PathBuf], taps: &Taps) -> Vec<String> {
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let asked: BTreeSet<&str> = taps.interfaces().collect();
    captures.iter().map(name).chain(asked.into_iter().map(str::to_owned)).collect()
}

/// One worker, and where its records go.
struct Analysis<'a> {
    worker: Worker,
    sink: Sink,
    output: &'a Mutex<Output>,
    printed: &'a [Emit],
    recorder: Option<&'a Recorder>,
}

impl<'a> Analysis<'a> {
    fn new(
        args: &'a ReplayArgs,
        captures: &[PathBuf],
        index: u16,
        taps: &Taps,
        output: &'a Mutex<Output>,
        recorder: Option<&'a Recorder>,
    ) -> Self {
        let mut config = args.analysis.worker_config(index);
        config.flow.ticks = recorder.is_some();
        config.l7.obfuscate = args.obfuscate;
        config.decode.mirror.taps = taps.clone();
        config.decode.mirror.interfaces = interfaces(captures, taps);
        let printed = printed(args);
        let sink = Sink::new(recorder, printed);
        Self { worker: Worker::new(config), sink, output, printed, recorder }
    }

    /// All frames of all files, straight from the files.
    fn all(mut self, files: &[PathBuf], taps: &Taps) -> anyhow::Result<Totals> {
        let mut unreadable = Vec::new();
        let names = interfaces(files, taps).into();
        for (place, file) in files.iter().enumerate() {
            let mut frames = PcapFile::open(file)?.nth_of(place, &names);
            while let Some(batch) = frames.next_batch()? {
                self.batch(batch)?;
            }
            let name = file.display().to_string();
            unreadable.extend(frames.stats().unreadable.into_iter().map(|(what, n)| (name.clone(), what, n)));
        }
        self.finish(unreadable)
    }

    /// A worker's part of the flows.
    fn part(mut self, mut frames: FileEnd, files: &[PathBuf]) -> anyhow::Result<Totals> {
        while let Some(batch) = frames.next_batch()? {
            self.batch(batch)?;
        }
        let name = match files {
            [file] => file.display().to_string(),
            _ => "one of the capture files".to_owned(),
        };
        let unreadable = frames.stats().unreadable.into_iter().map(|(what, n)| (name.clone(), what, n));
        self.finish(unreadable.collect())
    }

    fn batch(&mut self, batch: Batch<'_>) -> anyhow::Result<()> {
        self.worker.batch(batch, &mut self.sink);
        if self.sink.pending.len() >= HAND_ON_RECORDS { self.hand_on() } else { Ok(()) }
    }

    fn finish(mut self, unreadable: Vec<(String, Unreadable, u64)>) -> anyhow::Result<Totals> {
        self.worker.finish(&mut self.sink);
        self.hand_on()?;
        let (worker, spans) = (self.worker.stats(), self.sink.spans);
        Ok(Totals { worker, unreadable, spans, ..Totals::default() })
    }

    fn hand_on(&mut self) -> anyhow::Result<()> {
        let records = &mut self.sink.pending;
        print(records, self.output, self.printed)?;
        if let Some(recorder) = self.recorder {
            return recorder.write(std::mem::take(records));
        }
        records.clear();
        Ok(())
    }
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
        mine.l7.unpaired += theirs.l7.unpaired;
        mine.l7.over_budget_bytes += theirs.l7.over_budget_bytes;
        self.unreadable.extend(other.unreadable);
        for (mine, theirs) in self.spans.iter_mut().zip(other.spans) {
            *mine += theirs;
        }
        self.events += other.events;
        self.events_unreadable += other.events_unreadable;
    }
}

/// Counts what a worker makes and keeps what is to be printed or stored.
struct Sink {
    /// Spans, and flows.
    keep: (bool, bool),
    pending: Records,
    spans: [u64; L7Protocol::ALL.len()],
}

impl Sink {
    fn new(recorder: Option<&Recorder>, printed: &[Emit]) -> Self {
        let kept = |what| recorder.is_some() || printed.contains(&what);
        let keep = (kept(Emit::Spans), kept(Emit::Flows));
        Self { keep, pending: Records::default(), spans: [0; L7Protocol::ALL.len()] }
    }
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

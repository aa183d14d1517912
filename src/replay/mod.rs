//! `wirespan replay`: capture files in, spans, flows and totals out.

mod output;

use anyhow::Context;
use clap::ValueEnum;
use output::{Emit, Output};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_capture::{PacketSource, SourceStats};
use wirespan_dataplane::RecordSink;
use wirespan_dataplane::worker::{Shard, Worker, WorkerConfig, WorkerStats};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, L7Protocol, Span};

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

    /// Threads that analyse; each takes its part of the flows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,

    /// Replace literals in SQL, values in Redis commands and in URL queries by `?`
    #[arg(long)]
    obfuscate: bool,

    /// Flows kept at the same time; when there are more, the one that would be missed least leaves
    #[arg(long, default_value_t = 1 << 20, value_name = "N")]
    max_flows: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Lines to read
    Table,
    /// One JSON object per line
    Jsonl,
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
    // A file that cannot be opened is told before hours of work on the others.
    for file in &args.files {
        open(file)?;
    }
    let json = matches!(args.format, Format::Jsonl);
    let output = Mutex::new(Output::new(json, &args.emit));
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.workers)
            .map(|index| {
                scope.spawn({
                    let (args, output) = (&args, &output);
                    move || analyse(args, index, output)
                })
            })
            .collect();
        let mut totals = Totals::default();
        for worker in workers {
            match worker.join() {
                Ok(part) => totals.add(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(totals)
    })?;
    for (reason, count) in &totals.source.unreadable {
        eprintln!("wirespan: {count} x {reason}");
    }
    let mut output = output.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    output.stats(&totals, started.elapsed())?;
    output.finish().context("cannot write the output")
}

fn open(file: &PathBuf) -> anyhow::Result<PcapFile> {
    Ok(PcapFile::open(file)?)
}

/// One worker's part of all files.
fn analyse(args: &ReplayArgs, index: u32, output: &Mutex<Output>) -> anyhow::Result<Totals> {
    let mut config = WorkerConfig::default();
    config.shard = Shard { index, of: args.workers };
    config.flow.worker = index as u16;
    config.flow.max_flows = args.max_flows.max(1);
    config.l7.obfuscate = args.obfuscate;
    let mut worker = Worker::new(config);
    let has = |what| args.emit.contains(&what);
    let wants = (has(Emit::Spans), has(Emit::Flows));
    let mut sink = Sink { output, wants, pending: Vec::new(), spans: [0; L7Protocol::ALL.len()] };
    let mut source = SourceStats::default();
    for file in &args.files {
        let mut frames = open(file)?;
        while let Some(batch) = frames.next_batch()? {
            worker.batch(batch, &mut sink);
            sink.hand_on()?;
        }
        if index == 0 {
            let stats = frames.stats();
            source.received += stats.received;
            source.unreadable.extend(stats.unreadable);
        }
    }
    worker.finish(&mut sink);
    sink.hand_on()?;
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

/// Counts what a worker makes and hands on what is to be printed, a batch at a time.
struct Sink<'a> {
    output: &'a Mutex<Output>,
    wants: (bool, bool),
    pending: Vec<Record>,
    spans: [u64; L7Protocol::ALL.len()],
}

enum Record {
    Span(Box<Span>),
    Flow(Box<Flow>),
}

impl Sink<'_> {
    fn hand_on(&mut self) -> anyhow::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut output = self.output.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for record in self.pending.drain(..) {
            match record {
                Record::Span(span) => output.span(&span),
                Record::Flow(flow) => output.flow(&flow),
            }
            .context("cannot write the output")?;
        }
        Ok(())
    }
}

impl SpanSink for Sink<'_> {
    fn span(&mut self, span: Span) {
        self.spans[span.l7_protocol as usize] += 1;
        if self.wants.0 {
            self.pending.push(Record::Span(Box::new(span)));
        }
    }
}

impl RecordSink for Sink<'_> {
    fn flow(&mut self, flow: Flow) {
        if self.wants.1 {
            self.pending.push(Record::Flow(Box::new(flow)));
        }
    }

    fn tick(&mut self, _: FlowTick) {}
}

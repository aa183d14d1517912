//! Traces: spans per second that get the key of their trace, spans per second that become a tree, and the time of reading one
//! trace out of a store that holds many spans.

use crate::measure::{Measurement, Output};
use crate::requests::Requests;
use crate::store::{median, number, runtime, store_command};
use anyhow::{Context, ensure};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use wirespan_analyzer::Answers;
use wirespan_analyzer::traces::Stitching;
use wirespan_controller::Names;
use wirespan_records::{ObservationPoint, Parent, Process, Rule, Signal, Span, TraceKey, next_id};
use wirespan_stitch::{Limits, SpanRow, Stitcher, assemble};
use wirespan_store::{Client, Retention, Supervisor, SupervisorOptions, Writer, WriterOptions, migrate};

const BENCH: &str = "stitch";
/// Spans that are made before the clock runs, so many times.
const CHUNK: usize = 200_000;
const CHUNKS: usize = 10;
/// Spans that wait for their key, as on the way to the store.
const WAITING: usize = 65_536;
/// What one core has to reach, spans per second.
const AIM_SPANS_PER_S: f64 = 200_000.0;
/// The trace that is read: its spans, and how long reading may take.
const TRACE_SPANS: usize = 1_000;
const AIM_MS: f64 = 100.0;
/// An answer's time is the median of so many.
const ANSWERS: usize = 21;
/// Of so many requests, all but one are seen once; one makes calls.
const SINGLES: usize = 80;
const SMALL_TRACE_SPANS: usize = 20;
/// Rows that may wait for the store.
const MAX_WAITING_ROWS: u64 = 200_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// What `wirespan-perf stitch` is asked for.
#[derive(clap::Args)]
pub struct StitchArgs {
    /// Spans in the store, out of which one trace is read; 0 leaves the store out
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub spans: u64,

    /// Keep the store in this directory; one that has the spans already is not filled again
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Runs the suite.
pub fn run(args: &StitchArgs, output: &mut Output) -> anyhow::Result<()> {
    keys(output)?;
    trees(output)?;
    if args.spans == 0 {
        return Ok(());
    }
    let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
    let data = args.data.clone().unwrap_or_else(|| temporary.path().into());
    runtime()?.block_on(async {
        let supervisor = Supervisor::start(SupervisorOptions::new(store_command(&data)?)).await?;
        let client = Client::new(supervisor.url())?;
        let result = read(&client, args.spans, output).await;
        supervisor.stop().await;
        result
    })
}

/// Spans as a busy site with traced processes has them.
struct Site {
    requests: Requests,
    processes: Vec<Arc<Process>>,
}

impl Site {
    fn new() -> Self {
        let process = |pid| {
            Arc::new(Process {
                pid,
                start_ns: 1_700_000_000_000_000_000 + u64::from(pid),
                name: format!("service-{pid}"),
                executable: format!("/usr/bin/service-{pid}"),
                command: format!("/usr/bin/service-{pid} --listen 0.0.0.0:8080"),
                container_id: Some(format!("{:064x}", u64::from(pid) * 0x9e37_79b9).into()),
                pod_uid: None,
            })
        };
        Self { requests: Requests::new(), processes: (1..=24).map(process).collect() }
    }

    /// Single requests and a small trace.
    fn some(&mut self, end_ns: u64, spans: &mut Vec<Span>) {
        for _ in 0..SINGLES {
            spans.push(Span { id: next_id(), ..self.requests.next(end_ns) });
        }
        self.trace(SMALL_TRACE_SPANS, end_ns, spans);
    }

    /// A trace of calls that are made for calls, each seen by both processes and twice on the way; without ids in headers. A
    /// call ends before the one that it was made for, and so it comes.
    fn trace(&mut self, count: usize, end_ns: u64, spans: &mut Vec<Span>) {
        const POINTS: usize = 4;
        const CALLS_OF_EACH: usize = 5;
        let calls = count / POINTS;
        let served: Vec<u64> = (0..calls).map(|_| next_id()).collect();
        for call in (0..calls).rev() {
            let mut seen = self.requests.next(end_ns);
            (seen.trace_id, seen.span_id, seen.x_request_id) = (None, None, None);
            seen.protocol = wirespan_records::L4Protocol::Tcp;
            let random = self.requests.numbers();
            (seen.req_tcp_seq, seen.resp_tcp_seq) = (Some(random as u32), Some((random >> 32) as u32));
            seen.session = wirespan_records::Session::Complete;
            seen.start_ns = end_ns - 50_000_000 + call as u64 * 10_000;
            seen.end_ns = end_ns - call as u64 * 10_000;
            let maker = call.checked_sub(1).map(|before| before / CALLS_OF_EACH);
            let process = |call: usize| self.processes.get(call % self.processes.len()).cloned();
            for point in (0..POINTS).rev() {
                let nearer_ns = 1000 * point as u64;
                let mut span = Span {
                    start_ns: seen.start_ns + nearer_ns,
                    end_ns: seen.end_ns - nearer_ns,
                    id: if point == 3 { served.get(call).copied().unwrap_or_default() } else { next_id() },
                    ..seen.clone()
                };
                if point == 0 || point == 3 {
                    span.signal = Signal::Syscall;
                    span.observation_point = if point == 0 {
                        ObservationPoint::ClientProcess
                    } else {
                        ObservationPoint::ServerProcess
                    };
                    span.process = process(if point == 0 { maker.unwrap_or(0) } else { call });
                }
                if point == 0 {
                    span.parent = maker.and_then(|maker| served.get(maker)).map(|&span| Parent {
                        span,
                        rule: Rule::Socket,
                        confidence: 0.9,
                    });
                }
                spans.push(span);
            }
        }
    }
}

/// Spans per second and core that get the key of their trace.
fn keys(output: &mut Output) -> anyhow::Result<()> {
    let (mut site, mut stitcher) = (Site::new(), Stitcher::new(Limits::default()));
    let mut waiting = VecDeque::new();
    let (mut took, mut count, mut traced) = (Duration::ZERO, 0u64, 0u64);
    for chunk in 0..CHUNKS as u64 {
        let mut spans = Vec::with_capacity(CHUNK + 1000);
        while spans.len() < CHUNK {
            let end_ns = 1_700_000_000_000_000_000 + (chunk * CHUNK as u64 + spans.len() as u64) * 5_000;
            site.some(end_ns, &mut spans);
        }
        let began = Instant::now();
        for span in &spans {
            waiting.push_back((stitcher.add(span), span.id));
            if waiting.len() > WAITING
                && let Some((ticket, id)) = waiting.pop_front()
            {
                traced += u64::from(stitcher.settle(ticket, id).traced);
            }
        }
        stitcher.take_merges();
        took += began.elapsed();
        count += spans.len() as u64;
    }
    let stats = stitcher.stats();
    ensure!(stats.joined > count / 10 && traced > count / 10, "nothing was joined: {stats:?}");
    let rate = count as f64 / took.as_secs_f64();
    output.push(Measurement::new(
        BENCH,
        "spans that get a key, one core",
        rate,
        "spans/s",
        AIM_SPANS_PER_S,
    ))?;
    let merges = stats.merges as f64 / count as f64 * 1e6;
    output.push(Measurement::limit(BENCH, "keys merged later", merges, "per million spans"))
}

/// Spans per second that become a tree.
fn trees(output: &mut Output) -> anyhow::Result<()> {
    let mut spans = Vec::new();
    Site::new().trace(10_000, 1_700_000_000_000_000_000, &mut spans);
    let rows: Vec<_> = spans.iter().map(SpanRow::from).collect();
    let mut times = Vec::new();
    for _ in 0..ANSWERS {
        let rows = rows.clone();
        let began = Instant::now();
        let trace = assemble(rows, 1, None);
        times.push(began.elapsed().as_secs_f64());
        let roots = trace.spans.iter().filter(|span| span.parent_id.is_none()).count();
        ensure!(trace.spans.len() == 10_000 && roots == 1, "the tree has {roots} roots");
    }
    let rate = 10_000.0 / median(times);
    output.push(Measurement::limit(BENCH, "spans that become one tree of 10,000", rate, "spans/s"))
}

/// The time of reading a trace out of so many spans.
async fn read(client: &Client, total: u64, output: &mut Output) -> anyhow::Result<()> {
    migrate(client, &Retention::default()).await?;
    let before = number(client, "SELECT count() FROM l7_log").await?;
    if before == 0.0 {
        let began = Instant::now();
        fill(client, total).await?;
        let rate = total as f64 / began.elapsed().as_secs_f64();
        output.push(Measurement::limit(BENCH, "spans stored, as fast as they are taken", rate, "rows/s"))?;
    }
    let rows = number(client, "SELECT count() FROM l7_log").await?;
    ensure!(rows >= total as f64, "the store has {rows} spans, not {total}; give an empty directory");
    output.push(Measurement::limit(BENCH, "spans in the store", rows, "rows"))?;
    let traced = number(client, "SELECT count() FROM l7_log WHERE traced").await?;
    output.push(Measurement::new(BENCH, "of these in traces", traced, "rows", rows))?;

    let large = format!(
        "SELECT trace_key FROM trace_log GROUP BY trace_key HAVING count() = {TRACE_SPANS} ORDER BY trace_key LIMIT 1"
    );
    // As text: the numbers of keys are too large for others.
    let key = client.query_text(&large, "TabSeparated").await?;
    let key: u64 = String::from_utf8_lossy(&key).trim().parse().context("the store has no large trace")?;
    let row = client
        .query_text(&format!("SELECT max(id) FROM l7_log WHERE trace_key = {key}"), "TabSeparated")
        .await?;
    let row: u64 = String::from_utf8_lossy(&row).trim().parse()?;
    let answers = Answers::new(client.clone(), Names::default());
    let id = format!("{key:016x}");
    let mut by_key = Vec::new();
    let mut by_row = Vec::new();
    for _ in 0..ANSWERS {
        let began = Instant::now();
        let trace = answers.trace(&id).await?;
        by_key.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(trace.spans.len() == TRACE_SPANS, "the trace has {} spans", trace.spans.len());
        ensure!(
            trace.truncated.is_none() && trace.spans.iter().filter(|s| s.parent_id.is_none()).count() == 1
        );
        let began = Instant::now();
        let same = answers.trace_of_span(row).await?;
        by_row.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(same == trace, "the trace by a row's id is another");
    }
    // The first answer finds nothing in memory yet.
    let first = by_key.first().copied().unwrap_or_default();
    output.push(Measurement::new(
        BENCH,
        "a trace of 1,000 spans by its key",
        median(by_key),
        "ms",
        AIM_MS,
    ))?;
    output.push(Measurement::new(BENCH, "the first time", first, "ms", AIM_MS))?;
    output.push(Measurement::new(BENCH, "the same by the id of a row", median(by_row), "ms", AIM_MS))?;
    let parts = "system.parts WHERE active AND database = currentDatabase()";
    for table in ["l7_log", "trace_log"] {
        let sum = |column: &str| {
            format!("SELECT sum({column}) / (SELECT count() FROM {table}) FROM {parts} AND table = '{table}'")
        };
        let (packed, plain) = (
            number(client, &sum("bytes_on_disk")).await?,
            number(client, &sum("data_uncompressed_bytes")).await?,
        );
        output.push(Measurement::new(BENCH, &format!("{table} on disk"), packed, "bytes/row", plain))?;
    }
    Ok(())
}

/// Fills the store on the way that spans take, with a large trace now and then.
async fn fill(client: &Client, total: u64) -> anyhow::Result<()> {
    let writer = Writer::start(client.clone(), WriterOptions::default());
    let (mut site, mut stitching) = (Site::new(), Stitching::new(Instant::now()));
    let mut put = |spans: &[Span], traces: &[TraceKey]| {
        writer.spans(spans, traces);
    };
    let mut made = 0;
    let every = total / 10;
    let mut large = every / 2;
    while made < total {
        let mut spans = Vec::with_capacity(4096);
        let end_ns = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        while spans.len() < 2048 {
            site.some(end_ns, &mut spans);
        }
        if made >= large {
            site.trace(TRACE_SPANS, end_ns, &mut spans);
            large += every;
        }
        made += spans.len() as u64;
        let now = Instant::now();
        stitching.take(spans, now);
        let merges = stitching.hand_on(now, &mut put);
        writer.merges(&merges);
        if writer.counters().rows_waiting > MAX_WAITING_ROWS {
            ensure!(writer.flush(PATIENCE).await, "the store does not take the rows any more");
        }
    }
    writer.merges(&stitching.hand_on_all(&mut put));
    let counters = writer.close(PATIENCE).await;
    ensure!(counters.rows_stored == counters.rows_in, "rows were lost: {counters:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_trace_has_the_spans_that_are_asked_for_and_its_parents_are_among_them() {
        let mut spans = Vec::new();
        Site::new().trace(TRACE_SPANS, 1_700_000_000_000_000_000, &mut spans);
        let ids: HashSet<_> = spans.iter().map(|span| span.id).collect();
        assert_eq!((spans.len(), ids.len()), (TRACE_SPANS, TRACE_SPANS));
        let parents: Vec<_> = spans.iter().filter_map(|span| span.parent).collect();
        assert_eq!(parents.len(), TRACE_SPANS / 4 - 1);
        assert!(parents.iter().all(|parent| ids.contains(&parent.span)));
    }
}

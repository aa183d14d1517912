//! From worker threads to the store.
//!
//! Workers hand over batches through a [`Sink`] and never wait: when as many records wait as are allowed, the newest batch
//! is dropped and counted. One exporter thread sums ticks, gives spans the keys of their traces and hands rows to the store's
//! writer, which sends them until they are acknowledged. Every record is stored or counted as dropped, and [`Ingest::stop`] returns when that is so for all.

use crate::metrics::NetAggregator;
use crate::registry::{Counter, Registry};
use crate::traces::{Stitching, TraceCounters};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};
use wirespan_records::{Flow, Merge, Records, Span, TraceKey};
use wirespan_store::{NetMetrics, Stat, Writer, WriterCounters};

/// Batches that wait at most, whatever their size.
const QUEUE_BATCHES: usize = 8192;

/// Bounds of the way to the store.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Records that wait for the exporter at most.
    pub queue_records: usize,
    /// How often finished seconds are handed on.
    pub flush_every: Duration,
    /// How often the process's counters are written to `agent_stats`.
    pub stats_every: Duration,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            queue_records: 262_144,
            flush_every: Duration::from_millis(500),
            stats_every: Duration::from_secs(10),
        }
    }
}

/// What became of the records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// Handed over by workers.
    pub taken: u64,
    /// Of these, dropped because the queue was full or closed.
    pub dropped: u64,
}

/// What became of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// Requests.
    pub spans: RecordCounts,
    /// Flows.
    pub flows: RecordCounts,
    /// Ticks of flows, many of which make one row.
    pub ticks: RecordCounts,
    /// Rows made of ticks, of traces that turned out to be one, and of the process's own counters.
    pub rows_made: u64,
    /// What became of the rows.
    pub writer: WriterCounters,
}

impl IngestReport {
    /// Every record is stored or counted as dropped; so it is after [`Ingest::stop`].
    pub fn closes(&self) -> bool {
        let logs = self.spans.taken + self.flows.taken - self.spans.dropped - self.flows.dropped;
        let w = &self.writer;
        w.rows_in == logs + self.rows_made
            && w.rows_in == w.rows_stored + w.rows_dropped_full + w.rows_dropped_refused + w.rows_waiting
    }

    /// Records and rows that were lost.
    pub fn dropped(&self) -> u64 {
        let records: u64 = [&self.spans, &self.flows, &self.ticks].iter().map(|r| r.dropped).sum();
        records + self.writer.rows_dropped_full + self.writer.rows_dropped_refused + self.writer.rows_waiting
    }
}

#[derive(Clone)]
struct RecordCounters {
    taken: Counter,
    dropped: Counter,
}

impl RecordCounters {
    fn new(registry: &Registry, kind: &str) -> Self {
        let of = |name, help| registry.counter(name, help, &[("kind", kind)]);
        Self {
            taken: of("wirespan_ingest_taken_total", "Records that workers handed over."),
            dropped: of("wirespan_ingest_dropped_total", "Records dropped because the queue was full."),
        }
    }

    fn counts(&self) -> RecordCounts {
        RecordCounts { taken: self.taken.get(), dropped: self.dropped.get() }
    }
}

struct Counters {
    spans: RecordCounters,
    flows: RecordCounters,
    ticks: RecordCounters,
    queued: Counter,
    rows_made: Counter,
    rows_in: Counter,
    rows_stored: Counter,
    rows_full: Counter,
    rows_refused: Counter,
    rows_waiting: Counter,
    retries: Counter,
}

impl Counters {
    fn new(registry: &Registry) -> Self {
        let dropped = |reason| {
            registry.counter(
                "wirespan_store_dropped_total",
                "Rows lost on the way to the store.",
                &[("reason", reason)],
            )
        };
        Self {
            spans: RecordCounters::new(registry, "span"),
            flows: RecordCounters::new(registry, "flow"),
            ticks: RecordCounters::new(registry, "tick"),
            queued: registry.gauge("wirespan_ingest_queued", "Records that wait for the exporter.", &[]),
            rows_made: registry.counter(
                "wirespan_ingest_rows_made_total",
                "Rows made of ticks, merged traces and counters.",
                &[],
            ),
            rows_in: registry.counter("wirespan_store_rows_total", "Rows handed to the store's writer.", &[]),
            rows_stored: registry.counter("wirespan_store_stored_total", "Rows the store acknowledged.", &[]),
            rows_full: dropped("queue_full"),
            rows_refused: dropped("refused"),
            rows_waiting: registry.gauge("wirespan_store_waiting", "Rows not yet acknowledged.", &[]),
            retries: registry.counter("wirespan_store_retries_total", "Batches sent again.", &[]),
        }
    }

    fn add_lens(&self, batch: &Records, counter: impl Fn(&RecordCounters) -> &Counter) {
        counter(&self.spans).add(batch.spans.len() as u64);
        counter(&self.flows).add(batch.flows.len() as u64);
        counter(&self.ticks).add(batch.ticks.len() as u64);
    }

    fn set_writer(&self, writer: &WriterCounters) {
        self.rows_in.set(writer.rows_in);
        self.rows_stored.set(writer.rows_stored);
        self.rows_full.set(writer.rows_dropped_full);
        self.rows_refused.set(writer.rows_dropped_refused);
        self.rows_waiting.set(writer.rows_waiting);
        self.retries.set(writer.retries);
    }
}

/// State that sinks and the exporter share.
struct Shared {
    counters: Counters,
    queue_records: usize,
    queued: AtomicUsize,
    closed: AtomicBool,
}

/// A worker's end of the queue.
#[derive(Clone)]
pub struct Sink {
    queue: Sender<Records>,
    shared: Arc<Shared>,
}

impl Sink {
    /// Hands over a batch without waiting. `false`: it was dropped and counted.
    pub fn send(&self, batch: Records) -> bool {
        let records = batch.len();
        if records == 0 {
            return true;
        }
        let shared = &self.shared;
        shared.counters.add_lens(&batch, |c| &c.taken);
        // Announced before `closed` is read: the exporter sets `closed` first and ends when nothing is announced.
        let waiting = shared.queued.fetch_add(records, SeqCst);
        let has_room = waiting == 0 || waiting + records <= shared.queue_records;
        let refused = if has_room && !shared.closed.load(SeqCst) {
            self.queue.try_send(batch).err().map(|e| e.into_inner())
        } else {
            Some(batch)
        };
        let Some(batch) = refused else { return true };
        shared.queued.fetch_sub(records, SeqCst);
        shared.counters.add_lens(&batch, |c| &c.dropped);
        false
    }
}

/// Where the exporter puts rows; none of these waits.
trait Rows: Send + 'static {
    fn spans(&self, rows: &[Span], traces: &[TraceKey]);
    fn merges(&self, rows: &[Merge]);
    fn flows(&self, rows: &[Flow]);
    fn net_metrics(&self, rows: &[NetMetrics]);
    fn stats(&self, rows: &[Stat]);
    fn counters(&self) -> WriterCounters;
}

impl Rows for Writer {
    fn spans(&self, rows: &[Span], traces: &[TraceKey]) {
        Self::spans(self, rows, traces);
    }
    fn merges(&self, rows: &[Merge]) {
        Self::merges(self, rows);
    }
    fn flows(&self, rows: &[Flow]) {
        Self::flows(self, rows);
    }
    fn net_metrics(&self, rows: &[NetMetrics]) {
        Self::net_metrics(self, rows);
    }
    fn stats(&self, rows: &[Stat]) {
        Self::stats(self, rows);
    }
    fn counters(&self) -> WriterCounters {
        Self::counters(self)
    }
}

/// The way from workers to the store.
pub struct Ingest {
    exporter: Running<Writer>,
}

impl Ingest {
    /// Starts the exporter thread, which owns the writer; counters go to `registry`, and those of `registry` to the store.
    pub fn start(writer: Writer, options: &IngestOptions, registry: &Registry) -> std::io::Result<Self> {
        Ok(Self { exporter: Running::start(writer, options, registry)? })
    }

    /// A handle for a worker.
    pub fn sink(&self) -> Sink {
        self.exporter.sink.clone()
    }

    /// Stores everything that was taken in, waiting for the store at most `patience`, and says what became of it. Batches
    /// sent later are dropped and counted.
    pub async fn stop(self, patience: Duration) -> IngestReport {
        let shared = Arc::clone(&self.exporter.sink.shared);
        let writer = tokio::task::spawn_blocking(move || self.exporter.stop()).await.ok().flatten();
        let Some(writer) = writer else {
            tracing::error!("The exporter thread ended by a panic; records that waited are lost");
            return report(&shared.counters, WriterCounters::default());
        };
        let counters = writer.close(patience).await;
        shared.counters.set_writer(&counters);
        report(&shared.counters, counters)
    }
}

fn report(counters: &Counters, writer: WriterCounters) -> IngestReport {
    IngestReport {
        spans: counters.spans.counts(),
        flows: counters.flows.counts(),
        ticks: counters.ticks.counts(),
        rows_made: counters.rows_made.get(),
        writer,
    }
}

/// An exporter thread.
struct Running<W> {
    sink: Sink,
    stop: Sender<()>,
    thread: JoinHandle<W>,
}

impl<W: Rows> Running<W> {
    fn start(rows: W, options: &IngestOptions, registry: &Registry) -> std::io::Result<Self> {
        let (queue, batches) = bounded(QUEUE_BATCHES);
        let (stop, stopped) = bounded(1);
        let shared = Arc::new(Shared {
            counters: Counters::new(registry),
            queue_records: options.queue_records,
            queued: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let exporter = Exporter {
            rows,
            options: options.clone(),
            registry: registry.clone(),
            shared: Arc::clone(&shared),
            net: NetAggregator::default(),
            stitching: Stitching::new(Instant::now()),
            traces: TraceCounters::new(registry),
        };
        let thread = std::thread::Builder::new()
            .name("exporter".into())
            .spawn(move || exporter.run(&batches, &stopped))?;
        Ok(Self { sink: Sink { queue, shared }, stop, thread })
    }

    /// Hands on everything that was taken in; `None` when the thread panicked.
    fn stop(self) -> Option<W> {
        let _ = self.stop.send(());
        self.thread.join().ok()
    }
}

struct Exporter<W> {
    rows: W,
    options: IngestOptions,
    registry: Registry,
    shared: Arc<Shared>,
    net: NetAggregator,
    stitching: Stitching,
    traces: TraceCounters,
}

impl<W: Rows> Exporter<W> {
    fn run(mut self, batches: &Receiver<Records>, stopped: &Receiver<()>) -> W {
        let mut flush_at = Instant::now() + self.options.flush_every;
        let mut stats_at = Instant::now() + self.options.stats_every;
        while stopped.is_empty() {
            match batches.recv_deadline(flush_at) {
                Ok(batch) => self.take(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if now >= flush_at {
                let rows = self.net.drain_finished();
                self.put_net(&rows);
                self.put_spans(now);
                self.traces.set(&self.stitching);
                self.shared.counters.set_writer(&self.rows.counters());
                flush_at = now + self.options.flush_every;
            }
            if now >= stats_at {
                self.put_stats();
                stats_at = now + self.options.stats_every;
            }
        }
        self.shared.closed.store(true, SeqCst);
        while self.shared.queued.load(SeqCst) > 0 {
            if let Ok(batch) = batches.recv_timeout(Duration::from_millis(1)) {
                self.take(batch);
            }
        }
        let rows = self.net.drain_all();
        self.put_net(&rows);
        let merges = self.stitching.hand_on_all(|spans, traces| self.rows.spans(spans, traces));
        self.put_merges(&merges);
        self.traces.set(&self.stitching);
        self.put_stats();
        self.rows
    }

    fn take(&mut self, batch: Records) {
        let records = batch.len();
        let now = Instant::now();
        self.stitching.take(batch.spans, now);
        self.put_spans(now);
        self.rows.flows(&batch.flows);
        for tick in &batch.ticks {
            self.net.add(tick);
        }
        if self.net.is_full() {
            let rows = self.net.drain_finished();
            self.put_net(&rows);
        }
        let left = self.shared.queued.fetch_sub(records, SeqCst).saturating_sub(records);
        self.shared.counters.queued.set(left as u64);
    }

    /// Hands on the spans whose traces are as well known as they will be.
    fn put_spans(&mut self, now: Instant) {
        let merges = self.stitching.hand_on(now, |spans, traces| self.rows.spans(spans, traces));
        self.put_merges(&merges);
    }

    /// Each pair of keys makes two rows.
    fn put_merges(&self, merges: &[Merge]) {
        self.shared.counters.rows_made.add(2 * merges.len() as u64);
        self.rows.merges(merges);
    }

    fn put_net(&self, rows: &[NetMetrics]) {
        self.shared.counters.rows_made.add(rows.len() as u64);
        self.rows.net_metrics(rows);
    }

    /// Writes the counters of the process.
    fn put_stats(&self) {
        let time_ms = UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis() as u64);
        let stat = |s: crate::registry::Sample| Stat {
            time_ms,
            name: s.name.into(),
            labels: s.labels,
            value: s.value as f64,
        };
        let rows: Vec<_> = self.registry.samples().into_iter().map(stat).collect();
        self.shared.counters.rows_made.add(rows.len() as u64);
        self.rows.stats(&rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::Mutex;
    use wirespan_records::{
        CloseType, Endpoint, FlowMetrics, FlowTick, L4Protocol, L7Protocol, ObservationPoint, PerDirection,
        ResponseStatus, Session, Signal,
    };

    fn endpoint(last: u8, port: u16) -> Endpoint {
        Endpoint { ip: IpAddr::from([10, 0, 0, last]), port }
    }

    fn span(n: u64) -> Span {
        Span {
            id: 0,
            signal: Signal::Packet,
            observation_point: ObservationPoint::Rest,
            flow_id: n,
            start_ns: n,
            end_ns: n,
            client: endpoint(1, 40_000),
            server: endpoint(2, 80),
            protocol: L4Protocol::Tcp,
            tunnel: None,
            tap: 0,
            l7_protocol: L7Protocol::Http,
            version: None,
            request_type: None,
            request_domain: None,
            request_resource: None,
            endpoint: None,
            request_id: None,
            response_status: ResponseStatus::Ok,
            response_code: None,
            response_exception: None,
            response_result: None,
            request_bytes: 0,
            response_bytes: 0,
            affected_rows: None,
            trace_id: None,
            span_id: None,
            x_request_id: None,
            req_tcp_seq: None,
            resp_tcp_seq: None,
            session: Session::Complete,
            truncated: false,
            attributes: Vec::new(),
            process: None,
            parent: None,
        }
    }

    fn flow(n: u64) -> Flow {
        Flow {
            flow_id: n,
            start_ns: n,
            end_ns: n,
            observation_point: ObservationPoint::Rest,
            client: endpoint(1, 40_000),
            server: endpoint(2, 80),
            protocol: L4Protocol::Tcp,
            tunnel: None,
            tap: 0,
            vlan: None,
            tcp_flags: PerDirection::default(),
            metrics: FlowMetrics::default(),
            close_type: CloseType::Finish,
            is_new: true,
            l7_protocol: None,
        }
    }

    fn tick(second: u32) -> FlowTick {
        FlowTick {
            second,
            observation_point: ObservationPoint::Rest,
            client: endpoint(1, 40_000),
            server: endpoint(2, 80),
            protocol: L4Protocol::Tcp,
            tunnel: None,
            tap: 0,
            metrics: FlowMetrics::default(),
            is_new: true,
            closed: None,
        }
    }

    fn spans(n: u64) -> Records {
        Records { spans: (0..n).map(span).collect(), ..Records::default() }
    }

    #[derive(Clone, Default)]
    struct Fake {
        counts: Arc<Mutex<WriterCounters>>,
        spans: Arc<Mutex<usize>>,
        /// Each call with spans waits for a message, where there is a channel.
        gate: Option<Receiver<()>>,
    }

    impl Fake {
        fn count(&self, rows: usize) {
            let mut counts = self.counts.lock().unwrap();
            counts.rows_in += rows as u64;
            counts.rows_stored += rows as u64;
        }
    }

    impl Rows for Fake {
        fn spans(&self, rows: &[Span], traces: &[TraceKey]) {
            assert_eq!(rows.len(), traces.len());
            *self.spans.lock().unwrap() += rows.len();
            self.count(rows.len());
        }
        fn merges(&self, rows: &[Merge]) {
            self.count(2 * rows.len());
        }
        fn flows(&self, rows: &[Flow]) {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            self.count(rows.len());
        }
        fn net_metrics(&self, rows: &[NetMetrics]) {
            self.count(rows.len());
        }
        fn stats(&self, rows: &[Stat]) {
            self.count(rows.len());
        }
        fn counters(&self) -> WriterCounters {
            *self.counts.lock().unwrap()
        }
    }

    fn start(fake: &Fake, queue_records: usize, registry: &Registry) -> Running<Fake> {
        let options = IngestOptions { queue_records, ..IngestOptions::default() };
        Running::start(fake.clone(), &options, registry).unwrap()
    }

    fn stop(running: Running<Fake>) -> IngestReport {
        let shared = Arc::clone(&running.sink.shared);
        let counters = running.stop().unwrap().counters();
        report(&shared.counters, counters)
    }

    #[test]
    fn everything_taken_in_is_stored_when_it_stops() {
        let (fake, registry) = (Fake::default(), Registry::default());
        let ingest = start(&fake, 100_000, &registry);
        std::thread::scope(|scope| {
            for worker in 0..4u32 {
                let sink = ingest.sink.clone();
                scope.spawn(move || {
                    for _ in 0..50 {
                        let ticks = vec![tick(100), tick(100 + worker)];
                        assert!(sink.send(Records { flows: vec![flow(1)], ticks, ..spans(3) }));
                    }
                });
            }
        });
        let late = ingest.sink.clone();
        let report = stop(ingest);
        assert!(report.closes(), "{report:?}");
        assert_eq!((report.spans.taken, report.flows.taken, report.ticks.taken), (600, 200, 400));
        assert_eq!((report.dropped(), *fake.spans.lock().unwrap()), (0, 600));
        assert!(report.rows_made >= 4, "{report:?}");

        assert!(!late.send(spans(2)));
        assert!(registry.render().contains("wirespan_ingest_dropped_total{kind=\"span\"} 2\n"));
    }

    #[test]
    fn a_full_queue_drops_the_newest_batch_and_counts_it() {
        let (open, gate) = bounded(1000);
        let fake = Fake { gate: Some(gate), ..Fake::default() };
        let ingest = start(&fake, 10, &Registry::default());
        let taken: u64 = (0..20).filter(|_| ingest.sink.send(spans(5))).count() as u64 * 5;
        assert_eq!(taken, 10, "records count as waiting until they are handed on");
        for _ in 0..100 {
            open.send(()).unwrap();
        }
        let report = stop(ingest);
        assert!(report.closes(), "{report:?}");
        assert_eq!((report.spans.taken, report.spans.dropped), (100, 90));
        assert_eq!(*fake.spans.lock().unwrap(), 10);
    }

    #[test]
    fn a_batch_larger_than_the_queue_is_taken_when_nothing_waits() {
        let fake = Fake::default();
        let ingest = start(&fake, 10, &Registry::default());
        assert!(ingest.sink.send(spans(25)));
        assert_eq!((stop(ingest).dropped(), *fake.spans.lock().unwrap()), (0, 25));
    }
}

//! From worker threads to the store.
//!
//! Workers hand over batches through a [`Sink`] and never wait: when as many rows wait as are allowed, the newest batch is
//! dropped and counted. One exporter thread sums ticks, cuts batches for the store and writes them. For every table
//! taken in = stored + dropped, and [`Ingest::stop`] returns only when everything taken in is one of the two.

use crate::metrics::{NetAggregator, NetRow};
use crate::registry::{Counter, Registry};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wirespan_records::{Flow, FlowTick, Span};

/// Batches that wait at most, whatever their size.
const QUEUE_BATCHES: usize = 8192;

/// Records of one worker, handed over together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// For `l7_log`.
    pub spans: Vec<Span>,
    /// For `flow_log`.
    pub flows: Vec<Flow>,
    /// For `net_metrics_1s`.
    pub ticks: Vec<FlowTick>,
}

impl Batch {
    /// Records of all three kinds.
    pub fn len(&self) -> usize {
        self.spans.len() + self.flows.len() + self.ticks.len()
    }

    /// No records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where the exporter writes. A call that fails has given up: the rows are counted as dropped and not offered again.
pub trait RowStore: Send + 'static {
    /// Why rows were not stored.
    type Error: std::fmt::Display;
    /// Writes rows of `l7_log`.
    fn write_spans(&mut self, rows: &[Span]) -> Result<(), Self::Error>;
    /// Writes rows of `flow_log`.
    fn write_flows(&mut self, rows: &[Flow]) -> Result<(), Self::Error>;
    /// Writes rows of `net_metrics_1s`.
    fn write_net(&mut self, rows: &[NetRow]) -> Result<(), Self::Error>;
}

/// Bounds of the way to the store.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Records that wait for the exporter at most.
    pub queue_rows: usize,
    /// Rows of one table that are written together at most.
    pub batch_rows: usize,
    /// How long rows wait for others, and how often finished seconds are written.
    pub flush_every: Duration,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self { queue_rows: 262_144, batch_rows: 65_536, flush_every: Duration::from_millis(500) }
    }
}

/// What became of the rows of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Handed over by workers (ticks for `net_metrics_1s`: many make one row).
    pub taken: u64,
    /// Not taken in because the queue was full.
    pub dropped_queue: u64,
    /// Rows handed to the store: what was taken in and not dropped, ticks summed up.
    pub rows: u64,
    /// Acknowledged by the store.
    pub stored: u64,
    /// Refused by the store.
    pub dropped_store: u64,
}

/// What became of everything that workers handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// `l7_log`.
    pub spans: TableCounts,
    /// `flow_log`.
    pub flows: TableCounts,
    /// `net_metrics_1s`.
    pub net: TableCounts,
}

impl IngestReport {
    /// Every record is stored or counted as dropped.
    pub fn closes(&self) -> bool {
        let rows = |t: &TableCounts| t.rows == t.stored + t.dropped_store;
        let records = |t: &TableCounts| t.taken == t.dropped_queue + t.rows;
        records(&self.spans)
            && records(&self.flows)
            && [&self.spans, &self.flows, &self.net].iter().all(|t| rows(t))
    }

    /// Rows that are in the store.
    pub fn stored(&self) -> u64 {
        self.spans.stored + self.flows.stored + self.net.stored
    }

    /// Records and rows that were lost.
    pub fn dropped(&self) -> u64 {
        [&self.spans, &self.flows, &self.net].iter().map(|t| t.dropped_queue + t.dropped_store).sum()
    }
}

#[derive(Clone)]
struct TableCounters {
    taken: Counter,
    dropped_queue: Counter,
    rows: Counter,
    stored: Counter,
    dropped_store: Counter,
}

impl TableCounters {
    fn new(registry: &Registry, table: &str) -> Self {
        let of = |name, help| registry.counter(name, help, &[("table", table)]);
        let dropped = |reason| {
            registry.counter(
                "wirespan_ingest_dropped_total",
                "Records that did not reach the store, by reason.",
                &[("table", table), ("reason", reason)],
            )
        };
        Self {
            taken: of("wirespan_ingest_taken_total", "Records that workers handed over."),
            rows: of("wirespan_ingest_rows_total", "Rows made of them for the store."),
            stored: of("wirespan_ingest_stored_total", "Rows acknowledged by the store."),
            dropped_queue: dropped("queue_full"),
            dropped_store: dropped("store_error"),
        }
    }

    fn counts(&self) -> TableCounts {
        TableCounts {
            taken: self.taken.get(),
            dropped_queue: self.dropped_queue.get(),
            rows: self.rows.get(),
            stored: self.stored.get(),
            dropped_store: self.dropped_store.get(),
        }
    }
}

#[derive(Clone)]
struct Counters {
    spans: TableCounters,
    flows: TableCounters,
    net: TableCounters,
    queue_rows: Counter,
}

impl Counters {
    fn new(registry: &Registry) -> Self {
        Self {
            spans: TableCounters::new(registry, "l7_log"),
            flows: TableCounters::new(registry, "flow_log"),
            net: TableCounters::new(registry, "net_metrics_1s"),
            queue_rows: registry.gauge(
                "wirespan_ingest_queue_rows",
                "Records that wait for the exporter.",
                &[],
            ),
        }
    }

    fn report(&self) -> IngestReport {
        IngestReport { spans: self.spans.counts(), flows: self.flows.counts(), net: self.net.counts() }
    }

    fn add_lens(&self, batch: &Batch, counter: impl Fn(&TableCounters) -> &Counter) {
        counter(&self.spans).add(batch.spans.len() as u64);
        counter(&self.flows).add(batch.flows.len() as u64);
        counter(&self.net).add(batch.ticks.len() as u64);
    }
}

/// State that sinks and the exporter share.
struct Shared {
    counters: Counters,
    queue_rows_max: usize,
    queued_rows: AtomicUsize,
    closed: AtomicBool,
}

/// A worker's end of the queue.
#[derive(Clone)]
pub struct Sink {
    queue: Sender<Batch>,
    shared: Arc<Shared>,
}

impl Sink {
    /// Hands over a batch without waiting. `false`: it was dropped and counted.
    pub fn send(&self, batch: Batch) -> bool {
        let rows = batch.len();
        if rows == 0 {
            return true;
        }
        let shared = &self.shared;
        shared.counters.add_lens(&batch, |t| &t.taken);
        // The rows are announced before `closed` is read: the exporter sets `closed` first and ends when none are announced.
        let waiting = shared.queued_rows.fetch_add(rows, SeqCst);
        let has_room = waiting == 0 || waiting + rows <= shared.queue_rows_max;
        let refused = if has_room && !shared.closed.load(SeqCst) {
            self.queue.try_send(batch).err().map(|e| e.into_inner())
        } else {
            Some(batch)
        };
        let Some(batch) = refused else { return true };
        shared.queued_rows.fetch_sub(rows, SeqCst);
        shared.counters.add_lens(&batch, |t| &t.dropped_queue);
        false
    }
}

/// The way from workers to the store.
pub struct Ingest {
    sink: Sink,
    stop: Sender<()>,
    exporter: JoinHandle<()>,
}

impl Ingest {
    /// Starts the exporter thread.
    pub fn start<S: RowStore>(
        store: S,
        options: &IngestOptions,
        registry: &Registry,
    ) -> std::io::Result<Self> {
        let (queue, batches) = bounded(QUEUE_BATCHES);
        let (stop, stopped) = bounded(1);
        let shared = Arc::new(Shared {
            counters: Counters::new(registry),
            queue_rows_max: options.queue_rows,
            queued_rows: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let exporter = Exporter {
            store,
            options: options.clone(),
            shared: Arc::clone(&shared),
            spans: Vec::new(),
            flows: Vec::new(),
            net: NetAggregator::default(),
        };
        let exporter = std::thread::Builder::new()
            .name("exporter".into())
            .spawn(move || exporter.run(&batches, &stopped))?;
        Ok(Self { sink: Sink { queue, shared }, stop, exporter })
    }

    /// A handle for a worker.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Counts so far.
    pub fn report(&self) -> IngestReport {
        self.sink.shared.counters.report()
    }

    /// Stores everything that was taken in, and says what became of it. Batches sent later are dropped and counted.
    pub fn stop(self) -> IngestReport {
        let _ = self.stop.send(());
        if self.exporter.join().is_err() {
            tracing::error!("The exporter thread ended by a panic; records that waited are lost");
        }
        self.sink.shared.counters.report()
    }
}

struct Exporter<S> {
    store: S,
    options: IngestOptions,
    shared: Arc<Shared>,
    spans: Vec<Span>,
    flows: Vec<Flow>,
    net: NetAggregator,
}

impl<S: RowStore> Exporter<S> {
    fn run(mut self, batches: &Receiver<Batch>, stopped: &Receiver<()>) {
        let mut flush_at = Instant::now() + self.options.flush_every;
        while stopped.is_empty() {
            match batches.recv_deadline(flush_at) {
                Ok(batch) => self.take(batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= flush_at {
                self.flush();
                flush_at = Instant::now() + self.options.flush_every;
            }
        }
        self.shared.closed.store(true, SeqCst);
        while self.shared.queued_rows.load(SeqCst) > 0 {
            if let Ok(batch) = batches.recv_timeout(Duration::from_millis(1)) {
                self.take(batch);
            }
        }
        self.write_logs(0);
        let rows = self.net.drain_all();
        self.write_net(&rows);
    }

    fn take(&mut self, batch: Batch) {
        let rows = batch.len();
        let left = self.shared.queued_rows.fetch_sub(rows, SeqCst).saturating_sub(rows);
        self.shared.counters.queue_rows.set(left as u64);
        self.spans.extend(batch.spans);
        self.flows.extend(batch.flows);
        for tick in &batch.ticks {
            self.net.add(tick);
        }
        self.write_logs(self.options.batch_rows);
        if self.net.is_full() {
            let rows = self.net.drain_finished();
            self.write_net(&rows);
        }
    }

    fn flush(&mut self) {
        self.write_logs(0);
        let rows = self.net.drain_finished();
        self.write_net(&rows);
    }

    /// Writes the logs that have at least so many rows.
    fn write_logs(&mut self, least: usize) {
        let counters = &self.shared.counters;
        if !self.spans.is_empty() && self.spans.len() >= least {
            let result = self.store.write_spans(&self.spans);
            count_rows(&counters.spans, self.spans.len(), result);
            self.spans.clear();
        }
        if !self.flows.is_empty() && self.flows.len() >= least {
            let result = self.store.write_flows(&self.flows);
            count_rows(&counters.flows, self.flows.len(), result);
            self.flows.clear();
        }
    }

    fn write_net(&mut self, rows: &[NetRow]) {
        if !rows.is_empty() {
            let result = self.store.write_net(rows);
            count_rows(&self.shared.counters.net, rows.len(), result);
        }
    }
}

fn count_rows<E: std::fmt::Display>(table: &TableCounters, rows: usize, result: Result<(), E>) {
    table.rows.add(rows as u64);
    match result {
        Ok(()) => table.stored.add(rows as u64),
        Err(error) => {
            table.dropped_store.add(rows as u64);
            tracing::error!(rows, %error, "The store refused rows; they are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::Mutex;
    use wirespan_records::{
        CloseType, Endpoint, FlowMetrics, L4Protocol, L7Protocol, ObservationPoint, PerDirection,
        ResponseStatus, Session, Signal,
    };

    fn endpoint(last: u8, port: u16) -> Endpoint {
        Endpoint { ip: IpAddr::from([10, 0, 0, last]), port }
    }

    fn span(n: u64) -> Span {
        Span {
            signal: Signal::Packet,
            observation_point: ObservationPoint::Rest,
            flow_id: n,
            start_ns: n,
            end_ns: n,
            client: endpoint(1, 40_000),
            server: endpoint(2, 80),
            protocol: L4Protocol::Tcp,
            tunnel: None,
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
            metrics: FlowMetrics::default(),
            is_new: true,
            closed: None,
        }
    }

    fn spans(n: u64) -> Batch {
        Batch { spans: (0..n).map(span).collect(), ..Batch::default() }
    }

    #[derive(Clone, Default)]
    struct Fake {
        /// Rows of l7_log, flow_log, net_metrics_1s.
        rows: Arc<Mutex<[usize; 3]>>,
        calls: Arc<Mutex<usize>>,
        refuse_flows: bool,
        /// Each write waits for a message, where there is a channel.
        gate: Option<Receiver<()>>,
    }

    impl Fake {
        fn write(&self, table: usize, rows: usize) -> Result<(), &'static str> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            *self.calls.lock().unwrap() += 1;
            if table == 1 && self.refuse_flows {
                return Err("no room");
            }
            self.rows.lock().unwrap()[table] += rows;
            Ok(())
        }
    }

    impl RowStore for Fake {
        type Error = &'static str;
        fn write_spans(&mut self, rows: &[Span]) -> Result<(), Self::Error> {
            self.write(0, rows.len())
        }
        fn write_flows(&mut self, rows: &[Flow]) -> Result<(), Self::Error> {
            self.write(1, rows.len())
        }
        fn write_net(&mut self, rows: &[NetRow]) -> Result<(), Self::Error> {
            self.write(2, rows.len())
        }
    }

    #[test]
    fn everything_taken_in_is_stored_when_it_stops() {
        let fake = Fake::default();
        let registry = Registry::default();
        let ingest = Ingest::start(fake.clone(), &IngestOptions::default(), &registry).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4u32 {
                let sink = ingest.sink();
                scope.spawn(move || {
                    for _ in 0..50 {
                        let ticks = vec![tick(100), tick(100 + worker)];
                        assert!(sink.send(Batch { flows: vec![flow(1)], ticks, ..spans(3) }));
                    }
                });
            }
        });
        let late = ingest.sink();
        let report = ingest.stop();
        assert!(report.closes(), "{report:?}");
        assert_eq!((report.spans.stored, report.flows.stored, report.dropped()), (600, 200, 0));
        assert_eq!(report.net.taken, 400);
        assert_eq!(*fake.rows.lock().unwrap(), [600, 200, report.net.stored as usize]);

        assert!(!late.send(spans(2)));
        assert_eq!(late.shared.counters.report().spans.dropped_queue, 2);
        assert!(registry.render().contains("wirespan_ingest_stored_total{table=\"l7_log\"} 600\n"));
    }

    #[test]
    fn a_full_queue_drops_the_newest_batch_and_counts_it() {
        let (open, gate) = bounded(1000);
        let fake = Fake { gate: Some(gate), ..Fake::default() };
        let options = IngestOptions { queue_rows: 10, batch_rows: 1, ..IngestOptions::default() };
        let ingest = Ingest::start(fake.clone(), &options, &Registry::default()).unwrap();
        let sink = ingest.sink();
        let taken: u64 = (0..20).filter(|_| sink.send(spans(5))).count() as u64 * 5;
        assert!((10..100).contains(&taken), "{taken} of 100 rows were taken in");
        for _ in 0..100 {
            open.send(()).unwrap();
        }
        let report = ingest.stop();
        assert!(report.closes(), "{report:?}");
        assert_eq!((report.spans.taken, report.spans.stored), (100, taken));
        assert_eq!(report.spans.dropped_queue, 100 - taken);
    }

    #[test]
    fn a_batch_larger_than_the_queue_is_taken_when_nothing_waits() {
        let options = IngestOptions { queue_rows: 10, ..IngestOptions::default() };
        let ingest = Ingest::start(Fake::default(), &options, &Registry::default()).unwrap();
        assert!(ingest.sink().send(spans(25)));
        assert_eq!(ingest.stop().spans.stored, 25);
    }

    #[test]
    fn rows_that_the_store_refuses_are_counted() {
        let fake = Fake { refuse_flows: true, ..Fake::default() };
        let ingest = Ingest::start(fake, &IngestOptions::default(), &Registry::default()).unwrap();
        assert!(ingest.sink().send(Batch { flows: vec![flow(1), flow(2)], ..spans(1) }));
        let report = ingest.stop();
        assert!(report.closes(), "{report:?}");
        assert_eq!((report.spans.stored, report.flows.stored, report.flows.dropped_store), (1, 0, 2));
    }
}

//! The thread between the queue and the store's writer.

use super::IngestOptions;
use super::counters::Counters;
use super::sink::{Shared, Sink};
use crate::metrics::NetAggregator;
use crate::registry::Registry;
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

/// Where the exporter puts rows; none of these waits.
pub(super) trait Rows: Send + 'static {
    /// Returns how many further rows are made of them.
    fn spans(&self, rows: &[Span], traces: &[TraceKey]) -> usize;
    fn merges(&self, rows: &[Merge]);
    fn flows(&self, rows: &[Flow]);
    fn net_metrics(&self, rows: &[NetMetrics]);
    fn stats(&self, rows: &[Stat]);
    fn counters(&self) -> WriterCounters;
}

impl Rows for Writer {
    fn spans(&self, rows: &[Span], traces: &[TraceKey]) -> usize {
        Self::spans(self, rows, traces)
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

/// An exporter thread.
pub(super) struct Running<W> {
    pub(super) sink: Sink,
    stop: Sender<()>,
    thread: JoinHandle<W>,
}

impl<W: Rows> Running<W> {
    pub(super) fn start(rows: W, options: &IngestOptions, registry: &Registry) -> std::io::Result<Self> {
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
    pub(super) fn stop(self) -> Option<W> {
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
        let made = &self.shared.counters.rows_made;
        let merges =
            self.stitching.hand_on_all(|spans, traces| made.add(self.rows.spans(spans, traces) as u64));
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
        let made = &self.shared.counters.rows_made;
        let merges =
            self.stitching.hand_on(now, |spans, traces| made.add(self.rows.spans(spans, traces) as u64));
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

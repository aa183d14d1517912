//! Counters of the way to the store, and the report made of them.

use crate::registry::{Counter, Registry};
use wirespan_records::Records;
use wirespan_store::WriterCounters;

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
    /// Rows made of ticks, of spans of traces (their second), of traces that turned out to be one, and of the process's own counters.
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
pub(super) struct RecordCounters {
    pub(super) taken: Counter,
    pub(super) dropped: Counter,
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

pub(super) struct Counters {
    spans: RecordCounters,
    flows: RecordCounters,
    ticks: RecordCounters,
    pub(super) queued: Counter,
    pub(super) rows_made: Counter,
    rows_in: Counter,
    rows_stored: Counter,
    rows_full: Counter,
    rows_refused: Counter,
    rows_waiting: Counter,
    retries: Counter,
    failing: Counter,
}

impl Counters {
    pub(super) fn new(registry: &Registry) -> Self {
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
                "Rows made of ticks, spans of traces, merged traces and counters.",
                &[],
            ),
            rows_in: registry.counter("wirespan_store_rows_total", "Rows handed to the store's writer.", &[]),
            rows_stored: registry.counter("wirespan_store_stored_total", "Rows the store acknowledged.", &[]),
            rows_full: dropped("queue_full"),
            rows_refused: dropped("refused"),
            rows_waiting: registry.gauge("wirespan_store_waiting", "Rows not yet acknowledged.", &[]),
            retries: registry.counter("wirespan_store_retries_total", "Batches sent again.", &[]),
            failing: registry.gauge(
                "wirespan_store_failing",
                "1 while the store does not take some batch, which is sent again.",
                &[],
            ),
        }
    }

    pub(super) fn add_lens(&self, batch: &Records, counter: impl Fn(&RecordCounters) -> &Counter) {
        counter(&self.spans).add(batch.spans.len() as u64);
        counter(&self.flows).add(batch.flows.len() as u64);
        counter(&self.ticks).add(batch.ticks.len() as u64);
    }

    pub(super) fn set_writer(&self, writer: &WriterCounters) {
        self.rows_in.set(writer.rows_in);
        self.rows_stored.set(writer.rows_stored);
        self.rows_full.set(writer.rows_dropped_full);
        self.rows_refused.set(writer.rows_dropped_refused);
        self.rows_waiting.set(writer.rows_waiting);
        self.retries.set(writer.retries);
        self.failing.set(writer.failing.into());
    }
}

pub(super) fn report(counters: &Counters, writer: WriterCounters) -> IngestReport {
    IngestReport {
        spans: counters.spans.counts(),
        flows: counters.flows.counts(),
        ticks: counters.ticks.counts(),
        rows_made: counters.rows_made.get(),
        writer,
    }
}

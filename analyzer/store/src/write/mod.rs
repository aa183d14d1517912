//! Rows into the store: columns in memory, cut into batches by size and age, each sent until it is acknowledged.
//!
//! A batch has a token made of the agent, this writer's start and a sequence number; sent again after a crash or a lost
//! answer, it is stored once. Memory is bounded: when sending lags, the newest rows are dropped and counted.
//!
//! | module | what |
//! |---|---|
//! | `native` | ClickHouse's Native format, column by column |
//! | `rows` | which field of a record goes into which column |
//! | `trace_row` | a row of a trace in one piece |
//! | `metrics` | rows that are made for the store only |
//! | `queue` | batches that wait, and the tasks that send them |

mod metrics;
mod native;
mod queue;
mod rows;
mod trace_row;

pub use metrics::{NetMetrics, Stat};

use crate::Client;
#[cfg(test)]
pub(crate) use native::write_text;
use native::{Block, Day, RowMeta};
use queue::{Batch, Queue};
use rows::{FlowBlock, MergeBlock, NetBlock, SpanBlock, SpanRow, StatBlock, TraceBlock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::task::JoinSet;
use wirespan_records::{Flow, Merge, Span, TraceKey, next_id};

/// How batches are cut and sent.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Written into each row.
    pub agent_id: u32,
    /// A batch is cut at this many rows,
    pub batch_rows: usize,
    /// this many bytes,
    pub batch_bytes: usize,
    /// or at this age.
    pub batch_age: Duration,
    /// Bytes of cut batches that may wait; rows beyond are dropped.
    pub queue_bytes: usize,
    /// Batches under way at once.
    pub senders: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            agent_id: 0,
            batch_rows: 128 * 1024,
            batch_bytes: 48 << 20,
            batch_age: Duration::from_secs(1),
            queue_bytes: 128 << 20,
            senders: 2,
        }
    }
}

/// What became of the rows: `rows_in` = `rows_stored` + the dropped + `rows_waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Rows pushed.
    pub rows_in: u64,
    /// Rows acknowledged.
    pub rows_stored: u64,
    /// Rows dropped because sending lagged.
    pub rows_dropped_full: u64,
    /// Rows of batches that ClickHouse refused for good.
    pub rows_dropped_refused: u64,
    /// Rows not yet acknowledged.
    pub rows_waiting: u64,
    /// Batches acknowledged.
    pub batches_stored: u64,
    /// Batches sent again.
    pub retries: u64,
    /// The store did not take some batch, which is sent again.
    pub failing: bool,
}

/// What becomes of a writer's rows, for whoever does not write.
#[derive(Clone)]
pub struct WriterWatch(Arc<Shared>);

impl WriterWatch {
    /// What became of the rows so far.
    pub fn counters(&self) -> WriterCounters {
        self.0.queue.counters()
    }

    /// Why the store takes no rows now, while that is so.
    pub fn failure(&self) -> Option<String> {
        self.0.queue.failure()
    }
}

impl std::fmt::Debug for WriterWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WriterWatch").field(&self.counters()).finish()
    }
}

/// Takes rows from any thread; sends them from tokio tasks. Dropping it without [`Self::close`] loses what waits.
pub struct Writer {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    spans: Mutex<Open<SpanBlock>>,
    traces: Mutex<Open<TraceBlock>>,
    flows: Mutex<Open<FlowBlock>>,
    nets: Mutex<Open<NetBlock>>,
    stats: Mutex<Open<StatBlock>>,
    merges: Mutex<Open<MergeBlock>>,
    cut: Cut,
    queue: Queue,
}

/// The batch that is being filled.
struct Open<B> {
    block: B,
    rows: usize,
    since: Option<Instant>,
    day: u16,
}

impl<B: Default> Default for Open<B> {
    fn default() -> Self {
        Self { block: B::default(), rows: 0, since: None, day: 0 }
    }
}

/// When and under which names batches are cut.
struct Cut {
    options: WriterOptions,
    epoch: u64,
    sequence: AtomicU64,
}

impl Writer {
    /// Starts the sending tasks; needs a tokio runtime.
    pub fn start(client: Client, options: WriterOptions) -> Self {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        let cut = Cut { epoch: now.as_nanos() as u64, sequence: AtomicU64::new(0), options };
        let shared = Arc::new(Shared {
            spans: Mutex::default(),
            traces: Mutex::default(),
            flows: Mutex::default(),
            nets: Mutex::default(),
            stats: Mutex::default(),
            merges: Mutex::default(),
            queue: Queue::new(cut.options.queue_bytes),
            cut,
        });
        let mut tasks = JoinSet::new();
        for _ in 0..shared.cut.options.senders.max(1) {
            let (shared, client) = (Arc::clone(&shared), client.clone());
            tasks.spawn(async move { shared.queue.send_all(client).await });
        }
        let aging = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut tick =
                tokio::time::interval(aging.cut.options.batch_age.max(Duration::from_millis(20)) / 4);
            loop {
                tick.tick().await;
                aging.cut_all(aging.cut.options.batch_age);
            }
        });
        Self { shared, tasks }
    }

    /// Takes spans and, in the same order, the keys of their traces. A span without a key is a trace of its own. Returns how
    /// many further rows were made, those by trace.
    pub fn spans(&self, rows: &[Span], traces: &[TraceKey]) -> usize {
        let traces = traces.iter().copied().chain(std::iter::repeat(TraceKey::default()));
        let rows: Vec<_> = rows.iter().zip(traces).map(|(span, trace)| SpanRow::new(span, trace)).collect();
        let by_trace = || rows.iter().copied().filter(SpanRow::has_key);
        let count = by_trace().count();
        self.shared.push(&self.shared.spans, rows.len(), rows.iter().copied());
        self.shared.push(&self.shared.traces, count, by_trace());
        count
    }

    /// Takes flows.
    pub fn flows(&self, rows: &[Flow]) {
        self.shared.push(&self.shared.flows, rows.len(), rows.iter());
    }

    /// Takes net metrics.
    pub fn net_metrics(&self, rows: &[NetMetrics]) {
        self.shared.push(&self.shared.nets, rows.len(), rows.iter());
    }

    /// Takes counters.
    pub fn stats(&self, rows: &[Stat]) {
        self.shared.push(&self.shared.stats, rows.len(), rows.iter());
    }

    /// Takes pairs of keys that are one trace; each makes two rows.
    pub fn merges(&self, rows: &[Merge]) {
        let both: Vec<_> = rows.iter().flat_map(|m| [(m.from, m.to), (m.to, m.from)]).collect();
        self.shared.push(&self.shared.merges, both.len(), both.into_iter());
    }

    /// What became of the rows so far.
    pub fn counters(&self) -> WriterCounters {
        self.shared.queue.counters()
    }

    /// A handle that sees what becomes of the rows.
    pub fn watch(&self) -> WriterWatch {
        WriterWatch(Arc::clone(&self.shared))
    }

    /// Cuts the open batches and waits until everything pushed before is stored or dropped, at most `patience`. False when
    /// rows still wait.
    pub async fn flush(&self, patience: Duration) -> bool {
        self.shared.cut_all(Duration::ZERO);
        tokio::time::timeout(patience, self.shared.queue.drained()).await.is_ok()
    }

    /// Flushes, then stops; returns the final counters.
    pub async fn close(mut self, patience: Duration) -> WriterCounters {
        self.flush(patience).await;
        self.tasks.shutdown().await;
        self.shared.queue.counters()
    }
}

impl Shared {
    fn push<'a, B: Block>(
        &self,
        open: &Mutex<Open<B>>,
        count: usize,
        rows: impl Iterator<Item = B::Row<'a>>,
    ) {
        if count == 0 {
            return;
        }
        self.queue.count_in(count);
        let options = &self.cut.options;
        let mut open = lock(open);
        for row in rows {
            if open.since.is_none() {
                open.since = Some(Instant::now());
                open.day = (UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() / 86400) as u16;
            }
            let meta = RowMeta { day: Day(open.day), id: next_id(), agent_id: options.agent_id };
            open.block.push(row, &meta);
            open.rows += 1;
            // The size is a sum over all columns: not for each row.
            if open.rows >= options.batch_rows
                || (open.rows.is_multiple_of(256) && open.block.size() >= options.batch_bytes)
            {
                self.cut(&mut open);
            }
        }
    }

    fn cut<B: Block>(&self, open: &mut Open<B>) {
        let rows = std::mem::take(&mut open.rows);
        open.since = None;
        if rows == 0 {
            return;
        }
        let sequence = self.cut.sequence.fetch_add(1, Ordering::Relaxed);
        let token = format!("{}-{}-{sequence}", self.cut.options.agent_id, self.cut.epoch);
        self.queue.offer(Batch { table: B::TABLE, rows, token, data: open.block.drain(rows).into() });
    }

    /// Cuts the batches that are at least this old.
    fn cut_all(&self, age: Duration) {
        self.cut_if_old(&self.spans, age);
        self.cut_if_old(&self.traces, age);
        self.cut_if_old(&self.flows, age);
        self.cut_if_old(&self.nets, age);
        self.cut_if_old(&self.stats, age);
        self.cut_if_old(&self.merges, age);
    }

    fn cut_if_old<B: Block>(&self, open: &Mutex<Open<B>>, age: Duration) {
        let mut open = lock(open);
        if open.since.is_some_and(|since| since.elapsed() >= age) {
            self.cut(&mut open);
        }
    }
}

/// A thread that panicked while it pushed left at most one row half written, whose batch ClickHouse refuses.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Batches that wait to be sent, bounded by bytes, and the tasks that send them.

use super::{WriterCounters, lock};
use crate::{Client, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Rows of one table, ready to send; the same bytes and token each time.
pub(super) struct Batch {
    pub(super) table: &'static str,
    pub(super) rows: usize,
    pub(super) token: String,
    pub(super) data: Bytes,
}

/// First pause before a batch is sent again; doubles.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Refusals of one batch that do not look transient before it is given up.
const MAX_REFUSALS: u32 = 3;

#[derive(Default)]
struct Counters {
    rows_in: AtomicU64,
    stored: AtomicU64,
    full: AtomicU64,
    refused: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    max_bytes: usize,
    more: Notify,
    counters: Counters,
    empty: Notify,
    failing: Mutex<Failing>,
}

/// Batches that were sent in vain and are sent again.
#[derive(Default)]
struct Failing {
    batches: usize,
    /// Why the newest of them was not taken.
    why: String,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    /// Bytes of the batches that wait and of those under way.
    bytes: usize,
    under_way: usize,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            max_bytes,
            more: Notify::new(),
            counters: Counters::default(),
            empty: Notify::new(),
            failing: Mutex::default(),
        }
    }

    pub(super) fn count_in(&self, rows: usize) {
        self.counters.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Takes a batch, or drops it when there is no room. An empty queue takes any batch.
    pub(super) fn offer(&self, batch: Batch) {
        let mut waiting = lock(&self.waiting);
        if waiting.bytes > 0 && waiting.bytes + batch.data.len() > self.max_bytes {
            self.counters.full.fetch_add(batch.rows as u64, Ordering::Relaxed);
            return;
        }
        waiting.bytes += batch.data.len();
        waiting.batches.push_back(batch);
        drop(waiting);
        self.more.notify_one();
    }

    /// Completes when nothing waits and nothing is under way.
    pub(super) async fn drained(&self) {
        loop {
            let changed = self.empty.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let waiting = lock(&self.waiting);
                if waiting.batches.is_empty() && waiting.under_way == 0 {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Sends batches one after another, forever.
    pub(super) async fn send_all(&self, client: Client) {
        loop {
            let batch = self.next().await;
            let bytes = batch.data.len();
            self.send(&client, batch).await;
            let mut waiting = lock(&self.waiting);
            waiting.bytes -= bytes;
            waiting.under_way -= 1;
            drop(waiting);
            self.empty.notify_waiters();
        }
    }

    async fn next(&self) -> Batch {
        loop {
            let more = self.more.notified();
            {
                let mut waiting = lock(&self.waiting);
                if let Some(batch) = waiting.batches.pop_front() {
                    waiting.under_way += 1;
                    return batch;
                }
            }
            more.await;
        }
    }

    /// Sends one batch until it is acknowledged or refused for good.
    async fn send(&self, client: &Client, batch: Batch) {
        let mut pause = MIN_PAUSE;
        let mut refusals = 0;
        let mut is_failing = false;
        loop {
            let error =
                match client.insert(batch.table, "Native", batch.data.clone(), Some(&batch.token)).await {
                    Ok(()) => {
                        self.counters.stored.fetch_add(batch.rows as u64, Ordering::Relaxed);
                        self.counters.batches.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Err(error) => error,
                };
            refusals += u32::from(!error.is_transient());
            if refusals >= MAX_REFUSALS || matches!(error, StoreError::Query { status: 400..=404, .. }) {
                tracing::error!(%error, table = batch.table, rows = batch.rows, "ClickHouse refuses a batch; its rows are lost");
                self.counters.refused.fetch_add(batch.rows as u64, Ordering::Relaxed);
                break;
            }
            self.fails(!std::mem::replace(&mut is_failing, true), &error);
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        if is_failing {
            let mut failing = lock(&self.failing);
            failing.batches -= 1;
            if failing.batches == 0 {
                tracing::warn!("The store takes rows again");
            }
        }
    }

    /// A batch was not taken, for the first time or again. Said once, however many batches wait and however often they are sent.
    fn fails(&self, is_first: bool, error: &StoreError) {
        let mut failing = lock(&self.failing);
        failing.why = error.to_string();
        failing.batches += usize::from(is_first);
        if is_first && failing.batches == 1 {
            tracing::warn!(
                "The store takes no rows now ({error}): they wait, up to {} MiB, and are sent again until it does",
                self.max_bytes >> 20
            );
        }
    }

    /// Why the store takes no rows, while it takes none of some batch.
    pub(super) fn failure(&self) -> Option<String> {
        let failing = lock(&self.failing);
        (failing.batches > 0).then(|| failing.why.clone())
    }

    pub(super) fn counters(&self) -> WriterCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        // In this order: a row that moves on meanwhile is then still among the waiting.
        let (stored, full, refused) = (get(&c.stored), get(&c.full), get(&c.refused));
        let rows_in = get(&c.rows_in);
        WriterCounters {
            rows_in,
            rows_stored: stored,
            rows_dropped_full: full,
            rows_dropped_refused: refused,
            rows_waiting: rows_in.saturating_sub(stored + full + refused),
            batches_stored: get(&c.batches),
            retries: get(&c.retries),
            failing: lock(&self.failing).batches > 0,
        }
    }
}

//! A worker's end of the queue.

use super::counters::Counters;
use crossbeam_channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use wirespan_records::Records;

/// State that sinks and the exporter share.
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) queue_records: usize,
    pub(super) queued: AtomicUsize,
    pub(super) closed: AtomicBool,
}

/// A worker's end of the queue.
#[derive(Clone)]
pub struct Sink {
    pub(super) queue: Sender<Records>,
    pub(super) shared: Arc<Shared>,
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

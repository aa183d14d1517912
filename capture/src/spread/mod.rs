//! One source, several workers: the frames of a flow all go to the same worker, in order, without being copied.
//!
//! Takes in a source that cannot be split (capture files; a NIC with fewer queues than workers, or whose queues are chosen
//! by a tunnel's outer addresses); hands on one end for each worker, which is a [`PacketSource`] like any other. Which
//! worker gets a frame is told by the [`inner_hash()`] of its innermost packet.
//!
//! A source has one reader, but no thread for it: **a worker that has little left to do reads**, for all of them, so the worker
//! with the least work does most of the reading. Descriptors travel in parcels through bounded lock-free rings, one to each
//! worker, and the parcels come back through one more ring, with the memory that they shared. What a full ring means depends
//! on the source: capture files, [`files()`], wait, so that a replay loses nothing; a [`live()`] source drops the newest
//! parcel and counts it, [`Loss::WorkerBehind`].
//!
//! - `inner_hash`: which packets belong together
//! - `router`, `followers`: which worker gets a frame, and the fragments that follow it
//! - `clock`: packet time that all workers hear of, so that time-outs do not depend on their number
//! - `parcel`: what travels
//! - `files`: capture files for several workers
//! - `reading`: reading a live source for all workers
//! - `inbox`: a ring and its worker's sleep
//!
//! [`Loss::WorkerBehind`]: crate::Loss::WorkerBehind

mod clock;
mod files;
mod followers;
mod inbox;
mod inner_hash;
mod parcel;
mod reading;
mod router;

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use wirespan_frame::{Batch, Filter, Shunt};

use crate::{CaptureError, LendingSource, Note, PacketSource, Region, SourceStats};
pub use files::{FileEnd, files};
use inbox::Inbox;
pub use inner_hash::{Fragment, InnerHash, inner_hash};
use parcel::Parcel;
use reading::Reading;

/// Parcels that may wait for one worker.
const RING_PARCELS: usize = 32;
/// Parcels of one worker that are not in its ring: being filled, waiting for the ring, being worked on.
const PARCELS_BESIDE: usize = 4;

/// What all ends of one live source share.
struct Shared {
    reading: Mutex<Reading>,
    inboxes: Vec<Inbox<Region>>,
    /// Parcels that were worked off.
    returned: ArrayQueue<Parcel<Region>>,
    /// What the source said last.
    stats: Mutex<SourceStats>,
    /// How long a worker waits for frames before it is told that there are none.
    patience: Duration,
}

/// One worker's part of a live source.
pub struct LiveEnd {
    shared: Arc<Shared>,
    index: usize,
    /// The one that is lent.
    current: Parcel<Region>,
    received: u64,
}

/// Spreads the frames of a live source over `workers` workers, which are told after `poll_timeout` that nothing came.
///
/// `seed` is that of the source's XDP program, if it has one: the hash that comes with a frame and the one that is made
/// here must agree.
pub fn live(
    source: Box<dyn LendingSource>,
    workers: usize,
    seed: u64,
    poll_timeout: Duration,
) -> Vec<LiveEnd> {
    let workers = workers.max(1);
    let shared = Arc::new(Shared {
        reading: Mutex::new(Reading::new(source, workers, seed, poll_timeout)),
        inboxes: (0..workers).map(|_| Inbox::new(RING_PARCELS)).collect(),
        returned: ArrayQueue::new(workers * (RING_PARCELS + PARCELS_BESIDE)),
        stats: Mutex::default(),
        patience: poll_timeout,
    });
    let end = |index| LiveEnd { shared: Arc::clone(&shared), index, current: Parcel::none(), received: 0 };
    (0..workers).map(end).collect()
}

impl LiveEnd {
    /// What was worked off goes back to the worker that reads.
    fn give_back(&mut self) {
        let mut parcel = std::mem::replace(&mut self.current, Parcel::none());
        if parcel.is_empty() {
            return;
        }
        // Descriptors stay, for the source to know which frames these were.
        parcel.memory = None;
        let returned = self.shared.returned.push(parcel);
        debug_assert!(returned.is_ok(), "there is room for every parcel");
    }

    /// Reads for all workers, or waits while another one does. False when nothing came for a while.
    fn read_or_wait(&self, inbox: &Inbox<Region>) -> Result<bool, CaptureError> {
        let shared = &*self.shared;
        let came = match shared.reading.try_lock() {
            Ok(mut reading) => reading.step(shared),
            Err(TryLockError::WouldBlock) => return Ok(inbox.sleep(shared.patience)),
            // The worker that was reading panicked, which its thread reports; the source is as it was between two calls.
            Err(TryLockError::Poisoned(reading)) => reading.into_inner().step(shared),
        };
        // Workers that wait for the one that was reading may read now.
        let others = shared.inboxes.iter().enumerate().filter(|(index, _)| *index != self.index);
        others.for_each(|(_, inbox)| inbox.wake());
        Ok(came? || !inbox.is_empty())
    }
}

impl PacketSource for LiveEnd {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        let shared = Arc::clone(&self.shared);
        let Some(inbox) = shared.inboxes.get(self.index) else { return Ok(None) };
        self.give_back();
        loop {
            if let Some(parcel) = inbox.take() {
                parcel.prefetch();
                self.current = parcel;
                self.received += self.current.descriptors.len() as u64;
                return Ok(Some(self.current.batch()));
            }
            if !self.read_or_wait(inbox)? {
                return Ok(Some(Batch::new(&[], &[])));
            }
        }
    }

    /// Frames are those of this end. What the source as a whole lost or kept back is said by the first end alone.
    fn stats(&mut self) -> SourceStats {
        let received = self.received;
        if self.index > 0 {
            return SourceStats { received, ..SourceStats::default() };
        }
        let told = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        SourceStats { received, ..told.clone() }
    }

    fn backlog(&mut self) -> f32 {
        self.shared.inboxes.get(self.index).map_or(0.0, Inbox::fill)
    }

    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        self.shared.reading.lock().ok()?.shunt()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<bool, CaptureError> {
        // Another worker may be waiting for frames with the lock, for no longer than its patience.
        self.shared.reading.lock().unwrap_or_else(PoisonError::into_inner).set_filter(filter)
    }

    fn notes(&mut self) -> Vec<Note> {
        if self.index > 0 {
            return Vec::new();
        }
        self.shared.reading.try_lock().map(|mut reading| reading.notes()).unwrap_or_default()
    }
}

impl Drop for LiveEnd {
    /// What was meant for a worker that is gone must not keep frames.
    fn drop(&mut self) {
        self.give_back();
        if let Some(inbox) = self.shared.inboxes.get(self.index) {
            inbox.close();
        }
    }
}

#[cfg(test)]
mod tests;

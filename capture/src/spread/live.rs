//! Live sources for several workers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use wirespan_frame::{Batch, Filter, Shunt};

use super::followers::Followers;
use super::inbox::Inbox;
use super::parcel::{Lent, Parcel};
use super::reading::Reading;
use super::router::Router;
use super::{cannot_wait, inboxes};
use crate::{CaptureError, LendingSource, Note, PacketSource, SourceStats};

/// Parcels that may wait for one worker: with full ones, all the frames that a queue of AF_XDP has memory for.
const RING_PARCELS: usize = 64;
/// Parcels of one worker that are not in its ring: being filled, waiting for the ring, being worked on.
const PARCELS_BESIDE: usize = 4;

/// How the frames of live sources are shared among workers.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// Workers; there are at least as many as sources.
    pub workers: usize,
    /// Of the source's XDP program, if it has one: the hash that comes with a frame and the one that is made here must agree.
    pub seed: u64,
    /// How long a worker waits for frames before it is told that there are none.
    pub poll_timeout: Duration,
    /// The sources are the queues of a NIC that brings both directions of a connection to the same queue. Where there is a
    /// worker for each, it keeps what came there, but for what lies in tunnels: of that the NIC saw the outer addresses only.
    pub symmetric: bool,
}

/// What all ends share.
pub(super) struct Shared {
    queues: Vec<Queue>,
    pub inboxes: Vec<Inbox<Lent>>,
    patience: Duration,
}

/// One of the sources.
struct Queue {
    reading: Mutex<Reading>,
    outlet: Outlet,
}

/// Where a source's frames come out again.
pub(super) struct Outlet {
    /// Parcels that were worked off.
    pub returned: ArrayQueue<Parcel<Lent>>,
    /// What the source said last.
    pub stats: Mutex<SourceStats>,
    /// The part of the source's ring that still waited when it was read last, as the bits of an `f32`.
    backlog: AtomicU32,
}

impl Outlet {
    pub fn set_backlog(&self, backlog: f32) {
        self.backlog.store(backlog.to_bits(), Ordering::Relaxed);
    }

    fn backlog(&self) -> f32 {
        f32::from_bits(self.backlog.load(Ordering::Relaxed))
    }
}

/// One worker's part of live sources.
pub struct LiveEnd {
    shared: Arc<Shared>,
    index: usize,
    /// The one that is lent.
    current: Parcel<Lent>,
    received: u64,
}

/// Spreads the frames of live sources over workers.
///
/// # Errors
/// The process has too many files open.
pub fn live(sources: Vec<Box<dyn LendingSource>>, sharing: &Sharing) -> Result<Vec<LiveEnd>, CaptureError> {
    let workers = sharing.workers.max(sources.len()).max(1);
    let keeps = sharing.symmetric && sources.len() == workers;
    let followers = Arc::new(Mutex::new(Followers::default()));
    let queue = |(index, source): (usize, Box<dyn LendingSource>)| {
        let router = Router::live(workers, sharing.seed, keeps.then_some(index), Arc::clone(&followers));
        Queue {
            reading: Mutex::new(Reading::new(source, index, router, sharing.poll_timeout)),
            outlet: Outlet {
                returned: ArrayQueue::new(workers * (RING_PARCELS + PARCELS_BESIDE)),
                stats: Mutex::default(),
                backlog: AtomicU32::default(),
            },
        }
    };
    let shared = Arc::new(Shared {
        queues: sources.into_iter().enumerate().map(queue).collect(),
        inboxes: inboxes(workers, RING_PARCELS)?,
        patience: sharing.poll_timeout,
    });
    let end = |index| LiveEnd { shared: Arc::clone(&shared), index, current: Parcel::none(), received: 0 };
    Ok((0..workers).map(end).collect())
}

impl Shared {
    /// The queue that a worker reads, beside others where there are more workers than queues.
    fn queue_of(&self, worker: usize) -> Option<&Queue> {
        self.queues.get(worker % self.queues.len().max(1))
    }
}

impl Queue {
    /// For a worker that has something else to do while another one reads.
    fn try_lock(&self) -> Option<MutexGuard<'_, Reading>> {
        match self.reading.try_lock() {
            Ok(reading) => Some(reading),
            // The worker that was reading panicked, which its thread reports; the source is as it was between two calls.
            Err(TryLockError::Poisoned(reading)) => Some(reading.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Another worker may be waiting for frames with the lock, for no longer than its patience.
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveEnd {
    /// What was worked off goes back to the source.
    fn give_back(&mut self) {
        let mut parcel = std::mem::replace(&mut self.current, Parcel::none());
        // Descriptors stay, for the source to know which frames these were.
        let Some(memory) = parcel.memory.take() else { return };
        if let Some(queue) = self.shared.queues.get(memory.source) {
            let returned = queue.outlet.returned.push(parcel);
            debug_assert!(returned.is_ok(), "there is room for every parcel");
        }
    }

    /// Hands on what is ready in the worker's own queue, unless another one does.
    fn look(&self, queue: &Queue) -> Result<(), CaptureError> {
        match queue.try_lock() {
            Some(mut reading) => reading.step(&self.shared, &queue.outlet, None).map(drop),
            None => Ok(()),
        }
    }

    /// Reads for all workers, or waits while another one does. False when nothing came for a while.
    fn read_or_wait(&self, queue: &Queue, inbox: &Inbox<Lent>) -> Result<bool, CaptureError> {
        let shared = &*self.shared;
        let Some(mut reading) = queue.try_lock() else {
            return inbox.sleep(shared.patience).map_err(cannot_wait);
        };
        let listening = inbox.bell.listen();
        if !inbox.is_empty() {
            return Ok(true);
        }
        let came = reading.step(shared, &queue.outlet, Some(&listening));
        drop(reading);
        // Workers that wait for the one that was reading may read now.
        let others = shared.inboxes.iter().enumerate().skip(self.index % shared.queues.len());
        let others = others.step_by(shared.queues.len()).filter(|(index, _)| *index != self.index);
        others.for_each(|(_, inbox)| inbox.bell.ring());
        Ok(came? || listening.has_rung() || !inbox.is_empty())
    }
}

impl PacketSource for LiveEnd {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        self.give_back();
        let shared = Arc::clone(&self.shared);
        let inbox = shared.inboxes.get(self.index);
        let (Some(inbox), Some(queue)) = (inbox, shared.queue_of(self.index)) else { return Ok(None) };
        let start = Instant::now();
        loop {
            if shared.queues.len() > 1 {
                self.look(queue)?;
            }
            if let Some(parcel) = inbox.take() {
                parcel.prefetch();
                self.current = parcel;
                self.received += self.current.descriptors.len() as u64;
                return Ok(Some(self.current.batch()));
            }
            // Who reads for others alone has to look after its flows, too, and may have been told to stop.
            if !self.read_or_wait(queue, inbox)? || start.elapsed() >= shared.patience {
                return Ok(Some(Batch::new(&[], &[])));
            }
        }
    }

    /// Frames are those of this end. What a source as a whole lost or kept back is said by one end alone.
    fn stats(&mut self) -> SourceStats {
        let received = self.received;
        let Some(queue) = self.shared.queues.get(self.index) else {
            return SourceStats { received, ..SourceStats::default() };
        };
        let told = queue.outlet.stats.lock().unwrap_or_else(PoisonError::into_inner);
        SourceStats { received, ..told.clone() }
    }

    /// Where workers share a queue, one reads it when it has nothing else to do. When all are behind, nobody reads, inboxes are
    /// empty, and it is the ring that fills.
    fn backlog(&mut self) -> f32 {
        let inbox = self.shared.inboxes.get(self.index).map_or(0.0, Inbox::fill);
        let ring = self.shared.queue_of(self.index).map_or(0.0, |queue| queue.outlet.backlog());
        inbox.max(ring)
    }

    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        self.shared.queue_of(self.index)?.lock().shunt()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<bool, CaptureError> {
        match self.shared.queue_of(self.index) {
            Some(queue) => queue.lock().set_filter(filter),
            None => Ok(false),
        }
    }

    fn notes(&mut self) -> Vec<Note> {
        let queue = self.shared.queues.get(self.index);
        queue.and_then(Queue::try_lock).map(|mut reading| reading.notes()).unwrap_or_default()
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

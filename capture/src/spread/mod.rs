//! One source, several workers: the frames of a flow all go to the same worker, in order, without being copied.
//!
//! Takes in a source that cannot be split (capture files; a NIC with fewer queues than workers, or whose queues are chosen
//! by a tunnel's outer addresses); hands on one [`End`] for each worker, which is a [`PacketSource`] like any other. Which
//! worker gets a frame is told by the [`inner_hash()`] of its innermost packet. There is no thread for it: **a worker that
//! has nothing left to do reads**, for all of them, so the worker with the least work does most of the reading.
//!
//! Descriptors travel in parcels through bounded lock-free rings, one to each worker, and the parcels come back through one
//! more ring, with the memory that they shared. What a full ring means depends on the source: capture files wait, so that
//! a replay loses nothing; a live source drops the newest parcel and counts it, [`Loss::WorkerBehind`].
//!
//! - `inner_hash`: which packets belong together
//! - `router`, `followers`: which worker gets a frame, and the fragments that follow it
//! - `clock`: packet time that all workers hear of, so that time-outs do not depend on their number
//! - `parcel`: what travels
//! - `inbox`: a ring and its worker's sleep
//! - `files`, `live`: the sources
//!
//! [`Loss::WorkerBehind`]: crate::Loss::WorkerBehind

mod clock;
mod files;
mod followers;
mod inbox;
mod inner_hash;
mod live;
mod parcel;
mod reading;
mod router;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use wirespan_frame::{Batch, Filter, Shunt};

use crate::{CaptureError, Note, PacketSource, SourceStats};
pub use files::{FileEnd, files};
use inbox::Inbox;
pub use inner_hash::{InnerHash, inner_hash};
pub use live::{LiveEnd, live};
use parcel::{Mark, Memory as _, Parcel};
use reading::{Reader, Reading, Step};

/// Parcels that may wait for one worker.
const RING_PARCELS: usize = 32;
/// Parcels of one worker that are not in its ring: being filled, waiting for the ring, being worked on.
const PARCELS_BESIDE: usize = 4;
/// How long a worker sleeps when others keep all memory: they give it back without a word.
const MEMORY_WAIT: Duration = Duration::from_micros(100);

/// What all ends of one source share.
struct Shared<R: Reader> {
    reading: Mutex<Reading<R>>,
    inboxes: Vec<Inbox<R::Memory>>,
    /// Parcels that were worked off.
    returned: ArrayQueue<Parcel<R::Memory>>,
    /// Nothing more will come than what is in the rings.
    ended: AtomicBool,
    /// How long a worker waits for frames before it is told that there are none.
    patience: Duration,
}

/// One worker's part of a source.
#[expect(private_bounds, reason = "the sources are those of this module")]
pub struct End<R: Reader> {
    shared: Arc<Shared<R>>,
    index: usize,
    current: Parcel<R::Memory>,
    /// Frames and times of the current parcel that were lent.
    frames_lent: usize,
    times_lent: usize,
    received: u64,
    /// As of when nobody was reading.
    last_stats: SourceStats,
}

/// Frames, and the times that went by before them for all workers.
pub struct Portion<'a> {
    /// The frames.
    pub batch: Batch<'a>,
    times: &'a [Mark],
}

impl Portion<'_> {
    /// Packet times (ns since the epoch) of other workers' frames that came before these frames, so that flows time out
    /// in all workers alike.
    pub fn times(&self) -> impl Iterator<Item = u64> {
        self.times.iter().map(|mark| mark.ns)
    }
}

/// The ends of a source for `workers` workers.
fn ends<R: Reader>(reader: R, workers: usize, seed: u64, patience: Duration) -> Vec<End<R>> {
    let workers = workers.max(1);
    let shared = Arc::new(Shared {
        reading: Mutex::new(Reading::new(reader, workers, seed)),
        inboxes: (0..workers).map(|_| Inbox::new(RING_PARCELS)).collect(),
        returned: ArrayQueue::new(workers * (RING_PARCELS + PARCELS_BESIDE)),
        ended: AtomicBool::new(false),
        patience,
    });
    let end = |index| End {
        shared: Arc::clone(&shared),
        index,
        current: Parcel::none(),
        frames_lent: 0,
        times_lent: 0,
        received: 0,
        last_stats: SourceStats::default(),
    };
    (0..workers).map(end).collect()
}

#[expect(private_bounds, reason = "the sources are those of this module")]
impl<R: Reader> End<R> {
    /// Lends the next frames, with the times that the worker has to hear of before.
    ///
    /// `None` is the end of the input. Both can be empty.
    pub fn next_portion(&mut self) -> Result<Option<Portion<'_>>, CaptureError> {
        let shared = Arc::clone(&self.shared);
        let Some(inbox) = shared.inboxes.get(self.index) else { return Ok(None) };
        while self.is_worked_off() {
            self.give_back();
            if let Some(parcel) = inbox.take() {
                self.current = parcel;
                continue;
            }
            // Set only when everything was delivered.
            if shared.ended.load(Ordering::Acquire) {
                if inbox.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            if !self.read_or_wait(inbox)? {
                return Ok(Some(Portion { batch: Batch::new(&[], &[]), times: &[] }));
            }
        }
        Ok(Some(self.portion()))
    }

    fn is_worked_off(&self) -> bool {
        self.frames_lent == self.current.descriptors.len() && self.times_lent == self.current.times.len()
    }

    /// The current parcel up to the next time that goes by.
    fn portion(&mut self) -> Portion<'_> {
        let Parcel { memory, descriptors, times } = &self.current;
        let (frames_from, times_from) = (self.frames_lent, self.times_lent);
        let is_now = |mark: &&Mark| mark.at <= frames_from;
        let times_to = times_from + times.iter().skip(times_from).take_while(is_now).count();
        let frames_to = times.get(times_to).map_or(descriptors.len(), |mark| mark.at.min(descriptors.len()));
        (self.frames_lent, self.times_lent) = (frames_to, times_to);
        self.received += (frames_to - frames_from) as u64;
        let frames = descriptors.get(frames_from..frames_to).unwrap_or_default();
        let batch = memory.as_ref().map_or(Batch::new(&[], &[]), |memory| memory.batch(frames));
        Portion { batch, times: times.get(times_from..times_to).unwrap_or_default() }
    }

    fn give_back(&mut self) {
        (self.frames_lent, self.times_lent) = (0, 0);
        if self.current.is_empty() {
            return;
        }
        let mut parcel = std::mem::replace(&mut self.current, Parcel::none());
        // Descriptors stay, for a live source to know which frames these were.
        parcel.memory = None;
        let returned = self.shared.returned.push(parcel);
        debug_assert!(returned.is_ok(), "there is room for every parcel");
    }

    /// Reads for all workers, or waits while another one does. False when nothing came for a while.
    fn read_or_wait(&self, inbox: &Inbox<R::Memory>) -> Result<bool, CaptureError> {
        let shared = &*self.shared;
        let step = match shared.reading.try_lock() {
            Ok(mut reading) => reading.step(shared, self.index),
            Err(TryLockError::WouldBlock) => {
                return Ok(inbox.sleep(shared.patience, &shared.ended));
            }
            Err(TryLockError::Poisoned(_)) => {
                // The worker that was reading panicked, which its thread reports.
                shared.ended.store(true, Ordering::Release);
                return Ok(true);
            }
        };
        shared.wake_idle(self.index);
        match step {
            Ok(Step::Went) => Ok(true),
            Ok(Step::Stuck) => {
                inbox.sleep(MEMORY_WAIT, &shared.ended);
                Ok(true)
            }
            Ok(Step::Nothing) => Ok(!inbox.is_empty()),
            Err(error) => {
                shared.end();
                Err(error)
            }
        }
    }
}

impl<R: Reader> Shared<R> {
    /// Workers that wait for the one that was reading may read now.
    fn wake_idle(&self, but: usize) {
        self.inboxes
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != but)
            .for_each(|(_, inbox)| inbox.wake());
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.inboxes.iter().for_each(Inbox::wake);
    }
}

impl<R: Reader> PacketSource for End<R> {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        Ok(self.next_portion()?.map(|portion| portion.batch))
    }

    /// Frames are those of this end. What the source as a whole lost or could not read is said by the first end alone.
    fn stats(&mut self) -> SourceStats {
        if self.index == 0 {
            // Until the end, another worker may be waiting for frames with the lock.
            let ended = self.shared.ended.load(Ordering::Acquire);
            let reading = &self.shared.reading;
            let reading = if ended { reading.lock().ok() } else { reading.try_lock().ok() };
            if let Some(mut reading) = reading {
                self.last_stats = reading.stats();
            }
        }
        SourceStats { received: self.received, ..self.last_stats.clone() }
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

impl<R: Reader> Drop for End<R> {
    /// What was meant for a worker that is gone must not hold up the others.
    fn drop(&mut self) {
        self.give_back();
        if let Some(inbox) = self.shared.inboxes.get(self.index) {
            inbox.close();
        }
    }
}

#[cfg(test)]
mod tests;

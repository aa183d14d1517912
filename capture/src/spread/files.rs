//! Capture files for several workers: whoever has little left to do reads on for all of them.
//!
//! The frames that a worker has read are in its core's cache, and the others get theirs from there. So little is read at a
//! time, and few buffers are in use: what waits is still in a cache when its turn comes, and a new buffer is new pages.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use wirespan_frame::{Batch, Descriptor};

use super::inbox::Inbox;
use super::parcel::Parcel;
use super::router::Router;
use crate::pcap_file::{BATCH_FRAMES, Buffer, PcapFile};
use crate::{CaptureError, PacketSource, SourceStats, Unreadable};

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 128 * 1024;
/// Read buffers for each worker, and beside those: the one that is read, those of fragments which wait for their first.
const BUFFERS_EACH: usize = 8;
const BUFFERS_BESIDE: usize = 4;
/// Parcels that may wait for one worker.
const RING_PARCELS: usize = 256;
/// With fewer parcels that wait, a worker reads before it goes on. What waits must be more than is worked off in the time of
/// one step, or the others stand still while one reads.
const AHEAD_PARCELS: usize = 8;
/// Batches that are read at a time.
const STEP_BATCHES: usize = 6;
/// How long a worker sleeps when there is nothing for it, and either another one reads or no buffer is free.
const PATIENCE: Duration = Duration::from_micros(100);
/// A capture cannot choose where it goes in memory, so the hash needs no secret.
const SEED: u64 = 0;

/// What all ends share.
struct Shared {
    reading: Mutex<Reading>,
    inboxes: Vec<Inbox<Arc<Buffer>>>,
    /// Parcels that were worked off.
    returned: ArrayQueue<Parcel<Arc<Buffer>>>,
    /// Nothing more will come than what is in the rings.
    ended: AtomicBool,
}

/// The files and what is on the way to the workers.
struct Reading {
    paths: Vec<PathBuf>,
    /// Of interfaces, by number.
    names: Arc<[String]>,
    /// The place of the next one in `paths`.
    next: usize,
    file: Option<PcapFile>,
    buffers: usize,
    router: Router<Arc<Buffer>>,
    descriptors: Vec<Descriptor>,
    unreadable: [u64; Unreadable::ALL.len()],
}

/// One worker's part of capture files.
pub struct FileEnd {
    shared: Arc<Shared>,
    index: usize,
    /// The one that is lent.
    current: Parcel<Arc<Buffer>>,
    received: u64,
}

/// Spreads the frames of capture files, read in this order, over `workers` workers. `-` is standard input.
///
/// Each file is opened when its turn comes; the worker that cannot open it returns the error, and the others end. Between
/// the frames of a worker are the times of the others' ([`Batch::marks`]). A frame's port is its file's place in `paths`, or
/// that of its interface's name in `names`, see [`PcapFile::nth_of`].
///
/// # Errors
/// The process has too many files open.
pub fn files(paths: &[PathBuf], names: &[String], workers: usize) -> Result<Vec<FileEnd>, CaptureError> {
    let workers = workers.max(1);
    let reading = Reading {
        paths: paths.to_vec(),
        names: names.into(),
        next: 0,
        file: None,
        buffers: BUFFERS_BESIDE + workers * BUFFERS_EACH,
        router: Router::with_clock(workers, SEED),
        descriptors: Vec::with_capacity(BATCH_FRAMES),
        unreadable: [0; Unreadable::ALL.len()],
    };
    let shared = Arc::new(Shared {
        reading: Mutex::new(reading),
        inboxes: super::inboxes(workers, RING_PARCELS)?,
        returned: ArrayQueue::new(workers * RING_PARCELS),
        ended: AtomicBool::new(false),
    });
    let end = |index| FileEnd { shared: Arc::clone(&shared), index, current: Parcel::none(), received: 0 };
    Ok((0..workers).map(end).collect())
}

impl FileEnd {
    /// Reads for all workers, unless another one does. False when nothing could be done.
    fn read(&self) -> Result<bool, CaptureError> {
        let mut reading = match self.shared.reading.try_lock() {
            Ok(reading) => reading,
            // A worker that panicked while it read: its thread reports that, and what it had not delivered is there.
            Err(TryLockError::Poisoned(reading)) => reading.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        reading.step(&self.shared).inspect_err(|_| self.shared.end())
    }

    fn give_back(&mut self) {
        let mut parcel = std::mem::replace(&mut self.current, Parcel::none());
        parcel.clear();
        // One too many is let go of.
        let _ = self.shared.returned.push(parcel);
    }
}

impl Shared {
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.inboxes.iter().for_each(|inbox| inbox.bell.ring());
    }
}

impl Reading {
    /// Reads on and hands frames to their workers. False when that has to wait until a worker has come further.
    fn step(&mut self, shared: &Shared) -> Result<bool, CaptureError> {
        if !self.deliver(shared) {
            return Ok(false);
        }
        while let Some(parcel) = shared.returned.pop() {
            self.router.free.push(parcel);
        }
        let mut went = false;
        for _ in 0..STEP_BATCHES {
            let file = match &mut self.file {
                Some(file) => file,
                None => match self.paths.get(self.next) {
                    Some(path) => {
                        let place = self.next;
                        self.next += 1;
                        let mut file = PcapFile::open(path)?.nth_of(place, &self.names);
                        file.share_buffers(self.buffers, CHUNK_BYTES);
                        self.file.insert(file)
                    }
                    None => {
                        self.router.finish();
                        if self.deliver(shared) {
                            shared.end();
                        }
                        return Ok(true);
                    }
                },
            };
            if !file.has_room() {
                break;
            }
            went = true;
            match file.describe(&mut self.descriptors) {
                Some(buffer) => self.router.route(buffer, &self.descriptors),
                None => self.end_file(),
            }
            // The others may have nothing left.
            self.deliver(shared);
        }
        self.router.flush();
        self.deliver(shared);
        Ok(went)
    }

    /// False when a worker has no room for more.
    fn deliver(&mut self, shared: &Shared) -> bool {
        let mut all = true;
        for (inbox, full) in shared.inboxes.iter().zip(&mut self.router.full) {
            while let Some(parcel) = full.pop_front() {
                // What was meant for a worker that is gone must not hold up the others.
                if !inbox.is_closed()
                    && let Err(parcel) = inbox.put(parcel)
                {
                    full.push_front(parcel);
                    all = false;
                    break;
                }
            }
        }
        all
    }

    fn end_file(&mut self) {
        let Some(mut file) = self.file.take() else { return };
        for (reason, count) in file.stats().unreadable {
            if let Some(sum) = self.unreadable.get_mut(reason as usize) {
                *sum += count;
            }
        }
    }
}

impl PacketSource for FileEnd {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        self.give_back();
        let shared = Arc::clone(&self.shared);
        let Some(inbox) = shared.inboxes.get(self.index) else { return Ok(None) };
        loop {
            // What was delivered before the end is there when the end is seen.
            let ended = shared.ended.load(Ordering::Acquire);
            let next = inbox.take();
            next.iter().for_each(Parcel::prefetch);
            let went = !ended && inbox.len() < AHEAD_PARCELS && self.read()?;
            match next {
                Some(parcel) => {
                    self.current = parcel;
                    self.received += self.current.descriptors.len() as u64;
                    return Ok(Some(self.current.batch()));
                }
                None if ended => return Ok(None),
                None if went => {}
                None => {
                    inbox.sleep(PATIENCE).map_err(super::cannot_wait)?;
                }
            }
        }
    }

    /// Frames are those of this end. What could not be read is said by the first end alone.
    fn stats(&mut self) -> SourceStats {
        let received = self.received;
        if self.index > 0 {
            return SourceStats { received, ..SourceStats::default() };
        }
        let reading = self.shared.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let occurred = Unreadable::ALL.into_iter().zip(reading.unreadable).filter(|(_, count)| *count > 0);
        SourceStats { received, unreadable: occurred.collect(), ..SourceStats::default() }
    }
}

impl Drop for FileEnd {
    fn drop(&mut self) {
        if let Some(inbox) = self.shared.inboxes.get(self.index) {
            inbox.close();
        }
    }
}

//! What the worker does that reads for all of them.

use wirespan_frame::{Descriptor, Filter, Shunt};

use super::Shared;
use super::parcel::{Memory, Parcel};
use super::router::Router;
use crate::{CaptureError, Loss, Note, SourceStats};

/// A worker that reads leaves it to others once so many parcels are its own: enough for the others to be busy, too, while
/// the next one reads.
const AHEAD_PARCELS: usize = 8;

/// A source that is spread.
pub(super) trait Reader: Send {
    /// What its frames lie in.
    type Memory: Memory;

    /// Nobody waits for the workers: what they have no room for is dropped.
    const IS_LIVE: bool;

    /// Describes the next frames in `into`.
    fn read(&mut self, into: &mut Vec<Descriptor>) -> Result<Read<Self::Memory>, CaptureError>;

    /// These frames were worked off.
    fn give_back(&mut self, frames: &[Descriptor]);

    fn stats(&mut self) -> SourceStats;

    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        None
    }

    fn set_filter(&mut self, _filter: &Filter) -> Result<bool, CaptureError> {
        Ok(false)
    }

    fn notes(&mut self) -> Vec<Note> {
        Vec::new()
    }
}

/// What became of an attempt to read.
pub(super) enum Read<M> {
    /// The frames lie in this memory.
    Frames(M),
    /// The workers have all the memory.
    NoMemory,
    /// No frame came within the source's time.
    Nothing,
    /// The end of the input.
    Ended,
}

/// How far the reading worker came.
pub(super) enum Step {
    /// There are frames, or the input ended.
    Went,
    /// Another worker has to work first.
    Stuck,
    /// No frame came.
    Nothing,
}

/// The source and what is on the way to the workers.
pub(super) struct Reading<R: Reader> {
    reader: R,
    router: Router<R::Memory>,
    descriptors: Vec<Descriptor>,
    /// Frames that no worker had room for.
    dropped: u64,
    ended: bool,
}

impl<R: Reader> Reading<R> {
    pub fn new(reader: R, workers: usize, seed: u64) -> Self {
        Self {
            reader,
            router: Router::new(workers, seed, !R::IS_LIVE),
            descriptors: Vec::new(),
            dropped: 0,
            ended: false,
        }
    }

    /// Reads until worker `own` has something to do.
    pub fn step(&mut self, shared: &Shared<R>, own: usize) -> Result<Step, CaptureError> {
        let own_parcels = || shared.inboxes.get(own).map_or(0, super::Inbox::len);
        loop {
            self.take_back(shared);
            if !self.deliver(shared) {
                self.share_out(shared);
                return Ok(Step::Stuck);
            }
            if self.ended {
                shared.end();
                return Ok(Step::Went);
            }
            if own_parcels() >= AHEAD_PARCELS {
                self.share_out(shared);
                return Ok(Step::Went);
            }
            match self.reader.read(&mut self.descriptors)? {
                Read::Frames(memory) => {
                    self.router.route(&memory, &self.descriptors);
                    if R::IS_LIVE {
                        self.router.flush();
                        self.deliver(shared);
                        return Ok(Step::Went);
                    }
                }
                Read::NoMemory => {
                    self.share_out(shared);
                    return Ok(if own_parcels() > 0 { Step::Went } else { Step::Stuck });
                }
                Read::Nothing => return Ok(Step::Nothing),
                Read::Ended => {
                    self.router.finish();
                    self.ended = true;
                }
            }
        }
    }

    /// What the source says, and what was lost on the way to the workers.
    pub fn stats(&mut self) -> SourceStats {
        let mut stats = self.reader.stats();
        stats.lose(Loss::WorkerBehind, self.dropped);
        stats
    }

    pub fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        self.reader.shunt()
    }

    pub fn set_filter(&mut self, filter: &Filter) -> Result<bool, CaptureError> {
        self.reader.set_filter(filter)
    }

    pub fn notes(&mut self) -> Vec<Note> {
        self.reader.notes()
    }

    fn take_back(&mut self, shared: &Shared<R>) {
        while let Some(parcel) = shared.returned.pop() {
            self.recycle(parcel);
        }
    }

    fn recycle(&mut self, mut parcel: Parcel<R::Memory>) {
        self.reader.give_back(&parcel.descriptors);
        parcel.clear();
        self.router.free.push(parcel);
    }

    /// Hands full parcels over. False when some have to wait.
    fn deliver(&mut self, shared: &Shared<R>) -> bool {
        let mut all = true;
        for (worker, inbox) in shared.inboxes.iter().enumerate() {
            while let Some(parcel) = self.router.full.get_mut(worker).and_then(|full| full.pop_front()) {
                if inbox.is_closed() {
                    self.recycle(parcel);
                    continue;
                }
                let Err(parcel) = inbox.put(parcel) else { continue };
                if R::IS_LIVE {
                    self.dropped += parcel.descriptors.len() as u64;
                    self.recycle(parcel);
                    continue;
                }
                if let Some(full) = self.router.full.get_mut(worker) {
                    full.push_front(parcel);
                }
                all = false;
                break;
            }
        }
        all
    }

    /// Workers that have nothing get what there is for them, also if that is less than a parcel.
    fn share_out(&mut self, shared: &Shared<R>) {
        for (worker, inbox) in shared.inboxes.iter().enumerate() {
            let waits = self.router.full.get(worker).is_some_and(|full| !full.is_empty());
            if inbox.is_empty() && !waits {
                self.router.close(worker);
            }
        }
        self.deliver(shared);
    }
}

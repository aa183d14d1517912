//! What the worker does that reads for all of them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use wirespan_frame::{Descriptor, Filter, Shunt};

use super::live::{Outlet, Shared};
use super::parcel::{Lent, Parcel};
use super::router::Router;
use crate::sys::Listening;
use crate::{CaptureError, LendingSource, Loss, Note, SourceStats};

/// Most frames that are taken at a time.
const TAKE_FRAMES: usize = 512;
/// How often the workers are told what the source says.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The source and what is on the way to the workers.
pub(super) struct Reading {
    source: Box<dyn LendingSource>,
    memory: Lent,
    poll_timeout: Duration,
    router: Router<Lent>,
    descriptors: Vec<Descriptor>,
    /// Of frames that go back to the source.
    offsets: Vec<usize>,
    /// Frames that no worker had room for.
    dropped: u64,
    /// When the workers were told what the source says.
    told: Instant,
}

impl Reading {
    /// Of the source with this number.
    pub fn new(
        source: Box<dyn LendingSource>,
        number: usize,
        router: Router<Lent>,
        poll_timeout: Duration,
    ) -> Self {
        Self {
            memory: Lent { region: source.region(), source: number },
            source,
            poll_timeout,
            router,
            descriptors: Vec::with_capacity(TAKE_FRAMES),
            offsets: Vec::new(),
            dropped: 0,
            told: Instant::now(),
        }
    }

    /// Hands the next frames to their workers; with a bell, waits for them. False when none came.
    pub fn step(
        &mut self,
        shared: &Shared,
        outlet: &Outlet,
        bell: Option<&Listening<'_>>,
    ) -> Result<bool, CaptureError> {
        while let Some(parcel) = outlet.returned.pop() {
            self.recycle(parcel);
        }
        self.descriptors.clear();
        self.source.take(TAKE_FRAMES, &mut self.descriptors)?;
        if self.descriptors.is_empty() && bell.is_some() {
            self.source.wait(self.poll_timeout, bell)?;
            self.source.take(TAKE_FRAMES, &mut self.descriptors)?;
        }
        outlet.set_backlog(self.source.backlog());
        self.router.route(&self.memory, &self.descriptors);
        for (worker, inbox) in shared.inboxes.iter().enumerate() {
            // A worker that is behind gets whole parcels, so that many frames can wait for it.
            if inbox.fill() < 0.5 {
                self.router.close(worker);
            }
        }
        self.deliver(shared);
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            *outlet.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats();
        }
        Ok(!self.descriptors.is_empty())
    }

    /// What the source says, and what was lost on the way to the workers.
    fn stats(&mut self) -> SourceStats {
        let mut stats = self.source.stats();
        stats.lose(Loss::WorkerBehind, self.dropped);
        stats
    }

    pub fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        self.source.shunt()
    }

    pub fn set_filter(&mut self, filter: &Filter) -> Result<bool, CaptureError> {
        self.source.set_filter(filter)
    }

    pub fn notes(&mut self) -> Vec<Note> {
        self.source.notes()
    }

    /// Its frames were worked off, or are lost.
    fn recycle(&mut self, mut parcel: Parcel<Lent>) {
        self.offsets.clear();
        self.offsets.extend(parcel.descriptors.iter().map(|frame| frame.offset));
        if !self.offsets.is_empty() {
            self.source.give_back(&self.offsets);
        }
        parcel.clear();
        self.router.free.push(parcel);
    }

    /// A worker that has no room for more loses the newest.
    fn deliver(&mut self, shared: &Shared) {
        for (worker, inbox) in shared.inboxes.iter().enumerate() {
            while let Some(parcel) = self.router.full.get_mut(worker).and_then(|full| full.pop_front()) {
                if let Err(parcel) = inbox.put(parcel) {
                    self.dropped += parcel.descriptors.len() as u64;
                    self.recycle(parcel);
                }
            }
        }
    }
}

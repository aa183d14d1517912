//! A live source for several workers.

use std::time::Duration;

use wirespan_frame::{Descriptor, Filter, Shunt};

use super::reading::{Read, Reader};
use super::{End, ends};
use crate::{CaptureError, LendingSource, Note, Region, SourceStats};

/// Most frames that are taken at a time.
const TAKE_FRAMES: usize = 512;

/// One worker's part of a live source.
pub type LiveEnd = End<Live>;

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
    let live = Live { region: source.region(), source, poll_timeout, offsets: Vec::new() };
    ends(live, workers, seed, poll_timeout)
}

/// A source whose frames stay lent.
pub struct Live {
    source: Box<dyn LendingSource>,
    region: Region,
    poll_timeout: Duration,
    offsets: Vec<usize>,
}

impl Reader for Live {
    type Memory = Region;

    const IS_LIVE: bool = true;

    fn read(&mut self, into: &mut Vec<Descriptor>) -> Result<Read<Region>, CaptureError> {
        into.clear();
        self.source.take(TAKE_FRAMES, into)?;
        if into.is_empty() {
            self.source.wait(self.poll_timeout)?;
            self.source.take(TAKE_FRAMES, into)?;
        }
        Ok(if into.is_empty() { Read::Nothing } else { Read::Frames(self.region.clone()) })
    }

    fn give_back(&mut self, frames: &[Descriptor]) {
        if frames.is_empty() {
            return;
        }
        self.offsets.clear();
        self.offsets.extend(frames.iter().map(|frame| frame.offset));
        self.source.give_back(&self.offsets);
    }

    fn stats(&mut self) -> SourceStats {
        self.source.stats()
    }

    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        self.source.shunt()
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<bool, CaptureError> {
        self.source.set_filter(filter)
    }

    fn notes(&mut self) -> Vec<Note> {
        self.source.notes()
    }
}

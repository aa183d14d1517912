//! What travels from the reader to a worker and back: descriptors, and a share in the memory that they point into.

use std::sync::Arc;

use wirespan_frame::{Batch, Descriptor};

use crate::Region;
use crate::pcap_file::Buffer;

/// Most frames of one parcel.
pub(super) const PARCEL_FRAMES: usize = 256;
/// Most times of one parcel.
pub(super) const PARCEL_TIMES: usize = 256;

/// Memory that frames lie in, of which every clone keeps the frames where they are.
pub(super) trait Memory: Clone + Send + Sync {
    /// The frames that `descriptors` describe, which were read into this memory.
    fn batch<'a>(&'a self, descriptors: &'a [Descriptor]) -> Batch<'a>;

    /// True when both are the same memory.
    fn is(&self, other: &Self) -> bool;
}

impl Memory for Arc<Buffer> {
    fn batch<'a>(&'a self, descriptors: &'a [Descriptor]) -> Batch<'a> {
        Batch::new(self.bytes(), descriptors)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }
}

impl Memory for Region {
    fn batch<'a>(&'a self, descriptors: &'a [Descriptor]) -> Batch<'a> {
        // SAFETY: this module asks for batches of frames that it took from the source and has not given back: a parcel's
        // frames go back when the parcel does, and nobody has a batch of it then.
        unsafe { Region::batch(self, descriptors) }
    }

    fn is(&self, _: &Self) -> bool {
        true
    }
}

/// A point in packet time that all workers hear of, wherever the frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// It comes before this frame of the parcel.
    pub at: usize,
    /// Nanoseconds since the epoch.
    pub ns: u64,
}

/// Frames of one worker in one memory, and the times that went by between them.
pub(super) struct Parcel<M> {
    pub memory: Option<M>,
    pub descriptors: Vec<Descriptor>,
    pub times: Vec<Mark>,
}

impl<M> Parcel<M> {
    pub fn new() -> Self {
        Self { memory: None, descriptors: Vec::with_capacity(PARCEL_FRAMES), times: Vec::new() }
    }

    /// In place of one that was given back.
    pub fn none() -> Self {
        Self { memory: None, descriptors: Vec::new(), times: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty() && self.times.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.descriptors.len() >= PARCEL_FRAMES || self.times.len() >= PARCEL_TIMES
    }

    pub fn clear(&mut self) {
        self.memory = None;
        self.descriptors.clear();
        self.times.clear();
    }
}

/// How far a worker has come in a parcel.
pub(super) struct Cursor<M> {
    parcel: Parcel<M>,
    frames_lent: usize,
    times_lent: usize,
}

impl<M> Default for Cursor<M> {
    fn default() -> Self {
        Self { parcel: Parcel::none(), frames_lent: 0, times_lent: 0 }
    }
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

impl<M: Memory> Cursor<M> {
    pub fn is_worked_off(&self) -> bool {
        self.frames_lent == self.parcel.descriptors.len() && self.times_lent == self.parcel.times.len()
    }

    /// Goes on to the next parcel.
    pub fn replace(&mut self, next: Parcel<M>) -> Parcel<M> {
        (self.frames_lent, self.times_lent) = (0, 0);
        std::mem::replace(&mut self.parcel, next)
    }

    /// The parcel up to the next time that goes by.
    pub fn portion(&mut self) -> Portion<'_> {
        let Parcel { memory, descriptors, times } = &self.parcel;
        let (frames_from, times_from) = (self.frames_lent, self.times_lent);
        let is_now = |mark: &&Mark| mark.at <= frames_from;
        let times_to = times_from + times.iter().skip(times_from).take_while(is_now).count();
        let frames_to = times.get(times_to).map_or(descriptors.len(), |mark| mark.at.min(descriptors.len()));
        (self.frames_lent, self.times_lent) = (frames_to, times_to);
        let frames = descriptors.get(frames_from..frames_to).unwrap_or_default();
        let batch = memory.as_ref().map_or(Batch::new(&[], &[]), |memory| memory.batch(frames));
        Portion { batch, times: times.get(times_from..times_to).unwrap_or_default() }
    }
}

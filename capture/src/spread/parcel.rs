//! What travels from the reader to a worker and back: descriptors, and a share in the memory that they point into.

use std::sync::Arc;

use wirespan_frame::{Batch, Descriptor, Mark, prefetch};

use crate::Region;
use crate::pcap_file::Buffer;

/// Most frames of one parcel.
pub(super) const PARCEL_FRAMES: usize = 256;
/// Most marks of one parcel.
pub(super) const PARCEL_MARKS: usize = 256;

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

/// The memory of a live source, and which of several sources that is.
#[derive(Clone)]
pub(super) struct Lent {
    pub region: Region,
    pub source: usize,
}

impl Memory for Lent {
    fn batch<'a>(&'a self, descriptors: &'a [Descriptor]) -> Batch<'a> {
        // SAFETY: this module asks for batches of frames that it took from the source and has not given back: a parcel's
        // frames go back when the parcel does, and nobody has a batch of it then.
        unsafe { self.region.batch(descriptors) }
    }

    fn is(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Frames of one worker in one memory, and the times that went by between them.
pub(super) struct Parcel<M> {
    pub memory: Option<M>,
    pub descriptors: Vec<Descriptor>,
    pub marks: Vec<Mark>,
}

impl<M> Parcel<M> {
    pub fn new() -> Self {
        Self { memory: None, descriptors: Vec::with_capacity(PARCEL_FRAMES), marks: Vec::new() }
    }

    /// In place of one that was given back.
    pub fn none() -> Self {
        Self { memory: None, descriptors: Vec::new(), marks: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty() && self.marks.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.descriptors.len() >= PARCEL_FRAMES || self.marks.len() >= PARCEL_MARKS
    }

    /// Asks for the descriptors, which another core may have written, all at once rather than one after the other.
    pub fn prefetch(&self) {
        self.descriptors.iter().for_each(|descriptor| prefetch(descriptor));
    }

    pub fn clear(&mut self) {
        self.memory = None;
        self.descriptors.clear();
        self.marks.clear();
    }
}

impl<M: Memory> Parcel<M> {
    /// The frames, and the times that pass between them.
    pub fn batch(&self) -> Batch<'_> {
        let batch =
            self.memory.as_ref().map_or(Batch::new(&[], &[]), |memory| memory.batch(&self.descriptors));
        batch.with_marks(&self.marks)
    }
}

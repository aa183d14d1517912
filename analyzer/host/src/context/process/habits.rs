//! What a process often does, so that some evidence proves little.

use smallvec::SmallVec;

/// How often something was done in the turn of what it was done for, and how often with nothing before it in its turn.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Starts {
    after_bytes: u32,
    by_itself: u32,
    /// Several went out with one event: they are collected, so that the moment of sending tells nothing.
    pub(super) together: bool,
}

impl Starts {
    pub(super) fn count(&mut self, by_itself: bool) {
        *(if by_itself { &mut self.by_itself } else { &mut self.after_bytes }) += 1;
    }

    pub(in super::super) fn collected(self) -> bool {
        self.together
    }

    /// Timers or other tasks begin it: bytes that came in before it in the same turn prove little.
    pub(in super::super) fn often_by_itself(self) -> bool {
        self.by_itself > 2 && u64::from(self.by_itself) * 50 > u64::from(self.after_bytes)
    }
}

/// How often requests were answered by the thread that heard them, and how often by another that hears requests too.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Moves {
    pub(super) stayed: u32,
    pub(super) moved: u32,
}

impl Moves {
    /// Tasks go from thread to thread, as goroutines do: what a thread did before says little of what it does.
    pub(in super::super) fn often(self) -> bool {
        self.moved > 2 && u64::from(self.moved) * 50 > u64::from(self.stayed)
    }
}

/// What was done for requests or responses that came with one event.
#[derive(Debug, Default)]
pub(in super::super) struct Made {
    /// How many came.
    pub came: usize,
    /// How many requests were made then.
    pub requests: usize,
    /// Server requests that were answered then.
    pub answered: SmallVec<[u64; 2]>,
}

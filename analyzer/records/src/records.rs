//! Records on their way, together.

use crate::{Flow, FlowTick, Span};

/// Records of one worker that are handed over together. As a sink of a worker it keeps everything.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Request/response exchanges.
    pub spans: Vec<Span>,
    /// Flows that ended, or whose report was due.
    pub flows: Vec<Flow>,
    /// What flows did in single seconds.
    pub ticks: Vec<FlowTick>,
}

impl Records {
    /// Records of all three kinds.
    pub fn len(&self) -> usize {
        self.spans.len() + self.flows.len() + self.ticks.len()
    }

    /// No records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.flows.clear();
        self.ticks.clear();
    }
}

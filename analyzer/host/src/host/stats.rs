//! Counters.

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events given to the host.
    pub events: u64,
}

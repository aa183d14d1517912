//! Which trace a span is part of.

/// The trace of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceKey {
    /// The same for all spans of the trace, or merged with theirs.
    pub key: u64,
    /// It is not the only span of the trace, as far as is known. A lone one has no other key than its id, or than that of its
    /// trace id.
    pub traced: bool,
}

/// Two keys that turned out to be of one trace after rows had been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Merge {
    /// Rows have this one,
    pub from: u64,
    /// and later rows this one.
    pub to: u64,
}

//! Traces.
//!
//! Takes in spans of every observation point; hands on which of them are one exchange seen at several points, and which belong
//! to one trace: a key for each span while it is on its way to the store, and from the rows of one key the whole trace. Pure: no
//! clock, no store, no thread.
//!
//! | module | what |
//! |---|---|
//! | [`facts`] | when two spans are one exchange seen at two points |
//! | [`stitcher`] | keys of traces, given in passing |
//! | [`assemble`] | one trace from its rows |
//! | [`row`] | spans as the API shows them |
//! | [`trace`] | the answer: a tree of spans, paths of exchanges, where the time went |

pub mod assemble;
pub mod facts;
pub mod row;
#[cfg(test)]
mod sample;
pub mod stitcher;
pub mod trace;

pub use assemble::assemble;
pub use row::{ParentRow, SpanRow, TunnelRow};
pub use stitcher::{Limits, Stats, Stitcher, Ticket, is_wire_key, wire_key};
pub use trace::{Breakdown, Hop, Path, SummaryRoot, Trace, TraceSpan, TraceSummary};

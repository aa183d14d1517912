//! Traces.
//!
//! Takes in spans of every observation point; hands on which of them are one exchange seen at several points, and which belong
//! to one trace.
//!
//! | module | what |
//! |---|---|
//! | [`row`] | spans as the API shows them |
//! | [`trace`] | the answer: a tree of spans, paths of exchanges, where the time went |

pub mod row;
pub mod trace;

pub use row::{ParentRow, SpanRow, TunnelRow};
pub use trace::{Breakdown, Hop, Path, SummaryRoot, Trace, TraceSpan, TraceSummary};

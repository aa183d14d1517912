//! Traces.
//!
//! Takes in spans of every observation point; hands on which of them are one exchange seen at several points, and which belong
//! to one trace.

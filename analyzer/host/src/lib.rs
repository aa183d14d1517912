//! Spans of the host's processes.
//!
//! Takes in [`wirespan_event::Event`]s; hands on spans that say which process asked or answered, and for which request of its
//! own it did so.

pub mod context;
pub mod host;

pub use host::{Host, HostConfig, Stats};

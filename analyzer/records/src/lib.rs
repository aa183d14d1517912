//! The records wirespan produces, as plain data: request [`Span`]s, [`Flow`]s, per-second [`FlowTick`]s and counters.
//!
//! Takes in nothing; every other crate hands these on. Field names in JSON are those of the replay contract in
//! `ARCHITECTURE.md`. Times are nanoseconds since the epoch, durations microseconds.
//!
//! | module | what |
//! |---|---|
//! | [`ids`] | ids of records: unique in a store, increasing |
//! | [`net`] | endpoints, L4 protocols, tunnels, observation points, taps |
//! | [`process`] | processes of a host, and what a span was done for |
//! | [`span`] | one request/response exchange |
//! | [`trace`] | which trace a span is part of |
//! | [`flow`] | one bidirectional 5-tuple with its TCP metrics, and what it did in one second |
//! | [`records`] | all three, handed over together |
//! | [`drops`] | why something that was taken in was not handed on, each with a counter |

pub mod drops;
pub mod flow;
pub mod ids;
pub mod net;
pub mod process;
pub mod records;
pub mod span;
pub mod trace;

pub use drops::{DropReason, Drops};
pub use flow::{CloseType, Flow, FlowMetrics, FlowTick, L7Counts, Latency, PerDirection};
pub use ids::next_id;
pub use net::{Endpoint, L4Protocol, NO_TAP, ObservationPoint, Signal, Tunnel, TunnelKind};
pub use process::{Parent, Process, Rule};
pub use records::Records;
pub use span::{L7Protocol, ResponseStatus, Session, Span, Text};
pub use trace::{Merge, TraceKey};

//! What is done with every packet, on one core, without locks: decoding, flows, TCP metrics, bytes in order for L7.
//!
//! Takes in lent [`Batch`](wirespan_frame::Batch)es of frames and the time they carry; hands on spans, flows and
//! per-second ticks through a [`RecordSink`]. It opens nothing, reads no clock and starts no thread, so that captures,
//! live traffic and tests run the same code.
//!
//! | module | what |
//! |---|---|
//! | [`worker`] | the way of a batch through the modules below |
//! | [`decode`] | from a frame to its innermost [`packet::Packet`]: links, IP, fragments, tunnels |
//! | `pending` | times that pass between packets |
//! | [`tap`] | the named places where traffic is mirrored, and which one a frame came from |
//! | [`dedup`] | packets that a mirror delivered twice |
//! | [`filter`] | which packets are wanted |
//! | [`overload`] | what is left out when frames come too fast |
//! | [`flow`] | flow table, TCP state and metrics, reassembly |

pub mod decode;
pub mod dedup;
pub mod filter;
pub mod flow;
pub mod overload;
pub mod packet;
mod pending;
pub mod tap;
pub mod worker;

pub use flow::{FlowConfig, RecordSink};
pub use tap::{Tap, TapKind, Taps, TapsError};
pub use worker::{Sample, Worker, WorkerConfig, WorkerStats};

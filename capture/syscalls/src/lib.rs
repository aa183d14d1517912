//! System calls and TLS library calls of the host's processes, as events.
//!
//! Takes in what the tracer's programs (`bpf`) say; hands on [`wirespan_event::Event`]s and the processes they belong to.
//!
//! | module | what |
//! |---|---|
//! | [`guard`] | keeps the tracer from slowing the host |
//! | `priority` | which threads go first |
//! | [`processes`] | who the processes are: program, command line, container, pod |
//! | [`source`] | where events come from: the tracer, or an event log |
//! | [`tls`] | plaintext of TLS libraries, and whose work a thread is at |

pub mod guard;
mod priority;
pub mod processes;
pub mod source;
pub mod tls;

pub use processes::{ProcessStats, Processes};
pub use source::{EventSource, Live, LiveOptions, LogFile, SourceError};

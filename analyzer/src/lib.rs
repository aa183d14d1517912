//! From records to answers: takes in spans, flows and ticks from workers, hands on rows to the store and answers over HTTP.
//!
//! | module | what |
//! |---|---|
//! | [`ingest`] | bounded queues from workers, batches to the store, and what became of every record |
//! | [`traces`] | spans wait for the key of their trace |
//! | [`metrics`] | ticks of flows summed to one row per second and path |
//! | [`query`] | services, map, spans and flows as SQL, and the shape of the answers |
//! | [`answers`] | puts the questions to the store |
//! | [`http`] | the API, `/metrics` and the web page (its sources are in `web/`) |
//! | [`names`] | names of addresses as a dictionary of the store |
//! | [`taps`] | names of taps as a dictionary of the store |
//! | [`registry`] | named counters of the process |

pub mod answers;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod names;
pub mod query;
pub mod registry;
pub mod taps;
pub mod traces;

pub use answers::{AnswerError, Answers};
pub use http::{Server, ServerError, ServerOptions};
pub use ingest::{Ingest, IngestOptions, IngestReport, Sink};
pub use names::push_names;
pub use registry::{Counter, Registry};
pub use taps::push_taps;

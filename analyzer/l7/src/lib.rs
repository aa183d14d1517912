//! L7: finds out by content what a stream speaks, parses it and pairs requests with responses into spans.
//!
//! Takes in the bytes of a stream, in order, one direction at a time ([`Engine::data`], [`Engine::gap`]), whether they
//! came from packets or from system calls; hands on [`wirespan_records::Span`]s through a [`SpanSink`].
//!
//! | module | what |
//! |---|---|
//! | [`parser`] | the contract every protocol fulfils: probe, parse, what a step may say |
//! | [`protocols`] | one file or folder per protocol and the one list where they are registered |
//! | [`engine`] | per worker: settings, limits, counters; the way of the bytes |
//! | `detect` | what a stream speaks, remembered endpoints |
//! | `stream` | per stream: its parser, buffers, bytes that are passed over, holes |
//! | [`exchange`] | pairs requests with responses and makes the spans |
//! | [`trace`] | trace context in headers |
//! | `text` | bytes as text of bounded length |
//! | [`obfuscate`] | literals and values out of statements and commands |
//!
//! To add a protocol: one file in `protocols/` with a type that implements [`parser::Parser`], one line in the list of
//! `protocols/mod.rs`, its name in `L7Protocol`.

mod detect;
#[doc(hidden)]
pub mod drive;
pub mod engine;
pub mod exchange;
pub mod obfuscate;
pub mod parser;
pub mod protocols;
mod stream;
mod text;
pub mod trace;

pub use engine::{Chunk, Config, Engine, FlowContext, Heard, Side, SpanSink};
pub use stream::Stream;

//! ClickHouse, embedded or real: takes in spans, flows and metrics, hands on SQL answers over ClickHouse's HTTP interface.
//!
//! The engine is `libchdb.so`, run in a child process of the same binary (`wirespan store`) behind ClickHouse's own HTTP
//! interface on loopback; the writer and every query speak that interface, so a real server can take its place.
//!
//! | module | what |
//! |---|---|
//! | [`engine`] | `libchdb.so` loaded at run time: connections, queries, results |
//! | [`server`] | ClickHouse's HTTP interface over the engine: what the child process runs |
//! | [`supervise`] | starts the child, waits until it answers, restarts it, stops it |
//! | [`client`] | HTTP client for the embedded or a real ClickHouse |
//! | [`schema`] | tables, migrations, retention |
//! | [`row_binary`] | answers in RowBinary, read value by value |
//! | [`write`] | rows into Native columns into batches that arrive exactly once |

pub mod client;
pub mod engine;
mod error;
pub mod row_binary;
pub mod schema;
pub mod server;
pub mod supervise;
pub mod write;

pub use client::{Client, Table};
pub use error::StoreError;
pub use row_binary::RowReader;
pub use schema::{Retention, migrate};
pub use server::{ServeOptions, serve};
pub use supervise::{Supervisor, SupervisorOptions};
pub use write::{NetMetrics, Stat, Writer, WriterCounters, WriterOptions, WriterWatch};

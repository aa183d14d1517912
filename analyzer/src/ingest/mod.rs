//! From worker threads to the store.
//!
//! Workers hand over batches through a [`Sink`] and never wait: when as many records wait as are allowed, the newest batch
//! is dropped and counted. One exporter thread sums ticks, gives spans the keys of their traces and hands rows to the store's
//! writer, which sends them until they are acknowledged. Every record is stored or counted as dropped, and [`Ingest::stop`] returns when that is so for all.
//!
//! | module | what |
//! |---|---|
//! | `counters` | what became of everything |
//! | `sink` | a worker's end of the queue |
//! | `exporter` | the thread between the queue and the writer |

mod counters;
mod exporter;
mod sink;

pub use counters::{IngestReport, RecordCounts};
pub use sink::Sink;

use crate::registry::Registry;
use counters::report;
use exporter::Running;
use std::sync::Arc;
use std::time::Duration;
use wirespan_store::{Writer, WriterCounters};

/// Bounds of the way to the store.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// Records that wait for the exporter at most.
    pub queue_records: usize,
    /// How often finished seconds are handed on.
    pub flush_every: Duration,
    /// How often the process's counters are written to `agent_stats`.
    pub stats_every: Duration,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            queue_records: 262_144,
            flush_every: Duration::from_millis(500),
            stats_every: Duration::from_secs(10),
        }
    }
}

/// The way from workers to the store.
pub struct Ingest {
    exporter: Running<Writer>,
}

impl Ingest {
    /// Starts the exporter thread, which owns the writer; counters go to `registry`, and those of `registry` to the store.
    pub fn start(writer: Writer, options: &IngestOptions, registry: &Registry) -> std::io::Result<Self> {
        Ok(Self { exporter: Running::start(writer, options, registry)? })
    }

    /// A handle for a worker.
    pub fn sink(&self) -> Sink {
        self.exporter.sink.clone()
    }

    /// Stores everything that was taken in, waiting for the store at most `patience`, and says what became of it. Batches
    /// sent later are dropped and counted.
    pub async fn stop(self, patience: Duration) -> IngestReport {
        let shared = Arc::clone(&self.exporter.sink.shared);
        let writer = tokio::task::spawn_blocking(move || self.exporter.stop()).await.ok().flatten();
        let Some(writer) = writer else {
            tracing::error!("The exporter thread ended by a panic; records that waited are lost");
            return report(&shared.counters, WriterCounters::default());
        };
        let counters = writer.close(patience).await;
        shared.counters.set_writer(&counters);
        report(&shared.counters, counters)
    }
}

#[cfg(test)]
mod tests;

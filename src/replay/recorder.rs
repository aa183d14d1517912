//! Replay into a store, and from there into Parquet files.

use crate::database::{Database, Place};
use anyhow::{Context, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use wirespan_analyzer::metrics::NetAggregator;
use wirespan_analyzer::push_taps;
use wirespan_analyzer::traces::Stitching;
use wirespan_dataplane::Taps;
use wirespan_records::Records;
use wirespan_store::{Writer, WriterCounters, WriterOptions};

/// Replay is faster than the store: beyond so many waiting rows it waits, so that nothing is dropped.
const MAX_WAITING_ROWS: u64 = 200_000;
/// How long a store may take for what waits.
const PATIENCE: Duration = Duration::from_secs(300);

/// A store that every record is written to.
pub struct Recorder {
    runtime: Runtime,
    database: Database,
    writer: Writer,
    open: Mutex<Open>,
}

/// What is not handed on yet.
struct Open {
    net: NetAggregator,
    stitching: Stitching,
}

impl Recorder {
    /// Opens the store in `data`, or makes it; it learns the names of `taps`, where there are any.
    pub fn open(data: &Path, libchdb: Option<PathBuf>, taps: &Taps) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let place = Place::Embedded { data: data.to_owned(), listen, libchdb };
        let database = runtime.block_on(Database::start(place))?;
        if !taps.taps.is_empty() {
            runtime.block_on(push_taps(&database.client, &taps.taps))?;
        }
        let writer =
            runtime.block_on(async { Writer::start(database.client.clone(), WriterOptions::default()) });
        let open = Open { net: NetAggregator::default(), stitching: Stitching::new(Instant::now()) };
        Ok(Self { runtime, database, writer, open: Mutex::new(open) })
    }

    /// Takes records; waits while the store lags.
    pub fn write(&self, records: Records) -> anyhow::Result<()> {
        self.writer.flows(&records.flows);
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        records.ticks.iter().for_each(|tick| open.net.add(tick));
        let rows = if open.net.is_full() { open.net.drain_all() } else { Vec::new() };
        let now = Instant::now();
        open.stitching.take(records.spans, now);
        let merges = open.stitching.hand_on(now, |spans, traces| {
            self.writer.spans(spans, traces);
        });
        drop(open);
        self.writer.merges(&merges);
        self.writer.net_metrics(&rows);
        if self.writer.counters().rows_waiting > MAX_WAITING_ROWS {
            ensure!(
                self.runtime.block_on(self.writer.flush(PATIENCE)),
                "the store does not take the rows any more"
            );
        }
        Ok(())
    }

    /// Everything is stored; writes the tables that are asked for as Parquet files, and ends.
    pub fn finish(self, exports: &[(&str, PathBuf)]) -> anyhow::Result<WriterCounters> {
        let Self { runtime, database, writer, open } = self;
        let mut open = open.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer.net_metrics(&open.net.drain_all());
        writer.merges(&open.stitching.hand_on_all(|spans, traces| {
            writer.spans(spans, traces);
        }));
        runtime.block_on(async {
            let counters = writer.close(PATIENCE).await;
            let mut result = Ok(());
            for (table, file) in exports {
                result = result.and(export(&database, table, file).await);
            }
            database.stop().await;
            result?;
            let lost = counters.rows_in - counters.rows_stored;
            ensure!(lost == 0, "{lost} of {} rows were not stored", counters.rows_in);
            Ok(counters)
        })
    }
}

/// The rows of a table as one Parquet file, with addresses as text.
async fn export(database: &Database, table: &str, file: &Path) -> anyhow::Result<()> {
    let columns = "* EXCEPT (ingested, agent_id) REPLACE (client AS client_ip, server AS server_ip)";
    let sql = format!("SELECT {columns} FROM {table} ORDER BY start_time, id");
    let client = database.client.clone().with_timeout(PATIENCE);
    let rows = client.query_text(&sql, "Parquet").await?;
    std::fs::write(file, rows).with_context(|| format!("cannot write {}", file.display()))
}

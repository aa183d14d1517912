//! Tables, migrations and retention. Migrations only go forward, are numbered, and each runs once.

use crate::{Client, StoreError};
use std::collections::HashMap;
use std::time::Duration;

/// How long a statement of a migration may take: some go through all rows.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The database that holds everything.
pub const DATABASE: &str = "wirespan";

struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal, $file:literal) => {
        Migration { version: $version, name: $name, sql: include_str!(concat!("../schema/", $file)) }
    };
}

/// In order, without gaps. A migration that was released never changes.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "logs", "0001_logs.sql"),
    migration!(2, "net_metrics", "0002_net_metrics.sql"),
    migration!(3, "app_metrics", "0003_app_metrics.sql"),
    migration!(4, "path_metrics", "0004_path_metrics.sql"),
    migration!(5, "taps", "0005_taps.sql"),
    migration!(6, "traces", "0006_traces.sql"),
    migration!(7, "trace_rows", "0007_trace_rows.sql"),
    migration!(8, "written_trace_rows", "0008_written_trace_rows.sql"),
    migration!(9, "unix_servers", "0009_unix_servers.sql"),
    migration!(10, "trace_servers", "0010_trace_servers.sql"),
    migration!(11, "taps_by_address", "0011_taps_by_address.sql"),
];

/// How many days rows stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `l7_log`, `flow_log`, `trace_log` and `trace_merges`.
    pub logs_days: u16,
    /// `net_metrics_1s`, `app_metrics_1s` and `path_metrics_1s`.
    pub seconds_days: u16,
    /// `net_metrics_1m`, `app_metrics_1m` and `path_metrics_1m`.
    pub minutes_days: u16,
    /// `agent_stats`.
    pub stats_days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Self { logs_days: 3, seconds_days: 1, minutes_days: 7, stats_days: 7 }
    }
}

impl Retention {
    fn tables(&self) -> [(&'static str, u16); 11] {
        [
            ("l7_log", self.logs_days),
            ("flow_log", self.logs_days),
            ("trace_log", self.logs_days),
            ("trace_merges", self.logs_days),
            ("net_metrics_1s", self.seconds_days),
            ("app_metrics_1s", self.seconds_days),
            ("path_metrics_1s", self.seconds_days),
            ("net_metrics_1m", self.minutes_days),
            ("app_metrics_1m", self.minutes_days),
            ("path_metrics_1m", self.minutes_days),
            ("agent_stats", self.stats_days),
        ]
    }
}

/// Brings the store to the newest schema and the wanted retention; returns the schema's version. Running it again changes nothing.
pub async fn migrate(client: &Client, retention: &Retention) -> Result<u32, StoreError> {
    let client = &client.clone().with_timeout(PATIENCE);
    let outside = client.clone().with_setting("database", "default");
    outside.execute(&format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")).await?;
    client
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations \
             (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) \
             ENGINE = MergeTree ORDER BY version",
        )
        .await?;
    let found = version(client).await?;
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for migration in MIGRATIONS.iter().filter(|m| m.version > found) {
        if found > 0 {
            tracing::info!(
                "The store gets schema version {} ({}); that may take minutes",
                migration.version,
                migration.name
            );
        }
        apply(client, migration).await.map_err(|source| StoreError::Migration {
            version: migration.version,
            name: migration.name,
            source: Box::new(source),
        })?;
    }
    keep(client, retention).await?;
    Ok(known)
}

/// The newest migration that was applied, 0 when none.
async fn version(client: &Client) -> Result<u32, StoreError> {
    let answer = client.query_text("SELECT max(version) FROM schema_migrations", "TabSeparated").await?;
    let text = String::from_utf8_lossy(&answer);
    text.trim().parse().map_err(|_| StoreError::BadAnswer { format: "a version", reason: text.into_owned() })
}

async fn apply(client: &Client, migration: &Migration) -> Result<(), StoreError> {
    for statement in statements(migration.sql) {
        client.execute(statement).await?;
    }
    let done = format!(
        "INSERT INTO schema_migrations (version, name) VALUES ({}, '{}')",
        migration.version, migration.name
    );
    client.execute(&done).await
}

/// Statements end with a `;` at the end of a line.
fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n").map(str::trim).filter(|s| !s.is_empty())
}

/// How parts are merged, where the engine has the setting.
const MERGES: [(&str, &str); 2] = [
    // No query needs statistics of columns, and they take a tenth of the time and of the disk.
    ("auto_statistics_types", "''"),
    // More parts at once than 5, so that a row is written again less often; a query reads a few parts more.
    ("merge_selector_base", "10"),
];

/// Sets the TTL of each table whose TTL is another, and how its parts are merged.
async fn keep(client: &Client, retention: &Retention) -> Result<(), StoreError> {
    let found = client
        .query_text(
            "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase() \
             UNION ALL SELECT name, value FROM system.merge_tree_settings",
            "TabSeparatedRaw",
        )
        .await?;
    let found = String::from_utf8_lossy(&found);
    let found: HashMap<_, _> = found.lines().filter_map(|line| line.split_once('\t')).collect();
    for (table, days) in retention.tables() {
        let engine = found.get(table).copied().unwrap_or_default();
        let ttl = format!("ingested + toIntervalDay({days})");
        if !engine.contains(&format!("TTL {ttl} ")) {
            client.execute(&format!("ALTER TABLE {table} MODIFY TTL {ttl}")).await?;
        }
        for (name, value) in MERGES.iter().filter(|(name, _)| found.contains_key(name)) {
            let setting = format!("{name} = {value}");
            if !engine.contains(&setting) {
                client.execute(&format!("ALTER TABLE {table} MODIFY SETTING {setting}")).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            assert!(statements(migration.sql).count() > 0);
        }
    }
}

//! Puts the questions of [`crate::query`] to the store.

mod traces;

pub use traces::Traces;

use crate::query::{BadQuestion, Query, Range, flows, map, services, spans, taps};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use wirespan_controller::Names;
use wirespan_store::{Client, StoreError};

/// Rows of an SQL answer at most.
const MAX_SQL_ROWS: &str = "100000";

/// Seconds that an answer may take the store.
const MAX_QUERY_SECONDS: u64 = 30;

/// Bytes of memory that one query may use in the store.
const MAX_QUERY_MEMORY: &str = "4000000000";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The question is not one.
    #[error(transparent)]
    Question(#[from] BadQuestion),
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
}

/// Columns and rows of an SQL query.
#[derive(Clone, Debug, Serialize)]
pub struct SqlAnswer {
    /// Names and ClickHouse types.
    pub columns: Vec<SqlColumn>,
    /// Values in the order of the columns.
    pub rows: Vec<Vec<serde_json::Value>>,
}

/// A column of an answer.
#[derive(Clone, Debug, Serialize)]
pub struct SqlColumn {
    /// Its name.
    pub name: String,
    /// Its ClickHouse type.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// The store, read only, and the names of addresses. Clones share both.
#[derive(Clone)]
pub struct Answers {
    client: Client,
    sql_client: Client,
    names: Arc<RwLock<Arc<Names>>>,
}

impl Answers {
    /// Answers from this store.
    pub fn new(client: Client, names: Names) -> Self {
        let client = client
            .with_timeout(Duration::from_secs(MAX_QUERY_SECONDS + 5))
            .with_setting("max_execution_time", &MAX_QUERY_SECONDS.to_string())
            .with_setting("max_memory_usage", MAX_QUERY_MEMORY)
            .with_setting("readonly", "1");
        let sql_client = client.clone().with_setting("max_result_rows", MAX_SQL_ROWS);
        let client = client.with_setting("output_format_json_quote_64bit_integers", "0");
        Self { client, sql_client, names: Arc::new(RwLock::new(Arc::new(names))) }
    }

    /// Replaces the names of addresses.
    pub fn set_names(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// The names of addresses now.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store answers.
    pub async fn ping(&self) -> Result<(), AnswerError> {
        Ok(self.client.ping().await?)
    }

    /// Any SQL that only reads.
    pub async fn sql(&self, sql: &str) -> Result<SqlAnswer, AnswerError> {
        let table = self.sql_client.query_json(sql, &[]).await?;
        let column =
            |c: wirespan_store::client::TableColumn| SqlColumn { name: c.name, type_name: c.type_name };
        Ok(SqlAnswer { columns: table.columns.into_iter().map(column).collect(), rows: table.rows })
    }

    /// RED per service.
    pub async fn services(&self, range: Range) -> Result<services::Services, AnswerError> {
        let rows = self.rows(&services::query(range)).await?;
        let newest_s = if rows.is_empty() { self.newest_s().await? } else { None };
        Ok(services::answer(rows, range, newest_s, &self.names()))
    }

    async fn newest_s(&self) -> Result<Option<u32>, AnswerError> {
        let rows: Vec<services::NewestRow> = self.rows(&services::newest_query()).await?;
        Ok(rows.first().and_then(services::NewestRow::second))
    }

    /// Who calls whom.
    pub async fn map(&self, range: Range) -> Result<map::Map, AnswerError> {
        let (requests, traffic) = (map::requests_query(range), map::traffic_query(range));
        let (requests, traffic) = tokio::try_join!(self.rows(&requests), self.rows(&traffic))?;
        Ok(map::answer(requests, traffic, range, &self.names()))
    }

    /// A page of requests.
    pub async fn spans(&self, params: &spans::SpanParams, range: Range) -> Result<spans::Spans, AnswerError> {
        let names = self.names();
        let (query, limit) = spans::query(params, range, &names)?;
        Ok(spans::answer(self.rows(&query).await?, limit, &names))
    }

    /// A page of flows.
    pub async fn flows(&self, params: &flows::FlowParams, range: Range) -> Result<flows::Flows, AnswerError> {
        let names = self.names();
        let (query, limit) = flows::query(params, range, &names)?;
        Ok(flows::answer(self.rows(&query).await?, limit, &names))
    }

    /// The taps, and what came from each.
    pub async fn taps(&self, range: Range) -> Result<taps::Taps, AnswerError> {
        Ok(taps::answer(self.rows(&taps::query(range)).await?, range))
    }

    async fn rows<T: DeserializeOwned>(&self, query: &Query) -> Result<Vec<T>, AnswerError> {
        Ok(self.client.query_rows(&query.sql, &params(query)).await?)
    }
}

fn params(query: &Query) -> Vec<(&str, &str)> {
    query.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

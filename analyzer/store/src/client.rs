//! Client of ClickHouse's HTTP interface; the same for the embedded engine and a real server.

use crate::StoreError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderName;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// An answer as columns and rows; the type of each value is what ClickHouse's JSON makes of it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Table {
    /// Names and ClickHouse types.
    #[serde(rename = "meta")]
    pub columns: Vec<TableColumn>,
    /// In the order of the columns.
    #[serde(rename = "data")]
    pub rows: Vec<Vec<serde_json::Value>>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct TableColumn {
    /// Name or alias.
    pub name: String,
    /// ClickHouse type, such as `UInt64` or `Nullable(Int32)`.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    base: Arc<str>,
    user: Option<(String, String)>,
    settings: Vec<(String, String)>,
    timeout: Duration,
}

impl Client {
    /// For `http://[user:password@]host[:port]`; the current database is `wirespan`.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let bad = || StoreError::BadUrl { url: url.into() };
        let rest = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let (user, host) = match rest.rsplit_once('@') {
            Some((login, host)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((user.to_owned(), password.to_owned())), host)
            }
            None => (None, rest),
        };
        if host.is_empty() || host.contains('/') || format!("http://{host}/").parse::<Uri>().is_err() {
            return Err(bad());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        let settings = vec![("database".into(), crate::schema::DATABASE.into())];
        Ok(Self {
            http,
            base: format!("http://{host}").into(),
            user,
            settings,
            timeout: Duration::from_secs(60),
        })
    }

    /// The base URL, without a password.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// A client whose every request has this setting (or URL parameter), such as `readonly=2` or `max_execution_time=10`.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(n, _)| n != name);
        self.settings.push((name.into(), value.into()));
        self
    }

    /// A client that gives up on an answer after this time (60 s unless told).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Columns and rows; `params` are the values of `{name:Type}` placeholders, as plain text.
    pub async fn query_json(&self, sql: &str, params: &[(&str, &str)]) -> Result<Table, StoreError> {
        let body = self.post(&[("default_format", "JSONCompact")], params, sql.to_owned().into()).await?;
        parse_json("JSONCompact", &body)
    }

    /// Rows as `T`, whose fields are named like the columns.
    pub async fn query_rows<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: &[(&str, &str)],
    ) -> Result<Vec<T>, StoreError> {
        let body = self.post(&[("default_format", "JSONEachRow")], params, sql.to_owned().into()).await?;
        body.split(|&b| b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| parse_json("JSONEachRow", line))
            .collect()
    }

    /// The answer in RowBinary, for [`RowReader`](crate::RowReader): a fraction of the time of JSON where rows have many columns.
    pub async fn query_binary(&self, sql: &str, params: &[(&str, &str)]) -> Result<Bytes, StoreError> {
        self.post(&[("default_format", "RowBinary")], params, sql.to_owned().into()).await
    }

    /// The answer in any of ClickHouse's formats.
    pub async fn query_text(&self, sql: &str, format: &str) -> Result<Bytes, StoreError> {
        self.post(&[("default_format", format)], &[], sql.to_owned().into()).await
    }

    /// Runs a statement without an answer.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.post(&[], &[], sql.to_owned().into()).await.map(drop)
    }

    /// Inserts `data`, which is in `format`; data that comes again with the same token is stored once. Rows that a table
    /// adds up are added up by its merges, not before they are stored as well: few of one block have the same key.
    pub async fn insert(
        &self,
        table: &str,
        format: &str,
        data: Bytes,
        token: Option<&str>,
    ) -> Result<(), StoreError> {
        let query = format!("INSERT INTO {table} FORMAT {format}");
        let mut pairs = vec![
            ("query", query.as_str()),
            ("async_insert", "0"),
            ("optimize_on_insert", "0"),
            ("wait_end_of_query", "1"),
        ];
        pairs.extend(token.map(|token| ("insert_deduplication_token", token)));
        self.post(&pairs, &[], data).await.map(drop)
    }

    /// Succeeds when the server answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.send(format!("{}/ping", self.base), None).await.map(drop)
    }

    async fn post(
        &self,
        pairs: &[(&str, &str)],
        params: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        // The serializer must not live across the await: it is not Sync, and callers' futures must be Send.
        let url = {
            let mut url = form_urlencoded::Serializer::new(format!("{}/?", self.base));
            for (name, value) in &self.settings {
                url.append_pair(name, value);
            }
            url.extend_pairs(pairs);
            for (name, value) in params {
                url.append_pair(&format!("param_{name}"), &escape_param(value));
            }
            url.finish()
        };
        self.send(url, Some(body)).await
    }

    /// POSTs `body`, or GETs when there is none.
    async fn send(&self, url: String, body: Option<Bytes>) -> Result<Bytes, StoreError> {
        let unreachable = |reason: String| StoreError::Unreachable { url: self.base.to_string(), reason };
        let mut request = Request::builder().method(if body.is_some() { "POST" } else { "GET" }).uri(url);
        if let Some((user, password)) = &self.user {
            request = request.header("X-ClickHouse-User", user).header("X-ClickHouse-Key", password);
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|e| StoreError::BadAnswer { format: "a request", reason: e.to_string() })?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|e| unreachable(chain(&e)))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| unreachable(chain(&e)))?.to_bytes();
            let code = head.headers.get(HeaderName::from_static("x-clickhouse-exception-code"));
            if head.status.is_success() && code.is_none() {
                return Ok(body);
            }
            let code = code.and_then(|c| c.to_str().ok()).and_then(|c| c.parse().ok()).unwrap_or(0);
            let message = String::from_utf8_lossy(&body).trim().to_owned();
            Err(StoreError::Query { code, status: head.status.as_u16(), message })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!("nothing within {} s", self.timeout.as_secs()))),
        }
    }
}

fn parse_json<T: DeserializeOwned>(format: &'static str, body: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(|e| StoreError::BadAnswer { format, reason: e.to_string() })
}

/// Parameter values travel in the escaping of TabSeparated.
fn escape_param(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('\t', "\\t")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\0', "\\0")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let client = Client::new("http://me:secret@db.example:8123/").unwrap();
        assert_eq!(client.url(), "http://db.example:8123");
        assert_eq!(client.user, Some(("me".into(), "secret".into())));
        for bad in ["db:8123", "https://x", "http://", "http://a b"] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn params_are_escaped() {
        assert_eq!(escape_param("a\\b\tc\n"), "a\\\\b\\tc\\n");
    }
}

//! One trace, and the traces of a time.

use super::stored::{self, Stored};
use super::{BadQuestion, Conditions, Query, Range, ServerFilter, row_limit};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use wirespan_controller::Names;
use wirespan_stitch::assemble::MAX_SPANS;
use wirespan_stitch::{SpanRow, SummaryRoot, TraceSummary};
use wirespan_store::{RowReader, StoreError};

/// The key of a row's trace, also of rows that were alone.
const KEY: &str = "if(l.trace_key = 0, l.id, l.trace_key)";

/// Which traces are asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TraceParams {
    /// Row id of a span: its trace, instead of a list.
    pub span: Option<u64>,
    /// Server that is part of it: IP, IP:PORT, NAME, NAME:PORT or what a UNIX socket is bound to.
    pub service: Option<String>,
    /// Least duration in microseconds of one of its requests.
    pub min_duration_us: Option<u64>,
    /// Traces at most.
    pub limit: Option<u32>,
}

/// Two keys of one trace.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct MergeRow {
    /// What was asked for.
    pub trace_key: u64,
    /// Where it leads.
    pub other: u64,
}

/// The trace of a row.
#[derive(Clone, Debug, Deserialize)]
pub struct KeyRow {
    /// Its key.
    pub trace_key: u64,
    /// Of headers; empty without.
    pub trace_id: String,
}

fn list(numbers: impl IntoIterator<Item = u64>) -> String {
    let texts: Vec<_> = numbers.into_iter().map(|n| n.to_string()).collect();
    texts.join(",")
}

fn plain(sql: String) -> Query {
    Query { sql, params: Vec::new() }
}

/// What keys are merged with.
pub fn merges_query(keys: &BTreeSet<u64>) -> Query {
    let keys = list(keys.iter().copied());
    plain(format!("SELECT DISTINCT trace_key, other FROM trace_merges WHERE trace_key IN ({keys})"))
}

/// The rows with these keys, one more than a trace may have; read by [`stored::rows`], as those of the next two.
pub fn rows_query(keys: &BTreeSet<u64>) -> Query {
    let (what, keys, limit) = (stored::of_trace_log(), list(keys.iter().copied()), MAX_SPANS + 1);
    plain(format!(
        "SELECT {what} FROM trace_log WHERE trace_key IN ({keys}) ORDER BY start_time LIMIT {limit}"
    ))
}

/// Rows by their ids: those that were written before it was known that they are not alone.
pub fn lone_rows_query(ids: &BTreeSet<u64>) -> Query {
    let (what, ids) = (stored::of_l7_log(), list(ids.iter().copied()));
    plain(format!("SELECT {what} FROM l7_log WHERE id IN ({ids})"))
}

/// Rows with a trace id that are older than keys of traces.
pub fn old_rows_query(trace_id: &str) -> Query {
    let sql = format!(
        "SELECT {} FROM l7_log WHERE trace_id = {{trace_id:String}} AND trace_key = 0 ORDER BY start_time LIMIT {}",
        stored::of_l7_log(),
        MAX_SPANS + 1
    );
    Query { sql, params: vec![("trace_id".into(), trace_id.into())] }
}

/// The traces that rows are part of.
pub fn keys_query(ids: &BTreeSet<u64>) -> Query {
    let ids = list(ids.iter().copied());
    plain(format!(
        "SELECT DISTINCT {KEY} AS trace_key, l.trace_id AS trace_id FROM l7_log AS l WHERE l.id IN ({ids})"
    ))
}

/// The keys of the latest traces.
pub fn latest_query(params: &TraceParams, range: Range, names: &Names) -> Result<Query, BadQuestion> {
    let mut conditions = Conditions::range_of(
        "l.traced AND l.start_time >= toDateTime64({from:UInt32}, 9) AND l.start_time < toDateTime64({to:UInt32}, 9)",
        range,
    );
    if let Some(service) = params.service.as_deref().filter(|s| !s.is_empty()) {
        ServerFilter::parse(service, names)?.add_to(&mut conditions);
    }
    if let Some(least) = params.min_duration_us {
        conditions.add("l.duration_us >= {min_duration:UInt64}", &[("min_duration", least.to_string())]);
    }
    let sql = format!(
        "SELECT l.trace_key AS trace_key, l.trace_id AS trace_id FROM l7_log AS l WHERE {} ORDER BY l.start_time DESC LIMIT 1 BY l.trace_key LIMIT {}",
        conditions.sql.join(" AND "),
        row_limit(params.limit)
    );
    Ok(Query { sql, params: conditions.params })
}

/// What is listed of the rows with one key.
#[derive(Clone, Debug)]
pub struct SummaryRow {
    trace_key: u64,
    start_ns: u64,
    end_ns: u64,
    spans: u64,
    errors: u64,
    trace_id: Option<String>,
    /// The first of them.
    root: Stored,
    /// What a UNIX socket is bound to, else empty; address and port.
    servers: Vec<(String, IpAddr, u16)>,
}

impl SummaryRow {
    /// The id of the first of them where only `l7_log` has it.
    pub fn lone_root(&self) -> Option<u64> {
        match self.root {
            Stored::Row(_) => None,
            Stored::Id(id) => Some(id),
        }
    }

    /// Takes the first of them from these rows of `l7_log`.
    pub fn complete(&mut self, rows: &[SpanRow]) {
        let Some(id) = self.lone_root().map(|id| id.to_string()) else { return };
        if let Some(row) = rows.iter().find(|row| row.id == id) {
            self.root = Stored::Row(Box::new(row.clone()));
        }
    }
}

/// What is listed of traces; read by [`summary_rows`].
pub fn summaries_query(keys: &BTreeSet<u64>) -> Query {
    let keys = list(keys.iter().copied());
    plain(format!(
        "SELECT trace_key, min(start_time), max(end_time), count(), countIf(is_error), anyIf(trace_id, trace_id != ''), \
         argMin(row, (start_time, -toUnixTimestamp64Nano(end_time))), arraySort(groupUniqArray(100)((unix_name, server_ip, server_port))) \
         FROM trace_log WHERE trace_key IN ({keys}) GROUP BY trace_key"
    ))
}

/// The answer to [`summaries_query`] in RowBinary.
pub fn summary_rows(answer: &[u8]) -> Result<Vec<SummaryRow>, StoreError> {
    let mut from = RowReader::new(answer);
    let mut rows = Vec::new();
    while !from.is_empty() {
        rows.push(SummaryRow {
            trace_key: from.u64()?,
            start_ns: from.nanos()?,
            end_ns: from.nanos()?,
            spans: from.u64()?,
            errors: from.u64()?,
            trace_id: from.some_text()?,
            root: stored::row(from.bytes()?)?,
            servers: (0..from.count()?)
                .map(|_| Ok((from.text()?, from.ip()?, from.u16()?)))
                .collect::<Result<_, StoreError>>()?,
        });
    }
    Ok(rows)
}

/// The traces of the rows, the latest first. `trace_of` gives the one key of each trace.
pub fn summaries(rows: Vec<SummaryRow>, trace_of: impl Fn(u64) -> u64, names: &Names) -> Vec<TraceSummary> {
    let mut traces: BTreeMap<u64, Vec<SummaryRow>> = BTreeMap::new();
    for row in rows {
        traces.entry(trace_of(row.trace_key)).or_default().push(row);
    }
    let mut all: Vec<_> = traces.into_iter().filter_map(|(key, rows)| summary(key, &rows, names)).collect();
    all.sort_by(|a, b| (b.start_ns, &b.trace_key).cmp(&(a.start_ns, &a.trace_key)));
    all
}

fn summary(key: u64, rows: &[SummaryRow], names: &Names) -> Option<TraceSummary> {
    let first = rows.iter().min_by_key(|row| (row.start_ns, std::cmp::Reverse(row.end_ns)))?;
    let end_ns = rows.iter().map(|row| row.end_ns).max()?;
    let name = |ip: IpAddr, port: u16| match names.lookup(ip) {
        Some(name) => format!("{name}:{port}"),
        None => SocketAddr::from((ip, port)).to_string(),
    };
    // A row that is not in the store yet, or any more, has no trace to list.
    let Stored::Row(root) = &first.root else { return None };
    let server = match (root.unix_name(), root.server_ip.parse()) {
        (Some(name), _) => name.to_owned(),
        (None, Ok(ip)) => name(ip, root.server_port),
        (None, Err(_)) => root.server_ip.clone(),
    };
    let trace_key = format!("{key:016x}");
    let servers = rows.iter().flat_map(|row| &row.servers);
    let services: BTreeSet<_> = servers
        .map(|(unix, ip, port)| if unix.is_empty() { name(*ip, *port) } else { unix.clone() })
        .collect();
    Some(TraceSummary {
        trace_id: rows.iter().find_map(|row| row.trace_id.clone()).unwrap_or_else(|| trace_key.clone()),
        trace_key,
        start_ns: first.start_ns,
        duration_us: end_ns.saturating_sub(first.start_ns) / 1000,
        spans: rows.iter().map(|row| row.spans).sum(),
        errors: rows.iter().map(|row| row.errors).sum(),
        root: SummaryRoot {
            id: root.id.clone(),
            l7_protocol: root.l7_protocol.clone(),
            request_type: root.request_type.clone(),
            endpoint: root.endpoint.clone(),
            server,
            response_status: root.response_status.clone(),
            response_code: root.response_code,
        },
        services: services.into_iter().collect(),
    })
}

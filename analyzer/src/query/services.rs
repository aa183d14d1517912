//! RED per service: rate, errors and duration by server address, port and protocol; of UNIX sockets, by name and network namespace.

use super::{Query, Range, VANTAGE, name_of, port_name_of, ratio};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wirespan_controller::Names;

/// Services in an answer at most, those with most requests.
const MAX_SERVICES: u32 = 1000;

/// A service that has just begun is rated over so many seconds at least, so that one request is no burst.
const MIN_RATE_SECONDS: u32 = 10;

/// Points of a series over the range.
const SERIES_POINTS: u32 = 30;

/// A server port that spoke one protocol, as it comes from the store.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceRow {
    server_ip: String,
    server_port: u16,
    #[serde(flatten)]
    unix: UnixRow,
    protocol: String,
    l7_protocol: String,
    #[serde(flatten)]
    red: RedRow,
    requests_by_step: BTreeMap<u32, u64>,
    errors_by_step: BTreeMap<u32, u64>,
}

/// What tells the server's UNIX socket from others, empty for other sockets, as it comes from the store.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(default)]
pub struct UnixRow {
    unix_name: String,
    unix_netns: u32,
    server_process: String,
}

/// A server behind a UNIX socket.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Unix {
    /// Inode of the network namespace of who connected.
    pub netns: u32,
    /// Name of the server's process, where that was seen.
    pub process: Option<String>,
}

impl UnixRow {
    /// The name of the socket.
    pub(super) fn name(&self) -> Option<String> {
        Some(self.unix_name.clone()).filter(|name| !name.is_empty())
    }

    pub(super) fn unix(self) -> Option<Unix> {
        let process = Some(self.server_process).filter(|process| !process.is_empty());
        (!self.unix_name.is_empty()).then_some(Unix { netns: self.unix_netns, process })
    }
}

/// Sums over the requests of a service or an edge, as they come from the store.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RedRow {
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    timeouts: u64,
    request_bytes: u64,
    response_bytes: u64,
    /// 0 where no request was answered.
    quantiles_us: [f64; 3],
    max_us: u64,
    first_s: u32,
    last_s: u32,
}

/// Rate, errors and duration.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub struct Red {
    /// Requests in the range.
    pub requests: u64,
    /// Requests per second, since the first request where that is in the range.
    pub rate: f64,
    /// Requests that failed: client and server errors and timeouts.
    pub errors: u64,
    /// Failed requests of all.
    pub error_ratio: f64,
    /// Answers that blame the client.
    pub client_errors: u64,
    /// Answers that blame the server.
    pub server_errors: u64,
    /// Requests without an answer.
    pub timeouts: u64,
    /// Median response time in microseconds.
    pub p50_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Longest response time.
    pub max_us: u64,
    /// Bytes of request messages.
    pub request_bytes: u64,
    /// Bytes of response messages.
    pub response_bytes: u64,
    /// Last second with a request.
    pub last_s: u32,
}

/// A service.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// Server address.
    pub server_ip: String,
    /// Its name; what a UNIX socket is bound to.
    pub name: Option<String>,
    /// More of a UNIX socket.
    pub unix: Option<Unix>,
    /// Server port.
    pub server_port: u16,
    /// What the port is usually for.
    pub port_name: Option<&'static str>,
    /// L4 protocol.
    pub protocol: String,
    /// Application protocol.
    pub l7_protocol: String,
    /// Rate, errors and duration.
    #[serde(flatten)]
    pub red: Red,
    /// Requests by step of the range.
    pub requests_series: Vec<u64>,
    /// Failed requests by step of the range.
    pub errors_series: Vec<u64>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Services {
    /// First second of the range.
    pub from_s: u32,
    /// Second after the last.
    pub to_s: u32,
    /// Seconds per point of a series.
    pub step_s: u32,
    /// Those with most requests first.
    pub services: Vec<Service>,
    /// Where the range has no requests: the last second that has some.
    pub newest_s: Option<u32>,
}

impl RedRow {
    /// Derived values; `range` is what was asked for.
    pub(super) fn red(&self, range: Range) -> Red {
        let errors = self.client_errors + self.server_errors + self.timeouts;
        let active_s = range.to_s.saturating_sub(self.first_s).max(MIN_RATE_SECONDS).min(range.seconds());
        let [p50_us, p95_us, p99_us] = self.quantiles_us.map(|us| us as u64);
        Red {
            requests: self.requests,
            rate: self.requests as f64 / f64::from(active_s),
            errors,
            error_ratio: ratio(errors, self.requests).min(1.0),
            client_errors: self.client_errors,
            server_errors: self.server_errors,
            timeouts: self.timeouts,
            p50_us,
            p95_us,
            p99_us,
            max_us: self.max_us,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            last_s: self.last_s,
        }
    }
}

/// The sums that [`RedRow`] reads, over the rows of [`at_best_vantage`] as `t`.
pub(super) const RED_COLUMNS: &str = "sum(t.request) AS requests, sum(t.client_error) AS client_errors, \
     sum(t.server_error) AS server_errors, sum(t.timeout) AS timeouts, sum(t.request_bytes) AS request_bytes, \
     sum(t.response_bytes) AS response_bytes, \
     arrayMap(us -> ifNotFinite(us, 0), quantilesBFloat16Merge(0.5, 0.95, 0.99)(t.rrt_us_quantiles)) AS quantiles_us, \
     max(t.rrt_us_max) AS max_us, toUInt32(min(t.time)) AS first_s, toUInt32(max(t.time)) AS last_s";

/// The columns that [`UnixRow`] reads, with [`unix_servers`] as `u`.
pub(super) const UNIX_COLUMNS: &str =
    "t.unix_name AS unix_name, t.unix_netns AS unix_netns, any(u.server_process) AS server_process";

/// A subquery with the rows of each path and protocol from the vantage point that saw most of its requests. The rows are
/// chosen before anything else is added up, because merging quantile sketches is what costs.
pub(super) fn at_best_vantage(range: Range) -> String {
    const PATH: &str = "client_ip, server_ip, server_port, protocol, l7_protocol, unix_name, unix_netns";
    let table = range.table("path_metrics_1s", "path_metrics_1m");
    let in_range = "time >= toDateTime({from:UInt32}) AND time < toDateTime({to:UInt32})";
    format!(
        "SELECT {PATH}, time, request, client_error, server_error, timeout, request_bytes, response_bytes, rrt_us_max, \
         rrt_us_quantiles FROM {table} WHERE {in_range} AND ({PATH}, {VANTAGE}) IN ( \
         SELECT {PATH}, {VANTAGE} FROM {table} WHERE {in_range} GROUP BY {PATH}, {VANTAGE} \
         ORDER BY sum(request) DESC, {VANTAGE} LIMIT 1 BY {PATH})"
    )
}

/// A subquery with the processes behind UNIX sockets: one end alone knows.
pub(super) fn unix_servers(range: Range) -> String {
    let table = range.table("path_metrics_1s", "path_metrics_1m");
    format!(
        "SELECT unix_name, unix_netns, max(server_process) AS server_process FROM {table} \
         WHERE time >= toDateTime({{from:UInt32}}) AND time < toDateTime({{to:UInt32}}) AND unix_name != '' \
         GROUP BY unix_name, unix_netns"
    )
}

/// Seconds per point of a series.
fn step_s(range: Range) -> u32 {
    let step = range.seconds().div_ceil(SERIES_POINTS);
    if range.table("second", "minute") == "minute" { step.div_ceil(60) * 60 } else { step }
}

/// The question for all services of the range.
pub fn query(range: Range) -> Query {
    let by_step = |count: &str| {
        format!("sumMap(map(intDiv(toUInt32(t.time) - {{from:UInt32}}, {{step:UInt32}}), {count}))")
    };
    let requests_by_step = by_step("t.request");
    let errors_by_step = by_step("t.client_error + t.server_error + t.timeout");
    let (rows, servers) = (at_best_vantage(range), unix_servers(range));
    let sql = format!(
        "SELECT replaceOne(toString(t.server_ip), '::ffff:', '') AS server_ip, t.server_port AS server_port, \
         {UNIX_COLUMNS}, toString(t.protocol) AS protocol, toString(t.l7_protocol) AS l7_protocol, {RED_COLUMNS}, \
         {requests_by_step} AS requests_by_step, {errors_by_step} AS errors_by_step FROM ({rows}) AS t \
         LEFT JOIN ({servers}) AS u ON t.unix_name = u.unix_name AND t.unix_netns = u.unix_netns \
         GROUP BY t.server_ip, t.server_port, t.unix_name, t.unix_netns, t.protocol, t.l7_protocol \
         ORDER BY requests DESC, server_ip, server_port, unix_name, unix_netns, l7_protocol LIMIT {MAX_SERVICES}"
    );
    let mut params = range.params();
    params.push(("step".into(), step_s(range).to_string()));
    Query { sql, params }
}

/// Answer to [`newest_query`]; 0 when there are no requests at all.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct NewestRow {
    newest_s: u32,
}

impl NewestRow {
    /// The second.
    pub fn second(&self) -> Option<u32> {
        (self.newest_s > 0).then_some(self.newest_s)
    }
}

/// The question for the last second that has requests.
pub fn newest_query() -> Query {
    Query {
        sql: "SELECT toUInt32(toUnixTimestamp(max(start_time))) AS newest_s FROM l7_log".into(),
        params: Vec::new(),
    }
}

/// The answer to [`query`].
pub fn answer(rows: Vec<ServiceRow>, range: Range, newest_s: Option<u32>, names: &Names) -> Services {
    let step_s = step_s(range);
    let points = range.seconds().div_ceil(step_s);
    let dense = |by_step: &BTreeMap<u32, u64>| {
        (0..points).map(|point| by_step.get(&point).copied().unwrap_or(0)).collect()
    };
    let services = rows
        .into_iter()
        .map(|row| Service {
            name: row.unix.name().or_else(|| name_of(names, &row.server_ip)),
            unix: row.unix.unix(),
            port_name: port_name_of(&row.protocol, row.server_port),
            red: row.red.red(range),
            requests_series: dense(&row.requests_by_step),
            errors_series: dense(&row.errors_by_step),
            server_ip: row.server_ip,
            server_port: row.server_port,
            protocol: row.protocol,
            l7_protocol: row.l7_protocol,
        })
        .collect();
    Services { from_s: range.from_s, to_s: range.to_s, step_s, services, newest_s }
}

//! RED per service: rate, errors and duration by server address, port and protocol.

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
    protocol: String,
    l7_protocol: String,
    #[serde(flatten)]
    red: RedRow,
    requests_by_step: BTreeMap<u32, u64>,
    errors_by_step: BTreeMap<u32, u64>,
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
    /// Its name.
    pub name: Option<String>,
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
        let [p50_us, p95_us, p99_us] = self.quantiles_us.map(|q| if q.is_finite() { q as u64 } else { 0 });
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

/// The sums that [`RedRow`] reads, over rows that [`per_path`] made.
pub(super) const RED_COLUMNS: &str = "sum(path_request) AS requests, sum(path_client_error) AS client_errors, \
     sum(path_server_error) AS server_errors, sum(path_timeout) AS timeouts, sum(path_request_bytes) AS request_bytes, \
     sum(path_response_bytes) AS response_bytes, quantilesBFloat16Merge(0.5, 0.95, 0.99)(path_quantiles) AS quantiles_us, \
     max(path_max_us) AS max_us, toUInt32(min(path_first)) AS first_s, toUInt32(max(path_last)) AS last_s";

/// A subquery with one row per path and protocol, seen at the vantage point with most of its requests.
pub(super) fn per_path(range: Range, more_columns: &str) -> String {
    let table = range.table("app_metrics_1s", "app_metrics_1m");
    format!(
        "SELECT client_ip, server_ip, server_port, protocol, l7_protocol, {VANTAGE}, \
         sum(request) AS path_request, sum(client_error) AS path_client_error, sum(server_error) AS path_server_error, \
         sum(timeout) AS path_timeout, sum(request_bytes) AS path_request_bytes, \
         sum(response_bytes) AS path_response_bytes, max(rrt_us_max) AS path_max_us, min(time) AS path_first, \
         max(time) AS path_last, \
         quantilesBFloat16MergeState(0.5, 0.95, 0.99)(rrt_us_quantiles) AS path_quantiles{more_columns} \
         FROM {table} WHERE time >= toDateTime({{from:UInt32}}) AND time < toDateTime({{to:UInt32}}) \
         GROUP BY client_ip, server_ip, server_port, protocol, l7_protocol, {VANTAGE} \
         ORDER BY path_request DESC, {VANTAGE} LIMIT 1 BY client_ip, server_ip, server_port, protocol, l7_protocol"
    )
}

/// Seconds per point of a series.
fn step_s(range: Range) -> u32 {
    let step = range.seconds().div_ceil(SERIES_POINTS);
    if range.table("second", "minute") == "minute" { step.div_ceil(60) * 60 } else { step }
}

/// The question for all services of the range.
pub fn query(range: Range) -> Query {
    let series = ", sumMap(map(intDiv(toUInt32(time) - {from:UInt32}, {step:UInt32}), request)) AS path_requests, \
         sumMap(map(intDiv(toUInt32(time) - {from:UInt32}, {step:UInt32}), client_error + server_error + timeout)) \
         AS path_errors";
    let paths = per_path(range, series);
    let sql = format!(
        "SELECT replaceOne(toString(server_ip), '::ffff:', '') AS server_ip, server_port, toString(protocol) AS protocol, \
         toString(l7_protocol) AS l7_protocol, {RED_COLUMNS}, sumMap(path_requests) AS requests_by_step, \
         sumMap(path_errors) AS errors_by_step FROM ({paths}) GROUP BY server_ip, server_port, protocol, l7_protocol \
         ORDER BY requests DESC, server_ip, server_port, l7_protocol LIMIT {MAX_SERVICES}"
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
            name: name_of(names, &row.server_ip),
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

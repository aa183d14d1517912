//! Single requests, latest first.

use super::{
    BadQuestion, Conditions, IS_TAP, Query, Range, ServerFilter, TAP_COLUMNS, name_of, parse_cursor,
    row_limit,
};
use serde::{Deserialize, Serialize};
use wirespan_controller::Names;
use wirespan_stitch::SpanRow;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SpanParams {
    /// Application protocol, any case.
    pub l7_protocol: Option<String>,
    /// Server: IP, IP:PORT, NAME, NAME:PORT or what a UNIX socket is bound to.
    pub service: Option<String>,
    /// A status, or `error` for all that failed.
    pub status: Option<String>,
    /// Least duration in microseconds.
    pub min_duration_us: Option<u64>,
    /// Part of the endpoint, resource, domain or error text, any case.
    pub text: Option<String>,
    /// Trace the requests are part of.
    pub trace_id: Option<String>,
    /// Name or id of the tap that saw it.
    pub tap: Option<String>,
    /// Rows at most.
    pub limit: Option<u32>,
    /// `next` of the previous answer, or a time in ns.
    pub before: Option<String>,
}

/// A page of requests.
#[derive(Clone, Debug, Serialize)]
pub struct Spans {
    /// Latest first.
    pub spans: Vec<SpanRow>,
    /// `before` for the next page; absent on the last.
    pub next: Option<String>,
}

/// The tunnel of a row as a JSON object or null.
pub(super) const TUNNEL_COLUMN: &str = "if(tunnel_type = 'none', NULL, CAST((toString(tunnel_type), tunnel_id, \
     replaceOne(toString(tunnel_src), '::ffff:', ''), replaceOne(toString(tunnel_dst), '::ffff:', '')), \
     'Tuple(type String, id UInt32, outer_src String, outer_dst String)')) AS tunnel";

const COLUMNS: &str = "toString(id) AS id, toString(signal) AS signal, observation_point, \
     toUnixTimestamp64Nano(start_time) AS start_ns, toUnixTimestamp64Nano(end_time) AS end_ns, duration_us, \
     client AS client_ip, client_port, server AS server_ip, server_port, toString(protocol) AS protocol, \
     l7_protocol, nullIf(version, '') AS version, nullIf(request_type, '') AS request_type, \
     nullIf(request_domain, '') AS request_domain, nullIf(request_resource, '') AS request_resource, \
     nullIf(endpoint, '') AS endpoint, request_id, toString(response_status) AS response_status, response_code, \
     nullIf(response_exception, '') AS response_exception, nullIf(response_result, '') AS response_result, \
     request_bytes, response_bytes, affected_rows, nullIf(trace_id, '') AS trace_id, nullIf(span_id, '') AS span_id, \
     nullIf(x_request_id, '') AS x_request_id, req_tcp_seq, resp_tcp_seq, toString(session) AS session, truncated, \
     attributes, agent_id, leftPad(lower(hex(if(l.trace_key = 0, l.id, l.trace_key))), 16, '0') AS trace_key, \
     if(l.pid = 0, NULL, CAST((l.pid, toUnixTimestamp64Nano(process_start), process_name, executable, command, \
     nullIf(container_id, ''), nullIf(pod_uid, '')), 'Tuple(pid UInt32, start_ns UInt64, name String, executable String, \
     command String, container_id Nullable(String), pod_uid Nullable(String))')) AS process, \
     if(l.parent_id = 0, NULL, CAST((toString(parent_id), parent_rule, parent_confidence), \
     'Tuple(span String, rule String, confidence Float32)')) AS parent";

/// Where the tap is and what it mirrors: its place on a path.
const TAP_PLACE: &str = "nullIf(dictGet('wirespan.taps', 'kind', toUInt64(l.tap_id)), '') AS tap_kind, \
     nullIf(dictGet('wirespan.taps', 'site', toUInt64(l.tap_id)), '') AS tap_site";

/// All columns of a row of table `l` that is shown.
fn columns() -> String {
    format!("{COLUMNS}, {TUNNEL_COLUMN}, {TAP_COLUMNS}, {TAP_PLACE}")
}

fn select(conditions: Conditions, order_and_limit: &str) -> Query {
    // The rows are chosen on the table's own columns first; the text that is shown is made of the chosen ones only.
    let sql = format!(
        "SELECT {} FROM (SELECT *, client, server FROM l7_log AS l WHERE {} {order_and_limit}) AS l {}",
        columns(),
        conditions.sql.join(" AND "),
        order_and_limit.split(" LIMIT").next().unwrap_or_default()
    );
    Query { sql, params: conditions.params }
}

/// The question for a page of requests, and its number of rows.
pub fn query(params: &SpanParams, range: Range, names: &Names) -> Result<(Query, u32), BadQuestion> {
    let mut conditions = Conditions::range_of(
        "l.start_time >= toDateTime64({from:UInt32}, 9) AND l.start_time < toDateTime64({to:UInt32}, 9)",
        range,
    );
    conditions.add_text(
        "lower(l.l7_protocol) = lower({l7_protocol:String})",
        "l7_protocol",
        params.l7_protocol.as_ref(),
    );
    if let Some(service) = params.service.as_deref().filter(|s| !s.is_empty()) {
        ServerFilter::parse(service, names)?.add_to(&mut conditions);
    }
    match params.status.as_deref() {
        None | Some("") => {}
        Some("error") => {
            conditions.add("l.response_status IN ('client_error', 'server_error', 'timeout')", &[]);
        }
        Some(status @ ("ok" | "client_error" | "server_error" | "timeout" | "unknown")) => {
            conditions.add("l.response_status = {status:String}", &[("status", status.into())]);
        }
        Some(other) => return Err(BadQuestion::UnknownStatus(other.into())),
    }
    if let Some(least) = params.min_duration_us {
        conditions.add("l.duration_us >= {min_duration:UInt64}", &[("min_duration", least.to_string())]);
    }
    conditions.add_text(
        "(positionCaseInsensitiveUTF8(l.endpoint, {text:String}) > 0 \
         OR positionCaseInsensitiveUTF8(l.request_resource, {text:String}) > 0 \
         OR positionCaseInsensitiveUTF8(l.request_domain, {text:String}) > 0 \
         OR positionCaseInsensitiveUTF8(l.response_exception, {text:String}) > 0)",
        "text",
        params.text.as_ref(),
    );
    conditions.add_text("l.trace_id = {trace_id:String}", "trace_id", params.trace_id.as_ref());
    conditions.add_text(IS_TAP, "tap", params.tap.as_ref());
    if let Some(before) = params.before.as_deref() {
        let (time, id) = parse_cursor(before)?;
        conditions.add(
            "(l.start_time, l.id) < (fromUnixTimestamp64Nano({before_ns:Int64}), {before_id:UInt64})",
            &[("before_ns", time.to_string()), ("before_id", id.to_string())],
        );
    }
    let limit = row_limit(params.limit);
    let order = format!("ORDER BY l.start_time DESC, l.id DESC LIMIT {limit}");
    Ok((select(conditions, &order), limit))
}

/// The answer to [`query`].
pub fn answer(rows: Vec<SpanRow>, limit: u32, names: &Names) -> Spans {
    let next = rows.last().filter(|_| rows.len() as u32 == limit).map(|r| format!("{}.{}", r.start_ns, r.id));
    Spans { spans: named(rows, names), next }
}

/// Rows with the names of their addresses.
pub fn named(mut rows: Vec<SpanRow>, names: &Names) -> Vec<SpanRow> {
    for row in &mut rows {
        row.client_name = name_of(names, &row.client_ip);
        row.server_name = match row.unix_name() {
            Some(name) => Some(name.to_owned()),
            None => name_of(names, &row.server_ip),
        };
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_conditions_with_parameters() {
        let params = SpanParams {
            service: Some("10.0.0.1:80".into()),
            status: Some("error".into()),
            text: Some("' OR 1=1 --".into()),
            min_duration_us: Some(5),
            before: Some("17.3".into()),
            limit: Some(9999),
            ..SpanParams::default()
        };
        let (query, limit) = query(&params, Range { from_s: 1, to_s: 2 }, &Names::default()).unwrap();
        assert_eq!(limit, 1000);
        assert!(!query.sql.contains("1=1"));
        let names: Vec<_> = query.params.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["from", "to", "server_ips", "server_port", "min_duration", "text", "before_ns", "before_id"]
        );
        for name in names {
            assert!(query.sql.contains(&format!("{{{name}:")), "{name}");
        }
    }

    #[test]
    fn unknown_values_are_refused() {
        let range = Range { from_s: 1, to_s: 2 };
        let ask = |params: SpanParams| query(&params, range, &Names::default()).map(|_| ());
        let status = SpanParams { status: Some("bad".into()), ..SpanParams::default() };
        assert_eq!(ask(status), Err(BadQuestion::UnknownStatus("bad".into())));
        let before = SpanParams { before: Some("yesterday".into()), ..SpanParams::default() };
        assert_eq!(ask(before), Err(BadQuestion::BadCursor("yesterday".into())));
    }
}

//! Single flows, latest first.

use super::spans::TUNNEL_COLUMN;
use super::{
    BadQuestion, Conditions, IS_TAP, Query, Range, ServerFilter, TAP_COLUMNS, name_of, parse_cursor,
    row_limit,
};
use serde::{Deserialize, Serialize};
use wirespan_controller::Names;
use wirespan_stitch::TunnelRow;

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FlowParams {
    /// L4 protocol: tcp, udp, ...
    pub protocol: Option<String>,
    /// Application protocol, any case.
    pub l7_protocol: Option<String>,
    /// Server: IP, IP:PORT, NAME or NAME:PORT.
    pub service: Option<String>,
    /// How the flow ended, such as `server_reset`.
    pub close_type: Option<String>,
    /// Least duration in microseconds.
    pub min_duration_us: Option<u64>,
    /// Name or id of the tap that saw it.
    pub tap: Option<String>,
    /// Rows at most.
    pub limit: Option<u32>,
    /// `next` of the previous answer, or a time in ns.
    pub before: Option<String>,
}

/// A flow; the fields are those of `wirespan replay`, and the id of the row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowRow {
    id: String,
    flow_id: String,
    start_ns: u64,
    end_ns: u64,
    duration_us: u64,
    observation_point: String,
    client_ip: String,
    #[serde(default)]
    client_name: Option<String>,
    client_port: u16,
    server_ip: String,
    #[serde(default)]
    server_name: Option<String>,
    server_port: u16,
    protocol: String,
    tunnel: Option<TunnelRow>,
    tap_id: Option<u16>,
    tap: Option<String>,
    vlan: Option<u16>,
    packet_tx: u64,
    packet_rx: u64,
    byte_tx: u64,
    byte_rx: u64,
    l3_byte_tx: u64,
    l3_byte_rx: u64,
    l4_byte_tx: u64,
    l4_byte_rx: u64,
    tcp_flags_tx: u8,
    tcp_flags_rx: u8,
    syn_count: u32,
    synack_count: u32,
    fin_count: u32,
    retrans_tx: u32,
    retrans_rx: u32,
    retrans_syn: u32,
    retrans_synack: u32,
    ooo_tx: u32,
    ooo_rx: u32,
    zero_win_tx: u32,
    zero_win_rx: u32,
    rtt_us: Option<u32>,
    rtt_client_us: Option<u32>,
    rtt_server_us: Option<u32>,
    srt_us_max: u32,
    srt_us_sum: u64,
    srt_count: u32,
    art_us_max: u32,
    art_us_sum: u64,
    art_count: u32,
    cit_us_max: u32,
    cit_us_sum: u64,
    cit_count: u32,
    close_type: String,
    is_new: bool,
    l7_protocol: Option<String>,
    l7_request: u32,
    l7_response: u32,
    l7_error: u32,
    l7_timeout: u32,
}

/// A page of flows.
#[derive(Clone, Debug, Serialize)]
pub struct Flows {
    /// Latest first.
    pub flows: Vec<FlowRow>,
    /// `before` for the next page; absent on the last.
    pub next: Option<String>,
}

const COLUMNS: &str = "toString(id) AS id, toString(flow_id) AS flow_id, \
     toUnixTimestamp64Nano(start_time) AS start_ns, toUnixTimestamp64Nano(end_time) AS end_ns, duration_us, \
     observation_point, client AS client_ip, client_port, server AS server_ip, server_port, \
     toString(protocol) AS protocol, vlan, packet_tx, packet_rx, byte_tx, byte_rx, l3_byte_tx, l3_byte_rx, l4_byte_tx, \
     l4_byte_rx, tcp_flags_tx, tcp_flags_rx, syn_count, synack_count, fin_count, retrans_tx, retrans_rx, retrans_syn, \
     retrans_synack, ooo_tx, ooo_rx, zero_win_tx, zero_win_rx, rtt_us, rtt_client_us, rtt_server_us, srt_us_max, \
     srt_us_sum, srt_count, art_us_max, art_us_sum, art_count, cit_us_max, cit_us_sum, cit_count, \
     toString(close_type) AS close_type, is_new, nullIf(l7_protocol, '') AS l7_protocol, l7_request, l7_response, \
     l7_error, l7_timeout";

/// The question for a page of flows that began in the range, and its number of rows.
pub fn query(params: &FlowParams, range: Range, names: &Names) -> Result<(Query, u32), BadQuestion> {
    let mut conditions = Conditions::range_of(
        "l.start_time >= toDateTime64({from:UInt32}, 9) AND l.start_time < toDateTime64({to:UInt32}, 9)",
        range,
    );
    conditions.add_text(
        "toString(l.protocol) = lower({protocol:String})",
        "protocol",
        params.protocol.as_ref(),
    );
    conditions.add_text(
        "lower(l.l7_protocol) = lower({l7_protocol:String})",
        "l7_protocol",
        params.l7_protocol.as_ref(),
    );
    conditions.add_text(
        "toString(l.close_type) = {close_type:String}",
        "close_type",
        params.close_type.as_ref(),
    );
    if let Some(service) = params.service.as_deref().filter(|s| !s.is_empty()) {
        match ServerFilter::parse(service, names)? {
            // What goes over UNIX sockets is no flow.
            ServerFilter::Unix(_) => conditions.add("false", &[]),
            at => at.add_to(&mut conditions),
        }
    }
    if let Some(least) = params.min_duration_us {
        conditions.add("l.duration_us >= {min_duration:UInt64}", &[("min_duration", least.to_string())]);
    }
    conditions.add_text(IS_TAP, "tap", params.tap.as_ref());
    if let Some(before) = params.before.as_deref() {
        let (time, id) = parse_cursor(before)?;
        conditions.add(
            "(l.start_time, l.id) < (fromUnixTimestamp64Nano({before_ns:Int64}), {before_id:UInt64})",
            &[("before_ns", time.to_string()), ("before_id", id.to_string())],
        );
    }
    let limit = row_limit(params.limit);
    let sql = format!(
        "SELECT {COLUMNS}, {TUNNEL_COLUMN}, {TAP_COLUMNS} FROM (SELECT *, client, server, l7_error FROM flow_log AS l WHERE {} \
         ORDER BY l.start_time DESC, l.id DESC LIMIT {limit}) AS l ORDER BY l.start_time DESC, l.id DESC",
        conditions.sql.join(" AND ")
    );
    Ok((Query { sql, params: conditions.params }, limit))
}

/// The answer to [`query`].
pub fn answer(mut rows: Vec<FlowRow>, limit: u32, names: &Names) -> Flows {
    let next = rows.last().filter(|_| rows.len() as u32 == limit).map(|r| format!("{}.{}", r.start_ns, r.id));
    for row in &mut rows {
        row.client_name = name_of(names, &row.client_ip);
        row.server_name = name_of(names, &row.server_ip);
    }
    Flows { flows: rows, next }
}

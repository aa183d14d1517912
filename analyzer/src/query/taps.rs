//! The taps, and what came from each.

use super::{Query, Range};
use serde::{Deserialize, Serialize};

/// A tap, and what it saw in the range.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TapRow {
    /// As in records.
    id: u16,
    name: String,
    kind: String,
    device: String,
    port: String,
    site: String,
    /// From clients to servers.
    packet_tx: u64,
    /// From servers to clients; when one of the two is 0, the tap sees one direction only.
    packet_rx: u64,
    byte_tx: u64,
    byte_rx: u64,
    new_flows: u64,
    requests: u64,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Taps {
    /// First second of the range.
    pub from_s: u32,
    /// Second after the last.
    pub to_s: u32,
    /// By id; also those that the taps file does not name any more, as far as something came from them.
    pub taps: Vec<TapRow>,
}

/// The question for all taps.
pub fn query(range: Range) -> Query {
    let table = range.table("net_metrics_1s", "net_metrics_1m");
    let sql = format!(
        "SELECT toUInt16(if(n.id = 0, m.id, n.id)) AS id, n.name AS name, n.kind AS kind, n.device AS device, \
         n.port AS port, n.site AS site, packet_tx, packet_rx, byte_tx, byte_rx, new_flows, requests \
         FROM (SELECT * FROM wirespan.taps) AS n FULL JOIN (SELECT toUInt64(tap_id) AS id, \
         sum(t.packet_tx) AS packet_tx, sum(t.packet_rx) AS packet_rx, sum(t.byte_tx) AS byte_tx, \
         sum(t.byte_rx) AS byte_rx, sum(t.new_flow) AS new_flows, sum(t.l7_request) AS requests FROM {table} AS t \
         WHERE time >= toDateTime({{from:UInt32}}) AND time < toDateTime({{to:UInt32}}) AND tap_id != 0 \
         GROUP BY tap_id) AS m ON n.id = m.id ORDER BY id"
    );
    Query { sql, params: range.params() }
}

/// The answer to [`query`].
pub fn answer(taps: Vec<TapRow>, range: Range) -> Taps {
    Taps { from_s: range.from_s, to_s: range.to_s, taps }
}

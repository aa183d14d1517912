//! The service map: which client address calls which server port, with requests and traffic.

use super::services::{RED_COLUMNS, Red, RedRow, UNIX_COLUMNS, Unix, UnixRow, at_best_vantage, unix_servers};
use super::{Query, Range, VANTAGE, name_of, port_name_of, ratio};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use wirespan_controller::Names;

/// Edges in an answer at most, those with most requests and then most bytes.
const MAX_EDGES: usize = 500;

/// Who calls whom.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    client_ip: String,
    server_ip: String,
    server_port: u16,
    protocol: String,
    #[serde(flatten)]
    unix: UnixRow,
}

/// Requests of one path and protocol, as they come from the store.
#[derive(Clone, Debug, Deserialize)]
pub struct RequestsRow {
    #[serde(flatten)]
    path: Path,
    l7_protocols: Vec<String>,
    #[serde(flatten)]
    red: RedRow,
}

/// Traffic of one path, as it comes from the store.
#[derive(Clone, Debug, Deserialize)]
pub struct TrafficRow {
    #[serde(flatten)]
    path: Path,
    #[serde(flatten)]
    traffic: Traffic,
    rtt_us_sum: u64,
    rtt_count: u64,
}

/// What was sent over an edge, tx from client to server.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes to the server.
    pub byte_tx: u64,
    /// Bytes to the client.
    pub byte_rx: u64,
    /// Packets to the server.
    pub packet_tx: u64,
    /// Packets to the client.
    pub packet_rx: u64,
    /// Retransmissions in both directions.
    pub retrans: u64,
    /// New flows.
    pub new_flows: u64,
    /// Flows that could not be established.
    pub establish_fail: u64,
    /// Established flows that broke.
    pub transfer_fail: u64,
}

/// A client address that calls a server port.
#[derive(Clone, Debug, Serialize)]
pub struct Edge {
    /// Client address.
    pub client_ip: String,
    /// Its name.
    pub client_name: Option<String>,
    /// Server address.
    pub server_ip: String,
    /// Its name; what a UNIX socket is bound to.
    pub server_name: Option<String>,
    /// More of a UNIX socket.
    pub unix: Option<Unix>,
    /// Server port.
    pub server_port: u16,
    /// What the port is usually for.
    pub port_name: Option<&'static str>,
    /// L4 protocol.
    pub protocol: String,
    /// Application protocols that were spoken.
    pub l7_protocols: Vec<String>,
    /// Rate, errors and duration.
    #[serde(flatten)]
    pub red: Red,
    /// Bytes, packets and failures of the flows.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Retransmissions of all packets.
    pub retrans_ratio: f64,
    /// Mean handshake round trip in microseconds; absent when no handshake was seen.
    pub rtt_us: Option<u64>,
}

/// An address on the map.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Node {
    /// The address.
    pub ip: String,
    /// Its name.
    pub name: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Map {
    /// First second of the range.
    pub from_s: u32,
    /// Second after the last.
    pub to_s: u32,
    /// Addresses.
    pub nodes: Vec<Node>,
    /// Who calls whom.
    pub edges: Vec<Edge>,
    /// More edges than an answer holds were left out.
    pub truncated: bool,
}

const PATH_COLUMNS: &str = "replaceOne(toString(client_ip), '::ffff:', '') AS client_ip, \
     replaceOne(toString(server_ip), '::ffff:', '') AS server_ip, server_port, toString(protocol) AS protocol";

/// The question for the requests of each path.
pub fn requests_query(range: Range) -> Query {
    let (rows, servers) = (at_best_vantage(range), unix_servers(range));
    let sql = format!(
        "SELECT replaceOne(toString(t.client_ip), '::ffff:', '') AS client_ip, \
         replaceOne(toString(t.server_ip), '::ffff:', '') AS server_ip, t.server_port AS server_port, \
         {UNIX_COLUMNS}, toString(t.protocol) AS protocol, arraySort(groupUniqArray(toString(t.l7_protocol))) AS l7_protocols, \
         {RED_COLUMNS} FROM ({rows}) AS t LEFT JOIN ({servers}) AS u ON t.unix_name = u.unix_name AND t.unix_netns = u.unix_netns \
         GROUP BY t.client_ip, t.server_ip, t.server_port, t.unix_name, t.unix_netns, t.protocol \
         ORDER BY requests DESC LIMIT {}",
        MAX_EDGES + 1
    );
    Query { sql, params: range.params() }
}

/// The question for the traffic of each path.
pub fn traffic_query(range: Range) -> Query {
    let table = range.table("net_metrics_1s", "net_metrics_1m");
    let sql = format!(
        "SELECT {PATH_COLUMNS}, byte_tx, byte_rx, packet_tx, packet_rx, retrans, new_flows, establish_fail, \
         transfer_fail, rtt_us_sum, rtt_count FROM ( \
         SELECT client_ip, server_ip, server_port, protocol, {VANTAGE}, sum(t.byte_tx) AS byte_tx, \
         sum(t.byte_rx) AS byte_rx, sum(t.packet_tx) AS packet_tx, sum(t.packet_rx) AS packet_rx, \
         sum(t.retrans_tx + t.retrans_rx) AS retrans, sum(t.new_flow) AS new_flows, \
         sum(t.client_establish_fail + t.server_establish_fail) AS establish_fail, \
         sum(t.transfer_fail) AS transfer_fail, sum(t.rtt_us_sum) AS rtt_us_sum, sum(t.rtt_count) AS rtt_count \
         FROM {table} AS t WHERE time >= toDateTime({{from:UInt32}}) AND time < toDateTime({{to:UInt32}}) \
         GROUP BY client_ip, server_ip, server_port, protocol, {VANTAGE} ORDER BY packet_tx + packet_rx DESC, {VANTAGE} \
         LIMIT 1 BY client_ip, server_ip, server_port, protocol) ORDER BY byte_tx + byte_rx DESC LIMIT {}",
        MAX_EDGES + 1
    );
    Query { sql, params: range.params() }
}

/// The answer from both.
pub fn answer(requests: Vec<RequestsRow>, traffic: Vec<TrafficRow>, range: Range, names: &Names) -> Map {
    let mut truncated = requests.len() > MAX_EDGES || traffic.len() > MAX_EDGES;
    let mut traffic: BTreeMap<Path, TrafficRow> =
        traffic.into_iter().map(|row| (row.path.clone(), row)).collect();
    let mut edges: Vec<Edge> = requests
        .into_iter()
        .map(|row| edge(&row.path, row.l7_protocols, row.red.red(range), traffic.remove(&row.path), names))
        .collect();
    edges.extend(
        traffic.into_iter().map(|(path, row)| edge(&path, Vec::new(), Red::default(), Some(row), names)),
    );
    let weight = |e: &Edge| (e.red.requests, e.traffic.byte_tx + e.traffic.byte_rx);
    edges.sort_by_key(|e| std::cmp::Reverse(weight(e)));
    truncated |= edges.len() > MAX_EDGES;
    edges.truncate(MAX_EDGES);

    // Names of UNIX sockets are many at one address, which is none.
    let mut nodes: BTreeSet<(&String, Option<&String>)> = BTreeSet::new();
    for edge in &edges {
        nodes.insert((&edge.client_ip, edge.client_name.as_ref()));
        nodes.insert((&edge.server_ip, edge.server_name.as_ref()));
    }
    let nodes = nodes.into_iter().map(|(ip, name)| Node { ip: ip.clone(), name: name.cloned() }).collect();
    Map { from_s: range.from_s, to_s: range.to_s, nodes, edges, truncated }
}

fn edge(
    path: &Path,
    l7_protocols: Vec<String>,
    red: Red,
    traffic: Option<TrafficRow>,
    names: &Names,
) -> Edge {
    let (traffic, rtt) =
        traffic.map_or((Traffic::default(), (0, 0)), |row| (row.traffic, (row.rtt_us_sum, row.rtt_count)));
    Edge {
        client_name: name_of(names, &path.client_ip),
        server_name: path.unix.name().or_else(|| name_of(names, &path.server_ip)),
        unix: path.unix.clone().unix(),
        port_name: port_name_of(&path.protocol, path.server_port),
        client_ip: path.client_ip.clone(),
        server_ip: path.server_ip.clone(),
        server_port: path.server_port,
        protocol: path.protocol.clone(),
        l7_protocols,
        red,
        retrans_ratio: ratio(traffic.retrans, traffic.packet_tx + traffic.packet_rx),
        rtt_us: rtt.0.checked_div(rtt.1),
        traffic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_traffic_of_a_path_become_one_edge() {
        let path = |client: &str| serde_json::json!({"client_ip": client, "server_ip": "10.0.0.2", "server_port": 80, "protocol": "tcp"});
        let with = |mut path: serde_json::Value, more: serde_json::Value| {
            path.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            path
        };
        let requests = serde_json::from_value(with(
            path("10.0.0.1"),
            serde_json::json!({"l7_protocols": ["HTTP"], "requests": 20, "client_errors": 1, "server_errors": 2, "timeouts": 1,
                "request_bytes": 1, "response_bytes": 2, "quantiles_us": [1.0, 2.0, 3.0], "max_us": 4, "first_s": 95, "last_s": 99}),
        ));
        let traffic = |client| {
            serde_json::from_value(with(
                path(client),
                serde_json::json!({"byte_tx": 5, "byte_rx": 6, "packet_tx": 3, "packet_rx": 1, "retrans": 1, "new_flows": 1,
                    "establish_fail": 0, "transfer_fail": 0, "rtt_us_sum": 30, "rtt_count": 2}),
            ))
        };
        let mut names = Names::default();
        names.add_text("10.0.0.2 web\n");
        let range = Range { from_s: 0, to_s: 100 };
        let map = answer(
            vec![requests.unwrap()],
            vec![traffic("10.0.0.9").unwrap(), traffic("10.0.0.1").unwrap()],
            range,
            &names,
        );
        assert_eq!(
            map.nodes.iter().map(|n| n.ip.as_str()).collect::<Vec<_>>(),
            ["10.0.0.1", "10.0.0.2", "10.0.0.9"]
        );
        let [http, plain] = map.edges.as_slice() else { panic!("{:?}", map.edges) };
        assert_eq!((http.red.rate, http.red.errors, http.red.error_ratio), (2.0, 4, 0.2));
        assert_eq!((http.traffic.byte_tx, http.rtt_us, http.retrans_ratio), (5, Some(15), 0.25));
        assert_eq!((http.server_name.as_deref(), http.port_name), (Some("web"), Some("http")));
        assert_eq!((plain.client_ip.as_str(), plain.red.requests), ("10.0.0.9", 0));
        assert!(plain.l7_protocols.is_empty() && !map.truncated);
    }
}

//! Which field of a record goes into which column.

use super::native::*;
use super::trace_row::TraceRows;
use super::{NetMetrics, Stat};
use wirespan_records::{
    CloseType, Flow, L4Protocol, L7Protocol, Latency, Process, ResponseStatus, Session, Signal, Span,
    TraceKey, Tunnel, TunnelKind, next_id,
};

/// Numbers of the Enum8 `protocol` in the schema.
pub(super) fn protocol(p: L4Protocol) -> i8 {
    match p {
        L4Protocol::Other(_) => 0,
        L4Protocol::Tcp => 1,
        L4Protocol::Udp => 2,
        L4Protocol::Sctp => 3,
        L4Protocol::Icmp => 4,
        L4Protocol::Icmpv6 => 5,
    }
}

/// Numbers of the Enum8 `tunnel_type`.
pub(super) fn tunnel_type(t: &Option<Tunnel>) -> i8 {
    match t.map(|t| t.kind) {
        None => 0,
        Some(TunnelKind::Vxlan) => 1,
        Some(TunnelKind::Geneve) => 2,
        Some(TunnelKind::Gre) => 3,
        Some(TunnelKind::Erspan) => 4,
        Some(TunnelKind::Ipip) => 5,
        Some(TunnelKind::Gtpu) => 6,
    }
}

pub(super) fn signal(s: Signal) -> i8 {
    match s {
        Signal::Packet => 0,
        Signal::Syscall => 1,
        Signal::Tls => 2,
    }
}

pub(super) fn response_status(s: ResponseStatus) -> i8 {
    match s {
        ResponseStatus::Ok => 0,
        ResponseStatus::ClientError => 1,
        ResponseStatus::ServerError => 2,
        ResponseStatus::Timeout => 3,
        ResponseStatus::Unknown => 4,
    }
}

fn is_error(s: ResponseStatus) -> bool {
    matches!(s, ResponseStatus::ClientError | ResponseStatus::ServerError | ResponseStatus::Timeout)
}

pub(super) fn session(s: Session) -> i8 {
    match s {
        Session::Complete => 0,
        Session::RequestOnly => 1,
        Session::ResponseOnly => 2,
    }
}

fn close_type(c: CloseType) -> i8 {
    match c {
        CloseType::Unknown => 0,
        CloseType::Finish => 1,
        CloseType::ServerReset => 2,
        CloseType::ClientReset => 3,
        CloseType::Timeout => 4,
        CloseType::ForcedReport => 5,
        CloseType::ServerSynMissing => 6,
        CloseType::ServerHalfClose => 7,
        CloseType::ClientHalfClose => 8,
        CloseType::ClientAckMissing => 9,
        CloseType::ClientPortReuse => 10,
        CloseType::ServerRefused => 11,
        CloseType::ServerQueueOverflow => 12,
        CloseType::ClientHandshakeReset => 13,
        CloseType::ServerHandshakeReset => 14,
        CloseType::ClientResetRegular => 15,
        CloseType::Evicted => 16,
    }
}

pub(super) fn text(t: &Option<wirespan_records::Text>) -> &str {
    t.as_deref().unwrap_or_default()
}

fn sample(latency: &Latency) -> Option<u32> {
    (latency.count > 0).then_some(latency.max_us)
}

pub(super) fn outer(ip: Option<std::net::IpAddr>) -> Ip {
    ip.map(Ip::from).unwrap_or_default()
}

/// A span and its trace.
#[derive(Clone, Copy)]
pub(super) struct SpanRow<'a> {
    pub(super) span: &'a Span,
    /// The id that the span has, or else one for the row.
    pub(super) id: u64,
    pub(super) trace: TraceKey,
}

impl<'a> SpanRow<'a> {
    pub(super) fn new(span: &'a Span, trace: TraceKey) -> Self {
        let id = if span.id == 0 { next_id() } else { span.id };
        Self { span, id, trace }
    }

    /// The row is not found by its id alone.
    pub(super) fn has_key(&self) -> bool {
        self.trace.traced || (self.trace.key != 0 && self.trace.key != self.id)
    }

    pub(super) fn key(&self) -> u64 {
        if self.has_key() { self.trace.key } else { 0 }
    }
}

pub(super) fn process(span: &Span) -> &Process {
    static NONE: Process = Process {
        pid: 0,
        start_ns: 0,
        name: String::new(),
        executable: String::new(),
        command: String::new(),
        container_id: None,
        pod_uid: None,
    };
    span.process.as_deref().unwrap_or(&NONE)
}

/// What the server's UNIX socket is bound to; empty for others.
fn unix_name(span: &Span) -> &str {
    let name = span.attributes.iter().find(|(name, _)| *name == "unix.name");
    name.map_or("", |(_, name)| name)
}

block!(SpanBlock: "l7_log", |row: SpanRow<'a>, meta| {
    ingested: Plain<Day> = meta.day,
    id: Plain<u64> = row.id,
    agent_id: Plain<u32> = meta.agent_id,
    flow_id: Plain<u64> = row.span.flow_id,
    start_time: Plain<Nanos> = row.span.start_ns.into(),
    end_time: Plain<Nanos> = row.span.end_ns.into(),
    duration_us: Plain<u64> = row.span.duration_us(),
    signal: Plain<i8> = signal(row.span.signal),
    observation_point: Dictionary = row.span.observation_point.as_str(),
    client_ip: Plain<Ip> = row.span.client.ip.into(),
    client_port: Plain<u16> = row.span.client.port,
    server_ip: Plain<Ip> = row.span.server.ip.into(),
    server_port: Plain<u16> = row.span.server.port,
    protocol: Plain<i8> = protocol(row.span.protocol),
    tunnel_type: Plain<i8> = tunnel_type(&row.span.tunnel),
    tunnel_id: Plain<u32> = row.span.tunnel.map_or(0, |t| t.id),
    tunnel_src: Plain<Ip> = outer(row.span.tunnel.map(|t| t.outer_src)),
    tunnel_dst: Plain<Ip> = outer(row.span.tunnel.map(|t| t.outer_dst)),
    tap_id: Plain<u16> = row.span.tap,
    l7_protocol: Dictionary = row.span.l7_protocol.as_str(),
    version: Dictionary = text(&row.span.version),
    request_type: Dictionary = text(&row.span.request_type),
    request_domain: Dictionary = text(&row.span.request_domain),
    request_resource: Text = text(&row.span.request_resource),
    endpoint: Dictionary = text(&row.span.endpoint),
    request_id: Nullable<u64> = row.span.request_id,
    response_status: Plain<i8> = response_status(row.span.response_status),
    response_code: Nullable<i32> = row.span.response_code,
    response_exception: Text = text(&row.span.response_exception),
    response_result: Text = text(&row.span.response_result),
    request_bytes: Plain<u64> = row.span.request_bytes,
    response_bytes: Plain<u64> = row.span.response_bytes,
    affected_rows: Nullable<u64> = row.span.affected_rows,
    trace_id: Text = text(&row.span.trace_id),
    span_id: Text = text(&row.span.span_id),
    x_request_id: Text = text(&row.span.x_request_id),
    req_tcp_seq: Nullable<u32> = row.span.req_tcp_seq,
    resp_tcp_seq: Nullable<u32> = row.span.resp_tcp_seq,
    session: Plain<i8> = session(row.span.session),
    truncated: Plain<bool> = row.span.truncated,
    attributes: Pairs = &row.span.attributes,
    pid: Plain<u32> = process(row.span).pid,
    process_start: Plain<Nanos> = process(row.span).start_ns.into(),
    process_name: Dictionary = &process(row.span).name,
    executable: Dictionary = &process(row.span).executable,
    command: Dictionary = &process(row.span).command,
    container_id: Dictionary = process(row.span).container_id.as_deref().unwrap_or_default(),
    pod_uid: Dictionary = process(row.span).pod_uid.as_deref().unwrap_or_default(),
    parent_id: Plain<u64> = row.span.parent.map_or(0, |p| p.span),
    parent_rule: Dictionary = row.span.parent.map_or("", |p| p.rule.as_str()),
    parent_confidence: Plain<f32> = row.span.parent.map_or(0.0, |p| p.confidence),
    trace_key: Plain<u64> = row.key(),
    traced: Plain<bool> = row.trace.traced,
});

block!(TraceBlock: "trace_log", |row: SpanRow<'a>, meta| {
    ingested: Plain<Day> = meta.day,
    trace_key: Plain<u64> = row.trace.key,
    start_time: Plain<Nanos> = row.span.start_ns.into(),
    end_time: Plain<Nanos> = row.span.end_ns.into(),
    is_error: Plain<bool> = is_error(row.span.response_status),
    server_ip: Plain<Ip> = row.span.server.ip.into(),
    server_port: Plain<u16> = row.span.server.port,
    unix_name: Dictionary = unix_name(row.span),
    tap_id: Plain<u16> = row.span.tap,
    trace_id: Text = if row.trace.traced { text(&row.span.trace_id) } else { "" },
    row: TraceRows = (row, meta.agent_id),
});

block!(FlowBlock: "flow_log", |flow: &'a Flow, meta| {
    ingested: Plain<Day> = meta.day,
    id: Plain<u64> = meta.id,
    agent_id: Plain<u32> = meta.agent_id,
    flow_id: Plain<u64> = flow.flow_id,
    start_time: Plain<Nanos> = flow.start_ns.into(),
    end_time: Plain<Nanos> = flow.end_ns.into(),
    duration_us: Plain<u64> = flow.end_ns.saturating_sub(flow.start_ns) / 1000,
    observation_point: Dictionary = flow.observation_point.as_str(),
    client_ip: Plain<Ip> = flow.client.ip.into(),
    client_port: Plain<u16> = flow.client.port,
    server_ip: Plain<Ip> = flow.server.ip.into(),
    server_port: Plain<u16> = flow.server.port,
    protocol: Plain<i8> = protocol(flow.protocol),
    tunnel_type: Plain<i8> = tunnel_type(&flow.tunnel),
    tunnel_id: Plain<u32> = flow.tunnel.map_or(0, |t| t.id),
    tunnel_src: Plain<Ip> = outer(flow.tunnel.map(|t| t.outer_src)),
    tunnel_dst: Plain<Ip> = outer(flow.tunnel.map(|t| t.outer_dst)),
    tap_id: Plain<u16> = flow.tap,
    vlan: Nullable<u16> = flow.vlan,
    tcp_flags_tx: Plain<u8> = flow.tcp_flags.tx,
    tcp_flags_rx: Plain<u8> = flow.tcp_flags.rx,
    packet_tx: Plain<u64> = flow.metrics.packets.tx,
    packet_rx: Plain<u64> = flow.metrics.packets.rx,
    byte_tx: Plain<u64> = flow.metrics.bytes.tx,
    byte_rx: Plain<u64> = flow.metrics.bytes.rx,
    l3_byte_tx: Plain<u64> = flow.metrics.l3_bytes.tx,
    l3_byte_rx: Plain<u64> = flow.metrics.l3_bytes.rx,
    l4_byte_tx: Plain<u64> = flow.metrics.l4_bytes.tx,
    l4_byte_rx: Plain<u64> = flow.metrics.l4_bytes.rx,
    syn_count: Plain<u32> = flow.metrics.syn_count,
    synack_count: Plain<u32> = flow.metrics.synack_count,
    fin_count: Plain<u32> = flow.metrics.fin_count,
    retrans_tx: Plain<u32> = flow.metrics.retrans.tx,
    retrans_rx: Plain<u32> = flow.metrics.retrans.rx,
    retrans_syn: Plain<u32> = flow.metrics.retrans_syn,
    retrans_synack: Plain<u32> = flow.metrics.retrans_synack,
    ooo_tx: Plain<u32> = flow.metrics.ooo.tx,
    ooo_rx: Plain<u32> = flow.metrics.ooo.rx,
    zero_win_tx: Plain<u32> = flow.metrics.zero_win.tx,
    zero_win_rx: Plain<u32> = flow.metrics.zero_win.rx,
    rtt_us: Nullable<u32> = sample(&flow.metrics.rtt),
    rtt_client_us: Nullable<u32> = sample(&flow.metrics.rtt_client),
    rtt_server_us: Nullable<u32> = sample(&flow.metrics.rtt_server),
    srt_us_max: Plain<u32> = flow.metrics.srt.max_us,
    srt_us_sum: Plain<u64> = flow.metrics.srt.sum_us,
    srt_count: Plain<u32> = flow.metrics.srt.count,
    art_us_max: Plain<u32> = flow.metrics.art.max_us,
    art_us_sum: Plain<u64> = flow.metrics.art.sum_us,
    art_count: Plain<u32> = flow.metrics.art.count,
    cit_us_max: Plain<u32> = flow.metrics.cit.max_us,
    cit_us_sum: Plain<u64> = flow.metrics.cit.sum_us,
    cit_count: Plain<u32> = flow.metrics.cit.count,
    close_type: Plain<i8> = close_type(flow.close_type),
    is_new: Plain<bool> = flow.is_new,
    l7_protocol: Dictionary = flow.l7_protocol.map_or("", L7Protocol::as_str),
    l7_request: Plain<u32> = flow.metrics.l7.request,
    l7_response: Plain<u32> = flow.metrics.l7.response,
    l7_client_error: Plain<u32> = flow.metrics.l7.client_error,
    l7_server_error: Plain<u32> = flow.metrics.l7.server_error,
    l7_timeout: Plain<u32> = flow.metrics.l7.timeout,
    rrt_us_max: Plain<u32> = flow.metrics.l7.rrt.max_us,
    rrt_us_sum: Plain<u64> = flow.metrics.l7.rrt.sum_us,
    rrt_count: Plain<u32> = flow.metrics.l7.rrt.count,
});

block!(NetBlock: "net_metrics_1s", |net: &'a NetMetrics, meta| {
    ingested: Plain<Day> = meta.day,
    time: Plain<Seconds> = Seconds(net.second),
    agent_id: Plain<u32> = meta.agent_id,
    observation_point: Dictionary = net.observation_point.as_str(),
    client_ip: Plain<Ip> = net.client_ip.into(),
    server_ip: Plain<Ip> = net.server_ip.into(),
    server_port: Plain<u16> = net.server_port,
    protocol: Plain<i8> = protocol(net.protocol),
    tunnel_type: Plain<i8> = tunnel_type(&net.tunnel),
    tunnel_id: Plain<u32> = net.tunnel.map_or(0, |t| t.id),
    tap_id: Plain<u16> = net.tap,
    packet_tx: Plain<u64> = net.metrics.packets.tx,
    packet_rx: Plain<u64> = net.metrics.packets.rx,
    byte_tx: Plain<u64> = net.metrics.bytes.tx,
    byte_rx: Plain<u64> = net.metrics.bytes.rx,
    l3_byte_tx: Plain<u64> = net.metrics.l3_bytes.tx,
    l3_byte_rx: Plain<u64> = net.metrics.l3_bytes.rx,
    l4_byte_tx: Plain<u64> = net.metrics.l4_bytes.tx,
    l4_byte_rx: Plain<u64> = net.metrics.l4_bytes.rx,
    new_flow: Plain<u64> = net.new_flows,
    closed_flow: Plain<u64> = net.closed_flows(),
    syn_count: Plain<u32> = net.metrics.syn_count,
    synack_count: Plain<u32> = net.metrics.synack_count,
    fin_count: Plain<u32> = net.metrics.fin_count,
    retrans_tx: Plain<u32> = net.metrics.retrans.tx,
    retrans_rx: Plain<u32> = net.metrics.retrans.rx,
    retrans_syn: Plain<u32> = net.metrics.retrans_syn,
    retrans_synack: Plain<u32> = net.metrics.retrans_synack,
    ooo_tx: Plain<u32> = net.metrics.ooo.tx,
    ooo_rx: Plain<u32> = net.metrics.ooo.rx,
    zero_win_tx: Plain<u32> = net.metrics.zero_win.tx,
    zero_win_rx: Plain<u32> = net.metrics.zero_win.rx,
    rtt_us_sum: Plain<u64> = net.metrics.rtt.sum_us,
    rtt_count: Plain<u32> = net.metrics.rtt.count,
    rtt_client_us_sum: Plain<u64> = net.metrics.rtt_client.sum_us,
    rtt_client_count: Plain<u32> = net.metrics.rtt_client.count,
    rtt_server_us_sum: Plain<u64> = net.metrics.rtt_server.sum_us,
    rtt_server_count: Plain<u32> = net.metrics.rtt_server.count,
    srt_us_sum: Plain<u64> = net.metrics.srt.sum_us,
    srt_count: Plain<u32> = net.metrics.srt.count,
    art_us_sum: Plain<u64> = net.metrics.art.sum_us,
    art_count: Plain<u32> = net.metrics.art.count,
    cit_us_sum: Plain<u64> = net.metrics.cit.sum_us,
    cit_count: Plain<u32> = net.metrics.cit.count,
    rrt_us_sum: Plain<u64> = net.metrics.l7.rrt.sum_us,
    rrt_count: Plain<u32> = net.metrics.l7.rrt.count,
    close_client_reset: Plain<u64> = net.closed(CloseType::ClientReset),
    close_server_reset: Plain<u64> = net.closed(CloseType::ServerReset),
    close_timeout: Plain<u64> = net.closed(CloseType::Timeout),
    close_client_half_close: Plain<u64> = net.closed(CloseType::ClientHalfClose),
    close_server_half_close: Plain<u64> = net.closed(CloseType::ServerHalfClose),
    close_server_syn_missing: Plain<u64> = net.closed(CloseType::ServerSynMissing),
    close_client_ack_missing: Plain<u64> = net.closed(CloseType::ClientAckMissing),
    close_client_port_reuse: Plain<u64> = net.closed(CloseType::ClientPortReuse),
    close_server_refused: Plain<u64> = net.closed(CloseType::ServerRefused),
    close_server_queue_overflow: Plain<u64> = net.closed(CloseType::ServerQueueOverflow),
    close_client_handshake_reset: Plain<u64> = net.closed(CloseType::ClientHandshakeReset),
    close_server_handshake_reset: Plain<u64> = net.closed(CloseType::ServerHandshakeReset),
    l7_request: Plain<u32> = net.metrics.l7.request,
    l7_response: Plain<u32> = net.metrics.l7.response,
    l7_client_error: Plain<u32> = net.metrics.l7.client_error,
    l7_server_error: Plain<u32> = net.metrics.l7.server_error,
    l7_timeout: Plain<u32> = net.metrics.l7.timeout,
    rtt_us_max: Plain<u32> = net.metrics.rtt.max_us,
    rtt_client_us_max: Plain<u32> = net.metrics.rtt_client.max_us,
    rtt_server_us_max: Plain<u32> = net.metrics.rtt_server.max_us,
    srt_us_max: Plain<u32> = net.metrics.srt.max_us,
    art_us_max: Plain<u32> = net.metrics.art.max_us,
    cit_us_max: Plain<u32> = net.metrics.cit.max_us,
    rrt_us_max: Plain<u32> = net.metrics.l7.rrt.max_us,
});

block!(StatBlock: "agent_stats", |stat: &'a Stat, meta| {
    ingested: Plain<Day> = meta.day,
    time: Plain<Millis> = Millis(i64::try_from(stat.time_ms).unwrap_or(i64::MAX)),
    agent_id: Plain<u32> = meta.agent_id,
    name: Dictionary = &stat.name,
    labels: Pairs = &stat.labels,
    value: Plain<f64> = stat.value,
});

// One of the two directions of a merge: either key leads to the other.
block!(MergeBlock: "trace_merges", |merge: (u64, u64), meta| {
    ingested: Plain<Day> = meta.day,
    trace_key: Plain<u64> = merge.0,
    other: Plain<u64> = merge.1,
});

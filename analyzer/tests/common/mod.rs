//! Records of a small shop, as they would come from the wire: a browser asks `web`, which asks a cache, a database and DNS.

#[allow(dead_code, reason = "not every user of the shop asks a server")]
pub mod server;

use std::net::IpAddr;
use wirespan_records::{
    CloseType, Endpoint, Flow, FlowMetrics, FlowTick, L4Protocol, L7Protocol, ObservationPoint, PerDirection,
    Records, ResponseStatus, Session, Signal, Span,
};

/// Names for the addresses below.
pub const HOSTS: &str = "10.0.0.1 browser\n10.0.0.2 web\n10.0.0.3 cache\n10.0.0.4 db\n10.0.0.53 resolver\n";

/// `10.0.0.LAST:PORT`.
pub fn endpoint(last: u8, port: u16) -> Endpoint {
    Endpoint { ip: IpAddr::from([10, 0, 0, last]), port }
}

/// What differs from request to request.
pub struct Exchange {
    pub l7_protocol: L7Protocol,
    pub client: Endpoint,
    pub server: Endpoint,
    pub start_ns: u64,
    pub duration_us: u64,
    pub status: ResponseStatus,
    pub code: Option<i32>,
    pub request: (&'static str, String),
}

impl Exchange {
    /// The record.
    pub fn span(self) -> Span {
        let answered = self.status != ResponseStatus::Timeout;
        let is_http = self.l7_protocol == L7Protocol::Http;
        let udp = self.l7_protocol == L7Protocol::Dns;
        // Each exchange has numbers of its own, as on the wire.
        let seq = (self.start_ns / 1000) as u32 ^ (u32::from(self.client.port) << 16);
        Span {
            id: 0,
            signal: Signal::Packet,
            observation_point: ObservationPoint::Rest,
            flow_id: u64::from(self.client.port),
            start_ns: self.start_ns,
            end_ns: self.start_ns + if answered { self.duration_us * 1000 } else { 0 },
            client: self.client,
            server: self.server,
            protocol: if udp { L4Protocol::Udp } else { L4Protocol::Tcp },
            tunnel: None,
            tap: 0,
            l7_protocol: self.l7_protocol,
            version: is_http.then(|| "1.1".into()),
            request_type: Some(self.request.0.into()),
            request_domain: is_http.then(|| "shop.example".into()),
            endpoint: Some(self.request.1.split('?').next().unwrap_or_default().into()),
            request_resource: Some(self.request.1.into()),
            request_id: None,
            response_status: self.status,
            response_code: self.code,
            response_exception: None,
            response_result: None,
            request_bytes: 120,
            response_bytes: if answered { 900 } else { 0 },
            affected_rows: None,
            trace_id: None,
            span_id: None,
            x_request_id: None,
            req_tcp_seq: Some(seq),
            resp_tcp_seq: answered.then_some(!seq),
            session: if answered { Session::Complete } else { Session::RequestOnly },
            truncated: false,
            attributes: vec![("user_agent", "curl/8".into())],
            process: None,
            parent: None,
        }
    }
}

/// The flow of a request, closed, with one retransmission.
pub fn flow(span: &Span) -> Flow {
    let mut metrics = FlowMetrics {
        packets: PerDirection { tx: 5, rx: 4 },
        bytes: PerDirection { tx: 500, rx: 1500 },
        syn_count: 1,
        synack_count: 1,
        retrans: PerDirection { tx: 1, rx: 0 },
        ..FlowMetrics::default()
    };
    metrics.rtt.add(250);
    metrics.l7.request = 1;
    Flow {
        flow_id: span.flow_id,
        start_ns: span.start_ns,
        end_ns: span.end_ns,
        observation_point: span.observation_point,
        client: span.client,
        server: span.server,
        protocol: span.protocol,
        tunnel: None,
        tap: span.tap,
        vlan: Some(7),
        tcp_flags: PerDirection { tx: 0x1b, rx: 0x1b },
        metrics,
        close_type: CloseType::Finish,
        is_new: true,
        l7_protocol: Some(span.l7_protocol),
    }
}

/// What that flow did in its second.
pub fn tick(flow: &Flow) -> FlowTick {
    FlowTick {
        second: (flow.start_ns / 1_000_000_000) as u32,
        observation_point: flow.observation_point,
        client: flow.client,
        server: flow.server,
        protocol: flow.protocol,
        tunnel: None,
        tap: flow.tap,
        metrics: flow.metrics,
        is_new: true,
        closed: Some(flow.close_type),
    }
}

/// Requests with their flows and ticks.
pub fn batch(spans: Vec<Span>) -> Records {
    let flows: Vec<_> = spans.iter().map(flow).collect();
    let ticks = flows.iter().map(tick).collect();
    Records { spans, flows, ticks }
}

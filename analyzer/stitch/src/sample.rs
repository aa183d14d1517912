//! Spans as captures and hosts would give them, for tests.

use crate::row::SpanRow;
use std::net::IpAddr;
use std::sync::Arc;
use wirespan_records::{
    Endpoint, L4Protocol, L7Protocol, ObservationPoint, Parent, Process, ResponseStatus, Rule, Session,
    Signal, Span, Tunnel, TunnelKind,
};

/// When tests begin, ns.
pub const BASE_NS: u64 = 1_700_000_000_000_000_000;

/// `10.0.NET.HOST:PORT`.
pub fn endpoint(net: u8, host: u8, port: u16) -> Endpoint {
    Endpoint { ip: IpAddr::from([10, 0, net, host]), port }
}

/// A process by pid.
pub fn process(pid: u32, name: &str) -> Arc<Process> {
    Arc::new(Process { pid, start_ns: 1, name: name.into(), ..Process::default() })
}

/// An HTTP exchange between two addresses, from and to so many microseconds after the beginning.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub client: Endpoint,
    pub server: Endpoint,
    pub from_us: u64,
    pub to_us: u64,
    /// Sequence number of the request; the response has another.
    pub seq: u32,
    pub path: &'static str,
}

impl Exchange {
    /// As packets show it, nearer to the server by so many microseconds on each side.
    pub fn seen(&self, id: u64, point: ObservationPoint, nearer_us: u64) -> Span {
        Span {
            id,
            signal: Signal::Packet,
            observation_point: point,
            flow_id: u64::from(self.client.port),
            start_ns: BASE_NS + (self.from_us + nearer_us) * 1000,
            end_ns: BASE_NS + (self.to_us - nearer_us) * 1000,
            client: self.client,
            server: self.server,
            protocol: L4Protocol::Tcp,
            tunnel: None,
            tap: 0,
            l7_protocol: L7Protocol::Http,
            version: None,
            request_type: Some("GET".into()),
            request_domain: None,
            request_resource: Some(self.path.into()),
            endpoint: Some(self.path.into()),
            request_id: None,
            response_status: ResponseStatus::Ok,
            response_code: Some(200),
            response_exception: None,
            response_result: None,
            request_bytes: 100,
            response_bytes: 100,
            affected_rows: None,
            trace_id: None,
            span_id: None,
            x_request_id: None,
            req_tcp_seq: Some(self.seq),
            resp_tcp_seq: Some(!self.seq),
            session: Session::Complete,
            truncated: false,
            attributes: Vec::new(),
            process: None,
            parent: None,
        }
    }

    /// As one of its processes sees it.
    pub fn process(
        &self,
        id: u64,
        point: ObservationPoint,
        nearer_us: u64,
        process: &Arc<Process>,
        parent: u64,
    ) -> Span {
        let parent = (parent != 0).then_some(Parent { span: parent, rule: Rule::Socket, confidence: 0.9 });
        Span {
            signal: Signal::Syscall,
            process: Some(Arc::clone(process)),
            parent,
            ..self.seen(id, point, nearer_us)
        }
    }
}

/// A span of a socket in this network namespace.
pub fn in_namespace(netns: u32, span: Span) -> Span {
    Span { attributes: [&span.attributes[..], &[("netns", netns.to_string().into())]].concat(), ..span }
}

/// A span inside VXLAN.
pub fn in_tunnel(span: Span) -> Span {
    let outer = |host| IpAddr::from([192, 168, 0, host]);
    let tunnel = Tunnel { kind: TunnelKind::Vxlan, id: 7, outer_src: outer(1), outer_dst: outer(2) };
    Span { tunnel: Some(tunnel), ..span }
}

/// The row of a span that an agent wrote.
pub fn row(span: &Span, agent_id: u32) -> SpanRow {
    SpanRow { trace_key: format!("{:016x}", 1), agent_id, ..SpanRow::from(span) }
}

/// Numbers that vary (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        for i in (1..of.len()).rev() {
            of.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// A trace at random: calls down to `depth`, each seen by both processes and at up to three points between. Ids begin at
/// `first_id`; returns the spans of the trace.
pub fn random_trace(random: &mut Random, first_id: u64, depth: u32) -> Vec<Span> {
    let mut spans = Vec::new();
    let from_us = random.below(1_000_000);
    call(random, first_id, depth, 0, (from_us, from_us + 200_000), &mut spans);
    spans
}

fn call(
    random: &mut Random,
    first_id: u64,
    depth: u32,
    parent: u64,
    (from_us, to_us): (u64, u64),
    spans: &mut Vec<Span>,
) {
    let exchange = Exchange {
        client: endpoint(random.below(200) as u8, 1, 1024 + random.below(60_000) as u16),
        server: endpoint(random.below(200) as u8, 2, 80),
        from_us,
        to_us,
        seq: random.next() as u32,
        path: "/a",
    };
    let program = process(random.next() as u32, "server");
    let id = first_id + spans.len() as u64;
    spans.push(exchange.process(id, ObservationPoint::ClientProcess, 0, &process(1, "client"), parent));
    for hop in 0..random.below(4) {
        let id = first_id + spans.len() as u64;
        spans.push(exchange.seen(id, ObservationPoint::Rest, 10 + hop));
    }
    let served = first_id + spans.len() as u64;
    spans.push(exchange.process(served, ObservationPoint::ServerProcess, 20, &program, 0));
    let calls = if depth == 0 { 0 } else { random.below(4) };
    let step = (to_us - from_us - 100) / 4;
    for n in 0..calls {
        let begin = from_us + 30 + n * step;
        call(random, first_id, depth - 1, served, (begin, begin + step), spans);
    }
}

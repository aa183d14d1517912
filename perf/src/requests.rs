//! The requests of a busy site, as a worker would hand them on: twelve HTTP services, three databases, two caches and a
//! resolver, asked from sixty addresses, with errors, slow answers, traces and all texts that captures give.

use std::net::IpAddr;
use wirespan_records::{
    Endpoint, L4Protocol, L7Protocol, ObservationPoint, ResponseStatus, Session, Signal, Span, Text,
};

const NOUNS: [&str; 20] = [
    "users",
    "orders",
    "items",
    "carts",
    "prices",
    "stock",
    "reviews",
    "search",
    "images",
    "sessions",
    "payments",
    "refunds",
    "invoices",
    "shipments",
    "coupons",
    "addresses",
    "messages",
    "reports",
    "events",
    "health",
];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "okhttp/4.12.0",
    "python-requests/2.32.3",
    "Go-http-client/1.1",
];

/// An endless source of requests, the same in each run.
pub struct Requests {
    random: Random,
    made: u64,
}

impl Requests {
    pub fn new() -> Self {
        Self { random: Random(0x5eed), made: 0 }
    }

    /// Numbers that vary.
    pub fn numbers(&mut self) -> u64 {
        self.random.next()
    }

    /// The next request, answered at `end_ns`.
    pub fn next(&mut self, end_ns: u64) -> Span {
        self.made += 1;
        let random = &mut self.random;
        let mut span = match random.below(100) {
            0..60 => http(random),
            60..78 => mysql(random),
            78..93 => redis(random),
            _ => dns(random),
        };
        span.flow_id = self.made / 8;
        span.end_ns = end_ns;
        span.start_ns = end_ns - span.start_ns;
        if span.response_status == ResponseStatus::Timeout {
            span.start_ns = end_ns;
            span.session = Session::RequestOnly;
            (span.response_code, span.resp_tcp_seq, span.response_bytes) = (None, None, 0);
        }
        span
    }
}

fn http(random: &mut Random) -> Span {
    let service = random.below(12);
    let noun = random.skewed(&NOUNS);
    let id = random.below(100_000);
    let (status, code) = match random.below(1000) {
        0..4 => (ResponseStatus::ServerError, 500),
        4..6 => (ResponseStatus::ServerError, 503),
        6..7 => (ResponseStatus::Timeout, 0),
        7..27 => (ResponseStatus::ClientError, 404),
        27..60 => (ResponseStatus::Ok, 304),
        _ => (ResponseStatus::Ok, 200),
    };
    let traced = random.below(2) == 0;
    let mut attributes = vec![("user_agent", random.skewed(&AGENTS).into())];
    if code == 200 {
        attributes.push(("content_type", "application/json".into()));
    }
    Span {
        version: Some("1.1".into()),
        request_type: Some(random.skewed(&["GET", "POST", "PUT", "DELETE"]).into()),
        request_domain: Some(format!("service-{service}.shop.example").into()),
        request_resource: Some(format!("/api/{noun}/{id}?page={}", random.below(9)).into()),
        endpoint: Some(format!("/api/{noun}").into()),
        response_status: status,
        response_code: Some(code),
        request_bytes: 300 + random.below(400),
        response_bytes: 200 + random.below(8_000),
        trace_id: traced.then(|| format!("{:016x}{:016x}", random.next(), random.next()).into()),
        span_id: traced.then(|| format!("{:016x}", random.next()).into()),
        x_request_id: (random.below(4) == 0).then(|| format!("{:016x}", random.next()).into()),
        attributes,
        process: None,
        parent: None,
        ..exchange(random, L7Protocol::Http, (2, service), 8080, 4_000)
    }
}

fn mysql(random: &mut Random) -> Span {
    let table = random.skewed(&NOUNS[..12]);
    let verb = random.skewed(&["SELECT", "UPDATE", "INSERT"]);
    let statement = match verb {
        "SELECT" => format!("SELECT id, name, price FROM {table} WHERE id = ? ORDER BY created DESC LIMIT ?"),
        "UPDATE" => format!("UPDATE {table} SET state = ?, changed = NOW() WHERE id = ?"),
        _ => format!("INSERT INTO {table} (id, name, price, created) VALUES (?, ?, ?, NOW())"),
    };
    let failed = random.below(500) == 0;
    let database = random.below(3);
    Span {
        request_type: Some("COM_QUERY".into()),
        request_domain: Some("shop".into()),
        request_resource: Some(statement.into()),
        endpoint: Some(format!("{verb} {table}").into()),
        response_status: if failed { ResponseStatus::ClientError } else { ResponseStatus::Ok },
        response_code: failed.then_some(1062),
        response_exception: failed.then(|| "Duplicate entry '?' for key 'PRIMARY'".into()),
        affected_rows: (verb != "SELECT").then_some(1),
        request_bytes: 90,
        response_bytes: 60 + random.below(2_000),
        ..exchange(random, L7Protocol::MySql, (3, database), 3306, 900)
    }
}

fn redis(random: &mut Random) -> Span {
    let verb = random.skewed(&["GET", "SET", "HGETALL", "EXPIRE", "DEL"]);
    let noun = random.skewed(&NOUNS[..6]);
    let cache = random.below(2);
    Span {
        request_type: Some(verb.into()),
        request_resource: Some(format!("{verb} {noun}:{}", random.below(50_000)).into()),
        endpoint: Some(verb.into()),
        request_bytes: 40,
        response_bytes: 5 + random.below(900),
        ..exchange(random, L7Protocol::Redis, (4, cache), 6379, 150)
    }
}

fn dns(random: &mut Random) -> Span {
    let name = Text::from(format!("service-{}.shop.example", random.below(14)));
    let unknown = random.below(20) == 0;
    Span {
        request_type: Some(random.skewed(&["A", "AAAA"]).into()),
        request_domain: Some(name.clone()),
        request_resource: Some(name.clone()),
        endpoint: Some(name),
        request_id: Some(random.below(1 << 16)),
        response_status: if unknown { ResponseStatus::ClientError } else { ResponseStatus::Ok },
        response_code: Some(if unknown { 3 } else { 0 }),
        response_result: (!unknown).then(|| format!("10.2.0.{}", random.below(12) + 1).into()),
        request_bytes: 45,
        response_bytes: 61,
        protocol: L4Protocol::Udp,
        req_tcp_seq: None,
        resp_tcp_seq: None,
        ..exchange(random, L7Protocol::Dns, (5, 0), 53, 300)
    }
}

/// What all protocols have in common. `start_ns` is how long before the answer the request was.
fn exchange(
    random: &mut Random,
    l7_protocol: L7Protocol,
    (net, host): (u8, u64),
    port: u16,
    median_us: u64,
) -> Span {
    let address = |net: u8, host: u64| IpAddr::from([10, net, 0, host as u8 + 1]);
    Span {
        id: 0,
        signal: Signal::Packet,
        observation_point: ObservationPoint::Rest,
        flow_id: 0,
        start_ns: random.duration_ns(median_us),
        end_ns: 0,
        client: Endpoint { ip: address(1, random.below(60)), port: 32_768 + random.below(28_000) as u16 },
        server: Endpoint { ip: address(net, host), port },
        protocol: L4Protocol::Tcp,
        tunnel: None,
        tap: 0,
        l7_protocol,
        version: None,
        request_type: None,
        request_domain: None,
        request_resource: None,
        endpoint: None,
        request_id: None,
        response_status: ResponseStatus::Ok,
        response_code: None,
        response_exception: None,
        response_result: None,
        request_bytes: 0,
        response_bytes: 0,
        affected_rows: None,
        trace_id: None,
        span_id: None,
        x_request_id: None,
        req_tcp_seq: Some(random.next() as u32),
        resp_tcp_seq: Some(random.next() as u32),
        session: Session::Complete,
        truncated: false,
        attributes: Vec::new(),
        process: None,
        parent: None,
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast and good enough to vary records.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// One of these, the first more often than the last.
    fn skewed<T: Copy>(&mut self, of: &[T]) -> T {
        let end = of.len() as u64;
        of[self.below(end).min(self.below(end)) as usize]
    }

    /// Log-normal, as response times are: half are longer than the median, 1 % five times as long.
    fn duration_ns(&mut self, median_us: u64) -> u64 {
        let uniform = |random: &mut Self| random.below(1 << 32) as f64 / f64::from(u32::MAX) - 0.5;
        // The sum of twelve has variance 1.
        let normal: f64 = (0..12).map(|_| uniform(self)).sum();
        (median_us as f64 * 1000.0 * (0.7 * normal).exp()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn requests_vary_and_are_the_same_in_each_run() {
        let now_ns = 1_700_000_000_000_000_000;
        let make = || {
            let mut requests = Requests::new();
            (0..20_000).map(|_| requests.next(now_ns)).collect::<Vec<_>>()
        };
        let spans = make();
        assert_eq!(spans, make());
        assert!(spans.iter().all(|s| s.start_ns <= s.end_ns && s.end_ns == now_ns));
        let distinct = |of: fn(&Span) -> String| spans.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|s| s.server.ip.to_string()), 12 + 3 + 2 + 1);
        assert_eq!(distinct(|s| s.l7_protocol.as_str().into()), 4);
        assert_eq!(distinct(|s| s.response_status.as_str().into()), 4);
        assert!(distinct(|s| s.endpoint.as_deref().unwrap().into()) > 60);
        let mut durations: Vec<_> = spans.iter().map(Span::duration_us).collect();
        durations.sort_unstable();
        assert!(durations[19_000] > 4 * durations[10_000] && durations[0] < durations[10_000] / 10);
    }
}

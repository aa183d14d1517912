//! Each parser on one conversation, exchanges paired and spans made: `cargo bench -p wirespan-l7`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wirespan_l7::{Chunk, Config, Engine, Side, SpanSink, Stream, drive};
use wirespan_records::{L4Protocol, L7Counts, L7Protocol, Span};

const CLIENT: Side = Side::A;
const SERVER: Side = Side::B;

const HTTP: [(Side, &[u8]); 2] = [
    (CLIENT, b"GET /orders/42?full=1 HTTP/1.1\r\nHost: shop\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n"),
    (
        SERVER,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"id\": 4200}",
    ),
];
/// A question for an address and its answer, RFC 1035.
const DNS: [(Side, &[u8]); 2] = [
    (CLIENT, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04shop\x07example\x00\x00\x01\x00\x01"),
    (
        SERVER,
        b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x04shop\x07example\x00\x00\x01\x00\x01\
          \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x09\x00\x02",
    ),
];
/// A query and an OK packet.
const MYSQL: [(Side, &[u8]); 2] = [
    (CLIENT, b"\x2a\x00\x00\x00\x03UPDATE orders SET state = 'paid' WHERE id=42"),
    (SERVER, b"\x07\x00\x00\x01\x00\x01\x00\x02\x00\x00\x00"),
];

struct Count(u64);

impl SpanSink for Count {
    fn span(&mut self, _: Span) {
        self.0 += 1;
    }
}

/// The segments of a recording: `>` and `<` for the side, then bytes in hexadecimal.
fn recorded(text: &str) -> Vec<(Side, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let segment = |line: &str| {
        let side = if line.starts_with('>') { CLIENT } else { SERVER };
        (side, line.as_bytes()[2..].chunks(2).map(byte).collect())
    };
    text.lines().map(segment).collect()
}

fn owned(segments: &[(Side, &[u8])]) -> Vec<(Side, Vec<u8>)> {
    segments.iter().map(|(side, bytes)| (*side, bytes.to_vec())).collect()
}

fn parsers(criterion: &mut Criterion) {
    let http2 = recorded(include_str!("../tests/fixtures/http2/grpc.hex"));
    let redis = recorded(include_str!("../tests/fixtures/redis/resp2.hex"));
    let tls = recorded(include_str!("../tests/fixtures/tls/tls13.hex"));
    let mut group = criterion.benchmark_group("parser");
    for (protocol, l4, conversation) in [
        (L7Protocol::Http, L4Protocol::Tcp, owned(&HTTP)),
        (L7Protocol::Http2, L4Protocol::Tcp, http2),
        (L7Protocol::Dns, L4Protocol::Udp, owned(&DNS)),
        (L7Protocol::MySql, L4Protocol::Tcp, owned(&MYSQL)),
        (L7Protocol::Redis, L4Protocol::Tcp, redis),
        (L7Protocol::Tls, L4Protocol::Tcp, tls),
    ] {
        let (mut engine, flow) = (Engine::new(Config::default()), drive::flow(l4));
        let mut converse = |spans: &mut Count| {
            let (mut stream, mut counts) = (Stream::default(), L7Counts::default());
            engine.assume(&mut stream, protocol, CLIENT);
            for ((side, data), ts_ns) in conversation.iter().zip(1..) {
                let chunk = Chunk { data, ts_ns, seq: None, stream_start: false };
                engine.data(&mut stream, &flow, *side, chunk, &mut counts, spans);
            }
            engine.close(&mut stream, &flow, &mut counts, spans);
        };
        let mut spans = Count(0);
        converse(&mut spans);
        assert!(spans.0 > 0, "{} gives no span", protocol.as_str());
        group.throughput(Throughput::Elements(conversation.len() as u64));
        group.bench_function(protocol.as_str(), |bencher| bencher.iter(|| converse(&mut spans)));
    }
}

criterion_group!(benches, parsers);
criterion_main!(benches);

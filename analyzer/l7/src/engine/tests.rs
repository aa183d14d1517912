//! The way of the bytes, shown with HTTP (in order, one length per message) and DNS (by id).

use super::*;
use crate::drive::{flow, script};
use proptest::prelude::*;
use wirespan_records::{ResponseStatus, Session};

/// One engine, one stream.
struct Bench {
    engine: Engine,
    stream: Stream,
    flow: FlowContext,
    counts: L7Counts,
    spans: Vec<Span>,
    ts_ns: u64,
    seq: [u32; 2],
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            engine: Engine::new(config),
            stream: Stream::default(),
            flow: flow(L4Protocol::Tcp),
            counts: L7Counts::default(),
            spans: Vec::new(),
            ts_ns: 0,
            seq: [0; 2],
        }
    }

    fn data(&mut self, side: Side, data: &[u8]) {
        self.chunk(side, data, self.seq[side as usize] == 0);
    }

    fn chunk(&mut self, side: Side, data: &[u8], stream_start: bool) {
        self.ts_ns += 1_000;
        let chunk = Chunk { data, ts_ns: self.ts_ns, seq: Some(self.seq[side as usize]), stream_start };
        self.seq[side as usize] += data.len() as u32;
        let Self { engine, stream, flow, counts, spans, .. } = self;
        engine.data(stream, flow, side, chunk, counts, spans);
    }

    fn gap(&mut self, side: Side, missing: u64) {
        self.ts_ns += 1_000;
        self.seq[side as usize] += missing as u32;
        let Self { engine, stream, flow, counts, spans, .. } = self;
        engine.gap(stream, flow, side, missing, counts, spans);
    }

    fn close(mut self) -> Vec<Span> {
        let Self { engine, stream, flow, counts, spans, .. } = &mut self;
        engine.close(stream, flow, counts, spans);
        assert_eq!((engine.buffered, engine.pending_bytes), (0, 0));
        self.spans
    }
}

fn paths(spans: &[Span]) -> Vec<(Option<&str>, Option<i32>)> {
    spans.iter().map(|span| (span.request_resource.as_deref(), span.response_code)).collect()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_hole_inside_a_body_costs_nothing() {
    let mut bench = Bench::new(Config::default());
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789");
    bench.gap(Side::B, 980);
    bench.data(Side::B, b"0123456789");
    bench.data(Side::A, b"GET /2 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, CREATED);
    assert_eq!(bench.engine.stats().gap_bytes, 0);
    assert_eq!(paths(&bench.close()), [(Some("/1"), Some(200)), (Some("/2"), Some(201))]);
}

#[test]
fn a_hole_over_a_response_costs_that_exchange_only() {
    let mut bench = Bench::new(Config::default());
    for path in ["/1", "/2", "/3"] {
        bench.data(Side::A, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        if path == "/2" {
            continue;
        }
        if path == "/3" {
            // It shows only when what follows is acknowledged, after the next request.
            bench.gap(Side::B, 38);
        }
        bench.data(Side::B, OK);
    }
    let spans = bench.close();
    assert_eq!(paths(&spans), [(Some("/1"), Some(200)), (Some("/2"), None), (Some("/3"), Some(200))]);
    assert_eq!((spans[1].response_status, spans[1].truncated), (ResponseStatus::Unknown, true));
    assert!(!spans[0].truncated && !spans[2].truncated);
}

#[test]
fn a_hole_over_a_request_leaves_a_lone_response() {
    let mut bench = Bench::new(Config::default());
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, OK);
    bench.gap(Side::A, 19);
    bench.data(Side::B, CREATED);
    bench.data(Side::A, b"GET /3 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, OK);
    let spans = bench.close();
    assert_eq!(paths(&spans), [(Some("/1"), Some(200)), (None, Some(201)), (Some("/3"), Some(200))]);
    assert_eq!(spans[1].session, Session::ResponseOnly);
}

#[test]
fn after_a_hole_pipelined_requests_are_paired_again_from_the_next_batch_on() {
    let mut bench = Bench::new(Config::default());
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, &[OK, OK].concat());
    bench.data(Side::A, b"GET /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\n\r\n");
    bench.gap(Side::B, OK.len() as u64);
    bench.data(Side::B, CREATED);
    bench.data(Side::A, b"GET /5 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, OK);
    let spans = bench.close();
    assert_eq!(
        paths(&spans),
        [
            (Some("/1"), Some(200)),
            (Some("/2"), Some(200)),
            (Some("/3"), None),
            (Some("/4"), None),
            (None, Some(201)),
            (Some("/5"), Some(200))
        ]
    );
}

/// A request with number `n` and a response with the same number as its code.
fn numbered(n: u32) -> [Vec<u8>; 2] {
    let response = format!("HTTP/1.1 {n} OK\r\nContent-Length: 0\r\n\r\n");
    [format!("GET /{n} HTTP/1.1\r\n\r\n").into(), response.into()]
}

/// Whole exchanges, and those of them whose request and response have not the same number.
fn whole_and_wrong(spans: &[Span]) -> (usize, usize) {
    let whole: Vec<_> = spans.iter().filter(|span| span.session == Session::Complete).collect();
    let is_wrong = |span: &&&Span| {
        let code = span.response_code.map(|code| format!("/{code}"));
        span.request_resource.as_deref() != code.as_deref()
    };
    (whole.len(), whole.iter().filter(is_wrong).count())
}

/// Begins in the middle of requests from 200 on of which `open` are always open.
fn never_idle(config: &Config, open: u32) -> (Bench, u32) {
    let mut bench = Bench::new(config.clone());
    bench.seq = [1; 2];
    let mut n = 200;
    // As many as were answered are made at once; responses take their time.
    for batch in [1, 1, 2, 1, 3, 1, 1, 1, 2, 1].into_iter().cycle().take(200) {
        bench.ts_ns += 100_000;
        for (side, first) in [(Side::B, n), (Side::A, n + open)] {
            let bytes = (first..first + batch).flat_map(|n| numbered(n)[side as usize].clone());
            bench.data(side, &bytes.collect::<Vec<u8>>());
        }
        n += batch;
    }
    (bench, n)
}

#[test]
fn where_a_client_does_not_wait_no_pair_is_told_before_none_is_open() {
    for cautious in [false, true] {
        let config = Config { cautious, ..Config::default() };
        let (mut bench, next) = never_idle(&config, 5);
        for n in next..next + 5 {
            bench.data(Side::B, &numbered(n)[1]);
        }
        assert_eq!(whole_and_wrong(&bench.spans), (0, 0));
        assert!(bench.engine.stats().unpaired + bench.engine.pending_bytes as u64 > 0);
        bench.ts_ns += 1_000_000_000;
        for n in 900..910 {
            bench.data(Side::A, &numbered(n)[0]);
            bench.data(Side::B, &numbered(n)[1]);
        }
        let (whole, wrong) = whole_and_wrong(&bench.close());
        assert!(whole >= 9 && wrong == 0, "{whole} whole, {wrong} wrong");
    }
}

#[test]
fn the_pairs_of_a_client_that_waits_are_told_where_the_stream_is_seen_from_its_middle_on() {
    for (cautious, batch, whole) in [(false, 1, 100), (false, 5, 100), (true, 1, 92), (true, 5, 60)] {
        let mut bench = Bench::new(Config { cautious, ..Config::default() });
        bench.seq = [1; 2];
        // The response to what was not seen.
        bench.data(Side::B, OK);
        let numbers: Vec<u32> = (200..300).collect();
        for batch in numbers.chunks(batch) {
            for side in [Side::A, Side::B] {
                let bytes = batch.iter().flat_map(|n| numbered(*n)[side as usize].clone());
                bench.data(side, &bytes.collect::<Vec<u8>>());
            }
        }
        assert_eq!(whole_and_wrong(&bench.close()), (whole, 0), "{cautious} {batch}");
    }
}

#[test]
fn a_cut_message_is_read_as_far_as_it_goes() {
    let mut bench = Bench::new(Config::default());
    bench.data(Side::A, b"POST /cut HTTP/1.1\r\nHost: h\r\nConten");
    bench.gap(Side::A, 500);
    bench.data(Side::B, OK);
    bench.data(Side::A, b"GET /2 HTTP/1.1\r\n\r\n");
    bench.data(Side::B, OK);
    let spans = bench.close();
    assert_eq!(paths(&spans), [(Some("/cut"), Some(200)), (Some("/2"), Some(200))]);
    assert_eq!(spans[0].request_domain.as_deref(), Some("h"));
    assert!(spans[0].truncated && !spans[1].truncated);
}

#[test]
fn messages_carry_the_time_of_the_segment_they_begin_in() {
    let mut bench = Bench::new(Config::default());
    bench.data(Side::A, b"GET");
    bench.data(Side::A, b" /1 HTTP/1.1\r\n\r\nGET /2 HT");
    bench.data(Side::A, b"TP/1.1\r\n\r\n");
    let spans = bench.close();
    let seen: Vec<_> = spans.iter().map(|span| (span.start_ns, span.req_tcp_seq)).collect();
    assert_eq!(seen, [(1_000, Some(0)), (2_000, Some(19))]);
}

#[test]
fn what_is_not_http_after_all_is_forgotten() {
    let mut bench = Bench::new(Config::default());
    bench.engine.endpoints.remember(&bench.flow, Side::B, L7Protocol::Http);
    // It begins like HTTP, but there is no such code.
    bench.data(Side::B, b"HTTP/1.1 099 x\r\n\r\n");
    assert_eq!(bench.engine.endpoints.remembered(&bench.flow, Side::A), None);
    assert_eq!(bench.stream.protocol(), None);
    assert!(!bench.stream.is_off());
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\n");
    assert_eq!(bench.stream.protocol(), Some(L7Protocol::Http));
}

#[test]
fn unknown_streams_are_given_up() {
    let mut bench = Bench::new(Config::default());
    for turn in 0..8 {
        assert!(!bench.stream.is_off());
        bench.data(if turn % 2 == 0 { Side::A } else { Side::B }, b"\x01\x02\x03\x04");
    }
    assert!(bench.stream.is_off());
}

#[test]
fn what_one_side_sends_is_given_up_when_its_beginning_was_unknown_too() {
    let sent = |from_the_start| {
        let mut bench = Bench::new(Config::default());
        for n in 0..1000 {
            let stream_start = from_the_start && n == 0;
            bench.chunk(Side::A, &[0xee; 1000], stream_start);
        }
        bench.stream.is_off()
    };
    assert!(sent(true));
    assert!(!sent(false), "the next message begins where the other side takes its turn");
}

#[test]
fn a_message_is_found_after_a_long_unknown_beginning() {
    let mut bench = Bench::new(Config::default());
    for _ in 0..100 {
        bench.data(Side::B, b"\x01the rest of a body");
    }
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\n");
    assert_eq!(bench.stream.protocol(), Some(L7Protocol::Http));
}

#[test]
fn the_budget_of_all_buffers_holds() {
    let mut bench = Bench::new(Config { max_buffer_total: 100, ..Config::default() });
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\nHost: h\r\n");
    for _ in 0..50 {
        bench.data(Side::A, b"Cookie: abcdefgh\r\n");
        assert!(bench.engine.buffered() <= 100);
    }
    bench.data(Side::A, b"\r\nGET /2 HTTP/1.1\r\n\r\n");
    let spans = bench.close();
    assert_eq!(paths(&spans), [(Some("/1"), None), (Some("/2"), None)]);
}

#[test]
fn requests_that_wait_have_a_budget_too() {
    let mut bench = Bench::new(Config { max_pending_bytes: 50_000, ..Config::default() });
    for _ in 0..1_000 {
        bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\n");
        assert!(bench.engine.pending_bytes <= 50_000);
    }
    let spans = bench.close();
    assert_eq!(spans.len(), 1_000);
    assert_eq!(spans[0].response_status, ResponseStatus::Unknown);
}

#[test]
fn a_response_that_comes_after_the_timeout_belongs_to_none_of_the_others() {
    let mut bench = Bench::new(Config::default());
    bench.data(Side::A, b"GET /1 HTTP/1.1\r\n\r\n");
    bench.ts_ns = 200_000_000_000;
    bench.data(Side::A, b"GET /2 HTTP/1.1\r\n\r\n");
    let Bench { engine, stream, flow, counts, spans, ts_ns, .. } = &mut bench;
    engine.sweep(stream, flow, *ts_ns, counts, spans);
    assert_eq!(spans[0].response_status, ResponseStatus::Timeout);
    bench.data(Side::B, CREATED);
    bench.data(Side::B, OK);
    let spans = bench.close();
    assert_eq!(paths(&spans), [(Some("/1"), None), (None, Some(201)), (Some("/2"), Some(200))]);
}

/// A conversation of whole messages, each with its side.
fn conversation() -> impl Strategy<Value = Vec<(Side, Vec<u8>)>> {
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let exchange = ("[a-z]{1,30}", body, 0..4u8, prop::bool::ANY);
    prop::collection::vec(exchange, 1..8).prop_map(|exchanges| {
        let mut messages = Vec::new();
        for (path, body, kind, posts) in exchanges {
            let mut request = if posts {
                format!("POST /{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len())
                    .into_bytes()
            } else {
                format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
            };
            if posts {
                request.extend(&body);
            }
            messages.push((Side::A, request));
            let response = match kind {
                0 => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
                1 => [
                    format!(
                        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    )
                    .as_bytes(),
                    &body,
                ]
                .concat(),
                _ => [
                    format!(
                        "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n{:x};x\r\n",
                        body.len() + 1
                    )
                    .as_bytes(),
                    &body,
                    b"!\r\n0\r\nT: r\r\n\r\n",
                ]
                .concat(),
            };
            messages.push((Side::B, response));
        }
        messages
    })
}

/// Spans without times, which depend on the segments.
fn timeless(spans: Vec<Span>) -> Vec<Span> {
    spans.into_iter().map(|span| Span { start_ns: 0, end_ns: 0, ..span }).collect()
}

proptest! {
    #[test]
    fn any_split_into_segments_gives_the_same_spans(
        messages in conversation(),
        sizes in prop::collection::vec(1..60usize, 1..20),
    ) {
        let mut whole = Bench::new(Config::default());
        let mut split = Bench::new(Config::default());
        let mut sizes = sizes.iter().cycle();
        for (side, message) in &messages {
            whole.data(*side, message);
            let mut rest = &message[..];
            while !rest.is_empty() {
                let (segment, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                split.data(*side, segment);
                rest = after;
            }
        }
        let whole = whole.close();
        prop_assert_eq!(whole.len(), messages.len() / 2);
        prop_assert_eq!(timeless(whole), timeless(split.close()));
    }

    #[test]
    fn a_lost_segment_harms_no_other_exchange(
        messages in conversation(),
        lost in any::<prop::sample::Index>(),
        size in 20..400usize,
    ) {
        let mut segments = Vec::new();
        for (index, (side, message)) in messages.iter().enumerate() {
            segments.extend(message.chunks(size).map(|segment| (index / 2, *side, segment)));
        }
        // Without its first segment a stream may go unnoticed.
        let lost = 1 + lost.index(segments.len());
        let mut whole = Bench::new(Config::default());
        let mut holed = Bench::new(Config::default());
        for (index, (_, side, segment)) in segments.iter().enumerate() {
            whole.data(*side, segment);
            if index == lost {
                holed.gap(*side, segment.len() as u64);
            } else {
                holed.data(*side, segment);
            }
        }
        let harmed = segments.get(lost).map(|(exchange, ..)| *exchange);
        let holed = timeless(holed.close());
        for (index, span) in timeless(whole.close()).into_iter().enumerate() {
            if Some(index) != harmed {
                prop_assert!(holed.contains(&span), "{:?} is not in {:?}", span, holed);
            }
        }
    }

    #[test]
    fn no_input_makes_a_parser_panic(input in prop::collection::vec(any::<u8>(), 0..2000), text in prop::bool::ANY) {
        let input: Vec<u8> = if text { input.iter().map(|b| b"GET /HTP1.\r\n:*$0a "[*b as usize % 18]).collect() } else { input };
        for l4 in [L4Protocol::Tcp, L4Protocol::Udp] {
            script(None, l4, &input);
            for protocol in L7Protocol::ALL {
                script(Some(protocol), l4, &input);
            }
        }
    }
}

//! Connections recorded on the loopback interface: curl with nginx, curl with a server that takes the upgrade, and gRPC's own
//! client and server; whole, from the middle, and in pieces.

use super::frame;
use super::hpack::Field;
use super::probe::probe;
use crate::drive::{script, segments};
use crate::engine::{Config, Side};
use crate::parser::{ProbeInfo, Role, Verdict};
use proptest::prelude::*;
use wirespan_records::{L4Protocol, L7Protocol, Session, Span};

const C: Side = Side::A;
const S: Side = Side::B;

/// One segment a line: `>` from the client, `<` from the server.
const NGINX: &str = include_str!("../../../tests/fixtures/http2/nginx.hex");
const UPGRADE: &str = include_str!("../../../tests/fixtures/http2/upgrade.hex");
const GRPC: &str = include_str!("../../../tests/fixtures/http2/grpc.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    hex.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn recorded(text: &str) -> Vec<(Side, Vec<u8>)> {
    let segment = |line: &str| (if line.starts_with('>') { C } else { S }, bytes(&line[2..]));
    text.lines().map(segment).collect()
}

fn run(script: &[(Side, impl AsRef<[u8]>)]) -> Vec<Span> {
    let script: Vec<_> = script.iter().map(|(side, bytes)| (*side, bytes.as_ref())).collect();
    segments(L4Protocol::Tcp, Config::default(), &script)
}

/// `PROTOCOL stream METHOD resource -> code status, exception` of each span.
fn shown(spans: &[Span]) -> Vec<String> {
    let show = |span: &Span| {
        format!(
            "{} {} {} {} -> {} {}{}",
            span.l7_protocol.as_str(),
            span.request_id.unwrap_or(0),
            span.request_type.as_deref().unwrap_or("-"),
            span.request_resource.as_deref().unwrap_or("-"),
            span.response_code.map_or("-".to_owned(), |code| code.to_string()),
            span.response_status.as_str(),
            span.response_exception.as_deref().map(|text| format!(", {text}")).unwrap_or_default()
        )
    };
    spans.iter().map(show).collect()
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
}

#[test]
fn reads_requests_that_go_on_at_the_same_time() {
    let spans = run(&recorded(NGINX));
    insta::assert_debug_snapshot!(shown(&spans));
}

#[test]
fn follows_an_upgrade() {
    let spans = run(&recorded(UPGRADE));
    insta::assert_debug_snapshot!(shown(&spans));
}

#[test]
fn reads_grpc_calls() {
    let spans = run(&recorded(GRPC));
    insta::assert_debug_snapshot!(shown(&spans));
    insta::assert_debug_snapshot!("first_call", Span { flow_id: 0, ..spans[0].clone() });
}

#[test]
fn the_fields_of_a_request_fill_the_span() {
    let spans = run(&recorded(NGINX));
    let post = &spans[3];
    assert_eq!(post.version.as_deref(), Some("2"));
    assert_eq!(post.request_domain.as_deref(), Some("shop:50550"));
    assert_eq!(post.endpoint.as_deref(), Some("/echo"));
    assert_eq!(post.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(
        (post.span_id.as_deref(), post.x_request_id.as_deref()),
        (Some("00f067aa0ba902b7"), Some("r-7"))
    );
    let missing = &spans[2];
    assert_eq!(missing.endpoint.as_deref(), Some("/a/b"));
    assert_eq!(attribute(missing, "referer"), Some("http://from/x?k=v"));
    assert_eq!(attribute(missing, "user_agent"), Some("tester/1"));
    assert_eq!(attribute(missing, "content_type"), Some("text/html"));
    assert!(spans.iter().all(|span| !span.truncated && attribute(span, "http2.hpack").is_none()));
    // The body, in one DATA frame, and the head.
    assert!((3_000 + 9..3_500).contains(&spans[1].response_bytes), "{}", spans[1].response_bytes);
    assert_eq!((spans[7 - 1].session, spans[0].session), (Session::RequestOnly, Session::Complete));
}

#[test]
fn obfuscation_hides_query_values() {
    let script = recorded(NGINX);
    let script: Vec<_> = script.iter().map(|(side, bytes)| (*side, &bytes[..])).collect();
    let config = Config { obfuscate: true, ..Config::default() };
    let spans = segments(L4Protocol::Tcp, config, &script);
    assert_eq!(spans[2].request_resource.as_deref(), Some("/a/b/c?x=?"));
    assert_eq!(attribute(&spans[2], "referer"), Some("http://from/x?k=?"));
}

/// In a capture that begins in the middle, calls are found whose fields are in part unknown.
#[test]
fn reads_grpc_from_the_middle_on() {
    let script = recorded(GRPC);
    let whole = run(&script);
    for start in 1..script.len() {
        let spans = run(&script[start..]);
        for span in spans.iter().filter(|span| span.session == Session::Complete) {
            let same = whole.iter().find(|other| other.request_id == span.request_id).unwrap();
            assert_eq!(span.request_type, same.request_type);
            assert!(span.request_resource.is_none() || span.request_resource == same.request_resource);
            let is_partial = attribute(span, "http2.hpack") == Some("partial");
            assert!(is_partial || span.request_domain == same.request_domain, "{start}: {span:?}");
        }
        let complete = spans.iter().filter(|span| span.session == Session::Complete).count();
        let left = script[start..]
            .iter()
            .filter(|(side, bytes)| *side == C && bytes.get(3) == Some(&frame::HEADERS))
            .count();
        assert!(complete >= left, "{start}: {complete} of {left}");
    }
}

/// In a capture that ends in the middle, no call is said to be whole whose end is missing.
#[test]
fn says_which_calls_are_cut_at_the_end() {
    let script = recorded(GRPC);
    let whole = run(&script);
    let mut cut = 0;
    for end in 1..script.len() {
        for span in run(&script[..end]).iter().filter(|span| span.session == Session::Complete) {
            let same = whole.iter().find(|other| other.request_id == span.request_id).unwrap();
            let is_same =
                (span.response_code, span.response_bytes) == (same.response_code, same.response_bytes);
            assert!(span.truncated || is_same, "{end}: {span:?}");
            cut += usize::from(span.truncated);
        }
    }
    assert!(cut > 0);
}

/// Frames of the tests: no padding, no priority.
fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [&[0x00][..], &string(name), &string(value)].concat()
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const GET: &[u8] = &[0x82, 0x86, 0x84];
const OK: &[u8] = &[0x88];

fn get(stream: u32) -> Vec<u8> {
    frame(frame::HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

#[test]
fn interleaved_responses_keep_their_times_and_bytes() {
    let spans = run(&[
        (C, [get(1), get(3)].concat()),
        (S, frame(frame::HEADERS, END_HEADERS, 3, OK)),
        (S, frame(frame::HEADERS, END_HEADERS, 1, OK)),
        (S, frame(frame::DATA, 0, 3, b"three")),
        (S, frame(frame::DATA, END_STREAM, 1, b"1")),
        (S, frame(frame::DATA, END_STREAM, 3, b"")),
    ]);
    let seen: Vec<_> = spans
        .iter()
        .map(|s| (s.request_id, s.end_ns / 1_000_000, s.request_bytes, s.response_bytes))
        .collect();
    assert_eq!(seen, [(Some(1), 3, 12, 20), (Some(3), 2, 12, 33)]);
    assert_eq!((spans[0].resp_tcp_seq, spans[1].resp_tcp_seq), (Some(5_010), Some(5_000)));
}

#[test]
fn informational_responses_are_no_answer_and_open_ones_are_handed_on_at_the_end() {
    let spans = run(&[
        (C, get(1)),
        (S, frame(frame::HEADERS, END_HEADERS, 1, &literal(":status", "103"))),
        (S, frame(frame::HEADERS, END_HEADERS, 1, OK)),
    ]);
    assert_eq!(shown(&spans), ["HTTP2 1 GET / -> 200 ok"]);
    assert_eq!(spans[0].end_ns, 3_000_000);
}

#[test]
fn header_blocks_go_on_in_continuation_frames_with_padding_and_priority() {
    let user_agent = literal("user-agent", "x");
    let (start, end) = user_agent.split_at(5);
    let first = [&[3, 0, 0, 0, 0, 9][..], GET, start, &[0; 3]].concat();
    let request = [
        frame(frame::HEADERS, END_STREAM | 0x28, 1, &first),
        frame(frame::CONTINUATION, 0, 1, b""),
        frame(frame::CONTINUATION, END_HEADERS, 1, end),
    ]
    .concat();
    for size in 1..request.len() {
        let mut script: Vec<_> = request.chunks(size).map(|chunk| (C, chunk.to_vec())).collect();
        script.push((S, frame(frame::HEADERS, END_STREAM | END_HEADERS, 1, OK)));
        let spans = run(&script);
        assert_eq!(shown(&spans), ["HTTP2 1 GET / -> 200 ok"], "{size}");
        assert_eq!(attribute(&spans[0], "user_agent"), Some("x"));
        assert_eq!((spans[0].start_ns, spans[0].request_bytes), (1_000_000, request.len() as u64));
    }
}

#[test]
fn resets_end_requests() {
    let reset = |stream, code: u32| frame(frame::RST_STREAM, 0, stream, &code.to_be_bytes());
    let spans = run(&[
        (C, [get(1), get(3), get(5), get(7)].concat()),
        (C, reset(1, 8)),
        (S, reset(3, 7)),
        (S, frame(frame::HEADERS, END_HEADERS, 5, OK)),
        (S, reset(5, 2)),
        (S, frame(frame::HEADERS, END_HEADERS, 7, OK)),
        (S, frame(frame::DATA, END_STREAM, 7, b"")),
        (S, reset(7, 0)),
    ]);
    assert_eq!(
        shown(&spans),
        [
            "HTTP2 1 GET / -> - client_error, CANCEL",
            "HTTP2 3 GET / -> - server_error, REFUSED_STREAM",
            "HTTP2 5 GET / -> 200 server_error, INTERNAL_ERROR",
            "HTTP2 7 GET / -> 200 ok"
        ]
    );
}

#[test]
fn a_server_that_goes_away_leaves_the_newest_requests_undone() {
    let last_stream_1_and_calm = [0, 0, 0, 1, 0, 0, 0, 11];
    let spans = run(&[
        (C, [get(1), get(3)].concat()),
        (S, frame(frame::GOAWAY, 0, 0, &last_stream_1_and_calm)),
        (S, frame(frame::HEADERS, END_STREAM | END_HEADERS, 1, OK)),
    ]);
    assert_eq!(
        shown(&spans),
        ["HTTP2 3 GET / -> - server_error, GOAWAY ENHANCE_YOUR_CALM", "HTTP2 1 GET / -> 200 ok"]
    );
    assert_eq!(spans[0].session, Session::RequestOnly);
}

#[test]
fn pushed_responses_are_passed_over_but_keep_the_table_in_step() {
    // The promise adds an entry that the response refers to.
    let promise = [&[0, 0, 0, 2, 0x82, 0x86, 0x84, 0x40][..], b"\x0ccontent-type\x01x"].concat();
    let spans = run(&[
        (C, get(1)),
        (S, frame(frame::PUSH_PROMISE, END_HEADERS, 1, &promise)),
        (S, frame(frame::HEADERS, END_STREAM | END_HEADERS, 1, &[0x88, 0xbe])),
        (S, frame(frame::HEADERS, END_STREAM | END_HEADERS, 2, OK)),
    ]);
    assert_eq!(shown(&spans), ["HTTP2 1 GET / -> 200 ok"]);
    assert_eq!(attribute(&spans[0], "content_type"), Some("x"));
}

#[test]
fn a_header_block_longer_than_the_buffer_is_read_as_far_as_it_goes() {
    let config = Config { max_buffer: 1024, ..Config::default() };
    let cookies: Vec<u8> =
        (0..100).flat_map(|_| literal("cookie", "0123456789012345678901234567890")).collect();
    let request = frame(frame::HEADERS, END_STREAM | END_HEADERS, 1, &[GET, &cookies].concat());
    let mut script: Vec<_> = request.chunks(100).map(|part| (C, part.to_vec())).collect();
    script.push((C, get(3)));
    script.push((S, frame(frame::HEADERS, END_STREAM | END_HEADERS, 1, OK)));
    script.push((S, frame(frame::HEADERS, END_STREAM | END_HEADERS, 3, OK)));
    let script: Vec<_> = script.iter().map(|(side, bytes)| (*side, &bytes[..])).collect();
    let spans = segments(L4Protocol::Tcp, config, &script);
    assert_eq!(shown(&spans), ["HTTP2 1 GET / -> 200 ok", "HTTP2 3 GET / -> 200 ok"]);
    assert_eq!((spans[0].truncated, spans[1].truncated), (true, false));
    assert_eq!(spans[0].request_bytes, request.len() as u64);
}

/// After a hole in the stream of requests, indices into the dynamic table mean nothing any more.
#[test]
fn a_hole_makes_the_dynamic_table_unknown() {
    let mut direction = super::Direction::default();
    direction.hpack.decode(&[0x40, 1, b'n', 1, b'v'], |_| {}).unwrap();
    let mut parser = super::Http2 { client: direction, ..super::Http2::default() };
    crate::parser::Parser::lost(&mut parser, Role::Client);
    let mut known = true;
    parser.client.hpack.decode(&[0xbe], |field| known = field != Field::Missing).unwrap();
    assert!(!known);
}

/// In a capture that begins in the middle, `traceparent` is known by its value where its name is an index.
#[test]
fn trace_context_is_read_from_the_middle_on() {
    let value = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    // GET / by static indices, then a field under the name of entry 70.
    let block = [&[0x82, 0x84, 0x86, 0x7f, 7, value.len() as u8][..], value].concat();
    let request = frame(frame::HEADERS, END_STREAM | END_HEADERS, 5, &block);
    let response = frame(frame::HEADERS, END_STREAM | END_HEADERS, 5, OK);
    let spans = run(&[(C, request), (S, response)]);
    assert_eq!(spans[0].trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(spans[0].span_id.as_deref(), Some("00f067aa0ba902b7"));
    assert_eq!(attribute(&spans[0], "http2.hpack"), Some("partial"));
}

fn probed(data: &[u8], role: Option<Role>) -> Verdict {
    let info = ProbeInfo { l4: L4Protocol::Tcp, src_port: 40_000, dst_port: 80, role, stream_start: false };
    probe(data, &info)
}

#[test]
fn detects_the_preface_and_frames_in_the_middle() {
    assert_eq!(probed(b"PRI * HTTP/2.0\r\n", None), Verdict::Maybe);
    assert_eq!(probed(super::PREFACE, None), Verdict::Yes(Role::Client));
    assert_eq!(probed(&get(1), None), Verdict::Yes(Role::Client));
    assert_eq!(probed(&frame(frame::HEADERS, END_HEADERS, 9, OK), None), Verdict::Yes(Role::Server));
    assert_eq!(probed(&frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), None), Verdict::Yes(Role::Server));
    assert_eq!(probed(&frame(frame::PING, 1, 0, &[7; 8]), None), Verdict::Yes(Role::Client));
    // Data before the header block of the next request.
    let data = [frame(frame::DATA, END_STREAM, 1, b"x"), get(3)].concat();
    assert_eq!(probed(&data, None), Verdict::Yes(Role::Client));
    // Trailers with unknown fields tell only where frames are expected.
    let trailers = frame(frame::HEADERS, END_STREAM | END_HEADERS, 1, &[0xe0, 0xdf]);
    assert_eq!(probed(&trailers, None), Verdict::No);
    assert_eq!(probed(&trailers, Some(Role::Server)), Verdict::Yes(Role::Server));
}

#[test]
fn refuses_what_only_resembles_frames() {
    for data in [
        frame(frame::HEADERS, END_HEADERS, 2, GET),
        frame(frame::HEADERS, 0x40, 1, GET),
        frame(frame::HEADERS, END_HEADERS, 1, &[0x82, 0x88]),
        frame(frame::HEADERS, END_HEADERS, 1, &literal("Upper", "x")),
        frame(frame::HEADERS, END_HEADERS, 1, &[&literal("a", "b"), GET].concat()),
        frame(frame::HEADERS, END_HEADERS, 1 << 31 | 1, GET),
        frame(frame::SETTINGS, 0, 0, &[7, 3, 0, 0, 0, 9]),
        frame(frame::WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(frame::DATA, 0, 1, b"data alone"),
        frame(0x20, 0, 0, b"unknown"),
        [get(1), b"\x16\x03\x01".to_vec()].concat(),
    ] {
        assert_eq!(probed(&data, None), Verdict::No, "{data:x?}");
    }
}

/// Spans without times, which depend on the segments.
fn timeless(spans: Vec<Span>) -> Vec<Span> {
    spans.into_iter().map(|span| Span { start_ns: 0, end_ns: 0, ..span }).collect()
}

proptest! {
    #[test]
    fn any_split_into_segments_gives_the_same_spans(
        sizes in prop::collection::vec(1..90usize, 1..20),
        which in 0..3usize,
    ) {
        let whole = recorded([NGINX, UPGRADE, GRPC][which]);
        let mut sizes = sizes.iter().cycle();
        let mut split = Vec::new();
        for (side, bytes) in &whole {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (segment, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                split.push((*side, segment));
                rest = after;
            }
        }
        prop_assert_eq!(timeless(run(&whole)), timeless(run(&split)));
    }

    #[test]
    fn any_frames_in_any_order_are_survived(
        frames in prop::collection::vec(
            (any::<bool>(), 0..10u8, any::<u8>(), 0..9u32, prop::collection::vec(any::<u8>(), 0..40)),
            0..40,
        ),
    ) {
        let mut script = vec![(C, super::PREFACE.to_vec())];
        for (from_server, kind, flags, stream, body) in frames {
            script.push((if from_server { S } else { C }, frame(kind, flags & 0x2d, stream, &body)));
        }
        let spans = run(&script);
        prop_assert!(spans.iter().all(|span| span.end_ns >= span.start_ns));
    }

    #[test]
    fn any_bytes_keep_every_limit(input in prop::collection::vec(any::<u8>(), 0..600)) {
        script(Some(L7Protocol::Http2), L4Protocol::Tcp, &input);
    }
}

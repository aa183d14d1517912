use crate::drive::{flow, segments, segments_of};
use crate::engine::{Config, Side};
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Session, Span};

const A: Side = Side::A;
const B: Side = Side::B;

fn spans(script: &[(Side, &str)]) -> Vec<Span> {
    let script: Vec<_> = script.iter().map(|(side, text)| (*side, text.as_bytes())).collect();
    segments(L4Protocol::Tcp, Config::default(), &script)
}

/// `METHOD resource -> code, request bytes, response bytes` of each span.
fn shown(spans: &[Span]) -> Vec<String> {
    let show = |span: &Span| {
        format!(
            "{} {} -> {}, {}, {}",
            span.request_type.as_deref().unwrap_or("-"),
            span.request_resource.as_deref().unwrap_or("-"),
            span.response_code.map_or("-".to_owned(), |code| code.to_string()),
            span.request_bytes,
            span.response_bytes
        )
    };
    spans.iter().map(show).collect()
}

#[test]
fn a_request_and_its_response_fill_the_span() {
    let request = "POST /api/v1/users?id=5 HTTP/1.1\r\nHost: shop\r\nUser-Agent: curl/8\r\nReferer: http://x/?q=1\r\n\
        X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Request-ID: r-1\r\nContent-Length: 4\r\n\
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\nbody";
    let response = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno";
    let spans = spans(&[(A, request), (B, response)]);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.version.as_deref(), Some("1.1"));
    assert_eq!(span.request_type.as_deref(), Some("POST"));
    assert_eq!(span.request_domain.as_deref(), Some("shop"));
    assert_eq!(span.request_resource.as_deref(), Some("/api/v1/users?id=5"));
    assert_eq!(span.endpoint.as_deref(), Some("/api/v1"));
    assert_eq!((span.response_code, span.response_status), (Some(404), ResponseStatus::ClientError));
    assert_eq!(span.response_exception.as_deref(), Some("Not Found"));
    assert_eq!(span.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(span.span_id.as_deref(), Some("00f067aa0ba902b7"));
    assert_eq!(span.x_request_id.as_deref(), Some("r-1"));
    assert_eq!((span.req_tcp_seq, span.resp_tcp_seq), (Some(1_000), Some(5_000)));
    assert_eq!((span.request_bytes, span.response_bytes), (request.len() as u64, response.len() as u64));
    let attributes: Vec<_> = span.attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(
        attributes,
        [
            ("user_agent", "curl/8"),
            ("referer", "http://x/?q=1"),
            ("x_forwarded_for", "1.2.3.4, 5.6.7.8"),
            ("content_type", "text/html")
        ]
    );
}

#[test]
fn obfuscation_hides_query_values() {
    let config = Config { obfuscate: true, ..Config::default() };
    let request = b"GET /a?user=bob HTTP/1.1\r\nReferer: http://u:p@h/?token=1\r\n\r\n";
    let spans = segments(L4Protocol::Tcp, config, &[(A, request)]);
    assert_eq!(spans[0].request_resource.as_deref(), Some("/a?user=?"));
    assert_eq!(spans[0].attributes, [("referer", "http://h/?token=?".into())]);
}

#[test]
fn keep_alive_and_pipelining_pair_in_order() {
    let spans = spans(&[
        (A, "GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n"),
        (B, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (B, "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        (A, "GET /4 HTTP/1.1\r\n\r\n"),
        (B, "HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(
        shown(&spans),
        ["GET /1 -> 200, 19, 39", "HEAD /2 -> 200, 20, 39", "GET /3 -> 304, 19, 49", "GET /4 -> 503, 19, 35"]
    );
    assert_eq!(spans[3].response_status, ResponseStatus::ServerError);
}

#[test]
fn chunked_bodies_with_extensions_and_trailers_are_counted() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    let request = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let spans =
        spans(&[(A, request), (A, "GET /2 HTTP/1.1\r\n\r\n"), (B, response), (B, "HTTP/1.1 204 \r\n\r\n")]);
    let first = format!("POST / -> 200, {}, {}", request.len(), response.len());
    assert_eq!(shown(&spans), [&first, "GET /2 -> 204, 19, 17"]);
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    let spans = spans(&[(A, "GET / HTTP/1.0\r\n\r\n"), (B, "HTTP/1.0 200 OK\r\n\r\nsome"), (B, "more")]);
    assert_eq!(shown(&spans), ["GET / -> 200, 18, 27"]);
}

#[test]
fn interim_responses_are_passed_over() {
    let spans = spans(&[
        (A, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
        (B, "HTTP/1.1 100 Continue\r\n\r\n"),
        (A, "body"),
        (B, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (A, "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
        (B, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
        (A, "GET / HTTP/1.1\r\n\r\n"),
        (B, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(shown(&spans), ["POST / -> 200, 64, 38", "PUT / -> 417, 59, 38", "GET / -> 200, 18, 38"]);
    assert_eq!((spans[0].start_ns, spans[0].end_ns), (1_000_000, 4_000_000));
}

#[test]
fn after_connect_what_is_inside_is_found() {
    let inner = "GET /inner HTTP/1.1\r\nHost: h\r\n\r\n";
    let spans = spans(&[
        (A, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
        (B, "HTTP/1.1 200 Connection established\r\nContent-Length: 7\r\n\r\n"),
        (A, inner),
        (B, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(shown(&spans), ["CONNECT h:443 -> 200, 39, 58", "GET /inner -> 200, 32, 38"]);
    assert_eq!(spans[0].request_domain.as_deref(), Some("h:443"));
}

#[test]
fn a_refused_connect_goes_on_as_http() {
    let spans = spans(&[
        (A, "CONNECT h:443 HTTP/1.1\r\n\r\n"),
        (B, "HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"),
        (A, "CONNECT h:443 HTTP/1.1\r\nProxy-Authorization: x\r\n\r\n"),
        (B, "HTTP/1.1 200 OK\r\n\r\n"),
    ]);
    assert_eq!(shown(&spans), ["CONNECT h:443 -> 407, 26, 40", "CONNECT h:443 -> 200, 50, 19"]);
}

#[test]
fn after_an_upgrade_the_protocol_stays_known() {
    let mut engine = crate::Engine::new(Config::default());
    let (flow, mut stream, mut counts) =
        (flow(L4Protocol::Tcp), crate::Stream::default(), Default::default());
    let mut spans: Vec<Span> = Vec::new();
    let script: [(Side, &[u8]); 4] = [
        (A, b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        (B, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (A, b"\x81\x01x"),
        (B, b"\x81\x01y"),
    ];
    for (ts_ns, (side, data)) in (1..).zip(script.into_iter().cycle().take(40)) {
        // The handshake comes once.
        if ts_ns > 4 && data.len() > 3 {
            continue;
        }
        let chunk = crate::Chunk { data, ts_ns, seq: None, stream_start: false };
        engine.data(&mut stream, &flow, side, chunk, &mut counts, &mut spans);
    }
    assert_eq!(shown(&spans), ["GET /ws -> 101, 40, 36"]);
    assert!(stream.is_off());
    assert_eq!((stream.protocol(), stream.client()), (Some(L7Protocol::Http), Some(A)));
}

#[test]
fn responses_without_requests_are_read() {
    let spans = spans(&[
        (B, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"),
        (A, "GET /2 HTTP/1.1\r\n\r\n"),
        (B, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(shown(&spans), ["- - -> 200, 0, 42", "GET /2 -> 200, 19, 38"]);
    assert_eq!(spans[0].session, Session::ResponseOnly);
    assert_eq!(spans[0].version.as_deref(), Some("1.1"));
    assert_eq!(spans[0].client.port, 40_000);
}

#[test]
fn a_head_longer_than_the_buffer_is_read_as_far_as_it_goes() {
    let config = Config { max_buffer: 1024, ..Config::default() };
    let cookies = "Cookie: 0123456789012345678901234567890123456789\r\n".repeat(100);
    let request = format!("POST /long HTTP/1.1\r\nHost: h\r\n{cookies}Content-Length: 10\r\n\r\n0123456789");
    let script: Vec<_> = request
        .as_bytes()
        .chunks(100)
        .map(|part| (A, part))
        .chain([
            (A, &b"GET /2 HTTP/1.1\r\n\r\n"[..]),
            (B, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n"),
        ])
        .collect();
    let spans = segments(L4Protocol::Tcp, config, &script);
    let first = format!("POST /long -> 200, {}, 38", request.len());
    assert_eq!(shown(&spans), [&first, "GET /2 -> 201, 19, 38"]);
    assert_eq!(spans[0].request_domain.as_deref(), Some("h"));
    assert!(spans[0].truncated && !spans[1].truncated);
}

#[test]
fn an_unanswered_request_times_out() {
    let spans = spans(&[(A, "GET / HTTP/1.1\r\n\r\n")]);
    assert_eq!(spans[0].response_status, ResponseStatus::Timeout);
    assert_eq!(spans[0].session, Session::RequestOnly);
}

#[test]
fn the_handshake_decides_who_may_ask() {
    let mut context = flow(L4Protocol::Tcp);
    context.client = Some(B);
    let found = segments_of(&context, Config::default(), &[(A, b"GET / HTTP/1.1\r\n\r\n")]);
    assert!(found.is_empty());
}

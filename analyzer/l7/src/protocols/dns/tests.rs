use crate::drive::{flow, script, segments};
use crate::engine::{Config, Side};
use crate::parser::{ProbeInfo, Role, Verdict};
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Session, Span};

/// A message with one question, then `rest`; `counts` of answers, authorities and additionals.
fn message(id: u16, flags: u16, name: &[&str], kind: u16, counts: [u16; 3], rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [id, flags, 1, counts[0], counts[1], counts[2]] {
        bytes.extend(number.to_be_bytes());
    }
    for label in name {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(rest);
    bytes
}

fn query(id: u16, name: &[&str], kind: u16) -> Vec<u8> {
    message(id, 0x0100, name, kind, [0; 3], &[])
}

/// A record of the name in the question.
fn record(kind: u16, ttl: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, ttl, 0, data.len() as u8]);
    bytes.extend(data);
    bytes
}

fn tcp(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn udp_spans(datagrams: &[(Side, &[u8])]) -> Vec<Span> {
    segments(L4Protocol::Udp, Config::default(), datagrams)
}

#[test]
fn an_answered_question_becomes_a_span() {
    let question = query(7, &["www", "example", "com"], 1);
    let answers = [record(5, 9, b"\x01a\xc0\x10"), record(1, 30, &[10, 0, 0, 1])].concat();
    let answer = message(7, 0x8180, &["www", "example", "com"], 1, [2, 0, 0], &answers);
    let spans = udp_spans(&[(Side::A, &question), (Side::B, &answer)]);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.session, Session::Complete);
    assert_eq!(span.request_type.as_deref(), Some("A"));
    assert_eq!(span.request_domain.as_deref(), Some("www.example.com"));
    assert_eq!(span.request_resource.as_deref(), Some("www.example.com"));
    assert_eq!(span.endpoint.as_deref(), Some("www.example.com"));
    assert_eq!(span.request_id, Some(7));
    assert_eq!((span.response_code, span.response_status), (Some(0), ResponseStatus::Ok));
    assert_eq!(span.response_result.as_deref(), Some("CNAME a.example.com ttl=9; A 10.0.0.1 ttl=30"));
    assert_eq!((span.request_bytes, span.response_bytes), (question.len() as u64, answer.len() as u64));
    assert!(!span.truncated);
}

#[test]
fn response_codes_tell_whose_fault_it_was() {
    for (flags, status, exception) in [
        (0x8181, ResponseStatus::ClientError, "FORMERR"),
        (0x8182, ResponseStatus::ServerError, "SERVFAIL"),
        (0x8183, ResponseStatus::ClientError, "NXDOMAIN"),
        (0x8185, ResponseStatus::ServerError, "REFUSED"),
    ] {
        let spans = udp_spans(&[
            (Side::A, &query(7, &["a", "b"], 28)),
            (Side::B, &message(7, flags, &["a", "b"], 28, [0; 3], &[])),
        ]);
        assert_eq!(spans[0].response_status, status);
        assert_eq!(spans[0].response_exception.as_deref(), Some(exception));
        assert_eq!(spans[0].response_result, None);
    }
}

#[test]
fn edns_tells_version_size_subnet_and_the_extended_code() {
    let opt = b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x0b\x00\x08\x00\x07\x00\x01\x18\x00\x0a\x01\x02";
    let bad_version = b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00";
    let spans = udp_spans(&[
        (Side::A, &message(7, 0x0120, &["a", "b"], 1, [0, 0, 1], opt)),
        (Side::B, &message(7, 0x8180, &["a", "b"], 1, [0, 0, 1], bad_version)),
    ]);
    let attribute = |name| spans[0].attributes.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
    assert_eq!(attribute("dns.edns_version"), Some("0"));
    assert_eq!(attribute("dns.edns_udp_size"), Some("4096"));
    assert_eq!(attribute("dns.client_subnet"), Some("10.1.2.0/24"));
    assert_eq!((spans[0].response_code, spans[0].response_exception.as_deref()), (Some(16), Some("BADVERS")));
}

#[test]
fn pairs_by_id_in_any_order_and_a_retry_is_one_exchange() {
    let answer = |id, kind| message(id, 0x8180, &["a", "b"], kind, [0; 3], &[]);
    let spans = udp_spans(&[
        (Side::A, &query(1, &["a", "b"], 1)),
        (Side::A, &query(2, &["a", "b"], 28)),
        (Side::A, &query(1, &["a", "b"], 1)),
        (Side::B, &answer(2, 28)),
        (Side::B, &answer(1, 1)),
    ]);
    let seen: Vec<_> =
        spans.iter().map(|s| (s.request_id, s.request_type.as_deref(), s.start_ns, s.end_ns)).collect();
    assert_eq!(
        seen,
        [(Some(2), Some("AAAA"), 2_000_000, 4_000_000), (Some(1), Some("A"), 1_000_000, 5_000_000)]
    );
}

#[test]
fn a_question_that_is_repeated_and_answered_each_time_is_one_exchange() {
    let (question, answer) = (query(1, &["a", "b"], 1), message(1, 0x8180, &["a", "b"], 1, [0; 3], &[]));
    let (ask, reply) = ((Side::A, &question[..]), (Side::B, &answer[..]));
    let sessions = |datagrams: &[(Side, &[u8])]| {
        udp_spans(datagrams).iter().map(|s| (s.session, s.start_ns, s.end_ns)).collect::<Vec<_>>()
    };
    let complete = |start_ns: u64, end_ns: u64| (Session::Complete, start_ns * 1_000_000, end_ns * 1_000_000);
    assert_eq!(sessions(&[ask, ask, reply, reply]), [complete(1, 3)]);
    assert_eq!(sessions(&[ask, ask, ask, reply, reply, reply]), [complete(1, 4)]);
    // One more than was asked for; a question that is asked when it has its answer.
    let unasked = (Session::ResponseOnly, 5_000_000, 5_000_000);
    assert_eq!(sessions(&[ask, ask, reply, reply, reply]), [complete(1, 3), unasked]);
    assert_eq!(sessions(&[ask, ask, reply, ask, reply]), [complete(1, 3), complete(4, 5)]);
}

#[test]
fn tcp_messages_share_and_span_segments() {
    let questions = [tcp(&query(1, &["a", "b"], 33)), tcp(&query(2, &["a", "b"], 65280))].concat();
    let answers = [
        tcp(&message(2, 0x8180, &["a", "b"], 65280, [0; 3], &[])),
        tcp(&message(1, 0x8180, &["a", "b"], 33, [0; 3], &[])),
    ]
    .concat();
    for cut in 1..questions.len() {
        let flow = flow(L4Protocol::Tcp);
        assert_eq!(flow.endpoints[1].port, 80, "detection is by content");
        let (first, second) = questions.split_at(cut);
        let spans = segments(
            L4Protocol::Tcp,
            Config::default(),
            &[(Side::A, first), (Side::A, second), (Side::B, &answers)],
        );
        // A type that nothing is known of is believed on port 53 only, when it comes first.
        let seen: Vec<_> =
            spans.iter().map(|s| (s.request_id, s.request_type.as_deref(), s.session)).collect();
        assert_eq!(
            seen,
            [(Some(2), Some("TYPE65280"), Session::Complete), (Some(1), Some("SRV"), Session::Complete)],
            "cut at {cut}"
        );
    }
}

#[test]
fn a_zone_transfer_is_one_exchange() {
    let answer = |kind| tcp(&message(9, 0x8480, &["a", "b"], kind, [1, 0, 0], &record(1, 1, &[1, 2, 3, 4])));
    let spans = segments(
        L4Protocol::Tcp,
        Config::default(),
        &[(Side::A, &tcp(&query(9, &["a", "b"], 252))), (Side::B, &answer(252)), (Side::B, &answer(252))],
    );
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].request_type.as_deref(), Some("AXFR"));
}

fn verdict(data: &[u8], l4: L4Protocol, dst_port: u16) -> Verdict {
    let info = ProbeInfo { l4, src_port: 40_000, dst_port, role: None, stream_start: true };
    super::probe::probe(data, &info)
}

#[test]
fn the_probe_believes_little_away_from_port_53() {
    let plain = query(1, &["a", "b"], 1);
    let yes = Verdict::Yes(Role::Client);
    assert_eq!(verdict(&plain, L4Protocol::Udp, 5300), yes);
    for port in [137, 5353, 5355] {
        assert_eq!(verdict(&plain, L4Protocol::Udp, port), Verdict::No, "port {port}");
    }
    let with_tail = [&plain[..], b"tail"].concat();
    for odd in [query(1, &["a", "b"], 65280), query(1, &["a\x01"], 1), query(1, &[], 2), with_tail] {
        assert_eq!(verdict(&odd, L4Protocol::Udp, 5300), Verdict::No);
        assert_eq!(verdict(&odd, L4Protocol::Udp, 53), yes);
    }
    for wrong in [
        &plain[..11],
        &message(1, 0x0103, &["a"], 1, [0; 3], &[]),
        &message(1, 0x0100, &["a"], 1, [1, 0, 0], &[]),
    ] {
        assert_eq!(verdict(wrong, L4Protocol::Udp, 53), Verdict::No);
    }
    let stream = tcp(&plain);
    for length in 1..stream.len() {
        assert_eq!(verdict(&stream[..length], L4Protocol::Tcp, 5300), Verdict::Maybe, "{length} bytes");
    }
    assert_eq!(verdict(&stream, L4Protocol::Tcp, 5300), yes);
}

#[test]
fn a_cut_datagram_says_so() {
    let answers = [record(1, 30, &[10, 0, 0, 1]), record(1, 30, &[10, 0, 0, 2])].concat();
    let answer = message(7, 0x8180, &["a", "b"], 1, [2, 0, 0], &answers);
    let spans = script(Some(L7Protocol::Dns), L4Protocol::Udp, &[]);
    assert!(spans.is_empty());
    let mut context = flow(L4Protocol::Udp);
    context.endpoints[1].port = 53;
    let spans = crate::drive::segments_of(
        &context,
        Config::default(),
        &[(Side::A, &query(7, &["a", "b"], 1)), (Side::B, &answer[..answer.len() - 20])],
    );
    assert_eq!(spans.len(), 1);
    assert!(spans[0].truncated);
    assert_eq!(spans[0].response_code, Some(0));
}

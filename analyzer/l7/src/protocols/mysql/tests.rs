//! Captures recorded on the loopback interface from a MariaDB 10.11 server, whole, from the middle, and cut into pieces.

use crate::drive;
use crate::engine::{Config, Side};
use proptest::prelude::*;
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Session, Span};

const SERVER_PORT: u16 = 33306;

macro_rules! fixture {
    ($name:literal) => {
        segments(include_bytes!(concat!("../../../tests/fixtures/mysql/", $name, ".pcap")))
    };
}

/// The TCP payloads of a capture: classic pcap, Ethernet, IPv4, nothing lost.
fn segments(pcap: &[u8]) -> Vec<(Side, &[u8])> {
    let (mut rest, mut segments) = (&pcap[24..], Vec::new());
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let ip = &rest[16 + 14..16 + length];
        let tcp = &ip[usize::from(ip[0] & 15) * 4..];
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        let from_server = u16::from_be_bytes([tcp[0], tcp[1]]) == SERVER_PORT;
        if !payload.is_empty() {
            segments.push((if from_server { Side::B } else { Side::A }, payload));
        }
        rest = &rest[16 + length..];
    }
    segments
}

fn spans(segments: &[(Side, &[u8])]) -> Vec<Span> {
    drive::segments(L4Protocol::Tcp, Config::default(), segments)
}

fn find<'a>(spans: &'a [Span], resource: &str) -> &'a Span {
    spans
        .iter()
        .find(|span| span.request_resource.as_deref().is_some_and(|r| r.contains(resource)))
        .unwrap_or_else(|| panic!("no span for {resource}"))
}

fn types(spans: &[Span]) -> Vec<&str> {
    spans.iter().filter_map(|span| span.request_type.as_deref()).collect()
}

fn parameters(span: &Span) -> Option<&str> {
    span.attributes.iter().find(|(name, _)| *name == "parameters").map(|(_, value)| value.as_str())
}

#[test]
fn reads_login_and_queries() {
    let spans = spans(&fixture!("queries"));
    assert_eq!(spans.len(), 17);
    assert!(spans.iter().all(|span| span.l7_protocol == L7Protocol::MySql && !span.truncated));
    let login = &spans[0];
    assert_eq!(login.request_type.as_deref(), Some("LOGIN"));
    assert_eq!(
        (login.request_resource.as_deref(), login.request_domain.as_deref()),
        (Some("app"), Some("shop"))
    );
    assert!(login.version.as_deref().unwrap().contains("MariaDB"));
    let insert = find(&spans, "insert into users(name,age)");
    assert_eq!(insert.endpoint.as_deref(), Some("INSERT users"));
    assert_eq!((insert.affected_rows, insert.response_code), (Some(3), Some(0)));
    assert_eq!((insert.request_bytes, insert.response_bytes), (72, 50));
    assert_eq!(insert.response_result.as_deref(), Some("Records: 3  Duplicates: 0  Warnings: 0"));
    assert_eq!(find(&spans, "join users").response_result.as_deref(), Some("3 rows"));
    let missing = find(&spans, "from missing");
    assert_eq!((missing.response_status, missing.response_code), (ResponseStatus::ServerError, Some(1146)));
    assert_eq!(
        missing.response_exception.as_deref(),
        Some("Table 'shop.missing' doesn't exist (SQLSTATE 42S02)")
    );
    let traced = find(&spans, "count(*)");
    assert_eq!(traced.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(traced.span_id.as_deref(), Some("00f067aa0ba902b7"));
    assert_eq!(find(&spans, "alter table").request_domain.as_deref(), Some("shop"));
    let quit = spans.last().unwrap();
    assert_eq!((quit.request_type.as_deref(), quit.session), (Some("COM_QUIT"), Session::RequestOnly));
}

#[test]
fn a_failed_login_is_an_error() {
    let spans = spans(&fixture!("badlogin"));
    assert_eq!(types(&spans), ["LOGIN"]);
    assert_eq!((spans[0].response_status, spans[0].response_code), (ResponseStatus::ServerError, Some(1045)));
}

#[test]
fn several_results_are_one_response() {
    let spans = spans(&fixture!("multi"));
    let multi = find(&spans, "select 1; update");
    assert_eq!((multi.affected_rows, multi.response_bytes), (Some(4), 4894));
    assert_eq!(find(&spans, "CALL").endpoint.as_deref(), Some("CALL p"));
    // Packet numbers wrap within this one.
    assert_eq!(find(&spans, "seq_1_to_700").response_result.as_deref(), Some("700 rows"));
    assert_eq!(find(&spans, "'next'").response_result.as_deref(), Some("1 row"));
    assert!(spans.iter().all(|span| span.session == Session::Complete || span.request_resource.is_none()));
}

#[test]
fn a_file_that_is_loaded_is_part_of_its_command() {
    let spans = spans(&fixture!("infile"));
    let load = find(&spans, "load data");
    assert_eq!((load.affected_rows, load.endpoint.as_deref()), (Some(50), Some("LOAD users")));
    assert_eq!(find(&spans, "select 1").response_result.as_deref(), Some("1 row"));
}

#[test]
fn prepared_statements_show_statement_and_parameters() {
    let spans = spans(&fixture!("prepared"));
    let executions: Vec<_> = spans
        .iter()
        .filter(|span| span.request_type.as_deref() == Some("COM_STMT_EXECUTE"))
        .map(|span| (span.endpoint.as_deref().unwrap(), span.request_id.unwrap(), parameters(span).unwrap()))
        .collect();
    assert_eq!(
        executions,
        [
            ("SELECT users", 1, "Long(-5) , bob"),
            ("SELECT users", 1, "Long(7) , eve"),
            ("SELECT users", 1, "Long(0) , eve"),
            ("INSERT users", 2, "long data , LongLong(99)"),
            ("INSERT users", 2, "NULL , 2024-02-29 01:02:03.000004"),
            ("SELECT", u64::from(u32::MAX), "LongLong(41)"),
        ]
    );
    let fetched: Vec<_> = spans
        .iter()
        .filter(|span| span.request_type.as_deref() == Some("COM_STMT_FETCH"))
        .map(|span| span.response_result.as_deref().unwrap())
        .collect();
    assert_eq!(fetched, ["2 rows", "1 row"]);
    assert_eq!(
        types(&spans)[18..],
        [
            "COM_STMT_EXECUTE",
            "COM_STATISTICS",
            "COM_PING",
            "COM_SET_OPTION",
            "COM_RESET_CONNECTION",
            "COM_FIELD_LIST",
            "COM_INIT_DB",
            "COM_PROCESS_KILL"
        ]
    );
}

#[test]
fn reads_the_compressed_protocol() {
    let all = fixture!("compress");
    let whole = spans(&all);
    assert_eq!(find(&whole, "zipzip").affected_rows, Some(1));
    assert_eq!(find(&whole, "30000").response_result.as_deref(), Some("3 rows"));
    assert_eq!(find(&whole, "seq_1_to_400").response_result.as_deref(), Some("400 rows"));
    assert_eq!(find(&whole, "missing_table").response_code, Some(1146));
    // The same without the login, beginning with each of the commands.
    for start in (4..all.len()).filter(|&at| all[at].0 == Side::A) {
        let part = spans(&all[start..]);
        assert_eq!(types(&part), types(&whole)[types(&whole).len() - part.len()..], "from segment {start}");
    }
}

#[test]
fn finds_its_place_in_the_middle_of_a_connection() {
    for all in [fixture!("queries"), fixture!("multi"), fixture!("prepared")] {
        let whole = spans(&all);
        for start in 0..all.len().min(30) {
            let part = spans(&all[start..]);
            let complete = part.iter().filter(|span| span.session == Session::Complete).count();
            let commands =
                all[start..].iter().filter(|(side, data)| *side == Side::A && data[3] == 0).count();
            assert!(
                complete + 6 >= commands.min(whole.len()),
                "{complete} of {commands} from segment {start}"
            );
            assert!(part.iter().all(|span| span.l7_protocol == L7Protocol::MySql));
        }
    }
}

#[test]
fn segments_of_any_size_give_the_same_spans() {
    for all in [
        fixture!("queries"),
        fixture!("multi"),
        fixture!("infile"),
        fixture!("prepared"),
        fixture!("compress"),
    ] {
        let expected = summary(&spans(&all));
        for size in [1, 2, 5, 7, 100] {
            // The greeting stays whole: detection wants more than a byte.
            let mut cut = vec![all[0]];
            cut.extend(
                all[1..].iter().flat_map(|(side, data)| data.chunks(size).map(move |chunk| (*side, chunk))),
            );
            assert_eq!(summary(&spans(&cut)), expected, "cut at {size}");
        }
    }
}

/// All but times.
fn summary(spans: &[Span]) -> Vec<String> {
    let text = |span: &Span| {
        let Span { request_type, request_resource, request_bytes, response_bytes, response_result, .. } =
            span;
        let Span { response_code, affected_rows, attributes, .. } = span;
        format!(
            "{request_type:?} {request_resource:?} {request_bytes} {response_bytes} {response_result:?} \
             {response_code:?} {affected_rows:?} {attributes:?}"
        )
    };
    spans.iter().map(text).collect()
}

#[test]
fn obfuscation_hides_values() {
    let config = Config { obfuscate: true, ..Config::default() };
    let spans = drive::segments(L4Protocol::Tcp, config.clone(), &fixture!("queries"));
    find(&spans, "insert into users(name,age) values (?,?),(?,?),(?,?)");
    find(&spans, "where id in (?)");
    assert!(spans.iter().all(|span| !span.request_resource.as_deref().unwrap_or("").contains("ann")));
    let spans = drive::segments(L4Protocol::Tcp, config, &fixture!("prepared"));
    assert_eq!(
        spans.iter().filter_map(parameters).filter(|text| *text != "?" && *text != "? , ?").count(),
        0
    );
}

#[test]
fn tls_is_handed_on() {
    let greeting = fixture!("queries")[0];
    let mut ssl_request = vec![0x20, 0, 0, 1, 0x85, 0xae, 0xff, 0x19, 0, 0, 0, 1, 0xff];
    ssl_request.resize(36, 0);
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";
    let spans = spans(&[greeting, (Side::A, &ssl_request), (Side::A, hello)]);
    assert!(spans.iter().all(|span| span.l7_protocol != L7Protocol::MySql));
}

#[test]
fn query_attributes_stand_before_the_statement() {
    let id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut query = b"\x03\x01\x01\x00\x01\xfe\x00\x0btraceparent\x37".to_vec();
    query.extend_from_slice(id.as_bytes());
    query.extend_from_slice(b"SELECT 1 FROM dual");
    let ping = b"\x01\0\0\0\x0e";
    let packet = [&[query.len() as u8, 0, 0, 0], &query[..]].concat();
    let spans = spans(&[(Side::A, ping), (Side::B, b"\x07\0\0\x01\0\0\0\x02\0\0\0"), (Side::A, &packet)]);
    assert_eq!(spans[1].request_resource.as_deref(), Some("SELECT 1 FROM dual"));
    assert_eq!(spans[1].trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
}

proptest! {
    #[test]
    fn any_script_keeps_the_invariants(input in prop::collection::vec(any::<u8>(), 0..2048)) {
        drive::script(Some(L7Protocol::MySql), L4Protocol::Tcp, &input);
    }

    #[test]
    fn damaged_captures_keep_the_invariants(
        at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        compressed in any::<bool>(),
    ) {
        let all = if compressed { fixture!("compress") } else { fixture!("prepared") };
        let mut script = Vec::new();
        for (side, data) in all {
            for chunk in data.chunks(2048) {
                // The control byte of `drive::script` that asks for as many bytes as there are, or more.
                script.push(0xb0 | side as u8);
                script.extend_from_slice(chunk);
            }
        }
        for (index, byte) in at {
            *index.get_mut(&mut script) = byte;
        }
        drive::script(Some(L7Protocol::MySql), L4Protocol::Tcp, &script);
    }
}

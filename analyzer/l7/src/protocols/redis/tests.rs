use crate::drive::segments;
use crate::engine::{Config, Side};
use wirespan_records::{L4Protocol, L7Protocol, Span};

const C: Side = Side::A;
const S: Side = Side::B;

fn run(script: &[(Side, &[u8])]) -> Vec<Span> {
    segments(L4Protocol::Tcp, Config::default(), script)
}

fn hidden(script: &[(Side, &[u8])]) -> Vec<Span> {
    segments(L4Protocol::Tcp, Config { obfuscate: true, ..Config::default() }, script)
}

/// Request, status, and result or exception of each span.
fn told(spans: &[Span]) -> Vec<String> {
    spans
        .iter()
        .map(|span| {
            assert_eq!(span.l7_protocol, L7Protocol::Redis);
            format!(
                "{} | {} | {} {}",
                span.request_type.as_deref().unwrap_or("-"),
                span.request_resource.as_deref().unwrap_or("-"),
                span.response_status.as_str(),
                span.response_result.as_deref().or(span.response_exception.as_deref()).unwrap_or("-"),
            )
        })
        .collect()
}

/// A command as an array.
fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n", arg.len()).bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn pairs_each_command_of_a_pipeline_with_its_reply() {
    let spans = run(&[
        (C, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nget\r\n$1\r\nk\r\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n"),
        (S, b"+OK\r\n$5\r\nvalue\r\n-ERR value is not an integer or out of range\r\n"),
    ]);
    assert_eq!(
        told(&spans),
        [
            "SET | SET k value | ok OK",
            "GET | get k | ok value",
            "INCR | INCR k | server_error ERR value is not an integer or out of range",
        ]
    );
    assert_eq!(spans.iter().map(|span| span.request_bytes).collect::<Vec<_>>(), [31, 20, 21]);
    assert_eq!(spans.iter().map(|span| span.response_bytes).collect::<Vec<_>>(), [5, 11, 46]);
}

#[test]
fn reads_every_type_of_resp3() {
    let script: Vec<u8> = [&command(&[b"HELLO", b"3"])[..], &command(&[b"DEBUG", b"PROTOCOL", b"x"]).repeat(13)].concat();
    let spans = run(&[
        (C, &script),
        (S, b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n*2\r\n:7\r\n~1\r\n:0\r\n"),
        (S, b"~2\r\n+a\r\n+b\r\n,3.141\r\n(1234567999999999999999999999999999999\r\n#t\r\n#f\r\n_\r\n$-1\r\n"),
        (S, b"!21\r\nSYNTAX invalid syntax\r\n=15\r\ntxt:Some string\r\n|1\r\n$14\r\nkey-popularity\r\n,0.9\r\n:5\r\n"),
        (S, b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n*?\r\n:1\r\n%?\r\n+k\r\n:2\r\n.\r\n.\r\n*0\r\n"),
    ]);
    assert_eq!(
        told(&spans).iter().map(|line| line.split(" | ").last().unwrap()).collect::<Vec<_>>(),
        [
            "ok map(2)",
            "ok set(2)",
            "ok 3.141",
            "ok 1234567999999999999999999999999999999",
            "ok true",
            "ok false",
            "ok nil",
            "ok nil",
            "server_error SYNTAX invalid syntax",
            "ok Some string",
            "ok 5",
            "ok bulk string",
            "ok array",
            "ok array(0)",
        ]
    );
    assert_eq!(spans[0].response_bytes, 56);
    assert_eq!(spans[11].response_bytes, 25);
}

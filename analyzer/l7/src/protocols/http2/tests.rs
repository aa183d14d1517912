//! Connections recorded on the loopback interface: curl with nginx, curl with a server that takes the upgrade, and gRPC's own
//! client and server; whole, from the middle, and in pieces.

use super::frame;
use super::hpack::Decoder;
use super::probe::probe;
use crate::drive::{flow, script, segments, segments_of};
use crate::engine::{Config, Side};
use crate::parser::{ProbeInfo, Role, Verdict};
use proptest::prelude::*;
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Session, Span};

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

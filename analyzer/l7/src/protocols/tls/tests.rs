use super::record::probe;
use crate::drive::{script, segments};
use crate::engine::{Config, Side};
use crate::parser::{ProbeInfo, Role, Verdict};
use proptest::prelude::*;
use wirespan_records::{L4Protocol, L7Protocol, Span};

const C: Side = Side::A;
const S: Side = Side::B;

/// Handshakes of OpenSSL 3.0 with itself, one segment a line: `>` from the client, `<` from the server.
const RECORDED: &[(&str, &str)] = &[
    ("tls12", include_str!("../../../tests/fixtures/tls/tls12.hex")),
    ("tls13", include_str!("../../../tests/fixtures/tls/tls13.hex")),
    ("hello_retry", include_str!("../../../tests/fixtures/tls/hello_retry.hex")),
    ("client_alert", include_str!("../../../tests/fixtures/tls/client_alert.hex")),
    ("server_alert", include_str!("../../../tests/fixtures/tls/server_alert.hex")),
    ("no_client_certificate", include_str!("../../../tests/fixtures/tls/no_client_certificate.hex")),
];

fn recorded(text: &str) -> Vec<(Side, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let segment = |line: &str| {
        let side = if line.starts_with('>') { C } else { S };
        (side, line.as_bytes()[2..].chunks(2).map(byte).collect())
    };
    text.lines().map(segment).collect()
}

fn run(script: &[(Side, impl AsRef<[u8]>)]) -> Vec<Span> {
    let script: Vec<_> = script.iter().map(|(side, bytes)| (*side, bytes.as_ref())).collect();
    segments(L4Protocol::Tcp, Config::default(), &script)
}

/// All that does not depend on time.
fn told(spans: &[Span]) -> String {
    let line = |span: &Span| {
        assert_eq!(span.l7_protocol, L7Protocol::Tls);
        let attributes = span.attributes.iter().filter(|(name, _)| *name != "tls.handshake_us");
        let attributes: String = attributes.map(|(name, value)| format!("\n  {name}: {value}")).collect();
        format!(
            "{} {} {} {:?} {:?} {:?} {:?} {}/{}{attributes}\n",
            span.request_type.as_deref().unwrap_or("-"),
            span.request_domain.as_deref().unwrap_or("-"),
            span.response_status.as_str(),
            span.version,
            span.response_code,
            span.response_exception,
            span.response_result,
            span.request_bytes,
            span.response_bytes,
        )
    };
    spans.iter().map(line).collect()
}

#[test]
fn reads_recorded_handshakes() {
    for (name, text) in RECORDED {
        insta::assert_snapshot!(*name, told(&run(&recorded(text))));
    }
}

#[test]
fn reads_a_hello_that_is_spread_over_records() {
    let whole = recorded(RECORDED[0].1);
    let mut spread = Vec::new();
    for part in whole[0].1[5..].chunks(20) {
        spread.extend([22, 3, 1, 0, part.len() as u8]);
        spread.extend(part);
    }
    let spans = run(&[(C, &spread), (S, &whole[1].1)]);
    assert_eq!(spans[0].request_domain.as_deref(), Some("shop.test"));
    assert_eq!(spans[0].request_bytes, spread.len() as u64);
    assert_eq!(spans[0].version.as_deref(), Some("TLS 1.2"));
}

fn asked(data: &[u8]) -> Verdict {
    probe(
        data,
        &ProbeInfo { l4: L4Protocol::Tcp, src_port: 50_000, dst_port: 443, role: None, stream_start: false },
    )
}

#[test]
fn knows_records_from_other_protocols() {
    let v2 = b"\x80\x1c\x01\x03\x01\0\x03\0\0\0\x10\0\0\x050123456789abcdef";
    assert_eq!(asked(v2), Verdict::Yes(Role::Client));
    assert_eq!(asked(b"\x16\x03\x01\x01\x48\x01\0\x01\x44\x03\x03"), Verdict::Yes(Role::Client));
    assert_eq!(asked(b"\x16\x03\x03\0\x4a\x02\0\0\x46\x03\x03"), Verdict::Yes(Role::Server));
    assert_eq!(asked(b"\x17\x03\x03\x00\x20abc"), Verdict::Yes(Role::Client));
    assert_eq!(asked(b"\x16\x03"), Verdict::Maybe);
    for data in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x05\x01\0\x10",
        b"\x17\x03\x03\xff\xff",
        b"\x16\x03\x01\0\x10\x09",
        b"\x80\x1c\x01",
    ] {
        assert_eq!(asked(data), Verdict::No, "{}", data.escape_ascii());
    }
}

proptest! {
    #[test]
    fn segments_do_not_matter(which in 0..RECORDED.len(), lengths in prop::collection::vec(1usize..300, 1..20)) {
        let whole = recorded(RECORDED[which].1);
        let mut lengths = lengths.into_iter().cycle();
        let mut cut: Vec<(Side, &[u8])> = Vec::new();
        for (side, bytes) in &whole {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(lengths.next().unwrap().min(rest.len()));
                cut.push((*side, head));
                rest = tail;
            }
        }
        prop_assert_eq!(told(&run(&whole)), told(&run(&cut)));
    }

    #[test]
    fn never_panics(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        script(Some(L7Protocol::Tls), L4Protocol::Tcp, &input);
    }

    /// Handshakes with some bytes changed get further than noise.
    #[test]
    fn never_panics_on_damaged_handshakes(
        which in 0..RECORDED.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut whole = recorded(RECORDED[which].1);
        for (at, byte) in damage {
            let segment = at.index(whole.len());
            let bytes = &mut whole[segment].1;
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        run(&whole);
    }
}

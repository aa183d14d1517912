//! What records say, as text in the manner of zone files.

use super::message::{Record, push_escaped, read_name, u16_at, u32_at};
use super::names::type_name;
use compact_str::ToCompactString;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use wirespan_records::Text;

/// Puts `record` as text behind `out`: type, data, TTL.
pub(super) fn push_record(message: &[u8], record: &Record, out: &mut Text) {
    out.push_str(&type_name(record.kind));
    let start = out.len();
    out.push(' ');
    if push_data(message, record, out).is_none() {
        out.truncate(start);
    }
    _ = write!(out, " ttl={}", record.ttl);
}

/// `None` when the data are not what the type wants.
fn push_data(message: &[u8], record: &Record, out: &mut Text) -> Option<()> {
    let data = message.get(record.data..record.end)?;
    // Names in here may point to what is before, but not go on behind the record.
    let message = message.get(..record.end)?;
    let at = record.data;
    let name = |at, out: &mut Text| read_name(message, at, out);
    match record.kind {
        1 => push(out, Ipv4Addr::from(*data.first_chunk::<4>()?)),
        28 => push(out, Ipv6Addr::from(*data.first_chunk::<16>()?)),
        2..=5 | 7..=9 | 12 | 39 => name(at, out).map(drop)?,
        6 => {
            let next = name(at, out)?;
            out.push(' ');
            let next = name(next, out)?;
            for field in 0..5 {
                push_spaced(out, u32_at(message, next + 4 * field)?);
            }
        }
        15 | 18 | 21 | 36 => {
            push(out, u16_at(data, 0)?);
            out.push(' ');
            name(at + 2, out)?;
        }
        13 | 16 | 99 => push_strings(data, out)?,
        17 | 14 => {
            let next = name(at, out)?;
            out.push(' ');
            name(next, out)?;
        }
        33 => {
            for field in 0..3 {
                push(out, u16_at(data, 2 * field)?);
                out.push(' ');
            }
            name(at + 6, out)?;
        }
        35 => {
            push(out, u16_at(data, 0)?);
            push_spaced(out, u16_at(data, 2)?);
            let mut strings = data.get(4..)?;
            for _ in 0..3 {
                out.push(' ');
                strings = push_string(strings, out)?;
            }
            out.push(' ');
            name(record.end - strings.len(), out)?;
        }
        43 | 59 | 32769 => {
            _ = write!(out, "{} {} {} ", u16_at(data, 0)?, data.get(2)?, data.get(3)?);
            push_hex(data.get(4..)?, out);
        }
        48 | 60 => _ = write!(out, "{} {} {}", u16_at(data, 0)?, data.get(2)?, data.get(3)?),
        44 => {
            _ = write!(out, "{} {} ", data.first()?, data.get(1)?);
            push_hex(data.get(2..)?, out);
        }
        46 => {
            out.push_str(&type_name(u16_at(data, 0)?));
            out.push(' ');
            name(at + 18, out)?;
        }
        47 => name(at, out).map(drop)?,
        52 | 53 => {
            _ = write!(out, "{} {} {} ", data.first()?, data.get(1)?, data.get(2)?);
            push_hex(data.get(3..)?, out);
        }
        64 | 65 => push_service(message, at, data, out)?,
        256 => {
            _ = write!(out, "{} {} \"", u16_at(data, 0)?, u16_at(data, 2)?);
            push_escaped(data.get(4..)?, b'"', out);
            out.push('"');
        }
        257 => {
            let (flags, tag_length) = (data.first()?, usize::from(*data.get(1)?));
            let (tag, value) = data.get(2..)?.split_at_checked(tag_length)?;
            _ = write!(out, "{flags} ");
            push_escaped(tag, b'\\', out);
            out.push_str(" \"");
            push_escaped(value, b'"', out);
            out.push('"');
        }
        _ => _ = write!(out, "({} bytes)", data.len()),
    }
    Some(())
}

fn push(out: &mut Text, value: impl std::fmt::Display) {
    _ = write!(out, "{value}");
}

fn push_spaced(out: &mut Text, value: impl std::fmt::Display) {
    _ = write!(out, " {value}");
}

fn push_hex(bytes: &[u8], out: &mut Text) {
    for byte in bytes {
        _ = write!(out, "{byte:02x}");
    }
}

/// One `<character-string>` (RFC 1035, section 3.3); gives what follows it.
fn push_string<'a>(data: &'a [u8], out: &mut Text) -> Option<&'a [u8]> {
    let (&length, rest) = data.split_first()?;
    let (string, rest) = rest.split_at_checked(length.into())?;
    out.push('"');
    push_escaped(string, b'"', out);
    out.push('"');
    Some(rest)
}

fn push_strings(mut data: &[u8], out: &mut Text) -> Option<()> {
    data = push_string(data, out)?;
    while !data.is_empty() {
        out.push(' ');
        data = push_string(data, out)?;
    }
    Some(())
}

/// SVCB and HTTPS (RFC 9460): priority, target and the parameters that say how to connect.
fn push_service(message: &[u8], at: usize, data: &[u8], out: &mut Text) -> Option<()> {
    push(out, u16_at(data, 0)?);
    out.push(' ');
    let mut at = read_name(message, at + 2, out)?;
    while at < message.len() {
        let (key, length) = (u16_at(message, at)?, usize::from(u16_at(message, at + 2)?));
        let value = message.get(at + 4..at + 4 + length)?;
        match key {
            1 => push_list(out, " alpn=", &alpn_ids(value)),
            3 => _ = write!(out, " port={}", u16_at(value, 0)?),
            4 => push_list(out, " ipv4hint=", &addresses::<4, Ipv4Addr>(value)),
            6 => push_list(out, " ipv6hint=", &addresses::<16, Ipv6Addr>(value)),
            _ => _ = write!(out, " key{key}"),
        }
        at += 4 + length;
    }
    Some(())
}

fn alpn_ids(mut value: &[u8]) -> Vec<Text> {
    let mut ids = Vec::new();
    while let Some((&length, rest)) = value.split_first()
        && let Some((id, rest)) = rest.split_at_checked(length.into())
    {
        let mut text = Text::default();
        push_escaped(id, b',', &mut text);
        ids.push(text);
        value = rest;
    }
    ids
}

fn addresses<const N: usize, A: From<[u8; N]> + ToCompactString>(value: &[u8]) -> Vec<Text> {
    value.as_chunks::<N>().0.iter().map(|&bytes| A::from(bytes).to_compact_string()).collect()
}

fn push_list(out: &mut Text, name: &str, values: &[Text]) {
    out.push_str(name);
    out.push_str(&values.join(","));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record of this type and data, in a message that begins with the name `x.y`.
    fn text(kind: u16, data: &[u8]) -> Text {
        let mut message = b"\x01x\x01y\x00".to_vec();
        let start = message.len();
        message.extend(data);
        let record = Record { kind, class: 1, ttl: 60, data: start, end: message.len() };
        // What follows must not be read.
        message.extend(b"\x01z\x00");
        let mut out = Text::default();
        push_record(&message, &record, &mut out);
        out
    }

    #[test]
    fn shows_the_common_types() {
        assert_eq!(text(1, &[10, 0, 0, 1]), "A 10.0.0.1 ttl=60");
        assert_eq!(text(28, &[0; 16]), "AAAA :: ttl=60");
        assert_eq!(text(5, b"\x01a\xc0\x00"), "CNAME a.x.y ttl=60");
        assert_eq!(text(15, b"\x00\x0a\xc0\x02"), "MX 10 y ttl=60");
        assert_eq!(text(16, b"\x02a\"\x00"), r#"TXT "a\"" "" ttl=60"#);
        assert_eq!(text(33, b"\x00\x00\x00\x64\x23\x28\xc0\x00"), "SRV 0 100 9000 x.y ttl=60");
        assert_eq!(
            text(35, b"\x00\x01\x00\x02\x01u\x03E2U\x00\xc0\x00"),
            r#"NAPTR 1 2 "u" "E2U" "" x.y ttl=60"#
        );
        assert_eq!(text(257, b"\x00\x05issueca.net"), r#"CAA 0 issue "ca.net" ttl=60"#);
        assert_eq!(text(43, b"\x00\x07\x08\x02\xab\xcd"), "DS 7 8 2 abcd ttl=60");
        assert_eq!(
            text(65, b"\x00\x01\x00\x00\x01\x00\x06\x02h3\x02h2\x00\x03\x00\x02\x01\xbb\x00\x04\x00\x04\x01\x02\x03\x04"),
            "HTTPS 1 . alpn=h3,h2 port=443 ipv4hint=1.2.3.4 ttl=60"
        );
        let soa = [&b"\xc0\x00\xc0\x02"[..], &[0, 0, 0, 1].repeat(5)].concat();
        assert_eq!(text(6, &soa), "SOA x.y y 1 1 1 1 1 ttl=60");
        assert_eq!(text(65280, b"abc"), "TYPE65280 (3 bytes) ttl=60");
    }

    #[test]
    fn leaves_out_data_that_are_not_what_the_type_wants() {
        for (kind, data) in [
            (1, &b"\x01"[..]),
            (5, b"\x05a"),
            (16, b"\x09a"),
            (33, b"\x00"),
            (257, b"\x00\x09a"),
            (6, b"\x00"),
        ] {
            let shown = text(kind, data);
            assert!(shown.split(' ').count() == 2, "{shown}");
        }
    }
}

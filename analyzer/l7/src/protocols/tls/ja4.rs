//! JA4, the fingerprint of a TLS client (FoxIO, `technical_details/JA4.md`).

use super::hello::{ClientHello, is_grease};
use compact_str::format_compact;
use sha2::{Digest, Sha256};
use wirespan_records::Text;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// The fingerprint of a ClientHello over TCP, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
pub(super) fn ja4(hello: &ClientHello<'_>) -> Text {
    let mut ciphers = without_grease(&hello.ciphers);
    let mut extensions = without_grease(&hello.extensions);
    let algorithms = without_grease(&hello.signature_algorithms);
    let name = if extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
    let head = format!(
        "t{}{name}{:02}{:02}{}",
        version(hello.version()),
        ciphers.len().min(99),
        extensions.len().min(99),
        alpn(hello.alpn.first().copied().unwrap_or_default()),
    );
    ciphers.sort_unstable();
    extensions.retain(|&number| number != SERVER_NAME && number != ALPN);
    extensions.sort_unstable();
    let mut text = String::with_capacity(5 * (ciphers.len() + extensions.len() + algorithms.len()));
    push_list(&mut text, &ciphers);
    let ciphers = hash(&text);
    text.clear();
    push_list(&mut text, &extensions);
    if !algorithms.is_empty() && !text.is_empty() {
        text.push('_');
        push_list(&mut text, &algorithms);
    }
    format_compact!("{head}_{ciphers}_{}", hash(&text))
}

fn without_grease(numbers: &[u16]) -> Vec<u16> {
    numbers.iter().copied().filter(|&number| !is_grease(number)).collect()
}

fn version(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the first protocol offered; of its hexadecimal form when one of them is no letter or digit.
fn alpn(first: &[u8]) -> String {
    match (first.first(), first.last()) {
        (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric() => {
            format!("{}{}", char::from(*a), char::from(*z))
        }
        (Some(a), Some(z)) => format!("{:x}{:x}", a >> 4, z & 0xf),
        _ => "00".to_owned(),
    }
}

/// Four digits each, with commas between. A tenth of a busy worker's time when `format!` did it.
fn push_list(text: &mut String, numbers: &[u16]) {
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        number.to_be_bytes().into_iter().for_each(|byte| push_hex(text, byte));
    }
}

fn push_hex(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
}

/// The first twelve digits of the SHA-256; zeros for nothing.
fn hash(text: &str) -> String {
    let mut digits = String::with_capacity(12);
    let sum = if text.is_empty() { Default::default() } else { Sha256::digest(text) };
    sum.iter().take(6).for_each(|&byte| push_hex(&mut digits, byte));
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, with GREASE as the browser sends it.
    fn chrome() -> ClientHello<'static> {
        ClientHello {
            legacy_version: 0x0303,
            ciphers: vec![
                0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
                0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x3a3a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
                0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0xdada,
            ],
            server_name: Some(b"example.com"),
            alpn: vec![b"h2", b"http/1.1"],
            versions: vec![0x6a6a, 0x0304, 0x0303],
            signature_algorithms: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            cut: false,
        }
    }

    #[test]
    fn matches_the_example_of_the_specification() {
        assert_eq!(ja4(&chrome()), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn has_a_form_for_everything_that_is_missing() {
        let bare = ClientHello { legacy_version: 0x0301, ..ClientHello::default() };
        assert_eq!(ja4(&bare), "t10i000000_000000000000_000000000000");
        let no_algorithms = ClientHello { signature_algorithms: vec![], ..chrome() };
        let expected = hash("0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01");
        assert_eq!(ja4(&no_algorithms), format!("t13d1516h2_8daaf6152771_{expected}"));
    }

    #[test]
    fn shows_protocols_that_are_no_letters_in_hexadecimal() {
        for (protocol, shown) in [
            (&b"h2"[..], "h2"),
            (b"http/1.1", "h1"),
            (b"x", "xx"),
            (b"", "00"),
            (b"\xab", "ab"),
            (b"\xab\xcd", "ad"),
            (b"0\xab", "3b"),
            (b"01\xab\xcd", "3d"),
            (b"0\xab\xcd1", "01"),
        ] {
            assert_eq!(alpn(protocol), shown);
        }
    }
}

//! Messages, names and records on the wire (RFC 1035, section 4).

use crate::text::utf8;
use wirespan_records::Text;

/// Length of the header.
pub(super) const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// Big-endian number at `at`.
pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Big-endian number at `at`.
pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Second word of the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags(u16);

impl Flags {
    /// The flags of a message of which at least four bytes are there.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        u16_at(message, 2).map(Self)
    }

    pub(super) fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    pub(super) fn opcode(self) -> u16 {
        self.0 >> 11 & 0xf
    }

    pub(super) fn rcode(self) -> u16 {
        self.0 & 0xf
    }

    /// The server had to leave something out.
    pub(super) fn is_truncated(self) -> bool {
        self.0 & 0x0200 != 0
    }

    /// Bits a query must not set: AA, TC and RA.
    pub(super) fn has_response_bits(self) -> bool {
        self.0 & 0x0680 != 0
    }

    /// The bit no message sets.
    pub(super) fn has_reserved_bit(self) -> bool {
        self.0 & 0x0040 != 0
    }
}

/// The first twelve bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub id: u16,
    pub flags: Flags,
    pub questions: u16,
    pub answers: u16,
    pub authorities: u16,
    pub additionals: u16,
}

impl Header {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let number = |index: usize| u16_at(message, 2 * index);
        Some(Self {
            id: number(0)?,
            flags: Flags::parse(message)?,
            questions: number(2)?,
            answers: number(3)?,
            authorities: number(4)?,
            additionals: number(5)?,
        })
    }

    /// Records of all sections.
    pub(super) fn records(self) -> usize {
        usize::from(self.answers) + usize::from(self.authorities) + usize::from(self.additionals)
    }
}

/// The labels of the name at `at`, which may be compressed, and where the name ends. Pointers have to lead backwards,
/// so that they cannot lead in circles.
fn walk<'a>(message: &'a [u8], at: usize, mut label: impl FnMut(&'a [u8])) -> Option<usize> {
    let (mut at, mut end, mut floor, mut length) = (at, None, at, 0);
    loop {
        let size = usize::from(*message.get(at)?);
        match size >> 6 {
            0 if size == 0 => return end.or(Some(at + 1)),
            0 => {
                length += size + 1;
                if length > MAX_NAME {
                    return None;
                }
                label(message.get(at + 1..at + 1 + size)?);
                at += 1 + size;
            }
            3 => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                if target >= floor {
                    return None;
                }
                end = end.or(Some(at + 2));
                (floor, at) = (target, target);
            }
            _ => return None,
        }
    }
}

/// The name at `at` as text (RFC 4343 escapes) behind `out`, and where it ends.
pub(super) fn read_name(message: &[u8], at: usize, out: &mut Text) -> Option<usize> {
    let start = out.len();
    let end = walk(message, at, |label| {
        if out.len() > start {
            out.push('.');
        }
        push_escaped(label, b'.', out);
    });
    match end {
        Some(_) if out.len() == start => out.push('.'),
        Some(_) => {}
        None => out.truncate(start),
    }
    end
}

/// Printable ASCII as it is, `special` and backslashes behind a backslash, all other bytes as `\DDD`.
pub(super) fn push_escaped(bytes: &[u8], special: u8, out: &mut Text) {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != special && byte != b'\\';
    let digit = |n: u8| b'0' + n % 10;
    let mut rest = bytes;
    loop {
        let plain = rest.iter().position(|&byte| !is_plain(byte)).unwrap_or(rest.len());
        let (plain, odd) = rest.split_at(plain);
        out.push_str(utf8(plain).unwrap_or_default());
        let Some((&byte, behind)) = odd.split_first() else { return };
        let escaped = match byte {
            b' '..=b'~' => &[b'\\', byte][..],
            _ => &[b'\\', digit(byte / 100), digit(byte / 10), digit(byte)],
        };
        out.push_str(utf8(escaped).unwrap_or_default());
        rest = behind;
    }
}

/// Where the name at `at` ends.
pub(super) fn skip_name(message: &[u8], at: usize) -> Option<usize> {
    walk(message, at, |_| {})
}

/// Is the name at `at` not the root, not compressed, and made of the characters that host and service names use?
pub(super) fn is_plain_name(message: &[u8], at: usize) -> bool {
    let (mut plain, mut labels, mut length) = (true, 0, 0);
    let end = walk(message, at, |label| {
        labels += 1;
        length += label.len() + 1;
        plain &= label.iter().all(|b| b.is_ascii_alphanumeric() || b"-_*".contains(b));
    });
    plain && labels > 0 && end == Some(at + length + 1)
}

/// What is asked: where its name is, type and class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub kind: u16,
    pub class: u16,
    /// Where it ends.
    pub end: usize,
}

impl Question {
    /// The question behind the header.
    pub(super) fn first(message: &[u8]) -> Option<Self> {
        let end = skip_name(message, HEADER)?;
        Some(Self { kind: u16_at(message, end)?, class: u16_at(message, end + 2)?, end: end + 4 })
    }
}

/// One resource record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub kind: u16,
    pub class: u16,
    pub ttl: u32,
    /// Its data are from here ...
    pub data: usize,
    /// ... to here, which may be behind the end of the bytes there are.
    pub end: usize,
}

impl Record {
    /// The record at `at`; `None` when its header is not whole.
    pub(super) fn parse(message: &[u8], at: usize) -> Option<Self> {
        let at = skip_name(message, at)?;
        let data = at + 10;
        Some(Self {
            kind: u16_at(message, at)?,
            class: u16_at(message, at + 2)?,
            ttl: u32_at(message, at + 4)?,
            data,
            end: data + usize::from(u16_at(message, at + 8)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(message: &[u8], at: usize) -> Option<(Text, usize)> {
        let mut out = Text::from("x");
        let end = read_name(message, at, &mut out);
        assert!(end.is_some() || out == "x", "{out}");
        end.map(|end| (out.split_off(1), end))
    }

    #[test]
    fn reads_plain_compressed_and_odd_names() {
        let message = b"\x03com\x00\x07example\xc0\x00\x03a.\x01\xc0\x05\x00";
        assert_eq!(name(message, 0), Some(("com".into(), 5)));
        assert_eq!(name(message, 5), Some(("example.com".into(), 15)));
        assert_eq!(name(message, 15), Some((r"a\.\001.example.com".into(), 21)));
        assert_eq!(name(message, 21), Some((".".into(), 22)));
    }

    #[test]
    fn refuses_circles_forward_pointers_and_endless_names() {
        assert_eq!(name(b"\xc0\x00", 0), None);
        assert_eq!(name(b"\x01a\xc0\x00", 0), None);
        assert_eq!(name(b"\x01a\xc0\x04\x01b\x00", 0), None);
        assert_eq!(name(b"\xc0\x02\xc0\x00", 2), None);
        assert_eq!(name(b"\x01a", 0), None);
        assert_eq!(name(b"\x40a\x00", 0), None);
        let long: Vec<u8> = [1, b'a'].repeat(128).into_iter().chain([0]).collect();
        assert_eq!(name(&long, 0), None);
    }
}

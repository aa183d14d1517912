//! One element of RESP: a line, the head of a bulk string, or the head of an aggregate.

use crate::text::utf8;
use memchr::memchr;
use wirespan_records::Text;

/// The longest bulk string that is believed (the server's own default limit is 512 MB).
const MAX_BULK: u64 = 4 << 30;
/// The most elements that are believed.
const MAX_ELEMENTS: u64 = 1 << 32;
/// The longest head of a counted element: type, sign, 20 digits, CRLF.
const MAX_HEAD: usize = 24;

/// What an element is by its first bytes. Lengths and counts are what the peer claims, within the limits above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element<'a> {
    /// All of it is on one line: type and text.
    Line(u8, &'a [u8]),
    /// This many bytes and CRLF follow.
    Bulk(u8, u64),
    /// `$-1` or `*-1` of RESP2.
    Null,
    /// This many elements follow (two per pair).
    Aggregate(u8, u64),
    /// Elements follow until [`Element::End`].
    StreamedAggregate(u8),
    /// Chunks follow until an empty one.
    StreamedBulk,
    /// A chunk of this many bytes, and CRLF if there are any.
    Chunk(u64),
    /// The end of a streamed aggregate.
    End,
}

/// What reading an element came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Read<'a> {
    /// An element whose line has this many bytes.
    Got(Element<'a>, usize),
    /// The line has no end yet.
    Partial,
    /// Not RESP.
    Bad,
}

/// Reads the line at the start of `data`.
pub(super) fn read(data: &[u8]) -> Read<'_> {
    let Some((&kind, rest)) = data.split_first() else { return Read::Partial };
    match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => match memchr(b'\n', rest) {
            Some(end) => match rest[..end].strip_suffix(b"\r") {
                Some(text) => Read::Got(Element::Line(kind, text), end + 2),
                None => Read::Bad,
            },
            None => Read::Partial,
        },
        b'$' | b'!' | b'=' | b'*' | b'%' | b'~' | b'>' | b'|' | b';' | b'.' => counted(kind, rest),
        _ => Read::Bad,
    }
}

fn counted(kind: u8, rest: &[u8]) -> Read<'_> {
    let head = &rest[..rest.len().min(MAX_HEAD)];
    let Some(end) = memchr(b'\n', head) else {
        let so_far = head.strip_suffix(b"\r").unwrap_or(head);
        let plausible = so_far.iter().all(|&b| b.is_ascii_digit() || b == b'-' || b == b'?');
        return if plausible && head.len() < MAX_HEAD { Read::Partial } else { Read::Bad };
    };
    let Some(text) = head[..end].strip_suffix(b"\r") else { return Read::Bad };
    let element = match (kind, text) {
        (b'.', b"") => Element::End,
        (b'$', b"?") => Element::StreamedBulk,
        (b'*' | b'%' | b'~' | b'>' | b'|', b"?") => Element::StreamedAggregate(kind),
        (b'$' | b'*', b"-1") => Element::Null,
        (b'.', _) => return Read::Bad,
        _ => match (kind, number(text)) {
            (b'$' | b'!' | b'=', Some(n)) if n <= MAX_BULK => Element::Bulk(kind, n),
            (b';', Some(n)) if n <= MAX_BULK => Element::Chunk(n),
            (b'%' | b'|', Some(n)) if n <= MAX_ELEMENTS => Element::Aggregate(kind, 2 * n),
            (b'*' | b'~' | b'>', Some(n)) if n <= MAX_ELEMENTS => Element::Aggregate(kind, n),
            _ => return Read::Bad,
        },
    };
    Read::Got(element, end + 2)
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// The bytes of a bulk string whose head is `head` bytes long: those that are there, and where the string ends, CRLF
/// included. `None` when the CRLF is missing.
pub(super) fn bulk(data: &[u8], head: usize, len: u64) -> Option<(&[u8], usize)> {
    let end = head.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
    let there = data.get(head..end.min(data.len())).unwrap_or_default();
    let tail = data.get(end..data.len().min(end.saturating_add(2))).unwrap_or_default();
    b"\r\n".starts_with(tail).then_some((there, end.saturating_add(2)))
}

/// Appends at most `room` bytes of `bytes`, as text: what is not UTF-8 as `\x..`.
pub(super) fn push_text(text: &mut Text, bytes: &[u8], room: usize) {
    let limit = text.len().saturating_add(room);
    if let Some(valid) = utf8(bytes) {
        text.push_str(&valid[..valid.floor_char_boundary(room)]);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        let end = valid.floor_char_boundary(limit.saturating_sub(text.len()));
        text.push_str(&valid[..end]);
        if end < valid.len() {
            return;
        }
        for byte in chunk.invalid() {
            if text.len() + 4 > limit {
                return;
            }
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
}

//! The head of a message: start line and the header fields that matter here (RFC 9112, sections 2 to 6).

use crate::trace::{TraceContext, TraceHeaders};
use memchr::{memchr, memrchr};

/// First line of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartLine<'a> {
    Request { method: &'a [u8], target: &'a [u8], version: &'a [u8] },
    Response { version: &'a [u8], code: u16, reason: &'a [u8] },
}

impl<'a> StartLine<'a> {
    /// Reads a line (without its end).
    fn parse(line: &'a [u8]) -> Option<Self> {
        if let Some(rest) = line.strip_prefix(b"HTTP/") {
            let (version, rest) = rest.split_at_checked(3)?;
            let (code, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
            let code = std::str::from_utf8(code).ok()?.parse().ok()?;
            return (is_version(version) && (100..=999).contains(&code)).then_some(Self::Response {
                version,
                code,
                reason: reason.trim_ascii(),
            });
        }
        let (method, rest) = split(line, memchr(b' ', line)?)?;
        let (target, version) = split(rest, memrchr(b' ', rest)?)?;
        let version = version.strip_prefix(b"HTTP/")?;
        (is_token(method) && is_version(version)).then(|| Self::Request {
            method,
            target: target.trim_ascii(),
            version,
        })
    }

    /// Reads a request line whose end was not captured.
    fn parse_cut(line: &'a [u8]) -> Option<Self> {
        let (method, target) = split(line, memchr(b' ', line)?)?;
        is_token(method).then_some(Self::Request { method, target, version: b"" })
    }
}

/// Both sides of the byte at `at`.
fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

fn is_version(version: &[u8]) -> bool {
    matches!(version, [b'1', b'.', b'0'..=b'9'])
}

/// A method name (RFC 9110, section 5.6.2), no longer than any that is in use.
fn is_token(method: &[u8]) -> bool {
    (1..=32).contains(&method.len())
        && method.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// What says how long the body is (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    content_length: Option<u64>,
    transfer_encoding: bool,
    chunked: bool,
    /// The body is sent only when the server asks for it.
    pub expects_continue: bool,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// The body of a request.
    pub(super) fn request_body(self) -> Body {
        match self {
            Self { chunked: true, .. } => Body::Chunked,
            Self { content_length, .. } => Body::Length(content_length.unwrap_or(0)),
        }
    }

    /// The body of a response that has one.
    pub(super) fn response_body(self) -> Body {
        match self {
            Self { chunked: true, .. } => Body::Chunked,
            Self { transfer_encoding: false, content_length: Some(length), .. } => Body::Length(length),
            _ => Body::UntilClose,
        }
    }

    /// Takes note of one header line.
    pub(super) fn field(&mut self, line: &[u8]) {
        if let Some((name, value)) = name_and_value(line) {
            self.note(name, value);
        }
    }

    fn note(&mut self, name: &[u8], value: &[u8]) {
        match name.len() {
            6 if is(name, b"expect") => self.expects_continue = is(value, b"100-continue"),
            14 if is(name, b"content-length") && self.content_length.is_none() => {
                // A list of equal values is allowed; the first stands for all.
                let digits = value.split(|&b| b == b',').next().unwrap_or(value).trim_ascii();
                self.content_length = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
            }
            17 if is(name, b"transfer-encoding") => {
                let last = value.rsplit(|&b| b == b',').next().unwrap_or(value).trim_ascii();
                self.transfer_encoding = true;
                self.chunked = is(last, b"chunked");
            }
            _ => {}
        }
    }
}

/// Start line and header fields. Values that are absent are empty.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub start: StartLine<'a>,
    pub host: &'a [u8],
    pub user_agent: &'a [u8],
    pub referer: &'a [u8],
    pub forwarded_for: &'a [u8],
    pub content_type: &'a [u8],
    pub framing: Framing,
    pub trace: TraceContext,
}

/// What [`Head::read`] found.
pub(super) enum Outcome<'a> {
    /// A whole head of this many bytes.
    Whole(Head<'a>, usize),
    /// The head goes on after the bytes given; the line that is not whole begins here.
    Cut(Head<'a>, usize),
    /// Not even the first line is whole.
    Short,
    /// Not a head.
    Invalid,
}

impl<'a> Head<'a> {
    /// Reads the head at the start of `data`.
    pub(super) fn read(data: &'a [u8], trace: &TraceHeaders) -> Outcome<'a> {
        let Some((line, mut rest)) = next_line(data) else { return Outcome::Short };
        let Some(start) = StartLine::parse(line) else { return Outcome::Invalid };
        let mut head = Self::new(start);
        loop {
            match next_line(rest) {
                Some((b"", rest)) => return Outcome::Whole(head, data.len() - rest.len()),
                Some((line, after)) => {
                    head.field(line, trace);
                    rest = after;
                }
                None => return Outcome::Cut(head, data.len() - rest.len()),
            }
        }
    }

    /// The head of a request whose first line was not captured to its end.
    pub(super) fn of_cut_line(line: &'a [u8]) -> Option<Self> {
        StartLine::parse_cut(line).map(Self::new)
    }

    fn new(start: StartLine<'a>) -> Self {
        Self {
            start,
            host: b"",
            user_agent: b"",
            referer: b"",
            forwarded_for: b"",
            content_type: b"",
            framing: Framing::default(),
            trace: TraceContext::default(),
        }
    }

    fn field(&mut self, line: &'a [u8], trace: &TraceHeaders) {
        let Some((name, value)) = name_and_value(line) else { return };
        match name.len() {
            4 if is(name, b"host") => self.host = value,
            7 if is(name, b"referer") => self.referer = value,
            10 if is(name, b"user-agent") => self.user_agent = value,
            12 if is(name, b"content-type") => self.content_type = value,
            15 if is(name, b"x-forwarded-for") => self.forwarded_for = value,
            _ => self.framing.note(name, value),
        }
        trace.read(name, value, &mut self.trace);
    }
}

fn is(name: &[u8], wanted: &[u8]) -> bool {
    name.eq_ignore_ascii_case(wanted)
}

/// The two parts of a header line.
pub(in crate::protocols) fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = split(line, memchr(b':', line)?)?;
    Some((name, value.trim_ascii()))
}

/// The first line without its end (CRLF or LF), and what follows it.
pub(in crate::protocols) fn next_line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = split(data, memchr(b'\n', data)?)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}

/// How far the search for the end of a head has come, so that each byte is looked at once however it arrives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadSearch {
    line: usize,
    seen: usize,
}

impl HeadSearch {
    /// Some bytes of this head have been looked at before.
    pub(super) fn is_under_way(self) -> bool {
        self.seen > 0
    }

    /// Goes on in `data`, which begins with all the bytes of the calls before. True when it holds a whole head.
    pub(super) fn advance(&mut self, data: &[u8]) -> bool {
        while let Some(at) = data.get(self.seen..).and_then(|unseen| memchr(b'\n', unseen)) {
            let end = self.seen + at;
            self.seen = end + 1;
            match data.get(self.line..end) {
                Some(b"" | b"\r") => return true,
                _ => self.line = self.seen,
            }
        }
        self.seen = data.len();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(data: &[u8]) -> (Head<'_>, usize) {
        match Head::read(data, &TraceHeaders::default()) {
            Outcome::Whole(head, length) => (head, length),
            _ => panic!("no whole head in {:?}", String::from_utf8_lossy(data)),
        }
    }

    #[test]
    fn reads_start_lines() {
        assert_eq!(
            StartLine::parse(b"GET /a b HTTP/1.1"),
            Some(StartLine::Request { method: b"GET", target: b"/a b", version: b"1.1" })
        );
        assert_eq!(
            StartLine::parse(b"HTTP/1.0 404 Not Found"),
            Some(StartLine::Response { version: b"1.0", code: 404, reason: b"Not Found" })
        );
        for line in [&b"HTTP/1.1 200"[..], b"HTTP/1.1 200 "] {
            assert_eq!(
                StartLine::parse(line),
                Some(StartLine::Response { version: b"1.1", code: 200, reason: b"" })
            );
        }
        for line in [
            &b""[..],
            b"GET /",
            b"GET / HTTP/2.0",
            b"GET  HTTP/1.1x",
            b"HTTP/1.1 2x0 OK",
            b"HTTP/1.1 099 ?",
            b"OPTIONS rtsp://h RTSP/1.0",
            b"G\x01T / HTTP/1.1",
        ] {
            assert_eq!(StartLine::parse(line), None, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn reads_fields_case_aside_and_with_bare_line_feeds() {
        let (head, length) = whole(b"POST / HTTP/1.1\nhOST:  h \nContent-length: 5, 5\n\nhello");
        assert_eq!((head.host, length), (&b"h"[..], 48));
        assert_eq!(head.framing.request_body(), Body::Length(5));
    }

    #[test]
    fn transfer_encoding_wins_over_content_length() {
        let framing = |fields: &str| whole(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()).0.framing;
        assert_eq!(
            framing("Content-Length: 3\r\nTransfer-Encoding: gzip, Chunked\r\n").response_body(),
            Body::Chunked
        );
        assert_eq!(
            framing("Content-Length: 3\r\nTransfer-Encoding: gzip\r\n").response_body(),
            Body::UntilClose
        );
        assert_eq!(framing("Content-Length: -3\r\n").response_body(), Body::UntilClose);
        assert_eq!(framing("Content-Length: 3\r\n").response_body(), Body::Length(3));
    }

    #[test]
    fn the_search_finds_the_end_wherever_the_bytes_are_cut() {
        let data = b"GET / HTTP/1.1\r\nA: b\r\n\r\n";
        for first in 0..data.len() {
            let mut search = HeadSearch::default();
            assert!(!search.advance(&data[..first]));
            assert!(search.advance(data));
        }
    }
}

//! FastCGI 1.0 (<https://fastcgi-archives.github.io/FastCGI_Specification.html>): what web servers ask PHP and other programs.
//!
//! A request is the parameters that a CGI program finds in its environment, so that spans look like those of HTTP. Requests of one
//! connection have ids and may be answered beside each other. Bodies are passed over.

use super::http::target::{endpoint, url};
use super::http::{head, some, status};
use crate::parser::{Cx, Length, Message, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use crate::text::text;
use crate::trace::TraceContext;
use std::borrow::Cow;
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Text};

/// Parser of one FastCGI connection.
#[derive(Default)]
pub struct FastCgi;

/// Bytes of a record before its content.
const HEADER: usize = 8;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDOUT: u8 = 6;
/// The last type that the specification knows.
const UNKNOWN_TYPE: u8 = 11;

/// Headers of CGI that are longer are not looked at.
const MAX_HEAD: usize = 8 << 10;
/// Records with parameters of one request that are looked at; servers send one or two.
const MAX_PARAMS: usize = 16;

/// Name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

/// The header of a record.
#[derive(Clone, Copy)]
struct Record {
    kind: u8,
    id: u64,
    content: usize,
    /// With header and padding.
    whole: usize,
}

impl Record {
    fn read(data: &[u8]) -> Option<Self> {
        let &[1, kind @ 1..=UNKNOWN_TYPE, id0, id1, length0, length1, padding, _, ..] = data else {
            return None;
        };
        let content = usize::from(u16::from_be_bytes([length0, length1]));
        let id = u64::from(u16::from_be_bytes([id0, id1]));
        Some(Self { kind, id, content, whole: HEADER + content + usize::from(padding) })
    }

    /// As much of its content as is there.
    fn content(self, data: &[u8]) -> &[u8] {
        let content = data.get(HEADER..).unwrap_or_default();
        content.get(..self.content).unwrap_or(content)
    }

    fn length(self) -> Length {
        Length::Known(self.whole as u64)
    }
}

impl Parser for FastCgi {
    const PROTOCOL: L7Protocol = L7Protocol::FastCgi;
    const PAIRING: Pairing = Pairing::ById;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        match (info.l4, data) {
            (L4Protocol::Tcp, [1, BEGIN_REQUEST, ..]) => begins(data),
            (L4Protocol::Tcp, [1, STDOUT | END_REQUEST, ..]) => answers(data),
            (L4Protocol::Tcp, [1]) => Verdict::Maybe,
            _ => Verdict::No,
        }
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let Some(record) = Record::read(data) else {
            return if data.len() < HEADER && data[0] == 1 && !cx.last {
                Step::More(HEADER)
            } else {
                Step::Desync
            };
        };
        match (role, record.kind) {
            (Role::Client, BEGIN_REQUEST) => request(record, data, cx),
            (Role::Server, STDOUT) if record.content > 0 && !cx.amend(record.id, |_| {}) => {
                response(record, data, cx)
            }
            (Role::Server, END_REQUEST) => end(record, data, cx),
            _ => {
                cx.extend(record.id, record.whole as u64);
                Step::Done(record.whole)
            }
        }
    }
}

/// A request begins with a record of which nearly all bytes are known.
fn begins(data: &[u8]) -> Verdict {
    match *data {
        [1, BEGIN_REQUEST, _, _, 0, 8, _, 0, 0, 1..=3, 0 | 1, 0, 0, 0, 0, 0, ..] => {
            Verdict::Yes(Role::Client)
        }
        _ if data.len() >= 16 => Verdict::No,
        [1, BEGIN_REQUEST] | [1, BEGIN_REQUEST, _] | [1, BEGIN_REQUEST, _, _] => Verdict::Maybe,
        [1, BEGIN_REQUEST, _, _, 0] | [1, BEGIN_REQUEST, _, _, 0, 8, ..] => Verdict::Maybe,
        _ => Verdict::No,
    }
}

/// Output that begins with a header, or the end of a request.
fn answers(data: &[u8]) -> Verdict {
    let Some(record) = Record::read(data) else {
        return if data.len() < HEADER { Verdict::Maybe } else { Verdict::No };
    };
    let content = record.content(data);
    match record.kind {
        _ if record.id == 0 || data.get(7) != Some(&0) => Verdict::No,
        END_REQUEST if record.content == 8 => match content {
            [_, _, _, _, 0..=3, ..] => Verdict::Yes(Role::Server),
            _ if content.len() < 8 => Verdict::Maybe,
            _ => Verdict::No,
        },
        STDOUT => match content.iter().position(|byte| !is_of_name(*byte)) {
            Some(end @ 1..) if content.get(end) == Some(&b':') => Verdict::Yes(Role::Server),
            None if content.len() < record.content.min(64) => Verdict::Maybe,
            _ => Verdict::No,
        },
        _ => Verdict::No,
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A request with its parameters, which other requests' records may lie between.
fn request(begin: Record, data: &[u8], cx: &mut Cx<'_>) -> Step {
    let mut parameters: Cow<'_, [u8]> = Cow::default();
    // What belongs to this request, up to the end of its parameters.
    let mut length = begin.whole;
    let mut at = begin.whole;
    let mut records = 0..MAX_PARAMS;
    let whole = loop {
        if records.next().is_none() {
            break false;
        }
        let rest = data.get(at..).unwrap_or_default();
        let Some(record) = Record::read(rest) else {
            match rest {
                [] | [1, ..] if !cx.last && rest.len() < HEADER => return Step::More(at + HEADER),
                _ => break false,
            }
        };
        if record.id != begin.id || record.kind != PARAMS {
            break false;
        }
        if rest.len() < record.whole && !cx.last {
            return Step::More(at + record.whole);
        }
        let content = record.content(rest);
        match parameters.is_empty() {
            true => parameters = Cow::Borrowed(content),
            false => parameters.to_mut().extend_from_slice(content),
        }
        length += record.whole;
        at += record.whole;
        if record.content == 0 {
            break true;
        }
    };
    let mut message = read(&parameters, cx);
    message.id = Some(begin.id);
    message.truncated = !whole;
    message.length = Length::Known(length as u64);
    cx.request(message);
    Step::Done(at)
}

/// The first output of a program: headers, `Status` among them where the status is not 200.
fn response(record: Record, data: &[u8], cx: &mut Cx<'_>) -> Step {
    let content = record.content(data);
    let (fields, whole) = fields(content);
    if !whole && content.len() < record.content.min(MAX_HEAD) && !cx.last {
        return Step::More(HEADER + record.content.min(MAX_HEAD));
    }
    let max = cx.config.max_text;
    let mut message = Message { code: Some(200), status: Some(ResponseStatus::Ok), ..Message::default() };
    let mut trace = TraceContext::default();
    for (name, value) in fields {
        cx.config.trace.read(name, value, &mut trace);
        if name.eq_ignore_ascii_case(b"status") {
            let (code, reason) =
                value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
            let Some(code) = str::from_utf8(code).ok().and_then(|code| code.parse().ok()) else { continue };
            message.code = Some(i32::from(code));
            message.status = Some(status(code));
            if status(code) != ResponseStatus::Ok {
                message.exception = some(reason.trim_ascii(), max);
            }
        } else if name.eq_ignore_ascii_case(b"content-type") {
            message.attributes.push(("content_type", text(value, max)));
        }
    }
    (message.trace_id, message.span_id, message.x_request_id) =
        (trace.trace_id, trace.span_id, trace.x_request_id);
    message.length = record.length();
    cx.begin_response(record.id, message);
    Step::Done(record.whole)
}

/// The program is done with a request, or refuses it.
fn end(record: Record, data: &[u8], cx: &mut Cx<'_>) -> Step {
    if data.len() < HEADER + record.content && !cx.last {
        return Step::More(HEADER + record.content);
    }
    let refused = match record.content(data).get(4) {
        Some(1) => Some("no more than one request at a time on a connection"),
        Some(2) => Some("overloaded"),
        Some(3) => Some("unknown role"),
        _ => None,
    };
    if !cx.amend(record.id, |_| {}) {
        let message =
            Message { length: record.length(), status: Some(ResponseStatus::Ok), ..Message::default() };
        cx.begin_response(record.id, message);
    } else {
        cx.extend(record.id, record.whole as u64);
    }
    if let Some(why) = refused {
        cx.amend(record.id, |message| {
            (message.status, message.exception) = (Some(ResponseStatus::ServerError), Some(why.into()));
        });
    }
    cx.finish(record.id);
    Step::Done(record.whole)
}

/// The lines before the empty one, as name and value, and whether that is there.
fn fields(content: &[u8]) -> (Vec<Field<'_>>, bool) {
    let mut fields = Vec::new();
    let mut rest = content.get(..MAX_HEAD).unwrap_or(content);
    while let Some((line, after)) = head::next_line(rest) {
        if line.is_empty() {
            return (fields, true);
        }
        fields.extend(head::name_and_value(line));
        rest = after;
    }
    (fields, false)
}

/// A request by its parameters.
fn read(mut parameters: &[u8], cx: &Cx<'_>) -> Message {
    let config = cx.config;
    let max = config.max_text;
    let mut message = Message::default();
    let (mut uri, mut script, mut query) = (&b""[..], &b""[..], &b""[..]);
    let mut host = &b""[..];
    let mut trace = TraceContext::default();
    while let Some((name, value, rest)) = pair(parameters) {
        parameters = rest;
        match name {
            b"REQUEST_METHOD" => message.request_type = some(value, max),
            b"REQUEST_URI" => uri = value,
            b"SCRIPT_NAME" => script = value,
            b"QUERY_STRING" => query = value,
            b"HTTP_HOST" => host = value,
            b"SERVER_NAME" if host.is_empty() => host = value,
            b"HTTP_USER_AGENT" => message.attributes.extend(attribute("user_agent", value, max)),
            b"HTTP_X_FORWARDED_FOR" => message.attributes.extend(attribute("x_forwarded_for", value, max)),
            b"HTTP_REFERER" if !value.is_empty() => {
                message.attributes.push(("referer", url(value, config.obfuscate, max)));
            }
            _ => {}
        }
        if let Some(header) = name.strip_prefix(b"HTTP_") {
            let name: Text = text(header, max).replace('_', "-").into();
            config.trace.read(name.as_bytes(), value, &mut trace);
        }
    }
    let target = match (uri, query) {
        ([], []) => Cow::Borrowed(script),
        ([], query) => Cow::Owned([script, b"?", query].concat()),
        _ => Cow::Borrowed(uri),
    };
    if !target.is_empty() {
        message.resource = Some(url(&target, config.obfuscate, max));
        message.endpoint = endpoint(&target, config.endpoint_segments, max);
    }
    message.domain = some(host, max);
    (message.trace_id, message.span_id, message.x_request_id) =
        (trace.trace_id, trace.span_id, trace.x_request_id);
    message
}

/// The first name and value, and what is behind them.
fn pair(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, data) = length(data)?;
    let (value, data) = length(data)?;
    let (name, data) = data.split_at_checked(name)?;
    let (value, data) = data.split_at_checked(value)?;
    Some((name, value, data))
}

/// A length of one byte, or of four whose first bit is set.
fn length(data: &[u8]) -> Option<(usize, &[u8])> {
    match *data {
        [short @ 0..=0x7f, ref rest @ ..] => Some((usize::from(short), rest)),
        [a, b, c, d, ref rest @ ..] => Some((u32::from_be_bytes([a & 0x7f, b, c, d]) as usize, rest)),
        _ => None,
    }
}

fn attribute(name: &'static str, value: &[u8], max: usize) -> Option<(&'static str, Text)> {
    some(value, max).map(|value| (name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::segments;
    use crate::engine::{Config, Side};
    use wirespan_records::{Session, Span};

    /// A conversation of nginx 1.22 with php-fpm 8.2, one segment a line: `>` from the client, `<` from the server.
    const PHP: &str = include_str!("../../tests/fixtures/fastcgi/php.hex");

    fn recorded() -> Vec<(Side, Vec<u8>)> {
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let segment = |line: &str| {
            let side = if line.starts_with('>') { Side::A } else { Side::B };
            (side, line.as_bytes()[2..].chunks(2).map(byte).collect())
        };
        PHP.lines().map(segment).collect()
    }

    fn run(script: &[(Side, &[u8])]) -> Vec<Span> {
        segments(L4Protocol::Tcp, Config::default(), script)
    }

    fn record(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = (content.len() as u16).to_be_bytes();
        [&[1, kind, 0, id, high, low, 1, 0], content, &[0]].concat()
    }

    fn asks(id: u8, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in parameters {
            bytes.extend([name.len() as u8, value.len() as u8]);
            bytes.extend(name.bytes().chain(value.bytes()));
        }
        let begin = record(BEGIN_REQUEST, id, &[0, 1, 1, 0, 0, 0, 0, 0]);
        [begin, record(PARAMS, id, &bytes), record(PARAMS, id, &[])].concat()
    }

    /// What is asked and answered, and the bytes of both.
    fn told(spans: &[Span]) -> Vec<String> {
        let text = |text: &Option<Text>| text.as_deref().unwrap_or("-").to_owned();
        let tell = |span: &Span| {
            assert_eq!(span.l7_protocol, L7Protocol::FastCgi);
            let (status, code) = (span.response_status.as_str(), span.response_code.unwrap_or_default());
            let (method, resource) = (text(&span.request_type), text(&span.request_resource));
            let (domain, exception) = (text(&span.request_domain), text(&span.response_exception));
            let (sent, answered) = (span.request_bytes, span.response_bytes);
            format!("{method} {domain} {resource} | {status} {code} {exception} | {sent} {answered}")
        };
        spans.iter().map(tell).collect()
    }

    #[test]
    fn a_web_server_asks_php() {
        let script = recorded();
        let script: Vec<_> = script.iter().map(|(side, bytes)| (*side, bytes.as_slice())).collect();
        let spans = run(&script);
        let told = told(&spans);
        assert_eq!(
            told,
            [
                "GET 127.0.0.1 /leaf/a?token=1 | ok 200 - | 520 88",
                "POST 127.0.0.1 /api/v1/users/7 | ok 200 - | 744 80",
                "GET 127.0.0.1 /fail/x | server_error 500 Internal Server Error | 504 112",
            ]
        );
        assert_eq!(spans[1].endpoint.as_deref(), Some("/api/v1"));
        assert_eq!(spans[1].trace_id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(spans[1].x_request_id.as_deref(), Some("r1"));
        assert!(spans.iter().all(|span| !span.truncated && span.session == Session::Complete));
    }

    #[test]
    fn however_bytes_arrive_they_tell_the_same() {
        let script = recorded();
        let bytes: Vec<_> =
            script.iter().flat_map(|(side, bytes)| bytes.chunks(1).map(|b| (*side, b))).collect();
        let whole: Vec<_> = script.iter().map(|(side, bytes)| (*side, bytes.as_slice())).collect();
        assert_eq!(told(&run(&bytes)), told(&run(&whole)));
    }

    #[test]
    fn requests_are_answered_beside_each_other() {
        let uri = |uri| [("REQUEST_METHOD", "GET"), ("REQUEST_URI", uri)];
        let (first, second) = (asks(1, &uri("/a")), asks(2, &uri("/b")));
        let head = |status: &str| format!("Status: {status}\r\nContent-Type: text/plain\r\n\r\n");
        let ended = [0; 8];
        let answers = [
            record(7, 2, b"not there"),
            record(STDOUT, 2, head("404 Not Found").as_bytes()),
            record(STDOUT, 1, head("201 Created").as_bytes()),
            record(STDOUT, 1, b"body"),
            record(STDOUT, 2, &[]),
            record(END_REQUEST, 2, &ended),
            record(END_REQUEST, 1, &ended),
        ]
        .concat();
        let spans = run(&[(Side::A, &first), (Side::A, &second), (Side::B, &answers)]);
        let mut told = told(&spans);
        told.sort_unstable();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("GET - /a | ok 201 - | "), "{told:?}");
        assert!(told[1].starts_with("GET - /b | client_error 404 Not Found | "), "{told:?}");
    }

    #[test]
    fn a_program_that_takes_no_more_requests_is_an_error() {
        let request =
            asks(1, &[("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/x.php"), ("QUERY_STRING", "a=1")]);
        let refusal = record(END_REQUEST, 1, &[0, 0, 0, 0, 2, 0, 0, 0]);
        let spans = run(&[(Side::A, &request), (Side::B, &refusal)]);
        assert!(
            told(&spans)[0].starts_with("GET - /x.php?a=1 | server_error 0 overloaded"),
            "{:?}",
            told(&spans)
        );
    }

    #[test]
    fn only_fastcgi_is_taken_for_it() {
        let info =
            ProbeInfo { l4: L4Protocol::Tcp, src_port: 1, dst_port: 2, role: None, stream_start: true };
        let request = asks(1, &[]);
        let answer = record(STDOUT, 1, b"Content-type: text/html\r\n\r\n");
        for (bytes, role) in [(&request, Role::Client), (&answer, Role::Server)] {
            assert_eq!(FastCgi::probe(bytes, &info), Verdict::Yes(role));
            assert!((1..16).all(|length| FastCgi::probe(&bytes[..length], &info) != Verdict::No));
        }
        let others: [&[u8]; 3] =
            [&[1, 1, 0, 1, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0], b"\x01\x06\0\x01\0\x05\0\0hello", &[1, 2]];
        assert!(others.iter().all(|bytes| FastCgi::probe(bytes, &info) == Verdict::No));
    }
}

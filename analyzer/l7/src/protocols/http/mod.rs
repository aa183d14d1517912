//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112) over TCP.
//!
//! Heads are read, bodies are passed over by their framing. Interim responses (1xx) are no responses of their own, save
//! 101, after which, as after an accepted `CONNECT`, the stream speaks another protocol.

pub(super) mod head;
mod probe;
pub(super) mod target;

use crate::parser::{Cx, Length, Message, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use crate::text::text;
use head::{Body, Framing, Head, HeadSearch, Outcome, StartLine, next_line};
use memchr::memchr;
use target::{Target, endpoint, url};
use wirespan_records::{L7Protocol, ResponseStatus, Text};

/// Parser of one HTTP/1 connection.
#[derive(Default)]
pub struct Http {
    client: Direction,
    server: Direction,
    /// The response that ends HTTP on this connection was seen.
    switched: bool,
}

/// What comes next in one direction, and how far it was looked at.
#[derive(Default)]
struct Direction {
    phase: Phase,
    search: HeadSearch,
    /// Bytes of a line of the body known not to end it.
    seen: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// A message.
    #[default]
    Head,
    /// More of a head that was too long to be kept; `mid_line` when its last line was cut.
    HeadRest { framing: Framing, bodiless: bool, mid_line: bool },
    /// A body of this length, or the next message: a server may refuse a body, and a response to `HEAD` has none.
    BodyOrHead(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// Lines after the last chunk, up to an empty one.
    Trailers,
    /// A body that the end of the connection ends.
    UntilClose,
    /// After `CONNECT`: what the client sends depends on the answer.
    AfterConnect,
}

/// Longest line with a chunk size and its extensions.
const MAX_CHUNK_LINE: usize = 16 << 10;

impl Parser for Http {
    const PROTOCOL: L7Protocol = L7Protocol::Http;
    const PAIRING: Pairing = Pairing::InOrder;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        probe::probe(data, info.l4)
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if self.switched {
            return Step::Switch;
        }
        match self.direction(role).phase {
            Phase::Head => self.head(role, data, cx),
            Phase::HeadRest { framing, bodiless, mid_line } => {
                self.head_rest(role, data, framing, bodiless, mid_line, cx)
            }
            Phase::BodyOrHead(length) => self.body_or_head(role, data, length, cx),
            Phase::ChunkSize => self.chunk_size(role, data, cx),
            Phase::Trailers => self.trailers(role, data, cx),
            Phase::UntilClose => self.until_close(role, data, cx),
            Phase::AfterConnect => self.after_connect(role, data, cx),
        }
    }

    fn lost(&mut self, role: Role) {
        *self.direction(role) = Direction::default();
    }
}

impl Http {
    fn direction(&mut self, role: Role) -> &mut Direction {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn enter(&mut self, role: Role, phase: Phase) {
        *self.direction(role) = Direction { phase, ..Direction::default() };
    }

    fn head(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let line_ends = data.iter().take_while(|b| b"\r\n".contains(b)).count();
        if line_ends > 0 {
            // Line ends before a message are to be ignored (RFC 9112, section 2.2).
            return Step::Done(line_ends);
        }
        let search = &mut self.direction(role).search;
        if !cx.last && search.is_under_way() && !search.advance(data) {
            return Step::More(data.len() + 1);
        }
        match Head::read(data, &cx.config.trace) {
            Outcome::Whole(head, length) => self.message(role, head, length, true, cx),
            Outcome::Cut(head, length) if cx.last => self.message(role, head, length, false, cx),
            Outcome::Short if cx.last => match Head::of_cut_line(data) {
                Some(head) if role == Role::Client => self.message(role, head, data.len(), false, cx),
                _ => Step::Desync,
            },
            Outcome::Short if probe::probe(data, cx.l4) == Verdict::No => Step::Desync,
            Outcome::Cut(..) | Outcome::Short => {
                search.advance(data);
                Step::More(data.len() + 1)
            }
            Outcome::Invalid => Step::Desync,
        }
    }

    /// A head of `length` bytes; not `whole` when it goes on after them.
    fn message(&mut self, role: Role, head: Head<'_>, length: usize, whole: bool, cx: &mut Cx<'_>) -> Step {
        match (role, head.start) {
            (Role::Client, StartLine::Request { method, target, version }) => {
                let body = if whole { Some(head.framing.request_body()) } else { None };
                let framing = head.framing;
                let mut message = request(head, method, target, version, cx);
                let unsure = framing.expects_continue;
                message.length = message_length(length, body, unsure);
                message.truncated = !whole;
                cx.request(message);
                if method == b"CONNECT" && whole {
                    self.enter(role, Phase::AfterConnect);
                    return Step::Done(length);
                }
                self.after_head(role, length, body, unsure, framing, false)
            }
            (Role::Server, StartLine::Response { version, code, reason }) => {
                let framing = head.framing;
                let asked = cx.oldest_request().map(|request| request.request_type.as_deref().unwrap_or(""));
                let accepted_connect = asked == Some("CONNECT") && code / 100 == 2;
                let bodiless =
                    code < 200 || code == 204 || code == 304 || asked == Some("HEAD") || accepted_connect;
                let unsure = asked.is_none();
                let body = match whole {
                    true if bodiless => Some(Body::Length(0)),
                    true => Some(framing.response_body()),
                    false => None,
                };
                if code >= 200 || code == 101 {
                    let mut message = response(&head, version, code, reason, cx);
                    message.length = message_length(length, body, unsure);
                    message.truncated = !whole;
                    cx.response(message);
                    self.switched = accepted_connect || code == 101;
                }
                self.after_head(role, length, body, unsure, framing, bodiless)
            }
            _ => Step::Desync,
        }
    }

    fn after_head(
        &mut self,
        role: Role,
        length: usize,
        body: Option<Body>,
        unsure: bool,
        framing: Framing,
        bodiless: bool,
    ) -> Step {
        let phase = match body {
            None => Phase::HeadRest { framing, bodiless, mid_line: false },
            Some(Body::Length(n)) if n > 0 && unsure => Phase::BodyOrHead(n),
            Some(Body::Length(_)) => Phase::Head,
            Some(Body::Chunked) => Phase::ChunkSize,
            Some(Body::UntilClose) => Phase::UntilClose,
        };
        self.enter(role, phase);
        match body {
            Some(Body::Length(n)) if phase == Phase::Head => Step::Done(length.saturating_add(to_usize(n))),
            _ => Step::Done(length),
        }
    }

    /// The lines of a head that was too long, one by one, for the sake of its framing.
    fn head_rest(
        &mut self,
        role: Role,
        data: &[u8],
        mut framing: Framing,
        bodiless: bool,
        mid_line: bool,
        cx: &mut Cx<'_>,
    ) -> Step {
        let Some((line, rest)) = next_line(data) else {
            if !mid_line && !cx.last && data.len() < MAX_CHUNK_LINE {
                return Step::More(data.len() + 1);
            }
            self.enter(role, Phase::HeadRest { framing, bodiless, mid_line: true });
            return Step::Done(data.len());
        };
        let length = data.len() - rest.len();
        if mid_line || !line.is_empty() {
            if !mid_line {
                framing.field(line);
            }
            self.enter(role, Phase::HeadRest { framing, bodiless, mid_line: false });
            return Step::Done(length);
        }
        let body = match role {
            Role::Client => framing.request_body(),
            Role::Server if bodiless => Body::Length(0),
            Role::Server => framing.response_body(),
        };
        if let Body::Length(n) = body {
            cx.end_after(length.saturating_add(to_usize(n)));
        }
        self.after_head(role, length, Some(body), false, framing, bodiless)
    }

    fn body_or_head(&mut self, role: Role, data: &[u8], length: u64, cx: &mut Cx<'_>) -> Step {
        self.enter(role, Phase::Head);
        if probe::probe(data, cx.l4) == Verdict::Yes(role) {
            cx.end();
            return self.head(role, data, cx);
        }
        cx.end_after(to_usize(length));
        Step::Done(to_usize(length))
    }

    /// `size[;extensions]`, then that many bytes and a line end (RFC 9112, section 7.1).
    fn chunk_size(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let direction = self.direction(role);
        let Some(end) = data.get(direction.seen..).and_then(|unseen| memchr(b'\n', unseen)) else {
            direction.seen = data.len();
            let plausible = data.first().is_some_and(u8::is_ascii_hexdigit) && data.len() < MAX_CHUNK_LINE;
            return if plausible && !cx.last { Step::More(data.len() + 1) } else { Step::Desync };
        };
        let line = data.get(..direction.seen + end).unwrap_or(data);
        direction.seen = 0;
        let Some(size) = chunk_size(line) else { return Step::Desync };
        if size == 0 {
            self.enter(role, Phase::Trailers);
            return Step::Done(line.len() + 1);
        }
        // The line end after the data is like the one before.
        let line_end = if line.ends_with(b"\r") { 2 } else { 1 };
        Step::Done((line.len() + 1 + line_end).saturating_add(size))
    }

    fn trailers(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let direction = self.direction(role);
        let Some(end) = data.get(direction.seen..).and_then(|unseen| memchr(b'\n', unseen)) else {
            direction.seen = data.len();
            return if cx.last { Step::Desync } else { Step::More(data.len() + 1) };
        };
        let length = direction.seen + end + 1;
        direction.seen = 0;
        if let Some(b"\n" | b"\r\n") = data.get(..length) {
            cx.end_after(length);
            self.enter(role, Phase::Head);
        }
        Step::Done(length)
    }

    /// A server that names no length may still go on with the next response.
    fn until_close(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if cx.oldest_request().is_some() && probe::probe(data, cx.l4) == Verdict::Yes(role) {
            cx.end();
            self.enter(role, Phase::Head);
            return self.head(role, data, cx);
        }
        Step::Done(data.len())
    }

    fn after_connect(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let unanswered =
            cx.oldest_request().is_some_and(|request| request.request_type.as_deref() == Some("CONNECT"));
        if !unanswered {
            self.enter(role, Phase::Head);
            return self.head(role, data, cx);
        }
        if cx.last { Step::Desync } else { Step::More(data.len() + 1) }
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn message_length(head: usize, body: Option<Body>, unsure: bool) -> Length {
    match body {
        Some(Body::Length(n)) if n == 0 || !unsure => Length::Known((head as u64).saturating_add(n)),
        _ => Length::Open,
    }
}

fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|&b| b == b';').next()?.trim_ascii();
    let digits =
        std::str::from_utf8(digits).ok().filter(|d| d.starts_with(|c: char| c.is_ascii_hexdigit()))?;
    usize::from_str_radix(digits, 16).ok()
}

fn request(head: Head<'_>, method: &[u8], target: &[u8], version: &[u8], cx: &Cx<'_>) -> Message {
    let config = cx.config;
    let max = config.max_text;
    let target = Target::parse(method, target);
    let host = target.authority.unwrap_or(head.host);
    let mut message = Message {
        version: some(version, max),
        request_type: Some(text(method, max)),
        domain: some(host, max),
        resource: Some(url(target.path, config.obfuscate, max)),
        endpoint: endpoint(target.path, config.endpoint_segments, max),
        trace_id: head.trace.trace_id,
        span_id: head.trace.span_id,
        x_request_id: head.trace.x_request_id,
        ..Message::default()
    };
    if !head.user_agent.is_empty() {
        message.attributes.push(("user_agent", text(head.user_agent, max)));
    }
    if !head.referer.is_empty() {
        message.attributes.push(("referer", url(head.referer, config.obfuscate, max)));
    }
    if !head.forwarded_for.is_empty() {
        message.attributes.push(("x_forwarded_for", text(head.forwarded_for, max)));
    }
    message
}

fn response(head: &Head<'_>, version: &[u8], code: u16, reason: &[u8], cx: &Cx<'_>) -> Message {
    let max = cx.config.max_text;
    let status = status(code);
    let mut message = Message {
        // Only shown when the request was not seen.
        version: cx.oldest_request().is_none().then(|| text(version, max)),
        status: Some(status),
        code: Some(code.into()),
        exception: if status == ResponseStatus::Ok { None } else { some(reason, max) },
        trace_id: head.trace.trace_id.clone(),
        span_id: head.trace.span_id.clone(),
        x_request_id: head.trace.x_request_id.clone(),
        ..Message::default()
    };
    if !head.content_type.is_empty() {
        message.attributes.push(("content_type", text(head.content_type, max)));
    }
    message
}

/// How a request ended by its status code.
pub(super) fn status(code: u16) -> ResponseStatus {
    match code {
        400..=499 => ResponseStatus::ClientError,
        500..=599 => ResponseStatus::ServerError,
        _ => ResponseStatus::Ok,
    }
}

/// Text, unless it is empty.
pub(super) fn some(bytes: &[u8], max: usize) -> Option<Text> {
    (!bytes.is_empty()).then(|| text(bytes, max))
}

#[cfg(test)]
mod tests;

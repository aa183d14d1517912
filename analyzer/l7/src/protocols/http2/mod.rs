//! HTTP/2 in clear text (RFC 9113) and gRPC over it.
//!
//! Requests and responses pair by their stream; responses of several streams go on at the same time. Header blocks are
//! decoded, data is passed over. A connection that is seen from its middle on is read as far as its header blocks can be
//! known ([`hpack`]). Pushed responses are not reported.

mod frame;
mod grpc;
mod head;
mod hpack;
mod huffman;
mod probe;
mod static_table;

use crate::parser::{Cx, Length, Message, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use frame::Frame;
use head::{Head, PARTIAL, VERSION};
use hpack::{Decoder, Stop};
use std::borrow::Cow;
use std::collections::VecDeque;
use wirespan_records::{L7Protocol, ResponseStatus};

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Parser of one HTTP/2 connection.
#[derive(Default)]
pub struct Http2 {
    client: Direction,
    server: Direction,
    /// gRPC was spoken: where the content type is not known, it is taken to be that.
    grpc: bool,
    /// Requests that the client took back most recently: a response may have been under way.
    cancelled: VecDeque<u64>,
}

/// Cancelled requests that are remembered.
const MAX_CANCELLED: usize = 32;

/// One direction of a connection.
#[derive(Default)]
struct Direction {
    hpack: Decoder,
    block: BlockSearch,
}

/// How far the frames of a header block were followed, so that each is looked at once however it arrives.
#[derive(Clone, Copy, Default)]
struct BlockSearch {
    /// Where the next frame begins.
    end: usize,
    /// There is no next frame.
    whole: bool,
}

impl BlockSearch {
    /// Follows the block that begins with `first` at the start of `data`; `None` when something else comes in between.
    fn advance(&mut self, first: Frame, data: &[u8]) -> Option<Self> {
        if self.end == 0 {
            *self = Self { end: first.total(), whole: first.ends_headers() };
        }
        while !self.whole
            && let Some(next) = data.get(self.end..).and_then(Frame::read)
        {
            if next.kind != frame::CONTINUATION || next.stream != first.stream {
                return None;
            }
            *self = Self { end: self.end + next.total(), whole: next.ends_headers() };
        }
        Some(*self)
    }

    /// Bytes that are needed to go on.
    fn wanted(self) -> usize {
        if self.whole { self.end } else { self.end + frame::HEADER }
    }
}

impl Parser for Http2 {
    const PROTOCOL: L7Protocol = L7Protocol::Http2;
    const PAIRING: Pairing = Pairing::ByStream;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        probe::probe(data, info)
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if data.starts_with(PREFACE) {
            return Step::Done(PREFACE.len());
        }
        if PREFACE.starts_with(data) && !cx.last {
            return Step::More(PREFACE.len());
        }
        let Some(frame) = Frame::read(data) else {
            return if cx.last { Step::Desync } else { Step::More(frame::HEADER) };
        };
        if !frame.is_valid() {
            return Step::Desync;
        }
        let id = u64::from(frame.stream);
        match frame.kind {
            frame::HEADERS | frame::PUSH_PROMISE => return self.header_block(role, frame, data, cx),
            frame::DATA => {
                cx.extend(id, frame.total() as u64);
                if role == Role::Server && frame.ends_stream() {
                    cx.finish(id);
                }
            }
            frame::RST_STREAM => match data.get(frame::HEADER..).and_then(<[u8]>::first_chunk) {
                Some(code) => self.reset(role, id, u32::from_be_bytes(*code), cx),
                None if cx.last => return Step::Desync,
                None => return Step::More(frame.total()),
            },
            frame::GOAWAY if role == Role::Server => {
                match data.get(frame::HEADER..).and_then(<[u8]>::first_chunk) {
                    Some(body) => go_away(body, cx),
                    None if cx.last => return Step::Desync,
                    None => return Step::More(frame::HEADER + GOAWAY_BYTES),
                }
            }
            _ => {}
        }
        Step::Done(frame.total())
    }

    fn lost(&mut self, role: Role) {
        *self.direction(role) = Direction::default();
    }
}

impl Http2 {
    fn direction(&mut self, role: Role) -> &mut Direction {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// A header block begins with `first` at the start of `data`.
    fn header_block(&mut self, role: Role, first: Frame, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let direction = self.direction(role);
        let Some(search) = direction.block.advance(first, data) else { return Step::Desync };
        let is_whole = search.whole && data.len() >= search.end;
        if !is_whole && !cx.last {
            return Step::More(search.wanted());
        }
        direction.block = BlockSearch::default();
        let Some(block) = joined(first, data.get(..search.end).unwrap_or(data)) else { return Step::Desync };
        let mut head = Head::default();
        match direction.hpack.decode(&block, |field| head.field(field, cx.config)) {
            Ok(()) if is_whole => {}
            Err(Stop::Invalid | Stop::Cut) if is_whole => return Step::Desync,
            Err(Stop::Invalid) => return Step::Desync,
            Ok(()) | Err(Stop::Cut) => {
                head.truncated = true;
                direction.hpack.clear();
            }
        }
        if first.kind == frame::HEADERS {
            let is_right = match role {
                Role::Client => self.client_head(first, head, search.end, cx),
                Role::Server => self.server_head(first, head, search.end, cx),
            };
            if !is_right {
                return Step::Desync;
            }
        }
        Step::Done(search.end)
    }

    /// A request or the trailers of one; false when a client does not send that.
    fn client_head(&mut self, frame: Frame, head: Head, bytes: usize, cx: &mut Cx<'_>) -> bool {
        if head.status().is_some() {
            return false;
        }
        let id = u64::from(frame.stream);
        if head.asks() {
            let is_grpc = self.is_grpc(&head);
            cx.request(head.request(id, bytes, is_grpc, cx.config));
        } else {
            cx.unread(id);
            cx.extend(id, bytes as u64);
        }
        true
    }

    /// A response, an interim one or trailers; false when a server does not send that.
    fn server_head(&mut self, frame: Frame, mut head: Head, bytes: usize, cx: &mut Cx<'_>) -> bool {
        if head.asks() {
            return false;
        }
        let id = u64::from(frame.stream);
        let is_interim = matches!(head.status(), Some(100..=199));
        let is_pushed = frame.stream.is_multiple_of(2);
        if is_interim || is_pushed || self.cancelled.contains(&id) {
            return true;
        }
        if head.status().is_none() && cx.amend(id, |_| {}) {
            cx.extend(id, bytes as u64);
            cx.amend(id, |message| head.conclude(message));
        } else {
            let request = cx.request_with(Some(id));
            if head.status().is_none() && !head.has_grpc_status() && request.is_none() {
                if frame.ends_stream() {
                    cx.finish(id);
                }
                return true;
            }
            let is_marked =
                request.is_some_and(|request| request.attributes.iter().any(|(name, _)| *name == PARTIAL.0));
            // Trailers: the head was not seen.
            head.truncated |= head.status().is_none() && frame.ends_stream();
            let is_grpc = self.is_grpc(&head);
            cx.begin_response(id, head.response(id, bytes, is_grpc, is_marked));
        }
        if frame.ends_stream() {
            cx.finish(id);
        }
        true
    }

    fn is_grpc(&mut self, head: &Head) -> bool {
        let told = head.is_grpc();
        self.grpc |= told == Some(true);
        told.unwrap_or(self.grpc)
    }

    /// A side ends a stream before its end, by an error code that has the fault gRPC gives it.
    fn reset(&mut self, role: Role, id: u64, code: u32, cx: &mut Cx<'_>) {
        let exception = error_name(code);
        let status = match &*exception {
            "CANCEL" | "INADEQUATE_SECURITY" | "HTTP_1_1_REQUIRED" => ResponseStatus::ClientError,
            _ => ResponseStatus::ServerError,
        };
        let is_error = exception != "NO_ERROR";
        let has_response = cx.amend(id, |message| {
            if is_error {
                (message.status, message.exception) = (Some(status), Some(exception.as_ref().into()));
            }
        });
        cx.finish(id);
        if has_response {
            return;
        }
        if role == Role::Client {
            if cx.cancel(|other| other == id, status, &exception) {
                self.cancelled.truncate(MAX_CANCELLED - 1);
                self.cancelled.push_front(id);
            }
        } else if cx.request_with(Some(id)).is_some() {
            // Without an error it ends a response that was whole, and not seen.
            cx.response(Message {
                id: Some(id),
                version: Some(VERSION.into()),
                status: is_error.then_some(status),
                exception: is_error.then(|| exception.into()),
                truncated: !is_error,
                length: Length::Known(RESET_BYTES),
                ..Message::default()
            });
        }
    }
}

/// The header block in the frames of `data`, the first of which is `first`; the last may be cut.
fn joined(first: Frame, data: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (frame, rest) = data.split_at(first.total().min(data.len()));
    let fragment = first.fragment(frame.get(frame::HEADER..)?)?;
    if rest.is_empty() {
        return Some(Cow::Borrowed(fragment));
    }
    let (mut block, mut rest) = (fragment.to_vec(), rest);
    while let Some(next) = Frame::read(rest) {
        let (frame, after) = rest.split_at(next.total().min(rest.len()));
        block.extend_from_slice(frame.get(frame::HEADER..)?);
        rest = after;
    }
    Some(Cow::Owned(block))
}

/// Names of the error codes from 0 on (RFC 9113, section 7).
const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

fn error_name(code: u32) -> Cow<'static, str> {
    match ERRORS.get(code as usize) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("error code {code}")),
    }
}

/// The server takes no more streams: what follows the last that it names was not dealt with, and will not be.
fn go_away(body: &[u8; GOAWAY_BYTES], cx: &mut Cx<'_>) {
    let &[l0, l1, l2, l3, e0, e1, e2, e3] = body;
    let last = u64::from(u32::from_be_bytes([l0, l1, l2, l3]) & 0x7fff_ffff);
    let exception = format!("GOAWAY {}", error_name(u32::from_be_bytes([e0, e1, e2, e3])));
    cx.cancel(|id| id > last, ResponseStatus::ServerError, &exception);
}

/// The last stream and the error code of GOAWAY.
const GOAWAY_BYTES: usize = 8;

/// A frame that resets a stream.
const RESET_BYTES: u64 = frame::HEADER as u64 + 4;

#[cfg(test)]
mod tests;

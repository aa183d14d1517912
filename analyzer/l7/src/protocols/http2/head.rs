//! The fields of a header block that matter here.

use super::grpc;
use super::hpack::Field;
use crate::engine::Config;
use crate::parser::{Length, Message};
use crate::protocols::http;
use crate::protocols::http::target::{endpoint, url};
use crate::text::text;
use crate::trace::TraceContext;
use compact_str::ToCompactString;
use wirespan_records::{L7Protocol, ResponseStatus, Text};

/// More fields are not looked at.
const MAX_FIELDS: usize = 512;

/// What marks a span some of whose fields are not known, because they were sent before the capture began.
pub(super) const PARTIAL: (&str, &str) = ("http2.hpack", "partial");

/// Pseudo-header fields and fields of one block.
#[derive(Default)]
pub(super) struct Head {
    fields: usize,
    method: Option<Text>,
    path: Option<Text>,
    authority: Option<Text>,
    has_scheme: bool,
    status: Option<u16>,
    host: Option<Text>,
    user_agent: Option<Text>,
    referer: Option<Text>,
    forwarded_for: Option<Text>,
    content_type: Option<Text>,
    grpc_status: Option<i32>,
    grpc_message: Option<Text>,
    trace: TraceContext,
    /// There are fields that are not known.
    pub partial: bool,
    /// The end of the block is missing.
    pub truncated: bool,
}

impl Head {
    /// Takes note of a field.
    pub(super) fn field(&mut self, field: Field<'_>, config: &Config) {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return;
        }
        let (name, value) = match field {
            Field::Whole(name, value) => (name, value),
            Field::Unnamed(value) => {
                self.partial = true;
                config.trace.read_unnamed(value, &mut self.trace);
                return;
            }
            Field::Missing => {
                self.partial = true;
                return;
            }
        };
        let max = config.max_text;
        let slot = match name {
            b":method" => &mut self.method,
            b":path" => &mut self.path,
            b":authority" => &mut self.authority,
            b":scheme" => {
                self.has_scheme = true;
                return;
            }
            b":status" => {
                self.status = number(value);
                return;
            }
            b"host" => &mut self.host,
            b"user-agent" => &mut self.user_agent,
            b"referer" => &mut self.referer,
            b"x-forwarded-for" => &mut self.forwarded_for,
            b"content-type" => &mut self.content_type,
            b"grpc-status" => {
                self.grpc_status = number(value);
                return;
            }
            b"grpc-message" => {
                self.grpc_message = Some(grpc::message(value, max)).filter(|message| !message.is_empty());
                return;
            }
            _ => {
                config.trace.read(name, value, &mut self.trace);
                return;
            }
        };
        if slot.is_none() {
            *slot = Some(match name {
                b":path" | b"referer" => url(value, config.obfuscate, max),
                _ => text(value, max),
            });
        }
    }

    /// It has what only requests have.
    pub(super) fn asks(&self) -> bool {
        self.method.is_some() || self.path.is_some() || self.has_scheme || self.authority.is_some()
    }

    /// The status code: only responses have one.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// It tells how a gRPC call ended.
    pub(super) fn has_grpc_status(&self) -> bool {
        self.grpc_status.is_some()
    }

    /// gRPC, as far as the fields tell.
    pub(super) fn is_grpc(&self) -> Option<bool> {
        match &self.content_type {
            Some(content_type) => Some(grpc::is_content_type(content_type)),
            None if self.has_grpc_status() => Some(true),
            None if self.partial => None,
            None => Some(false),
        }
    }

    /// The request with this head of `bytes` bytes.
    pub(super) fn request(self, id: u64, bytes: usize, is_grpc: bool, config: &Config) -> Message {
        let endpoint = self.path.as_ref().and_then(|path| match is_grpc {
            true => Some(path.clone()),
            false => endpoint(path.as_bytes(), config.endpoint_segments, config.max_text),
        });
        let mut attributes = Vec::new();
        let texts = [
            ("user_agent", self.user_agent),
            ("referer", self.referer),
            ("x_forwarded_for", self.forwarded_for),
            (PARTIAL.0, self.partial.then(|| PARTIAL.1.into())),
        ];
        attributes.extend(texts.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Message {
            id: Some(id),
            protocol: is_grpc.then_some(L7Protocol::Grpc),
            version: Some(VERSION.into()),
            request_type: self.method,
            domain: self.authority.or(self.host),
            resource: self.path,
            endpoint,
            trace_id: self.trace.trace_id,
            span_id: self.trace.span_id,
            x_request_id: self.trace.x_request_id,
            attributes,
            truncated: self.truncated,
            length: Length::Known(bytes as u64),
            ..Message::default()
        }
    }

    /// The response with this head of `bytes` bytes. It is marked as partial unless its request is.
    pub(super) fn response(mut self, id: u64, bytes: usize, is_grpc: bool, is_marked: bool) -> Message {
        let mut attributes = Vec::new();
        if let Some(content_type) = self.content_type.take() {
            attributes.push(("content_type", content_type));
        }
        if self.partial && !is_marked {
            attributes.push((PARTIAL.0, PARTIAL.1.into()));
        }
        let mut message = Message {
            id: Some(id),
            protocol: is_grpc.then_some(L7Protocol::Grpc),
            version: Some(VERSION.into()),
            status: self.status.map(http::status),
            code: self.status.map(i32::from),
            trace_id: self.trace.trace_id.take(),
            span_id: self.trace.span_id.take(),
            x_request_id: self.trace.x_request_id.take(),
            attributes,
            truncated: self.truncated,
            length: Length::Known(bytes as u64),
            ..Message::default()
        };
        self.conclude(&mut message);
        message
    }

    /// Adds how a gRPC call ended, which comes in the trailers or, when there is no data, in the only head.
    ///
    /// A call that succeeded keeps the code of its HTTP response.
    pub(super) fn conclude(self, message: &mut Message) {
        let Some(status) = self.grpc_status else { return };
        message.protocol = Some(L7Protocol::Grpc);
        if !message.attributes.iter().any(|(name, _)| *name == "grpc.status") {
            message.attributes.push(("grpc.status", status.to_compact_string()));
        }
        if status != 0 {
            message.code = Some(status);
            message.exception = self.grpc_message.or_else(|| grpc::name(status).map(Text::from));
            message.status = Some(grpc::status(status));
        } else if message.status.is_none() {
            message.status = Some(ResponseStatus::Ok);
        }
    }
}

/// The version of the protocol in spans.
pub(super) const VERSION: &str = "2";

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

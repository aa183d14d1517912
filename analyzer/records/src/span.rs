//! One request/response exchange.

use crate::net::{Endpoint, L4Protocol, NO_TAP, ObservationPoint, Signal, Tunnel};
use crate::process::{Parent, Process};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use std::sync::Arc;

/// Text of a span. A short one, as most are, lies in it and needs no memory of its own.
pub type Text = compact_str::CompactString;

/// Application protocol of a span or flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum L7Protocol {
    /// HTTP/1.0 and 1.1.
    Http,
    /// HTTP/2.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// DNS over UDP or TCP.
    Dns,
    /// MySQL and MariaDB client protocol.
    MySql,
    /// Redis RESP2 and RESP3.
    Redis,
    /// TLS handshakes.
    Tls,
    /// FastCGI 1.0.
    FastCgi,
}

impl L7Protocol {
    /// Every protocol, in a stable order.
    pub const ALL: [Self; 8] =
        [Self::Http, Self::Http2, Self::Grpc, Self::Dns, Self::MySql, Self::Redis, Self::Tls, Self::FastCgi];

    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "gRPC",
            Self::Dns => "DNS",
            Self::MySql => "MySQL",
            Self::Redis => "Redis",
            Self::Tls => "TLS",
            Self::FastCgi => "FastCGI",
        }
    }
}

impl Serialize for L7Protocol {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// Answered without error.
    Ok,
    /// The client's fault (HTTP 4xx, NXDOMAIN, ...).
    ClientError,
    /// The server's fault.
    ServerError,
    /// Not answered.
    Timeout,
    /// Answered, but the answer could not be read.
    #[default]
    Unknown,
}

impl ResponseStatus {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

/// Which halves of an exchange were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Session {
    /// Request and response.
    #[default]
    Complete,
    /// A request that was not answered, or that wants no answer.
    RequestOnly,
    /// A response whose request was not seen, or a push.
    ResponseOnly,
}

impl Session {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::RequestOnly => "request_only",
            Self::ResponseOnly => "response_only",
        }
    }
}

/// One request/response exchange; or a lone request or response. `None` is `null` in JSON and NULL or empty in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Unique in a store; 0 until something gives it one.
    pub id: u64,
    /// How the bytes were seen.
    pub signal: Signal,
    /// Where they were seen.
    pub observation_point: ObservationPoint,
    /// The flow this exchange is part of (unique in one run of one worker, see `Flow::flow_id`).
    pub flow_id: u64,
    /// First byte of the request (of the response when there is no request), ns since the epoch.
    pub start_ns: u64,
    /// First byte of the response; equals `start_ns` for a lone message.
    pub end_ns: u64,
    /// Who asked.
    pub client: Endpoint,
    /// Who answered.
    pub server: Endpoint,
    /// L4 protocol.
    pub protocol: L4Protocol,
    /// The innermost tunnel.
    pub tunnel: Option<Tunnel>,
    /// The tap that saw it; see [`NO_TAP`].
    pub tap: u16,
    /// Application protocol.
    pub l7_protocol: L7Protocol,
    /// Protocol version, such as `1.1` or `TLS 1.3`.
    pub version: Option<Text>,
    /// Method, command or query type.
    pub request_type: Option<Text>,
    /// Host, SNI or queried name.
    pub request_domain: Option<Text>,
    /// Path, statement or command line.
    pub request_resource: Option<Text>,
    /// What requests are grouped by: path prefix, verb and table, ...
    pub endpoint: Option<Text>,
    /// Transaction, stream or statement id where the protocol has one.
    pub request_id: Option<u64>,
    /// How the request ended.
    pub response_status: ResponseStatus,
    /// Status code, rcode, errno.
    pub response_code: Option<i32>,
    /// Error text.
    pub response_exception: Option<Text>,
    /// What the answer was, shortly.
    pub response_result: Option<Text>,
    /// Bytes of the request message on the stream, headers included.
    pub request_bytes: u64,
    /// Bytes of the response message on the stream, headers included.
    pub response_bytes: u64,
    /// Rows changed, where a database says so.
    pub affected_rows: Option<u64>,
    /// From a trace header.
    pub trace_id: Option<Text>,
    /// From a trace header.
    pub span_id: Option<Text>,
    /// From X-Request-ID or a configured header.
    pub x_request_id: Option<Text>,
    /// TCP sequence number of the first byte of the request.
    pub req_tcp_seq: Option<u32>,
    /// TCP sequence number of the first byte of the response.
    pub resp_tcp_seq: Option<u32>,
    /// Which halves were seen.
    pub session: Session,
    /// Bytes of this exchange were missing on the wire (capture loss or snap length).
    pub truncated: bool,
    /// Further facts by name, such as `tls.cipher`, `tls.ja4`, `user_agent`.
    pub attributes: Vec<(&'static str, Text)>,
    /// The process that asked (at [`ObservationPoint::ClientProcess`]) or answered; `None` for what packets show.
    pub process: Option<Arc<Process>>,
    /// The request that this one was made for; `None` where that is not known, or nothing.
    pub parent: Option<Parent>,
}

impl Span {
    /// Time from the first byte of the request to the first byte of the response, in microseconds.
    pub fn duration_us(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns) / 1000
    }
}

/// Attributes as a JSON object that borrows the span.
struct Attributes<'a>(&'a [(&'static str, Text)]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(k, v)| (*k, v.as_str())))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut o = s.serialize_struct("Span", 40)?;
        o.serialize_field("kind", "span")?;
        o.serialize_field("signal", &self.signal)?;
        o.serialize_field("observation_point", &self.observation_point)?;
        o.serialize_field("flow_id", &self.flow_id)?;
        o.serialize_field("start_ns", &self.start_ns)?;
        o.serialize_field("end_ns", &self.end_ns)?;
        o.serialize_field("duration_us", &self.duration_us())?;
        o.serialize_field("client_ip", &self.client.ip)?;
        o.serialize_field("client_port", &self.client.port)?;
        o.serialize_field("server_ip", &self.server.ip)?;
        o.serialize_field("server_port", &self.server.port)?;
        o.serialize_field("protocol", &self.protocol)?;
        o.serialize_field("tunnel", &self.tunnel)?;
        o.serialize_field("tap_id", &(self.tap != NO_TAP).then_some(self.tap))?;
        o.serialize_field("l7_protocol", &self.l7_protocol)?;
        o.serialize_field("version", &self.version)?;
        o.serialize_field("request_type", &self.request_type)?;
        o.serialize_field("request_domain", &self.request_domain)?;
        o.serialize_field("request_resource", &self.request_resource)?;
        o.serialize_field("endpoint", &self.endpoint)?;
        o.serialize_field("request_id", &self.request_id)?;
        o.serialize_field("response_status", &self.response_status)?;
        o.serialize_field("response_code", &self.response_code)?;
        o.serialize_field("response_exception", &self.response_exception)?;
        o.serialize_field("response_result", &self.response_result)?;
        o.serialize_field("request_bytes", &self.request_bytes)?;
        o.serialize_field("response_bytes", &self.response_bytes)?;
        o.serialize_field("affected_rows", &self.affected_rows)?;
        o.serialize_field("trace_id", &self.trace_id)?;
        o.serialize_field("span_id", &self.span_id)?;
        o.serialize_field("x_request_id", &self.x_request_id)?;
        o.serialize_field("req_tcp_seq", &self.req_tcp_seq)?;
        o.serialize_field("resp_tcp_seq", &self.resp_tcp_seq)?;
        o.serialize_field("session", &self.session)?;
        o.serialize_field("truncated", &self.truncated)?;
        o.serialize_field("attributes", &Attributes(&self.attributes))?;
        if self.signal != Signal::Packet {
            o.serialize_field("id", &self.id.to_string())?;
            o.serialize_field("process", &self.process)?;
            o.serialize_field("parent", &self.parent)?;
        }
        o.end()
    }
}

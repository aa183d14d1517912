//! Spans as the API shows them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wirespan_records::{ObservationPoint, Parent, Process, Rule, Span, Text, Tunnel};

/// A request with its response, as seen at one point: a row of `GET /api/spans`. The fields are those of `wirespan replay`,
/// and what the store knows. Ids are text, because they do not fit the numbers of JavaScript.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanRow {
    /// Unique in the store.
    pub id: String,
    /// The trace it is part of, 16 hex digits: an ID of `GET /api/traces/ID`.
    pub trace_key: String,
    /// Who saw it.
    pub agent_id: u32,
    /// `packet`, `syscall` or `tls`.
    pub signal: String,
    /// Where it was seen, such as `c-p` or `s`.
    pub observation_point: String,
    /// First byte of the request, ns since the epoch.
    pub start_ns: u64,
    /// First byte of the response.
    pub end_ns: u64,
    /// From the one to the other, microseconds.
    pub duration_us: u64,
    /// Address of who asked.
    pub client_ip: String,
    /// Its name, where the hosts files have one.
    #[serde(default)]
    pub client_name: Option<String>,
    /// Its port.
    pub client_port: u16,
    /// Address of who answered.
    pub server_ip: String,
    /// Its name; what a UNIX socket is bound to.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Its port.
    pub server_port: u16,
    /// `tcp`, `udp`, ...
    pub protocol: String,
    /// The innermost tunnel.
    pub tunnel: Option<TunnelRow>,
    /// The tap that saw it.
    pub tap_id: Option<u16>,
    /// Its name in the taps file,
    pub tap: Option<String>,
    /// what it mirrors, such as `nfv-gateway`,
    #[serde(default)]
    pub tap_kind: Option<String>,
    /// and where it is.
    #[serde(default)]
    pub tap_site: Option<String>,
    /// Application protocol.
    pub l7_protocol: String,
    /// Its version.
    pub version: Option<String>,
    /// Method, command or query type.
    pub request_type: Option<String>,
    /// Host, SNI or queried name.
    pub request_domain: Option<String>,
    /// Path, statement or command line.
    pub request_resource: Option<String>,
    /// What requests are grouped by.
    pub endpoint: Option<String>,
    /// Transaction, stream or statement id.
    pub request_id: Option<u64>,
    /// `ok`, `client_error`, `server_error`, `timeout` or `unknown`.
    pub response_status: String,
    /// Status code, rcode, errno.
    pub response_code: Option<i32>,
    /// Error text.
    pub response_exception: Option<String>,
    /// What the answer was, shortly.
    pub response_result: Option<String>,
    /// Bytes of the request message.
    pub request_bytes: u64,
    /// Bytes of the response message.
    pub response_bytes: u64,
    /// Rows changed.
    pub affected_rows: Option<u64>,
    /// From a trace header.
    pub trace_id: Option<String>,
    /// From a trace header.
    pub span_id: Option<String>,
    /// From X-Request-ID.
    pub x_request_id: Option<String>,
    /// TCP sequence number of the first byte of the request.
    pub req_tcp_seq: Option<u32>,
    /// TCP sequence number of the first byte of the response.
    pub resp_tcp_seq: Option<u32>,
    /// `complete`, `request_only` or `response_only`.
    pub session: String,
    /// Bytes of this exchange were missing.
    pub truncated: bool,
    /// Further facts by name.
    pub attributes: BTreeMap<String, String>,
    /// The process that asked (at `c-p`) or answered (at `s-p`).
    #[serde(default)]
    pub process: Option<Process>,
    /// What it was done for, as found out on its host.
    #[serde(default)]
    pub parent: Option<ParentRow>,
}

/// The innermost tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelRow {
    /// `vxlan`, `geneve`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// VNI, key, session or TEID.
    pub id: u32,
    /// Outer source address of the flow's first packet.
    pub outer_src: String,
    /// Outer destination address of the flow's first packet.
    pub outer_dst: String,
}

/// What a span was done for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParentRow {
    /// `id` of the parent.
    pub span: String,
    /// How it was found.
    pub rule: Rule,
    /// From 0 to 1.
    pub confidence: f32,
}

impl SpanRow {
    /// What the server's UNIX socket is bound to: a path, or an abstract name behind an `@`.
    pub fn unix_name(&self) -> Option<&str> {
        self.attributes.get("unix.name").map(String::as_str)
    }

    /// Inode of the network namespace of the process's socket.
    pub fn netns(&self) -> Option<&str> {
        self.attributes.get("netns").map(String::as_str)
    }

    /// That contents of the process's TLS are not visible, as a sentence.
    pub fn tls_unseen(&self) -> Option<&str> {
        self.attributes.get("tls.unseen").map(String::as_str)
    }

    /// Where it was seen; the default for what this version does not know.
    pub(crate) fn point(&self) -> ObservationPoint {
        let known = ObservationPoint::ALL.into_iter().find(|point| point.as_str() == self.observation_point);
        known.unwrap_or_default()
    }
}

fn text(text: &Option<Text>) -> Option<String> {
    text.as_ref().map(Text::to_string)
}

/// What the span itself says: not who saw it, nor its trace's key, the names of its addresses or what the taps file says.
impl From<&Span> for SpanRow {
    fn from(span: &Span) -> Self {
        Self {
            id: span.id.to_string(),
            signal: span.signal.as_str().into(),
            observation_point: span.observation_point.as_str().into(),
            start_ns: span.start_ns,
            end_ns: span.end_ns,
            duration_us: span.duration_us(),
            client_ip: span.client.ip.to_string(),
            client_port: span.client.port,
            server_ip: span.server.ip.to_string(),
            server_port: span.server.port,
            protocol: span.protocol.as_str().into(),
            tunnel: span.tunnel.map(TunnelRow::from),
            tap_id: (span.tap != 0).then_some(span.tap),
            l7_protocol: span.l7_protocol.as_str().into(),
            version: text(&span.version),
            request_type: text(&span.request_type),
            request_domain: text(&span.request_domain),
            request_resource: text(&span.request_resource),
            endpoint: text(&span.endpoint),
            request_id: span.request_id,
            response_status: span.response_status.as_str().into(),
            response_code: span.response_code,
            response_exception: text(&span.response_exception),
            response_result: text(&span.response_result),
            request_bytes: span.request_bytes,
            response_bytes: span.response_bytes,
            affected_rows: span.affected_rows,
            trace_id: text(&span.trace_id),
            span_id: text(&span.span_id),
            x_request_id: text(&span.x_request_id),
            req_tcp_seq: span.req_tcp_seq,
            resp_tcp_seq: span.resp_tcp_seq,
            session: span.session.as_str().into(),
            truncated: span.truncated,
            attributes: span
                .attributes
                .iter()
                .map(|(name, text)| ((*name).into(), text.to_string()))
                .collect(),
            process: span.process.as_deref().cloned(),
            parent: span.parent.map(ParentRow::from),
            ..Self::default()
        }
    }
}

impl From<Tunnel> for TunnelRow {
    fn from(tunnel: Tunnel) -> Self {
        Self {
            kind: tunnel.kind.as_str().into(),
            id: tunnel.id,
            outer_src: tunnel.outer_src.to_string(),
            outer_dst: tunnel.outer_dst.to_string(),
        }
    }
}

impl From<Parent> for ParentRow {
    fn from(parent: Parent) -> Self {
        Self { span: parent.span.to_string(), rule: parent.rule, confidence: parent.confidence }
    }
}

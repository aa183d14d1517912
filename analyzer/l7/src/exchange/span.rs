//! An exchange that is ready, and the span that it becomes.

use crate::engine::{Chunk, FlowContext, Side, SpanSink};
use crate::parser::{Length, Message};
use wirespan_records::{L7Counts, L7Protocol, ResponseStatus, Session, Span};

/// When and where on the stream a message begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct At {
    pub ts_ns: u64,
    pub seq: Option<u32>,
    /// Bytes of the message are missing in the capture.
    pub truncated: bool,
}

impl At {
    pub(crate) fn of(chunk: &Chunk<'_>) -> Self {
        Self { ts_ns: chunk.ts_ns, seq: chunk.seq, truncated: false }
    }
}

/// One half of an exchange.
pub(super) struct Half {
    pub message: Message,
    pub at: At,
    pub bytes: u64,
}

impl Half {
    pub(super) fn new(message: Message, mut at: At) -> Self {
        at.truncated |= message.truncated;
        let bytes = match message.length {
            Length::Known(bytes) => bytes,
            Length::Open => 0,
        };
        Self { message, at, bytes }
    }

    pub(super) fn is_open(&self) -> bool {
        self.message.length == Length::Open
    }
}

/// An exchange that is ready, and why it has no other half.
pub(super) struct Ready {
    pub request: Option<Half>,
    pub response: Option<Half>,
    /// For a lone request.
    pub unanswered: ResponseStatus,
}

/// Where the spans of one stream go, and what they take from its flow.
pub(crate) struct Out<'a> {
    pub flow: &'a FlowContext,
    pub counts: &'a mut L7Counts,
    pub sink: &'a mut dyn SpanSink,
}

impl Out<'_> {
    pub(super) fn emit(&mut self, client: Side, protocol: L7Protocol, ready: Ready) {
        let Ready { request, response, unanswered } = ready;
        let (session, status) = match (&request, &response) {
            (Some(_), Some(r)) => (Session::Complete, r.message.status.unwrap_or_default()),
            (None, Some(r)) => (Session::ResponseOnly, r.message.status.unwrap_or_default()),
            (Some(_), None) => (Session::RequestOnly, unanswered),
            (None, None) => return,
        };
        let request_at = request.as_ref().map(|half| half.at);
        let response_at = response.as_ref().map(|half| half.at);
        let (request_bytes, response_bytes) =
            (request.as_ref().map_or(0, |h| h.bytes), response.as_ref().map_or(0, |h| h.bytes));
        let start_ns = request_at.or(response_at).unwrap_or_default().ts_ns;
        let end_ns = response_at.map_or(start_ns, |at| at.ts_ns.max(start_ns));
        let q = request.map(|half| half.message).unwrap_or_default();
        let r = response.map(|half| half.message).unwrap_or_default();
        let mut attributes = q.attributes;
        attributes.extend(r.attributes);
        let span = Span {
            id: 0,
            signal: self.flow.signal,
            observation_point: self.flow.observation_point,
            flow_id: self.flow.flow_id,
            start_ns,
            end_ns,
            client: self.flow.endpoints[client as usize],
            server: self.flow.endpoints[client.other() as usize],
            protocol: self.flow.l4,
            tunnel: self.flow.tunnel,
            tap: self.flow.tap,
            l7_protocol: q.protocol.or(r.protocol).unwrap_or(protocol),
            version: q.version.or(r.version),
            request_type: q.request_type.or(r.request_type),
            request_domain: q.domain.or(r.domain),
            request_resource: q.resource.or(r.resource),
            endpoint: q.endpoint.or(r.endpoint),
            request_id: q.id.or(r.id),
            response_status: status,
            response_code: r.code,
            response_exception: r.exception.or(q.exception),
            response_result: r.result,
            request_bytes,
            response_bytes,
            affected_rows: r.affected_rows,
            trace_id: q.trace_id.or(r.trace_id),
            span_id: q.span_id.or(r.span_id),
            x_request_id: q.x_request_id.or(r.x_request_id),
            req_tcp_seq: request_at.and_then(|at| at.seq),
            resp_tcp_seq: response_at.and_then(|at| at.seq),
            session,
            truncated: request_at.is_some_and(|at| at.truncated)
                || response_at.is_some_and(|at| at.truncated),
            attributes,
            process: None,
            parent: None,
        };
        self.count(&span);
        self.sink.span(span);
    }

    fn count(&mut self, span: &Span) {
        let counts = &mut *self.counts;
        counts.request += u32::from(span.session != Session::ResponseOnly);
        counts.response += u32::from(span.session != Session::RequestOnly);
        match span.response_status {
            ResponseStatus::ClientError => counts.client_error += 1,
            ResponseStatus::ServerError => counts.server_error += 1,
            ResponseStatus::Timeout => counts.timeout += 1,
            ResponseStatus::Ok | ResponseStatus::Unknown => {}
        }
        if span.session == Session::Complete {
            counts.rrt.add(u32::try_from(span.duration_us()).unwrap_or(u32::MAX));
        }
    }
}

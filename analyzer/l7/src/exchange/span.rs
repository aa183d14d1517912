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
    /// Boxed, so that it stays where it is until its span is made.
    pub message: Box<Message>,
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
        Self { message: Box::new(message), at, bytes }
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
        let status_of = |response: &Half| response.message.status.unwrap_or_default();
        let (session, status, mut first, response) = match (request, response) {
            (Some(request), Some(response)) => {
                (Session::Complete, status_of(&response), request, Some(response))
            }
            (None, Some(response)) => (Session::ResponseOnly, status_of(&response), response, None),
            (Some(request), None) => (Session::RequestOnly, unanswered, request, None),
            (None, None) => return,
        };
        let start_ns = first.at.ts_ns;
        let (mut end_ns, mut truncated) = (start_ns, first.at.truncated);
        let (mut req_tcp_seq, mut resp_tcp_seq) = (first.at.seq, None);
        let (mut request_bytes, mut response_bytes) = (first.bytes, 0);
        if let Some(mut response) = response {
            first.message.complete(&mut response.message);
            end_ns = start_ns.max(response.at.ts_ns);
            truncated |= response.at.truncated;
            (resp_tcp_seq, response_bytes) = (response.at.seq, response.bytes);
        } else if session == Session::ResponseOnly {
            (req_tcp_seq, resp_tcp_seq) = (None, req_tcp_seq);
            (request_bytes, response_bytes) = (0, request_bytes);
        }
        let message = first.message;
        self.count(session, status, end_ns - start_ns);
        self.sink.span(Span {
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
            l7_protocol: message.protocol.unwrap_or(protocol),
            version: message.version,
            request_type: message.request_type,
            request_domain: message.domain,
            request_resource: message.resource,
            endpoint: message.endpoint,
            request_id: message.id,
            response_status: status,
            response_code: message.code,
            response_exception: message.exception,
            response_result: message.result,
            request_bytes,
            response_bytes,
            affected_rows: message.affected_rows,
            trace_id: message.trace_id,
            span_id: message.span_id,
            x_request_id: message.x_request_id,
            req_tcp_seq,
            resp_tcp_seq,
            session,
            truncated,
            attributes: message.attributes,
            process: None,
            parent: None,
        });
    }

    fn count(&mut self, session: Session, status: ResponseStatus, duration_ns: u64) {
        let counts = &mut *self.counts;
        counts.request += u32::from(session != Session::ResponseOnly);
        counts.response += u32::from(session != Session::RequestOnly);
        match status {
            ResponseStatus::ClientError => counts.client_error += 1,
            ResponseStatus::ServerError => counts.server_error += 1,
            ResponseStatus::Timeout => counts.timeout += 1,
            ResponseStatus::Ok | ResponseStatus::Unknown => {}
        }
        if session == Session::Complete {
            counts.rrt.add(u32::try_from(duration_ns / 1000).unwrap_or(u32::MAX));
        }
    }
}

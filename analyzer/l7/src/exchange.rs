//! Pairs requests with responses and makes the spans.

use crate::engine::{FlowContext, Side, SpanSink};
use crate::parser::{Length, Message, Pairing, Role};
use std::collections::VecDeque;
use wirespan_records::{L7Counts, L7Protocol, ResponseStatus, Session, Span};

/// When and where on the stream a message begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct At {
    pub ts_ns: u64,
    pub seq: Option<u32>,
    /// Bytes of the message are missing in the capture.
    pub truncated: bool,
}

/// One half of an exchange.
struct Half {
    message: Message,
    at: At,
    bytes: u64,
}

impl Half {
    fn new(message: Message, mut at: At) -> Self {
        at.truncated |= message.truncated;
        let bytes = match message.length {
            Length::Known(bytes) => bytes,
            Length::Open => 0,
        };
        Self { message, at, bytes }
    }

    fn is_open(&self) -> bool {
        self.message.length == Length::Open
    }
}

/// An exchange that is ready, and why it has no other half.
struct Ready {
    request: Option<Half>,
    response: Option<Half>,
    /// For a lone request.
    unanswered: ResponseStatus,
}

/// The requests of one stream that wait for their response, and the exchanges that are ready to be handed on.
pub(crate) struct Exchanges {
    pairing: Pairing,
    pending: VecDeque<Half>,
    /// The newest request is the last of `pending` and its bytes are still being counted.
    request_open: bool,
    /// A paired response whose bytes are still being counted.
    response_open: Option<Ready>,
    ready: Vec<Ready>,
    max_pending: usize,
}

impl Exchanges {
    pub(crate) fn new(pairing: Pairing, max_pending: usize) -> Self {
        Self {
            pairing,
            pending: VecDeque::new(),
            request_open: false,
            response_open: None,
            ready: Vec::new(),
            max_pending,
        }
    }

    pub(crate) fn request(&mut self, message: Message, at: At, role: Role) {
        self.end(role);
        if self.pairing == Pairing::ById
            && let Some(first) = self.pending.iter_mut().find(|half| half.message.id == message.id)
        {
            if first.message.resource == message.resource {
                // The same question again: one exchange that began with the first.
                first.bytes += Half::new(message, at).bytes;
                return;
            }
            let id = message.id;
            self.give_up(|half| half.message.id == id, ResponseStatus::Timeout);
        }
        if self.pending.len() >= self.max_pending
            && let Some(oldest) = self.pending.pop_front()
        {
            self.ready.push(Ready {
                request: Some(oldest),
                response: None,
                unanswered: ResponseStatus::Unknown,
            });
        }
        let half = Half::new(message, at);
        self.request_open = half.is_open();
        self.pending.push_back(half);
    }

    pub(crate) fn one_way(&mut self, message: Message, at: At) {
        let request = Some(Half::new(message, at));
        self.ready.push(Ready { request, response: None, unanswered: ResponseStatus::Ok });
    }

    pub(crate) fn response(&mut self, message: Message, at: At, role: Role) {
        self.end(role);
        let request = match self.pairing {
            Pairing::InOrder => self.pending.pop_front(),
            Pairing::ById => self
                .pending
                .iter()
                .position(|half| half.message.id == message.id)
                .and_then(|index| self.pending.remove(index)),
        };
        self.request_open &= !self.pending.is_empty();
        let response = Half::new(message, at);
        self.answered(request, response);
    }

    pub(crate) fn push(&mut self, message: Message, at: At) {
        self.end(Role::Server);
        self.answered(None, Half::new(message, at));
    }

    fn answered(&mut self, request: Option<Half>, response: Half) {
        let open = response.is_open();
        let ready = Ready { request, response: Some(response), unanswered: ResponseStatus::Unknown };
        if open {
            self.response_open = Some(ready);
        } else {
            self.ready.push(ready);
        }
    }

    pub(crate) fn open_response(&mut self) -> Option<&mut Message> {
        self.response_open.as_mut().and_then(|ready| ready.response.as_mut()).map(|half| &mut half.message)
    }

    /// The open message of `role` has all its bytes.
    pub(crate) fn end(&mut self, role: Role) {
        match role {
            Role::Client => self.request_open = false,
            Role::Server => self.ready.extend(self.response_open.take()),
        }
    }

    /// `n` bytes of the open message of `role` went by.
    pub(crate) fn consumed(&mut self, role: Role, n: u64) {
        match role {
            Role::Client if self.request_open => {
                if let Some(half) = self.pending.back_mut() {
                    half.bytes += n;
                }
            }
            Role::Server => {
                if let Some(half) = self.response_open.as_mut().and_then(|r| r.response.as_mut()) {
                    half.bytes += n;
                }
            }
            Role::Client => {}
        }
    }

    pub(crate) fn request_with(&self, id: Option<u64>) -> Option<&Message> {
        self.pending.iter().map(|half| &half.message).find(|message| message.id == id)
    }

    pub(crate) fn oldest(&self) -> Option<&Message> {
        self.pending.front().map(|half| &half.message)
    }

    /// Message boundaries of `role` are lost. Responses that were in the hole cannot be told from those that were not,
    /// so the requests that wait in order end as unknown.
    pub(crate) fn lost(&mut self, role: Role) {
        self.end(role);
        if role == Role::Server && self.pairing == Pairing::InOrder {
            for half in &mut self.pending {
                half.at.truncated = true;
            }
            self.give_up(|_| true, ResponseStatus::Unknown);
        }
    }

    /// Requests older than `before_ns` are not waited for any longer.
    pub(crate) fn expire(&mut self, before_ns: u64) {
        if self.pending.front().is_some_and(|half| half.at.ts_ns < before_ns) {
            self.give_up(|half| half.at.ts_ns < before_ns, ResponseStatus::Timeout);
        }
    }

    /// The stream is over.
    pub(crate) fn close(&mut self) {
        self.end(Role::Client);
        self.end(Role::Server);
        self.give_up(|_| true, ResponseStatus::Timeout);
    }

    fn give_up(&mut self, which: impl Fn(&Half) -> bool, unanswered: ResponseStatus) {
        let mut index = 0;
        while let Some(half) = self.pending.get(index) {
            if which(half) {
                let request = self.pending.remove(index);
                self.ready.push(Ready { request, response: None, unanswered });
            } else {
                index += 1;
            }
        }
        self.request_open &= !self.pending.is_empty();
    }

    /// Hands on what is ready.
    #[inline]
    pub(crate) fn flush(&mut self, out: &mut Out<'_>) {
        if !self.ready.is_empty() {
            for ready in self.ready.drain(..) {
                out.emit(ready);
            }
        }
    }
}

/// Where the spans of one stream go, and what they have in common.
pub(crate) struct Out<'a> {
    pub flow: &'a FlowContext,
    pub client: Side,
    pub protocol: L7Protocol,
    pub counts: &'a mut L7Counts,
    pub sink: &'a mut dyn SpanSink,
}

impl Out<'_> {
    fn emit(&mut self, ready: Ready) {
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
        let end_ns = response_at.map_or(start_ns, |at| at.ts_ns);
        let q = request.map(|half| half.message).unwrap_or_default();
        let r = response.map(|half| half.message).unwrap_or_default();
        let mut attributes = q.attributes;
        attributes.extend(r.attributes);
        let span = Span {
            signal: self.flow.signal,
            observation_point: self.flow.observation_point,
            flow_id: self.flow.flow_id,
            start_ns,
            end_ns,
            client: self.flow.endpoints[self.client as usize],
            server: self.flow.endpoints[self.client.other() as usize],
            protocol: self.flow.l4,
            tunnel: self.flow.tunnel,
            l7_protocol: self.protocol,
            version: q.version.or(r.version),
            request_type: q.request_type.or(r.request_type),
            request_domain: q.domain.or(r.domain),
            request_resource: q.resource.or(r.resource),
            endpoint: q.endpoint.or(r.endpoint),
            request_id: q.id.or(r.id),
            response_status: status,
            response_code: r.code,
            response_exception: r.exception,
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

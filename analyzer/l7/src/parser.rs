//! The contract between the engine and a protocol.

use crate::engine::Config;
use crate::exchange::Exchanges;
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Text};

/// Who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that asks.
    Client,
    /// The side that answers.
    Server,
}

impl Role {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What [`Parser::probe`] says of the first bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not this protocol.
    No,
    /// Could be, but more bytes are needed to tell. Only for a few bytes (less than [`MAX_PROBE`]).
    Maybe,
    /// This protocol, sent by this side.
    Yes(Role),
}

/// The most bytes that are kept while protocols say [`Verdict::Maybe`].
pub const MAX_PROBE: usize = 256;

/// What is known about the bytes a probe looks at.
#[derive(Clone, Copy, Debug)]
pub struct ProbeInfo {
    /// TCP (a stream) or UDP (a datagram).
    pub l4: L4Protocol,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Who sent the bytes, when the handshake told.
    pub role: Option<Role>,
    /// These are the first bytes of their direction since the handshake.
    pub stream_start: bool,
}

/// What a parser did with the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `n > 0` bytes from the start are dealt with. May be more than were given: what is missing is skipped as it comes,
    /// without being buffered (large bodies). Called again with the rest when there is one.
    Done(usize),
    /// A message is not complete. Called again when at least this many bytes are there (more than were given). Not
    /// allowed when [`Cx::last`] is set: parse what is there, or say [`Step::Desync`].
    More(usize),
    /// These bytes are not where a message begins. The engine looks for the next beginning with [`Parser::probe`].
    Desync,
    /// Nothing after this can be read or needs to be, in both directions (encrypted data, a tunnel).
    Opaque,
    /// Here the stream changes to another protocol (STARTTLS and the like): detect anew from these bytes on.
    Switch,
}

/// How requests find their responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The oldest request is answered first.
    InOrder,
    /// By [`Message::id`].
    ById,
    /// The same, and each request of the client has the next odd id.
    ByStream,
}

/// How long a message is on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Length {
    /// Bytes, all parts included.
    Known(u64),
    /// Not known yet: the engine counts what the parser consumes in this direction until [`Cx::end`] or the next message.
    #[default]
    Open,
}

/// A request or response as a parser reads it. Leave absent values `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Transaction or statement id.
    pub id: Option<u64>,
    /// When it is another than the parser's own ([`Parser::PROTOCOL`]): what is spoken on top of it.
    pub protocol: Option<L7Protocol>,
    /// Protocol version.
    pub version: Option<Text>,
    /// Method, command or query type.
    pub request_type: Option<Text>,
    /// Host, SNI or queried name.
    pub domain: Option<Text>,
    /// Path, statement or command line.
    pub resource: Option<Text>,
    /// What requests are grouped by.
    pub endpoint: Option<Text>,
    /// Responses: how the request ended.
    pub status: Option<ResponseStatus>,
    /// Responses: status code, rcode, errno.
    pub code: Option<i32>,
    /// Responses: error text.
    pub exception: Option<Text>,
    /// Responses: what the answer was, shortly.
    pub result: Option<Text>,
    /// Responses: rows changed.
    pub affected_rows: Option<u64>,
    /// From a trace header.
    pub trace_id: Option<Text>,
    /// From a trace header.
    pub span_id: Option<Text>,
    /// From X-Request-ID or a configured header.
    pub x_request_id: Option<Text>,
    /// Further facts by name.
    pub attributes: Vec<(&'static str, Text)>,
    /// Part of the message is missing, so that not all of it could be read.
    pub truncated: bool,
    /// How long the message is.
    pub length: Length,
}

impl Message {
    /// Takes from the response to this request what only that says.
    pub(crate) fn complete(&mut self, response: &mut Self) {
        fn fill<T>(mine: &mut Option<T>, other: &mut Option<T>) {
            if mine.is_none() {
                std::mem::swap(mine, other);
            }
        }
        fill(&mut self.id, &mut response.id);
        fill(&mut self.protocol, &mut response.protocol);
        fill(&mut self.version, &mut response.version);
        fill(&mut self.request_type, &mut response.request_type);
        fill(&mut self.domain, &mut response.domain);
        fill(&mut self.resource, &mut response.resource);
        fill(&mut self.endpoint, &mut response.endpoint);
        fill(&mut self.result, &mut response.result);
        fill(&mut self.trace_id, &mut response.trace_id);
        fill(&mut self.span_id, &mut response.span_id);
        fill(&mut self.x_request_id, &mut response.x_request_id);
        (self.code, self.affected_rows) = (response.code, response.affected_rows);
        if response.exception.is_some() {
            std::mem::swap(&mut self.exception, &mut response.exception);
        }
        if self.attributes.is_empty() {
            std::mem::swap(&mut self.attributes, &mut response.attributes);
        } else {
            self.attributes.append(&mut response.attributes);
        }
    }

    /// Memory that its texts take besides, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        let texts = [
            &self.version,
            &self.request_type,
            &self.domain,
            &self.resource,
            &self.endpoint,
            &self.exception,
            &self.result,
            &self.trace_id,
            &self.span_id,
            &self.x_request_id,
        ];
        let texts = texts.into_iter().flatten().chain(self.attributes.iter().map(|(_, value)| value));
        texts.filter(|text| text.is_heap_allocated()).map(Text::capacity).sum()
    }
}

/// What a parser may use while it parses: its limits, where it is in the stream, and where messages go.
pub struct Cx<'a> {
    /// Settings.
    pub config: &'a Config,
    /// TCP or UDP.
    pub l4: L4Protocol,
    /// No more bytes will be added to these: the buffer is full, the packet was cut, the datagram or stream ends here.
    pub last: bool,
    pub(crate) role: Role,
    pub(crate) exchanges: &'a mut Exchanges,
    pub(crate) at: crate::exchange::At,
}

impl Cx<'_> {
    /// A request begins at the first byte given.
    pub fn request(&mut self, message: Message) {
        self.exchanges.request(message, self.at, self.role);
    }

    /// A request that wants no answer begins at the first byte given.
    pub fn one_way(&mut self, message: Message) {
        self.exchanges.one_way(message, self.at);
    }

    /// A response begins at the first byte given.
    pub fn response(&mut self, message: Message) {
        self.exchanges.response(message, self.at, self.role);
    }

    /// A message of the server that answers no request begins at the first byte given.
    pub fn push(&mut self, message: Message) {
        self.exchanges.push(message, self.at);
    }

    /// Adds to the response that is open ([`Length::Open`]) what later bytes tell. Nothing happens when none is.
    pub fn amend_response(&mut self, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.exchanges.open_response() {
            change(message);
        }
    }

    /// A response begins at the first byte given and goes on beside others until [`Cx::finish`]. For [`Pairing::ById`] and
    /// [`Pairing::ByStream`];
    /// its length must be known so far, [`Cx::extend`] adds to it.
    pub fn begin_response(&mut self, id: u64, message: Message) {
        self.exchanges.begin_response(id, message, self.at);
    }

    /// The client opens the stream `id` at the first byte given, unless it did before; of what it asks nothing is known. For
    /// [`Pairing::ByStream`].
    pub fn unread(&mut self, id: u64) {
        self.exchanges.unread(id, self.at);
    }

    /// Of this side's message with this id `n` more bytes are here or will come.
    pub fn extend(&mut self, id: u64, n: u64) {
        self.exchanges.extend(self.role, id, n);
    }

    /// Adds to a response of [`Cx::begin_response`] what later bytes tell. False when there is none with this id.
    pub fn amend(&mut self, id: u64, change: impl FnOnce(&mut Message)) -> bool {
        self.exchanges.concurrent_response(id).map(change).is_some()
    }

    /// The response of [`Cx::begin_response`] with this id is whole, whether its beginning was seen or not.
    pub fn finish(&mut self, id: u64) {
        self.exchanges.finish(id);
        self.exchanges.closes_unseen(id, self.at);
    }

    /// The requests that wait and have such ids will have no response. Gives whether there were any.
    pub fn cancel(&mut self, which: impl Fn(u64) -> bool, status: ResponseStatus, exception: &str) -> bool {
        self.exchanges.cancel(which, status, exception)
    }

    /// The message that was open in this direction ends before the first byte given.
    pub fn end(&mut self) {
        self.exchanges.end(self.role);
    }

    /// The message that is open in this direction ends with the first `n` of the bytes given (or to be skipped).
    pub fn end_after(&mut self, n: usize) {
        self.exchanges.consumed(self.role, n as u64);
        self.exchanges.end(self.role);
    }

    /// The request with this id that has no response yet.
    pub fn request_with(&self, id: Option<u64>) -> Option<&Message> {
        self.exchanges.request_with(id)
    }

    /// The request that a response beginning at the first byte given would answer: the oldest that has no response yet.
    pub fn oldest_request(&self) -> Option<&Message> {
        self.exchanges.oldest(self.at.ts_ns)
    }
}

/// One L7 protocol. A value is made for each stream; it holds what has to be remembered between messages.
///
/// Never panics on any input, never allocates by a length that the input claims, takes time linear in the input, keeps
/// bounded state.
pub trait Parser: Default {
    /// Its name.
    const PROTOCOL: L7Protocol;
    /// How requests find their responses.
    const PAIRING: Pairing;
    /// A request without response after this time, in milliseconds, is a timeout.
    const TIMEOUT_MS: u64 = 120_000;

    /// Looks at the first bytes of what may be a message, at least one byte. Cheap: told by the first bytes in most cases.
    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict;

    /// Parses the bytes that come next in the direction of `role`, at least one byte.
    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step;

    /// Bytes were lost in this direction, or it is out of step: forget what was half read. [`Parser::probe`] finds the
    /// place to go on from.
    fn lost(&mut self, role: Role) {
        let _ = role;
    }
}

//! Replies and pushes. A reply is told by its first bytes and then walked element by element, however long it is; all
//! that is kept is how many elements are to come at each level.

use super::Session;
use super::resp::{self, Element, Read};
use crate::parser::{Cx, Length, Message, Step};
use compact_str::format_compact;
use memchr::{memchr, memmem};
use smallvec::SmallVec;
use wirespan_records::{ResponseStatus, Text};

/// The deepest nesting that is followed. An aggregate that is the last of its parent adds none.
const MAX_DEPTH: usize = 32;
/// The most that is kept of an answer.
const MAX_RESULT: usize = 128;
/// How long a line may be before it is passed over without being kept.
const MAX_LINE: usize = 1024;

/// In place of a count: elements until the end mark.
const UNTIL_END: u64 = u64::MAX;
/// In place of a count: chunks until an empty one.
const CHUNKS: u64 = u64::MAX - 1;

/// The server's direction.
#[derive(Default)]
pub(super) struct Replies {
    /// Elements of the open reply that are to come, outermost level first.
    stack: SmallVec<[u64; 8]>,
    /// In the middle of a line.
    in_line: bool,
    /// The reply began with attributes: what it is comes after them.
    untold: bool,
    /// Confirmations that belong to the open response of a subscription.
    owed: u32,
}

impl Replies {
    pub(super) fn parse(&mut self, data: &[u8], session: &mut Session, cx: &mut Cx<'_>) -> Step {
        if self.stack.is_empty() {
            if let Some(step) = self.begin(data, session, cx) {
                return step;
            }
            self.stack.push(1);
        }
        self.walk(data, cx)
    }

    /// Tells what begins here, once enough of it is there. `Some` when there is nothing to walk (yet).
    fn begin(&mut self, data: &[u8], session: &mut Session, cx: &mut Cx<'_>) -> Option<Step> {
        if let Some(wanted) = wanted(data)
            && !cx.last
        {
            return Some(Step::More(wanted));
        }
        let (element, head) = match resp::read(data) {
            Read::Got(element, head) => (element, head),
            Read::Partial if is_line(data) => (Element::Line(data[0], &data[1..]), data.len()),
            // A master says this while it prepares a snapshot.
            Read::Bad if data[0] == b'\n' => return Some(Step::Done(1)),
            _ => return Some(Step::Desync),
        };
        match element {
            Element::Aggregate(kind @ (b'>' | b'*'), count) => {
                let may_be = kind == b'>'
                    || matches!(count, 3 | 4) && (session.subscribed || cx.oldest_request().is_none());
                match may_be.then(|| Event::read(&data[head..], cx)) {
                    Some(Event::Wait) => return Some(Step::More(data.len() + 1)),
                    Some(Event::Confirmation(kind, channel)) => {
                        self.confirmation(kind, channel, session, cx);
                        return None;
                    }
                    Some(Event::Message(kind, channel)) => {
                        cx.push(pushed(kind, Some(channel), cx));
                        return None;
                    }
                    Some(Event::Other(name)) if kind == b'>' => {
                        cx.push(pushed(name, None, cx));
                        return None;
                    }
                    _ => {}
                }
            }
            Element::Chunk(_) | Element::End => return Some(Step::Desync),
            _ => {}
        }
        self.answer(element, head, data, session, cx)
    }

    fn answer(
        &mut self,
        element: Element<'_>,
        head: usize,
        data: &[u8],
        session: &mut Session,
        cx: &mut Cx<'_>,
    ) -> Option<Step> {
        let asked = cx.oldest_request().and_then(|request| request.request_type.as_deref());
        let replication = matches!(
            (asked, element),
            (Some("PSYNC"), Element::Line(b'+', _)) | (Some("SYNC"), Element::Bulk(..))
        );
        if let (None, true, Element::Line(b'+', line)) = (asked, session.monitoring, element) {
            let line = (!cx.config.obfuscate).then_some(line);
            cx.push(pushed(b"monitor", line, cx));
            return None;
        }
        self.owed = 0;
        self.untold = matches!(element, Element::Aggregate(b'|', _));
        let mut message = Message::default();
        if !self.untold {
            describe(&mut message, element, &data[head..], cx.config.obfuscate);
        }
        if replication {
            session.replication = true;
            message.length = Length::Known(head as u64);
            cx.response(message);
            return Some(Step::Done(head));
        }
        cx.response(message);
        None
    }

    /// One comes for each channel of a request; all of them are its response.
    fn confirmation(&mut self, kind: &[u8], channel: &[u8], session: &mut Session, cx: &mut Cx<'_>) {
        if self.owed > 0 {
            self.owed -= 1;
        } else if let Some(channels) = session.subscriptions.pop_front() {
            self.owed = channels - 1;
            let result = (!cx.config.obfuscate).then(|| text(kind, MAX_RESULT));
            cx.response(Message { status: Some(ResponseStatus::Ok), result, ..Message::default() });
        } else if !session.subscribed {
            session.subscribed = true;
            cx.push(pushed(kind, Some(channel), cx));
        }
    }

    /// Passes over the elements of the open reply, as far as they are there.
    fn walk(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let mut at = 0;
        while !self.stack.is_empty() && at < data.len() {
            let rest = &data[at..];
            if self.in_line {
                let Some(end) = memchr(b'\n', rest) else { return Step::Done(data.len()) };
                self.in_line = false;
                at += end + 1;
                self.take();
                continue;
            }
            if self.untold
                && self.stack.len() == 1
                && let Some(wanted) = wanted(rest)
                && !cx.last
            {
                return if at > 0 { Step::Done(at) } else { Step::More(wanted) };
            }
            match resp::read(rest) {
                Read::Got(element, head) => match self.element(element, head, rest, cx) {
                    Some(len) => at = at.saturating_add(len),
                    None => return Step::Desync,
                },
                Read::Partial if is_line(rest) => {
                    self.tell(Element::Line(rest[0], &rest[1..]), &[], cx);
                    self.in_line = true;
                    return Step::Done(data.len());
                }
                Read::Partial if at > 0 => return Step::Done(at),
                Read::Partial if !cx.last => return Step::More(data.len() + 1),
                _ => return Step::Desync,
            }
        }
        if self.stack.is_empty() && self.owed == 0 {
            cx.end_after(at);
        }
        Step::Done(at)
    }

    /// Takes one element off; gives its bytes (without those of the elements in it), or `None` when it has no place here.
    fn element(&mut self, element: Element<'_>, head: usize, data: &[u8], cx: &mut Cx<'_>) -> Option<usize> {
        let top = *self.stack.last()?;
        if (top == CHUNKS) != matches!(element, Element::Chunk(_)) {
            return None;
        }
        self.tell(element, &data[head..], cx);
        match element {
            Element::Line(..) | Element::Null => self.take(),
            Element::Bulk(_, len) => {
                let (_, end) = resp::bulk(data, head, len)?;
                self.take();
                return Some(end);
            }
            // Attributes come before the element they belong to and do not count as one.
            Element::Aggregate(b'|', count) => self.push(count)?,
            Element::Aggregate(_, count) => {
                self.take();
                self.push(count)?;
            }
            Element::StreamedAggregate(_) => {
                self.take();
                self.push(UNTIL_END)?;
            }
            Element::StreamedBulk => {
                self.take();
                self.push(CHUNKS)?;
            }
            Element::Chunk(0) => self.pop(),
            Element::Chunk(len) => return resp::bulk(data, head, len).map(|(_, end)| end),
            Element::End if top == UNTIL_END => self.pop(),
            Element::End => return None,
        }
        Some(head)
    }

    /// An element of the innermost level is dealt with.
    fn take(&mut self) {
        if let Some(top) = self.stack.last_mut()
            && *top < CHUNKS
        {
            *top -= 1;
        }
        while self.stack.last() == Some(&0) {
            self.stack.pop();
        }
    }

    fn push(&mut self, count: u64) -> Option<()> {
        if count > 0 {
            if self.stack.len() >= MAX_DEPTH {
                return None;
            }
            self.stack.push(count);
        }
        Some(())
    }

    fn pop(&mut self) {
        self.stack.pop();
    }

    /// The reply itself, after its attributes.
    fn tell(&mut self, element: Element<'_>, after: &[u8], cx: &mut Cx<'_>) {
        if self.untold && self.stack.len() == 1 && !matches!(element, Element::Aggregate(b'|', _)) {
            self.untold = false;
            let obfuscate = cx.config.obfuscate;
            cx.amend_response(|message| describe(message, element, after, obfuscate));
        }
    }
}

/// How many bytes must be there before the element at the start of `data` can be described, when they are not.
fn wanted(data: &[u8]) -> Option<usize> {
    match resp::read(data) {
        Read::Got(Element::Bulk(_, len), head) => {
            let wanted = head + len.min(MAX_RESULT as u64) as usize;
            (data.len() < wanted).then_some(wanted)
        }
        Read::Partial if data.len() < MAX_LINE => Some(data.len() + 1),
        _ => None,
    }
}

/// What an array or push of a subscribed connection is.
enum Event<'a> {
    /// Not enough bytes to tell.
    Wait,
    /// Of a subscription: kind and channel.
    Confirmation(&'a [u8], &'a [u8]),
    /// Published: kind and channel.
    Message(&'a [u8], &'a [u8]),
    /// Begins with this.
    Other(&'a [u8]),
    /// Does not begin with a name.
    None,
}

impl<'a> Event<'a> {
    /// From the elements of the array.
    fn read(data: &'a [u8], cx: &Cx<'_>) -> Self {
        let (kind, next) = match string(data, cx) {
            Ok(found) => found,
            Err(event) => return event,
        };
        let is_message = match kind {
            b"message" | b"smessage" | b"pmessage" => true,
            b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe"
            | b"sunsubscribe" => false,
            _ => return Self::Other(kind),
        };
        let channel = match string(&data[next..], cx) {
            // Pattern, then channel.
            Ok((_, skip)) if kind == b"pmessage" => string(&data[next + skip..], cx),
            other => other,
        };
        match channel {
            Ok((channel, _)) if is_message => Self::Message(kind, channel),
            Ok((channel, _)) => Self::Confirmation(kind, channel),
            Err(Self::None) if !is_message => Self::Confirmation(kind, b""),
            Err(event) => event,
        }
    }
}

/// The bulk string at the start of `data`, and where it ends.
fn string<'a>(data: &'a [u8], cx: &Cx<'_>) -> Result<(&'a [u8], usize), Event<'a>> {
    match resp::read(data) {
        Read::Got(Element::Bulk(b'$', len), head) => match resp::bulk(data, head, len) {
            Some((bytes, end)) if end <= data.len() => Ok((bytes, end)),
            Some(_) if !cx.last && len <= cx.config.max_text as u64 => Err(Event::Wait),
            _ => Err(Event::None),
        },
        Read::Partial if !cx.last => Err(Event::Wait),
        _ => Err(Event::None),
    }
}

fn pushed(kind: &[u8], resource: Option<&[u8]>, cx: &Cx<'_>) -> Message {
    let kind = text(kind, MAX_RESULT).to_ascii_uppercase();
    Message {
        endpoint: Some(kind.clone()),
        request_type: Some(kind),
        resource: resource.map(|resource| text(resource, cx.config.max_text)),
        status: Some(ResponseStatus::Ok),
        ..Message::default()
    }
}

fn is_line(data: &[u8]) -> bool {
    matches!(data, [b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_', ..])
}

fn text(bytes: &[u8], max: usize) -> Text {
    let mut text = Text::default();
    resp::push_text(&mut text, bytes, max);
    text
}

/// Says in `message` how the request ended. `after` is what follows the head of the element.
fn describe(message: &mut Message, element: Element<'_>, after: &[u8], obfuscate: bool) {
    message.status = Some(ResponseStatus::Ok);
    let (kind, value) = match element {
        Element::Line(b'-', error) => {
            message.status = Some(ResponseStatus::ServerError);
            // The server repeats arguments of a command it does not know.
            let end = memmem::find(error, b", with args beginning with").filter(|_| obfuscate);
            message.exception = Some(text(&error[..end.unwrap_or(error.len())], MAX_LINE));
            return;
        }
        Element::Bulk(b'!', len) => {
            message.status = Some(ResponseStatus::ServerError);
            message.exception = Some(text(&after[..after.len().min(len as usize)], MAX_LINE));
            return;
        }
        Element::Line(b'+', line) => ("simple string", line),
        Element::Line(b':', line) => ("integer", line),
        Element::Line(b',', line) => ("double", line),
        Element::Line(b'(', line) => ("big number", line),
        Element::Line(b'#', line) => ("boolean", if line == b"t" { &b"true"[..] } else { b"false" }),
        Element::Line(..) | Element::Null => ("nil", &b"nil"[..]),
        Element::Bulk(kind, len) => {
            let value = &after[..after.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
            if kind == b'=' {
                // Three letters of format and a colon come first.
                ("verbatim string", value.get(4..).unwrap_or_default())
            } else {
                ("bulk string", value)
            }
        }
        Element::Aggregate(kind, count) => {
            let count = if kind == b'%' { count / 2 } else { count };
            message.result = Some(format_compact!("{}({count})", aggregate(kind)));
            return;
        }
        Element::StreamedAggregate(kind) => (aggregate(kind), aggregate(kind).as_bytes()),
        Element::StreamedBulk | Element::Chunk(_) | Element::End => ("bulk string", &b"bulk string"[..]),
    };
    message.result = Some(if obfuscate { kind.into() } else { text(value, MAX_RESULT) });
}

fn aggregate(kind: u8) -> &'static str {
    match kind {
        b'%' => "map",
        b'~' => "set",
        _ => "array",
    }
}

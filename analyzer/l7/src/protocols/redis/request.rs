//! Commands: arrays of bulk strings, or a line of words ("inline").

use super::Session;
use super::mask::{self, Values};
use super::resp::{self, Element, Read};
use crate::engine::Config;
use crate::parser::{Cx, Length, Message, Step};
use crate::text::text;
use memchr::memchr;
use smallvec::SmallVec;
use wirespan_records::Text;

/// Arguments that go into the command line; further ones are passed over.
const MAX_ARGS: usize = 128;
/// The fewest bytes an argument has on the stream: `$0`, CRLF, CRLF.
const MIN_ARG: usize = 6;
/// The longest command name.
const MAX_NAME: usize = 64;
/// The server's own limit for an inline command (PROTO_INLINE_MAX_SIZE).
const MAX_INLINE: usize = 64 << 10;

pub(super) type Args<'a> = SmallVec<[&'a [u8]; 16]>;

/// The client's direction.
#[derive(Default)]
pub(super) struct Requests {
    /// Arguments of the open command that are still to come.
    left: u64,
    replies: Wanted,
}

/// Which replies the client asked for (CLIENT REPLY).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Wanted {
    #[default]
    All,
    /// None for the next command.
    SkipNext,
    None,
}

impl Requests {
    pub(super) fn parse(&mut self, data: &[u8], session: &mut Session, cx: &mut Cx<'_>) -> Step {
        match data {
            _ if self.left > 0 => self.pass_over(data, cx),
            [b'*', ..] => self.array(data, session, cx),
            [b'\r' | b'\n', ..] => Step::Done(1),
            _ => self.inline(data, session, cx),
        }
    }

    fn array(&mut self, data: &[u8], session: &mut Session, cx: &mut Cx<'_>) -> Step {
        let (count, mut at) = match resp::read(data) {
            // The server takes an empty array as nothing at all.
            Read::Got(Element::Null | Element::Aggregate(b'*', 0), len) => return Step::Done(len),
            Read::Got(Element::Aggregate(b'*', count), len) => (count, len),
            Read::Partial if !cx.last => return Step::More(data.len() + 1),
            _ => return Step::Desync,
        };
        let (mut args, mut room, mut left) = (Args::new(), cx.config.max_text, count);
        while left > 0 && at <= data.len() && room > 0 && args.len() < MAX_ARGS {
            let rest = &data[at..];
            let after = (left as usize - 1).min(MAX_ARGS).saturating_mul(MIN_ARG);
            let (len, head) = match resp::read(rest) {
                Read::Got(Element::Bulk(b'$', len), head) => (len, head),
                Read::Partial if !cx.last => return Step::More(at + MIN_ARG + after),
                Read::Partial if !args.is_empty() => break,
                _ => return Step::Desync,
            };
            let Some((there, end)) = resp::bulk(rest, head, len) else { return Step::Desync };
            let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(room);
            let needed = if wanted == room { head + wanted } else { end + after };
            if rest.len() < needed.min(end) && !cx.last {
                return Step::More(at + needed);
            }
            if args.is_empty() && !is_name(there) {
                return Step::Desync;
            }
            args.push(&there[..there.len().min(wanted)]);
            room -= there.len().min(wanted);
            at = at.saturating_add(end);
            left -= 1;
        }
        let length = if left == 0 { Length::Known(at as u64) } else { Length::Open };
        self.left = left;
        self.command(&args, count, length, session, cx);
        Step::Done(at)
    }

    /// Arguments that did not fit into the command line.
    fn pass_over(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Step {
        let mut at = 0;
        while self.left > 0 && at < data.len() {
            let rest = &data[at..];
            match resp::read(rest) {
                Read::Got(Element::Bulk(b'$', len), head) => match resp::bulk(rest, head, len) {
                    Some((_, end)) => at = at.saturating_add(end),
                    None => return Step::Desync,
                },
                Read::Partial if at > 0 => return Step::Done(at),
                Read::Partial if !cx.last => return Step::More(data.len() + 1),
                _ => return Step::Desync,
            }
            self.left -= 1;
        }
        if self.left == 0 {
            cx.end_after(at);
        }
        Step::Done(at)
    }

    fn inline(&mut self, data: &[u8], session: &mut Session, cx: &mut Cx<'_>) -> Step {
        let Some(end) = memchr(b'\n', data) else {
            return if is_line(data) && data.len() < MAX_INLINE && !cx.last {
                Step::More(data.len() + 1)
            } else {
                Step::Desync
            };
        };
        let line = &data[..end];
        let args = words(line);
        match args.first() {
            Some(name) if is_line(line) && is_name(name) => {
                self.command(&args, args.len() as u64, Length::Known(end as u64 + 1), session, cx);
                Step::Done(end + 1)
            }
            None if is_line(line) => Step::Done(end + 1),
            _ => Step::Desync,
        }
    }

    fn command(
        &mut self,
        args: &[&[u8]],
        count: u64,
        length: Length,
        session: &mut Session,
        cx: &mut Cx<'_>,
    ) {
        let Some((name, _)) = args.split_first() else { return };
        let mut name = text(name, MAX_NAME);
        name.make_ascii_uppercase();
        let argument = |n: usize| args.get(n).copied().unwrap_or_default();
        match name.as_str() {
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" => {
                session.subscribed = true;
                if session.subscriptions.len() < cx.config.max_pending {
                    let channels = u32::try_from(count - 1).unwrap_or(u32::MAX).max(1);
                    session.subscriptions.push_back(channels);
                }
            }
            "MONITOR" => session.monitoring = true,
            // A replica that tells how far it is: no reply, and the master's side is a stream of commands.
            "REPLCONF" if argument(1).eq_ignore_ascii_case(b"ACK") => {
                session.replication = true;
                return;
            }
            _ => {}
        }
        let answered = self.wants_reply(&name, args);
        let message = Message {
            resource: Some(command_line(&name, args, cx.config)),
            endpoint: Some(name.clone()),
            request_type: Some(name),
            length,
            ..Message::default()
        };
        if answered {
            cx.request(message);
        } else {
            cx.one_way(message);
        }
    }

    /// Whether the server answers this command (CLIENT REPLY turns that off and on).
    fn wants_reply(&mut self, name: &str, args: &[&[u8]]) -> bool {
        let before = self.replies;
        if before == Wanted::SkipNext {
            self.replies = Wanted::All;
        }
        let is = |n: usize, word: &[u8]| args.get(n).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if name != "CLIENT" || !is(1, b"REPLY") {
            return before == Wanted::All;
        }
        self.replies = match before {
            _ if is(2, b"OFF") => Wanted::None,
            // Where none are wanted, SKIP changes nothing.
            Wanted::None if is(2, b"SKIP") => Wanted::None,
            _ if is(2, b"SKIP") => Wanted::SkipNext,
            _ => Wanted::All,
        };
        self.replies == Wanted::All
    }
}

/// A command's name: ASCII without blanks.
pub(super) fn is_name(bytes: &[u8]) -> bool {
    (1..=MAX_NAME).contains(&bytes.len())
        && bytes[0].is_ascii_alphabetic()
        && bytes.iter().all(u8::is_ascii_graphic)
}

fn is_line(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b >= b' ' && b != 0x7f || b == b'\t' || b == b'\r')
}

/// The words of an inline command; quoted ones may hold blanks and keep their quotes.
pub(super) fn words(line: &[u8]) -> Args<'_> {
    let mut words = Args::new();
    let mut rest = line.trim_ascii();
    while !rest.is_empty() && words.len() < MAX_ARGS {
        let (mut quote, mut escaped) = (None, false);
        let end = rest.iter().position(|&byte| {
            match (byte, quote) {
                _ if escaped => escaped = false,
                (b'\\', Some(_)) => escaped = true,
                (b'"' | b'\'', None) => quote = Some(byte),
                (byte, Some(open)) if byte == open => quote = None,
                (b' ' | b'\t', None) => return true,
                _ => {}
            }
            false
        });
        let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        rest = tail.trim_ascii_start();
    }
    words
}

/// The command as one types it. Secrets always as `?`, values too when that is configured.
fn command_line(name: &str, args: &[&[u8]], config: &Config) -> Text {
    let mut line =
        Text::with_capacity(args.iter().map(|arg| arg.len() + 1).sum::<usize>().min(config.max_text));
    let values = config.obfuscate.then(|| mask::values(name).unwrap_or(Values::From(1)));
    for (index, arg) in args.iter().enumerate() {
        if index > 0 && line.len() < config.max_text {
            line.push(' ');
        }
        let room = config.max_text.saturating_sub(line.len());
        let hidden = mask::is_secret(name, args, index) || values.is_some_and(|values| values.contain(index));
        resp::push_text(&mut line, if hidden { b"?" } else { arg }, room);
    }
    line
}

//! Is it Redis? Captures may begin in the middle of a connection, with a command or with a reply.

use super::mask;
use super::request::{is_name, words};
use super::resp::{self, Element, Read};
use crate::parser::{MAX_PROBE, ProbeInfo, Role, Verdict};
use memchr::{memchr, memmem};
use wirespan_records::L4Protocol;

/// The longest name of a command.
const MAX_COMMAND: u64 = 32;
/// The most arguments of a command (the server's own limit).
const MAX_ARGS: u64 = 1 << 20;
/// The server's default limit for a value.
const MAX_VALUE: u64 = 512 << 20;

/// Commands that begin a line of another text protocol too (memcached, NATS, FTP, SMTP, POP3, HTTP, SIP, STOMP, IRC).
const SHARED_WORDS: &[&str] = &[
    "APPEND",
    "AUTH",
    "CLIENT",
    "COMMAND",
    "CONFIG",
    "COPY",
    "DEBUG",
    "DECR",
    "DECRBY",
    "DEL",
    "DUMP",
    "ECHO",
    "EXISTS",
    "GET",
    "HELLO",
    "INCR",
    "INFO",
    "KEYS",
    "MODULE",
    "MONITOR",
    "MOVE",
    "OBJECT",
    "PING",
    "PUBLISH",
    "QUIT",
    "RENAME",
    "RESET",
    "RESTORE",
    "ROLE",
    "SAVE",
    "SCAN",
    "SELECT",
    "SET",
    "SHUTDOWN",
    "SORT",
    "SUBSCRIBE",
    "SYNC",
    "TIME",
    "TOUCH",
    "TYPE",
    "UNSUBSCRIBE",
    "WAIT",
    "WATCH",
];

/// First words of error replies that no other protocol uses.
const ERRORS: &[&str] = &[
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "EXECABORT",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOGROUP",
    "NOMASTERLINK",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOTBUSY",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

/// What the server says after `-ERR` most often. POP3 and NATS begin errors with `-ERR` too.
const ERR_TEXTS: &[&str] = &[
    "unknown command",
    "unknown subcommand",
    "Unknown subcommand",
    "wrong number of arguments",
    "syntax error",
    "value is not",
    "no such key",
    "DB index",
    "Protocol error",
    "max number of clients",
    "index out of range",
    "invalid expire",
    "EXEC without MULTI",
    "DISCARD without MULTI",
    "Error running script",
    "user_script",
    "increment or decrement",
    "numkeys",
    "hash value is not",
    "Client sent AUTH",
    "AUTH <password>",
];

pub(super) fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
    if info.l4 != L4Protocol::Tcp {
        return Verdict::No;
    }
    match data {
        [b'*', ..] => array(data, info),
        [byte, ..] if byte.is_ascii_alphabetic() => inline(data, info),
        [_, ..] => reply(data, info),
        [] => Verdict::No,
    }
}

/// A port that Redis, its cluster or its sentinel has by default. Only a hint where the bytes leave it open.
fn is_usual(port: u16) -> bool {
    matches!(port, 6379..=6389 | 7000..=7006 | 26379)
}

fn unfinished(data: &[u8]) -> Verdict {
    if data.len() < MAX_PROBE { Verdict::Maybe } else { Verdict::No }
}

fn array(data: &[u8], info: &ProbeInfo) -> Verdict {
    let (count, head) = match resp::read(data) {
        Read::Got(Element::Null | Element::Aggregate(_, 0), head) => {
            return server_if(follows(&data[head..]));
        }
        Read::Got(Element::Aggregate(_, count), head) => (count, head),
        Read::Got(Element::StreamedAggregate(_), head) => return server_if(follows(&data[head..])),
        Read::Partial => return unfinished(data),
        _ => return Verdict::No,
    };
    let rest = &data[head..];
    let (len, head) = match resp::read(rest) {
        Read::Got(Element::Bulk(b'$', len), head) => (len, head),
        Read::Got(Element::Chunk(_) | Element::End, _) | Read::Bad => return Verdict::No,
        Read::Got(..) => return Verdict::Yes(Role::Server),
        Read::Partial => return unfinished(data),
    };
    let Some((first, end)) = resp::bulk(rest, head, len) else { return Verdict::No };
    if len > MAX_VALUE {
        return Verdict::No;
    }
    if len <= MAX_COMMAND && (first.len() as u64) < len {
        return unfinished(data);
    }
    let may_be_command = count <= MAX_ARGS
        && len <= MAX_COMMAND
        && is_name(first)
        && all_strings(rest.get(end..).unwrap_or_default(), count - 1);
    match info.role {
        _ if !may_be_command => Verdict::Yes(Role::Server),
        Some(role) => Verdict::Yes(role),
        None => Verdict::Yes(direction(first, info)),
    }
}

/// Who sends an array of strings that begins with `first`: a command and a list of words look alike.
fn direction(first: &[u8], info: &ProbeInfo) -> Role {
    let known = is_known(first);
    match (is_usual(info.src_port), is_usual(info.dst_port)) {
        _ if matches!(first, b"message" | b"pmessage" | b"smessage") => Role::Server,
        (false, true) => Role::Client,
        (true, false) => Role::Server,
        _ if known || info.dst_port < info.src_port => Role::Client,
        _ => Role::Server,
    }
}

fn is_known(name: &[u8]) -> bool {
    str::from_utf8(name).is_ok_and(|name| mask::values(&name.to_ascii_uppercase()).is_some())
}

/// The elements of a command are strings, as far as they are there.
fn all_strings(mut data: &[u8], count: u64) -> bool {
    for _ in 0..count.min(8) {
        match resp::read(data) {
            Read::Got(Element::Bulk(b'$', len), head) => match resp::bulk(data, head, len) {
                Some((_, end)) => data = data.get(end..).unwrap_or_default(),
                None => return false,
            },
            Read::Partial => return data.first().is_none_or(|&byte| byte == b'$'),
            _ => return false,
        }
    }
    true
}

fn reply(data: &[u8], info: &ProbeInfo) -> Verdict {
    let (element, head) = match resp::read(data) {
        Read::Got(element, head) => (element, head),
        Read::Partial if data.iter().all(|&b| b == b'\r' || (b' '..0x7f).contains(&b)) => {
            return unfinished(data);
        }
        _ => return Verdict::No,
    };
    let rest = &data[head..];
    server_if(match element {
        Element::Line(kind, text) => follows(rest) && is_line(kind, text, info),
        Element::Null => follows(rest),
        Element::Bulk(kind, len) => match resp::bulk(data, head, len) {
            Some((value, end)) => {
                len <= MAX_VALUE
                    && follows(data.get(end..).unwrap_or_default())
                    && match kind {
                        b'=' => matches!(value, [_, _, _, b':', ..]),
                        b'!' => value.first().is_some_and(u8::is_ascii_uppercase),
                        _ => true,
                    }
            }
            None => false,
        },
        Element::StreamedBulk => matches!(rest, [] | [b';', ..]),
        Element::Aggregate(..) | Element::StreamedAggregate(_) => {
            follows(rest) && resp::read(rest) != Read::Bad
        }
        Element::Chunk(_) | Element::End => false,
    })
}

fn server_if(yes: bool) -> Verdict {
    if yes { Verdict::Yes(Role::Server) } else { Verdict::No }
}

/// After a reply comes nothing or another one.
fn follows(rest: &[u8]) -> bool {
    rest.first().is_none_or(|byte| b"+-:$*_#,(!=%~>|".contains(byte))
}

/// A reply of one line, of its type's form.
fn is_line(kind: u8, text: &[u8], info: &ProbeInfo) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let unsigned = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    match kind {
        b'+' => is_status(text) || text == b"OK" && is_usual(info.src_port),
        b'-' => is_error(text, info),
        b':' => digits(unsigned) && unsigned.len() < 20,
        b'(' => digits(unsigned),
        b',' => {
            matches!(unsigned, b"inf" | b"nan")
                || unsigned.first().is_some_and(u8::is_ascii_digit)
                    && unsigned.iter().all(|b| b.is_ascii_digit() || b".eE+-".contains(b))
        }
        b'#' => matches!(text, b"t" | b"f"),
        _ => text.is_empty(),
    }
}

/// Status lines that only Redis sends. `+OK` is also POP3 and NATS.
fn is_status(text: &[u8]) -> bool {
    matches!(
        text,
        b"PONG" | b"QUEUED" | b"string" | b"list" | b"set" | b"zset" | b"hash" | b"stream" | b"none"
    ) || text.starts_with(b"FULLRESYNC ")
        || text.starts_with(b"Background ")
        || text == b"CONTINUE"
        || text.starts_with(b"CONTINUE ")
}

fn is_error(text: &[u8], info: &ProbeInfo) -> bool {
    let end = memchr(b' ', text).unwrap_or(text.len());
    match &text[..end] {
        b"ERR" => {
            is_usual(info.src_port)
                || ERR_TEXTS.iter().any(|known| memmem::find(text, known.as_bytes()).is_some())
        }
        word => ERRORS.iter().any(|known| known.as_bytes() == word),
    }
}

/// A command on one line, of a kind that only Redis has.
fn inline(data: &[u8], info: &ProbeInfo) -> Verdict {
    let Some(end) = memchr(b'\n', &data[..data.len().min(MAX_PROBE)]) else { return Verdict::No };
    let line = &data[..end];
    let printable = line.iter().all(|&b| b == b'\r' || b == b'\t' || (b' '..0x7f).contains(&b));
    let words = words(line);
    let Some(name) = words.first().and_then(|name| str::from_utf8(name).ok()) else { return Verdict::No };
    let name = name.to_ascii_uppercase();
    let foreign =
        ["HTTP/", "SIP/", "RTSP/"].iter().any(|version| memmem::find(line, version.as_bytes()).is_some());
    let shared = SHARED_WORDS.contains(&name.as_str()) && !is_usual(info.dst_port);
    if printable && !foreign && !shared && mask::values(&name).is_some() {
        Verdict::Yes(Role::Client)
    } else {
        Verdict::No
    }
}

//! Tells by the first bytes whether a stream is MySQL, at its beginning or anywhere in the middle.

use super::command::Command;
use super::compress::{self, Frame};
use super::login::{Greeting, Login};
use super::reply::Reply;
use super::wire::{HEADER, Header, Reader};
use crate::obfuscate;
use crate::parser::{Role, Verdict};

/// Lengths above are not believed without having seen the connection.
const MAX_REQUEST: usize = 16 << 20;

/// Bytes of a statement that are looked at.
const MAX_STATEMENT: usize = 512;

/// Whether packets or frames of either side begin here.
pub(super) fn probe(data: &[u8]) -> Verdict {
    let Some(header) = Header::read(data) else { return Verdict::No };
    if data.len() == HEADER {
        // Some clients write header and payload apart.
        let short = header.length > 0 && header.length < 1 << 16 && header.seq <= 1;
        return if short { Verdict::Maybe } else { Verdict::No };
    }
    match packet(data).or_else(|| frame(data)) {
        Some(role) => Verdict::Yes(role),
        None => Verdict::No,
    }
}

/// A packet begins here, and who sent it.
fn packet(data: &[u8]) -> Option<Role> {
    let header = Header::read(data)?;
    let behind = data.get(header.total()..).unwrap_or_default();
    let payload = data.get(HEADER..header.total().min(data.len()))?;
    if is_reply(data) {
        return Some(Role::Server);
    }
    if header.seq == 1 && behind.is_empty() && payload.len() == header.length {
        return Login::read(payload).map(|_| Role::Client);
    }
    is_request(data).then_some(Role::Client)
}

/// A packet of the server, beyond doubt.
pub(super) fn is_reply(data: &[u8]) -> bool {
    let Some(header) = Header::read(data) else { return false };
    let behind = data.get(header.total()..).unwrap_or_default();
    let Some(payload) = data.get(HEADER..header.total()) else { return false };
    if header.seq == 0 && behind.is_empty() && payload.first() == Some(&10) {
        return Greeting::read(payload).is_some();
    }
    Reply::is_certain(payload, header.seq, behind)
}

/// A command begins here.
fn is_request(data: &[u8]) -> bool {
    let Some(header) = Header::read(data) else { return false };
    let Some((&code, body)) = data.get(HEADER..header.total().min(data.len())).and_then(<[u8]>::split_first)
    else {
        return false;
    };
    if header.seq != 0 || header.length == 0 || header.length > MAX_REQUEST {
        return false;
    }
    let whole = data.len() == header.total();
    let Some(command) = Command::of(code) else { return false };
    let mut r = Reader(body);
    match command {
        Command::Query => is_statement(statement(body)) && is_last_or_followed(data, header),
        Command::StmtPrepare => is_statement(body) && is_last_or_followed(data, header),
        Command::StmtExecute => {
            // Statement, flags, iteration count, which is always 1.
            let (id, flags, count) = (r.u32(), r.u8(), r.u32());
            id.is_some() && flags.is_some_and(|flags| flags < 16) && count == Some(1)
        }
        Command::StmtClose | Command::StmtReset => header.length == 5 && is_last_or_followed(data, header),
        Command::StmtFetch => header.length == 9 && whole,
        Command::InitDb => whole && !body.is_empty() && body.iter().all(|&b| b > b' ' && b != 0x7f),
        Command::FieldList => {
            whole
                && r.nul_str().is_some_and(|table| !table.is_empty() && table.iter().all(|&b| b > b' '))
                && r.0.iter().all(|&b| b > b' ')
        }
        Command::ProcessKill => whole && header.length == 5,
        Command::SetOption => whole && header.length == 3 && matches!(body, [0 | 1, 0]),
        Command::Ping | Command::ResetConnection | Command::Statistics => whole && body.is_empty(),
        _ => false,
    }
}

/// The request ends with the bytes, goes on behind them, or another one follows.
fn is_last_or_followed(data: &[u8], header: Header) -> bool {
    match data.get(header.total()..) {
        None | Some([]) => true,
        Some(next) => Header::read(next).is_some_and(|next_header| {
            next_header.seq == 0
                && next_header.length > 0
                && next_header.length <= MAX_REQUEST
                && next.get(HEADER).is_none_or(|&code| Command::of(code).is_some())
        }),
    }
}

/// The text of a COM_QUERY, behind its query attributes when it has some.
pub(super) fn statement(body: &[u8]) -> &[u8] {
    match body {
        [0, 1, sql @ ..] => sql,
        _ => body,
    }
}

/// Text that begins with a verb of SQL.
fn is_statement(body: &[u8]) -> bool {
    let start = body.get(..MAX_STATEMENT).unwrap_or(body);
    let head = start.get(..32).unwrap_or(start);
    !head.iter().any(|&b| b < b' ' && !b.is_ascii_whitespace())
        && obfuscate::verb_and_table(&String::from_utf8_lossy(start)).is_some()
}

/// A frame of the compressed protocol begins here, and who sent it.
fn frame(data: &[u8]) -> Option<Role> {
    let frame = Frame::read(data)?;
    let content = data.get(compress::HEADER..)?;
    let role = if frame.seq == 0 { Role::Client } else { Role::Server };
    if frame.original == 0 {
        let inner = content.get(..frame.length)?;
        let header = Header::read(inner)?;
        // Frames that are not compressed are short: they hold whole packets.
        let plausible = header.total() <= inner.len() && packet(inner) == Some(role);
        return plausible.then_some(role);
    }
    (frame.length >= 8 && frame.is_compressed(content)).then_some(role)
}

/// Both sides speak the compressed protocol, told by the bytes of one.
pub(super) fn is_compressed(data: &[u8]) -> bool {
    packet(data).is_none() && frame(data).is_some()
}

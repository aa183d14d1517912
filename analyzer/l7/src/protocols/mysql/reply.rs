//! What the server answers: OK, error, result sets, and where they end.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_response_packets.html>

use super::command::Command;
use super::wire::{MAX_PACKET, Reader};
use crate::parser::Message;
use crate::text::text;
use compact_str::format_compact;
use wirespan_records::{ResponseStatus, Text};

/// Flags of the server status.
mod status {
    /// Another result follows this one.
    pub const MORE_RESULTS: u16 = 0x0008;
    /// Rows wait to be fetched.
    pub const CURSOR: u16 = 0x0040;
}

/// Payload of an EOF packet.
const EOF: usize = 5;

/// Columns of a result set; the server allows 4096.
const MAX_COLUMNS: u64 = 4096;

/// The first packet of an answer, or of a further result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Done, or the end of something.
    Ok { affected_rows: Option<u64>, info: Option<Text>, more: bool },
    /// Failed.
    Error { code: u16, message: Text },
    /// How far a long command is (MariaDB); the answer comes later.
    Progress,
    /// A prepared statement; descriptions of its parameters and columns follow.
    Prepared { id: u32, columns: u16, parameters: u16 },
    /// Descriptions of columns and then rows follow.
    ResultSet { columns: u64 },
    /// The client is to send a file.
    LocalInfile,
    /// Rows without descriptions (COM_STMT_FETCH) or descriptions without rows (COM_FIELD_LIST): this packet is the first.
    Rows,
    /// One packet of text (COM_STATISTICS).
    Text(Text),
    /// Packets without an end.
    Events,
}

impl Reply {
    /// Reads a packet of `length` bytes of which `payload` is the beginning.
    pub(super) fn read(
        payload: &[u8],
        length: usize,
        command: Option<Command>,
        max_text: usize,
    ) -> Option<Self> {
        let first = *payload.first()?;
        match (first, command) {
            (0xff, _) => read_error(payload, max_text),
            (0xfe, _) if End::is(first, length) => {
                let end = End::read(payload, length);
                Some(Self::Ok { affected_rows: None, info: None, more: end.more })
            }
            (_, Some(Command::StmtFetch | Command::FieldList | Command::ProcessInfo)) => Some(Self::Rows),
            (_, Some(Command::Statistics)) => Some(Self::Text(text(payload, max_text))),
            (0, Some(Command::BinlogDump | Command::BinlogDumpGtid | Command::TableDump)) => {
                Some(Self::Events)
            }
            (0, Some(Command::StmtPrepare)) => read_prepared(payload),
            (0, _) => read_ok(payload, max_text),
            (0xfb, _) => Some(Self::LocalInfile),
            _ => {
                let columns = Reader(payload).lenenc()?;
                (columns <= MAX_COLUMNS).then_some(Self::ResultSet { columns })
            }
        }
    }

    /// The packet certainly is one of these, told by its bytes alone: an error with SQL state, an OK or a prepared statement
    /// of exactly this length, a result set with its first column.
    pub(super) fn is_certain(payload: &[u8], seq: u8, behind: &[u8]) -> bool {
        match payload {
            [0xff, low, high, b'#', state @ ..] => {
                let code = u16::from_le_bytes([*low, *high]);
                (1000..5000).contains(&code)
                    && state.len() >= 5
                    && state[..5].iter().all(u8::is_ascii_alphanumeric)
                    && state[5..].iter().take(8).all(|&b| b >= b' ')
            }
            [0, ..] if payload.len() == 12 && payload[9] == 0 && seq == 1 && is_column(behind) => true,
            [0, ..] => (1..8).contains(&seq) && behind.is_empty() && is_exact_ok(payload),
            [1..=0xfa] => seq == 1 && is_column(behind),
            [0xfc, _, _] => seq == 1 && is_column(behind),
            _ => false,
        }
    }

    /// The response it makes.
    pub(super) fn message(&self) -> Message {
        let ok = Message { status: Some(ResponseStatus::Ok), code: Some(0), ..Message::default() };
        match self {
            Self::Ok { affected_rows, info, .. } => {
                Message { affected_rows: *affected_rows, result: info.clone(), ..ok }
            }
            Self::Error { code, message } => Message {
                status: Some(match code {
                    2000..=2999 => ResponseStatus::ClientError,
                    _ => ResponseStatus::ServerError,
                }),
                code: Some(i32::from(*code)),
                exception: Some(message.clone()),
                ..Message::default()
            },
            Self::Prepared { id, .. } => Message { id: Some(u64::from(*id)), ..ok },
            Self::Text(text) => Message { result: Some(text.clone()), ..ok },
            _ => ok,
        }
    }

    /// Adds this further result to the response that began with another.
    pub(super) fn amend(&self, response: &mut Message) {
        let Message { status, code, exception, affected_rows, result, .. } = self.message();
        if exception.is_some() {
            (response.status, response.code, response.exception) = (status, code, exception);
        }
        if let Some(more) = affected_rows {
            response.affected_rows = Some(response.affected_rows.unwrap_or(0).saturating_add(more));
        }
        response.result = response.result.take().or(result);
    }
}

/// What the packet behind descriptions or rows says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Another result follows.
    pub more: bool,
    /// Rows do not follow, they are to be fetched.
    pub cursor: bool,
    /// The packet is the old EOF, which parts descriptions from rows, too.
    pub is_eof: bool,
}

impl End {
    /// A packet that begins with 0xfe and is no row: rows that begin so are longer than a packet.
    pub(super) fn is(first: u8, length: usize) -> bool {
        first == 0xfe && length < MAX_PACKET
    }

    pub(super) fn read(payload: &[u8], length: usize) -> Self {
        let mut r = Reader(payload.get(1..).unwrap_or_default());
        let flags = if length <= EOF {
            r.u16().and_then(|_warnings| r.u16())
        } else {
            r.lenenc().and_then(|_affected| r.lenenc()).and_then(|_id| r.u16())
        };
        let flags = flags.unwrap_or(0);
        Self {
            more: flags & status::MORE_RESULTS != 0,
            cursor: flags & status::CURSOR != 0,
            is_eof: length <= EOF,
        }
    }
}

/// A packet with the description of a column begins here: catalog `def`.
pub(super) fn is_column(packet: &[u8]) -> bool {
    packet.get(4..8) == Some(b"\x03def")
}

fn read_error(payload: &[u8], max_text: usize) -> Option<Reply> {
    let mut r = Reader(&payload[1..]);
    let code = r.u16()?;
    if code == u16::MAX {
        return Some(Reply::Progress);
    }
    if r.0.first() == Some(&b'#') {
        let state = r.take(6)?;
        let message = format_compact!("{} (SQLSTATE {})", text(r.0, max_text), text(&state[1..], 5));
        return Some(Reply::Error { code, message });
    }
    Some(Reply::Error { code, message: text(r.0, max_text) })
}

fn read_ok(payload: &[u8], max_text: usize) -> Option<Reply> {
    let mut r = Reader(&payload[1..]);
    let affected_rows = Some(r.lenenc()?);
    r.lenenc()?;
    let flags = r.u16().unwrap_or(0);
    r.u16();
    // With session tracking the text has a length, without it goes to the end.
    let info = Reader(r.0).lenenc_str().unwrap_or(r.0);
    let info = (!info.is_empty()).then(|| text(info, max_text));
    Some(Reply::Ok { affected_rows, info, more: flags & status::MORE_RESULTS != 0 })
}

fn read_prepared(payload: &[u8]) -> Option<Reply> {
    let mut r = Reader(&payload[1..]);
    Some(Reply::Prepared { id: r.u32()?, columns: r.u16()?, parameters: r.u16()? })
}

/// An OK packet to its last byte, with the flags a server sets.
fn is_exact_ok(payload: &[u8]) -> bool {
    let mut r = Reader(&payload[1..]);
    let (Some(affected), Some(_), Some(flags), Some(warnings)) = (r.lenenc(), r.lenenc(), r.u16(), r.u16())
    else {
        return false;
    };
    // In a transaction, autocommit, or session state changed: one of them is always set in practice.
    let plausible = affected < 1 << 40
        && warnings < 4096
        && (flags & 0x4003 != 0 || payload.len() == 7 && affected < 256);
    plausible
        && (r.0.is_empty()
            || r.lenenc_str().is_some_and(|info| info.iter().all(|&b| b >= b' ' || b == b'\n'))
                && (r.0.is_empty() || flags & 0x4000 != 0 && r.lenenc_str().is_some() && r.0.is_empty())
            || r.0.iter().all(|&b| b.is_ascii_graphic() || b == b' '))
}

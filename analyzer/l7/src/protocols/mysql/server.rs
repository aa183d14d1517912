//! What the server sends: the greeting, and the results of commands, followed packet by packet to their end.

use super::command::Command;
use super::login::Greeting;
use super::reply::{End, Reply, is_column};
use super::wire::{HEADER, Header};
use super::{MySql, Phase, probe};
use crate::parser::{Cx, Length, Message, Step};
use compact_str::format_compact;

/// Bytes looked at besides the text that is kept.
const BEFORE_TEXT: usize = 64;

/// What comes next of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Results {
    /// The first packet of a response.
    #[default]
    None,
    /// Descriptions of columns, then rows.
    Columns { left: u64 },
    /// Rows, and the packet that ends them.
    Rows { count: u64 },
    /// Descriptions of columns only (COM_FIELD_LIST), and the packet that ends them.
    Fields,
    /// Descriptions of a prepared statement.
    Prepared { left: u32 },
    /// The first packet of a further result.
    More,
    /// Packets without an end.
    Events,
}

impl MySql {
    pub(super) fn server_packet(
        &mut self,
        header: Header,
        continued: bool,
        data: &[u8],
        cx: &mut Cx<'_>,
    ) -> Step {
        if continued || header.length == 0 {
            return Step::Done(header.total());
        }
        // A description is told from a row by its first bytes.
        let told_by = if matches!(self.results, Results::Columns { .. }) { 4 } else { 1 };
        let needed = HEADER + header.length.min(told_by);
        let Some(&first) = data.get(HEADER).filter(|_| data.len() >= needed) else {
            return if cx.last { Step::Done(header.total()) } else { Step::More(needed) };
        };
        let begins = self.begins(header, cx);
        // Rows and descriptions are passed over; all else is short or text.
        if begins || self.results == Results::More || first >= 0xfe || self.phase != Phase::Command {
            let wanted = HEADER + header.length.min(cx.config.max_text + BEFORE_TEXT);
            if data.len() < wanted && !cx.last {
                return Step::More(wanted);
            }
        }
        let payload = data.get(HEADER..header.total().min(data.len())).unwrap_or_default();
        if self.phase != Phase::Command {
            self.authentication(header, payload, cx);
            return Step::Done(header.total());
        }
        if header.seq == 0 && first == 10 && cx.oldest_request().is_none() && self.greeting(payload) {
            return Step::Done(header.total());
        }
        if begins {
            return self.response(header, payload, data, cx);
        }
        self.continuation(header, payload, data, cx);
        Step::Done(header.total())
    }

    /// A packet begins a response when one is owed, and its number says so.
    fn begins(&self, header: Header, cx: &Cx<'_>) -> bool {
        match self.results {
            Results::None => true,
            _ if self.is_compressed() => false,
            _ => {
                header.seq == self.answer_seq && header.seq != self.next_seq && cx.oldest_request().is_some()
            }
        }
    }

    fn greeting(&mut self, payload: &[u8]) -> bool {
        let Some(greeting) = Greeting::read(payload) else { return false };
        self.version = Some(greeting.version);
        self.server_capabilities = greeting.capabilities;
        self.phase = Phase::Greeted;
        true
    }

    /// Until the server says OK or not, packets carry proofs.
    fn authentication(&mut self, header: Header, payload: &[u8], cx: &mut Cx<'_>) {
        if !matches!(payload.first(), Some(0 | 0xff)) {
            return;
        }
        if let Some(reply) = Reply::read(payload, header.length, None, cx.config.max_text) {
            let length = Length::Known(header.total() as u64);
            let message = Message { length, version: self.version.clone(), ..reply.message() };
            if !matches!(reply, Reply::Error { .. }) {
                self.database = self.wanted_database.take();
            }
            cx.response(message);
            self.phase = Phase::Command;
        }
    }

    fn response(&mut self, header: Header, payload: &[u8], data: &[u8], cx: &mut Cx<'_>) -> Step {
        let command = match cx.oldest_request() {
            Some(request) => request.request_type.as_deref().and_then(Command::named),
            // Behind the descriptions of a prepared statement may be an EOF packet.
            None if payload.first() == Some(&0xfe) && header.length <= 5 => {
                return Step::Done(header.total());
            }
            None if self.is_compressed() || probe::is_reply(data) => None,
            None => return Step::Desync,
        };
        let Some(reply) = Reply::read(payload, header.length, command, cx.config.max_text) else {
            return Step::Desync;
        };
        let mut message = reply.message();
        match &reply {
            Reply::Progress => {
                self.answer_seq = header.seq.wrapping_add(1);
                return Step::Done(header.total());
            }
            Reply::Prepared { id, parameters, .. } => self.prepared(*id, *parameters, cx),
            Reply::Ok { .. } if command == Some(Command::InitDb) => {
                self.database = self.wanted_database.take()
            }
            _ => {}
        }
        self.results = results_behind(&reply, command);
        self.infile = reply == Reply::LocalInfile;
        if self.results == Results::None {
            message.length = self.length(header);
        }
        cx.response(message);
        if self.results == Results::None {
            self.end_response(header, cx);
        }
        self.next_seq = header.seq.wrapping_add(1);
        Step::Done(header.total())
    }

    /// A packet of a response that has begun.
    fn continuation(&mut self, header: Header, payload: &[u8], data: &[u8], cx: &mut Cx<'_>) {
        self.next_seq = header.seq.wrapping_add(1);
        let first = payload.first().copied().unwrap_or(0);
        let ends = End::is(first, header.length);
        match self.results {
            Results::None | Results::Events => {}
            Results::More => self.further_result(header, payload, cx),
            _ if first == 0xff => self.further_result(header, payload, cx),
            Results::Prepared { left } => {
                let left = if ends { left } else { left.saturating_sub(1) };
                self.results = Results::Prepared { left };
            }
            Results::Columns { left } => {
                let end = End::read(payload, header.length);
                self.results = match () {
                    () if ends && end.is_eof && !end.cursor => Results::Rows { count: 0 },
                    () if ends => return self.end_of_rows(header, &end, 0, cx),
                    () if left > 0 && is_column(data) => Results::Columns { left: left - 1 },
                    // Without an EOF between, or without descriptions: a row.
                    () => Results::Rows { count: 1 },
                };
            }
            Results::Fields if ends => self.end_response(header, cx),
            Results::Fields => {}
            Results::Rows { count } if ends => {
                let end = End::read(payload, header.length);
                self.end_of_rows(header, &end, count, cx);
            }
            Results::Rows { count } => self.results = Results::Rows { count: count + 1 },
        }
    }

    fn end_of_rows(&mut self, header: Header, end: &End, count: u64, cx: &mut Cx<'_>) {
        cx.amend_response(|response| {
            let unit = if count == 1 { "row" } else { "rows" };
            response.result.get_or_insert_with(|| format_compact!("{count} {unit}"));
        });
        if end.more {
            self.results = Results::More;
        } else {
            self.end_response(header, cx);
        }
    }

    /// Another result of the same command, or the error that ends it.
    fn further_result(&mut self, header: Header, payload: &[u8], cx: &mut Cx<'_>) {
        let Some(reply) = Reply::read(payload, header.length, None, cx.config.max_text) else { return };
        if reply == Reply::Progress {
            return;
        }
        cx.amend_response(|response| reply.amend(response));
        self.infile = reply == Reply::LocalInfile;
        self.results = results_behind(&reply, None);
        if self.results == Results::None {
            self.end_response(header, cx);
        }
    }

    /// A new request is being made: descriptions that have all come need no further packet.
    pub(super) fn settle(&mut self) {
        if self.results == (Results::Prepared { left: 0 }) {
            self.results = Results::None;
        }
    }
}

/// What follows the first packet of a result.
fn results_behind(reply: &Reply, command: Option<Command>) -> Results {
    match reply {
        Reply::Ok { more: true, .. } | Reply::LocalInfile => Results::More,
        Reply::Prepared { columns: 0, parameters: 0, .. } => Results::None,
        Reply::Prepared { columns, parameters, .. } => {
            Results::Prepared { left: u32::from(*columns) + u32::from(*parameters) }
        }
        Reply::ResultSet { columns } => Results::Columns { left: *columns },
        Reply::Rows if command == Some(Command::StmtFetch) => Results::Rows { count: 1 },
        Reply::Rows => Results::Fields,
        Reply::Events => Results::Events,
        _ => Results::None,
    }
}

//! What the client sends: login, commands, and data that belongs to a command.

use super::command::Command;
use super::login::{self, Login, capability};
use super::statements::Statement;
use super::values::{Layout, Values};
use super::wire::{HEADER, Header, Reader};
use super::{MySql, Phase, probe};
use crate::obfuscate;
use crate::parser::{Cx, Message, Step};
use crate::text::text;
use compact_str::ToCompactString;

/// The type of the request that a login is.
const LOGIN: &str = "LOGIN";

/// Bytes looked at besides the text that is kept: what stands before it.
const BEFORE_TEXT: usize = 1024;

/// COM_STMT_EXECUTE: a count of parameters is sent, with their names.
const PARAMETER_COUNT_AVAILABLE: u8 = 8;

impl MySql {
    pub(super) fn client_packet(
        &mut self,
        header: Header,
        continued: bool,
        data: &[u8],
        cx: &mut Cx<'_>,
    ) -> Step {
        let total = header.total();
        if continued {
            self.answer_seq = header.seq.wrapping_add(1);
            return Step::Done(total);
        }
        if self.infile {
            // The file ends with an empty packet.
            self.infile = header.length > 0;
            return Step::Done(total);
        }
        if header.length == 0 {
            return Step::Done(total);
        }
        let wanted = HEADER + header.length.min(cx.config.max_text + BEFORE_TEXT);
        if data.len() < wanted && !cx.last {
            return Step::More(wanted);
        }
        let Some(payload) = data.get(HEADER..total.min(data.len())).filter(|payload| !payload.is_empty())
        else {
            return Step::Desync;
        };
        if header.seq != 0 {
            return self.login(header, payload, cx);
        }
        self.phase = Phase::Command;
        let Some(command) = Command::of(payload[0]) else { return Step::Desync };
        self.answer_seq = 1;
        self.command(command, header, payload, cx);
        Step::Done(total)
    }

    fn login(&mut self, header: Header, payload: &[u8], cx: &mut Cx<'_>) -> Step {
        if self.phase == Phase::Authenticating {
            return Step::Done(header.total());
        }
        let Some(login) = Login::read(payload) else { return Step::Desync };
        if login.user.is_none() {
            self.tls = true;
            return Step::Done(header.total());
        }
        self.phase = Phase::Authenticating;
        // Without the greeting the client's word has to do; the bytes behind the login tell otherwise.
        let both = match self.server_capabilities {
            0 => login.capabilities,
            server => login.capabilities & server,
        };
        self.client_capabilities = Some(login.capabilities);
        self.compressed = match both & (capability::COMPRESS | capability::ZSTD) {
            0 => Some(false),
            _ if self.server_capabilities == 0 => None,
            _ => Some(true),
        };
        self.wanted_database = login.database.clone();
        cx.request(Message {
            request_type: Some(LOGIN.into()),
            version: self.version.clone(),
            domain: login.database,
            resource: login.user,
            length: self.length(header),
            ..Message::default()
        });
        Step::Done(header.total())
    }

    fn command(&mut self, command: Command, header: Header, payload: &[u8], cx: &mut Cx<'_>) {
        let body = &payload[1..];
        let whole = payload.len() == header.length;
        let mut message = Message {
            request_type: Some(command.name().into()),
            version: self.version.clone(),
            domain: self.database.clone(),
            length: self.length(header),
            ..Message::default()
        };
        match command {
            Command::Query => self.query(body, &mut message, cx),
            Command::StmtPrepare => read_sql(body, &mut message, cx),
            Command::StmtExecute => self.execute(body, whole, &mut message, cx),
            Command::StmtSendLongData => self.long_data(body, &mut message),
            Command::StmtClose | Command::StmtReset | Command::StmtFetch | Command::StmtBulkExecute => {
                self.use_statement(command, body, &mut message, cx);
            }
            Command::InitDb => {
                let database = text(body, cx.config.max_text);
                self.wanted_database = Some(database.clone());
                message.domain = Some(database.clone());
                message.resource = Some(database);
            }
            Command::CreateDb | Command::DropDb => message.resource = Some(text(body, cx.config.max_text)),
            Command::FieldList => {
                message.resource = Reader(body).nul_str().map(|table| text(table, cx.config.max_text));
            }
            Command::ProcessKill => message.resource = Reader(body).u32().map(|id| id.to_compact_string()),
            Command::SetOption => {
                message.resource = Reader(body).u16().map(|option| option.to_compact_string())
            }
            Command::ChangeUser => {
                self.phase = Phase::Authenticating;
                self.statements.clear();
                if let Some((user, database)) = login::change_user(body) {
                    self.wanted_database = database.clone();
                    (message.resource, message.domain) = (Some(user), database);
                }
            }
            Command::ResetConnection => self.statements.clear(),
            _ => {}
        }
        if command.is_one_way() {
            message.length = crate::parser::Length::Known(header.total() as u64);
            cx.one_way(message);
        } else {
            self.settle();
            cx.request(message);
        }
    }

    fn query(&mut self, body: &[u8], message: &mut Message, cx: &Cx<'_>) {
        let with_attributes = match self.client_capabilities {
            Some(capabilities) => capabilities & capability::QUERY_ATTRIBUTES != 0,
            // A statement does not begin with control characters.
            None => matches!(body, [0..=8, 1, ..]),
        };
        let mut r = Reader(body);
        if with_attributes && let Some(values) = attributes(&mut r, cx) {
            read_sql(r.0, message, cx);
            use_attributes(values, message, cx);
            return;
        }
        read_sql(probe::statement(body), message, cx);
    }

    fn execute(&mut self, body: &[u8], whole: bool, message: &mut Message, cx: &Cx<'_>) {
        let mut r = Reader(body);
        let (Some(id), Some(flags), Some(_iterations)) = (r.u32(), r.u8(), r.u32()) else { return };
        message.id = Some(u64::from(id));
        let obfuscate = cx.config.obfuscate;
        let pipelined = name_pipelined(id, message, cx);
        let Some(statement) = self.statements.get_mut(id).filter(|_| !pipelined) else {
            if whole && let Some(values) = Values::guess(r.0, obfuscate) {
                use_parameters(values.text, message, cx);
            }
            return;
        };
        message.resource = statement.sql.clone();
        message.endpoint = statement.endpoint.clone();
        let mut layout = Layout {
            count: usize::from(statement.parameters),
            named: false,
            types: &statement.types,
            long_data: std::mem::take(&mut statement.long_data),
            obfuscate,
        };
        if flags & PARAMETER_COUNT_AVAILABLE != 0
            && self.client_capabilities.is_none_or(|c| c & capability::QUERY_ATTRIBUTES != 0)
        {
            let Some(count) = r.lenenc() else { return };
            (layout.count, layout.named) = (count.min(u64::from(u16::MAX)) as usize, true);
        }
        if layout.count == 0 {
            return;
        }
        if let Some(mut values) = Values::read(&mut r, &layout) {
            statement.types = std::mem::take(&mut values.types);
            use_parameters(std::mem::take(&mut values.text), message, cx);
            use_attributes(values, message, cx);
        }
    }

    fn long_data(&mut self, body: &[u8], message: &mut Message) {
        let mut r = Reader(body);
        let (Some(id), Some(parameter)) = (r.u32(), r.u16()) else { return };
        message.id = Some(u64::from(id));
        if let Some(statement) = self.statements.get_mut(id) {
            statement.long_data |= 1u64.checked_shl(u32::from(parameter)).unwrap_or(0);
            message.resource = statement.sql.clone();
            message.endpoint = statement.endpoint.clone();
        }
    }

    fn use_statement(&mut self, command: Command, body: &[u8], message: &mut Message, cx: &Cx<'_>) {
        let Some(id) = Reader(body).u32() else { return };
        message.id = Some(u64::from(id));
        if name_pipelined(id, message, cx) {
            return;
        }
        if let Some(statement) = self.statements.get_mut(id) {
            message.resource = statement.sql.clone();
            message.endpoint = statement.endpoint.clone();
            statement.long_data = 0;
        }
        if command == Command::StmtClose {
            self.statements.remove(id);
        }
    }

    /// A statement was prepared.
    pub(super) fn prepared(&mut self, id: u32, parameters: u16, cx: &Cx<'_>) {
        let request = cx.oldest_request();
        self.statements.insert(Statement {
            id,
            sql: request.and_then(|request| request.resource.clone()),
            endpoint: request.and_then(|request| request.endpoint.clone()),
            parameters,
            ..Statement::default()
        });
    }
}

/// MariaDB's id -1 is the statement prepared just before, possibly without waiting for the answer: whether it was not
/// waited for, and then what it is.
fn name_pipelined(id: u32, message: &mut Message, cx: &Cx<'_>) -> bool {
    let preparing = |request: &&Message| request.request_type.as_deref() == Some(Command::StmtPrepare.name());
    let Some(request) = cx.oldest_request().filter(|_| id == u32::MAX).filter(preparing) else {
        return false;
    };
    message.resource = request.resource.clone();
    message.endpoint = request.endpoint.clone();
    true
}

/// Query attributes, up to the statement.
fn attributes(r: &mut Reader<'_>, cx: &Cx<'_>) -> Option<Values> {
    let start = *r;
    let count = r.lenenc()?;
    let _sets = r.lenenc()?;
    if count == 0 {
        return Some(Values::default());
    }
    let count = usize::try_from(count).ok().filter(|&count| count <= usize::from(u16::MAX))?;
    let layout = Layout { count, named: true, types: &[], long_data: 0, obfuscate: cx.config.obfuscate };
    let values = Values::read(r, &layout).filter(|values| values.complete);
    if values.is_none() {
        *r = start;
    }
    values
}

/// Trace context among named values.
fn use_attributes(values: Values, message: &mut Message, cx: &Cx<'_>) {
    let mut found = crate::trace::TraceContext::default();
    for (name, value) in &values.named {
        cx.config.trace.read(name.as_bytes(), value.as_bytes(), &mut found);
    }
    message.trace_id = found.trace_id.or(message.trace_id.take());
    message.span_id = found.span_id.or(message.span_id.take());
}

fn use_parameters(mut parameters: String, message: &mut Message, cx: &Cx<'_>) {
    if parameters.len() > cx.config.max_text {
        parameters.truncate(parameters.floor_char_boundary(cx.config.max_text));
    }
    message.attributes.push(("parameters", parameters.into()));
}

/// Text, endpoint and trace context of a statement.
fn read_sql(sql: &[u8], message: &mut Message, cx: &Cx<'_>) {
    // Some clients end the text with a zero byte.
    let sql = text(sql.strip_suffix(b"\0").unwrap_or(sql), cx.config.max_text);
    let found = obfuscate::trace_context(&sql, &cx.config.trace);
    (message.trace_id, message.span_id, message.x_request_id) =
        (found.trace_id, found.span_id, found.x_request_id);
    message.endpoint = obfuscate::sql_endpoint(&sql);
    message.resource = Some(match cx.config.obfuscate {
        true => obfuscate::sql(&sql).into(),
        false => sql,
    });
}

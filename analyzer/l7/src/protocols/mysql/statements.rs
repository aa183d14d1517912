//! Prepared statements by id, in bounded memory.

use std::collections::VecDeque;
use wirespan_records::Text;

/// Statements remembered per connection.
const MAX_STATEMENTS: usize = 256;

/// Bytes of SQL remembered per connection.
const MAX_BYTES: usize = 128 << 10;

/// What an execution needs to know of its preparation.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub id: u32,
    pub sql: Option<Text>,
    pub endpoint: Option<Text>,
    pub parameters: u16,
    /// Types of the parameters as last sent.
    pub types: Vec<u16>,
    /// Bit n: parameter n came as long data since the last execution.
    pub long_data: u64,
}

impl Statement {
    fn bytes(&self) -> usize {
        self.sql.as_ref().map_or(0, Text::len) + self.endpoint.as_ref().map_or(0, Text::len)
    }
}

/// The statements of one connection; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Statements {
    list: VecDeque<Statement>,
    bytes: usize,
}

impl Statements {
    pub(super) fn insert(&mut self, statement: Statement) {
        self.remove(statement.id);
        self.bytes += statement.bytes();
        self.list.push_back(statement);
        while self.list.len() > MAX_STATEMENTS || self.bytes > MAX_BYTES {
            match self.list.pop_front() {
                Some(oldest) => self.bytes -= oldest.bytes(),
                None => break,
            }
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(index) = self.position(id)
            && let Some(statement) = self.list.remove(index)
        {
            self.bytes -= statement.bytes();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The id -1 of MariaDB is the statement prepared last.
    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Statement> {
        match id {
            u32::MAX => self.list.back_mut(),
            _ => self.position(id).and_then(|index| self.list.get_mut(index)),
        }
    }

    fn position(&self, id: u32) -> Option<usize> {
        // The newest are asked for most.
        self.list.iter().rposition(|statement| statement.id == id)
    }
}

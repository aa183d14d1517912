//! Redis, RESP2 and RESP3 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! | module | what |
//! |---|---|
//! | `resp` | one element: a line, a bulk string or the head of an aggregate |
//! | `probe` | is it Redis? |
//! | `request` | commands, as arrays or inline |
//! | `reply` | replies and pushes, walked element by element |
//! | `mask` | which arguments are secrets or values |

mod mask;
mod probe;
mod reply;
mod request;
mod resp;
#[cfg(test)]
mod tests;

use crate::parser::{Cx, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use std::collections::VecDeque;
use wirespan_records::L7Protocol;

/// Parser of one Redis connection.
#[derive(Default)]
pub struct Redis {
    session: Session,
    request: request::Requests,
    reply: reply::Replies,
}

/// What requests and replies have to know of each other.
#[derive(Default)]
struct Session {
    /// Channels named by each (un)subscribe request that has no confirmation yet, oldest first.
    subscriptions: VecDeque<u32>,
    /// The connection subscribed to something, so arrays may be messages.
    subscribed: bool,
    /// After MONITOR, status lines are a log of commands.
    monitoring: bool,
    /// From here on it is a replication stream.
    replication: bool,
}

impl Parser for Redis {
    const PROTOCOL: L7Protocol = L7Protocol::Redis;
    const PAIRING: Pairing = Pairing::InOrder;

    fn probe(data: &[u8], info: &ProbeInfo) -> Verdict {
        probe::probe(data, info)
    }

    fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
        if self.session.replication {
            return Step::Opaque;
        }
        match role {
            Role::Client => self.request.parse(data, &mut self.session, cx),
            Role::Server => self.reply.parse(data, &mut self.session, cx),
        }
    }

    fn lost(&mut self, role: Role) {
        match role {
            Role::Client => self.request = request::Requests::default(),
            Role::Server => {
                self.reply = reply::Replies::default();
                self.session.subscriptions.clear();
            }
        }
    }
}

//! When requests are decided on, and when they are forgotten.

use super::{Check, ProcessState};
use crate::context::{ContextConfig, Decision};
use std::cmp::Reverse;

impl ProcessState {
    /// Keeps to the bounds: the oldest goes first.
    pub(super) fn bound(&mut self, config: &ContextConfig, decisions: &mut Vec<Decision>) {
        while self.sent.len() > config.max_requests {
            let Some(&(_, span)) = self.sent.first() else { break };
            self.leave_client(span, decisions);
        }
        while self.past.len() > config.max_requests / 2 {
            let Some(span) = self.past.pop_front() else { break };
            self.forget_client(span);
        }
        while self.servers.len() > config.max_requests {
            let Some((_, span)) = self.left.pop_first().or_else(|| self.since.pop_first()) else { break };
            let Some(server) = self.servers.remove(&span) else { continue };
            self.streams.remove(&(server.conn, server.stream));
            self.open -= usize::from(server.closed_ns.is_none());
            if let Some(actor) = self.actors.get_mut(&server.actor) {
                actor.closes(span);
                actor.unsure = true;
            }
        }
        if self.actors.len() > config.max_actors {
            let mut times: Vec<u64> = self.actors.values().map(|actor| actor.last_ns).collect();
            let middle = times.len() / 2;
            let (_, &mut median, _) = times.select_nth_unstable(middle);
            self.actors.retain(|_, actor| actor.last_ns > median || !actor.open.is_empty());
            if self.actors.len() > config.max_actors {
                self.actors.clear();
            }
        }
        if self.conns.len() > config.max_actors {
            self.conns.retain(|_, conn| {
                !conn.asked.is_empty() || !conn.open.is_empty() || conn.unseen.or(conn.held).is_some()
            });
            if self.conns.len() > config.max_actors {
                self.conns.clear();
                self.unseen = 0;
                self.actors.values_mut().for_each(|actor| actor.unseen = 0);
            }
        }
        if self.serials.len() > config.max_actors {
            self.serials.clear();
        }
        if self.futexes.len() > config.max_actors {
            self.futexes.clear();
        }
        if self.peers.len() > config.max_actors {
            self.peers.clear();
            self.shares.clear();
        }
        if self.made.len() > config.max_requests {
            let oldest = self.groups.saturating_sub(config.max_requests as u64 / 2);
            self.made.retain(|group, _| *group > oldest);
        }
    }

    /// Looks at what is due.
    pub(in super::super) fn advance(&mut self, now_ns: u64, decisions: &mut Vec<Decision>) {
        while let Some(&Reverse((due_ns, check))) = self.checks.peek()
            && due_ns <= now_ns
        {
            self.checks.pop();
            match check {
                Check::Client(span) => self.decide(span, decisions),
                Check::Server(span) => self.leave_server(span, decisions),
            }
        }
    }

    /// Decides on what was made for a server request, and on all that can have been made for no other.
    fn leave_server(&mut self, span: u64, decisions: &mut Vec<Decision>) {
        let Some(server) = self.servers.get_mut(&span) else { return };
        let (heard_ns, closed_ns) = (server.heard_ns, server.closed_ns.unwrap_or(server.heard_ns));
        for client in std::mem::take(&mut server.clients) {
            if self.verdict(client).is_some_and(|verdict| verdict.server == span) {
                self.decide(client, decisions);
            }
        }
        self.since.remove(&(heard_ns, span));
        let oldest_ns = self.since.first().map_or(u64::MAX, |&(heard_ns, _)| heard_ns);
        let past: Vec<u64> =
            self.sent.iter().take_while(|(sent_ns, _)| *sent_ns < oldest_ns).map(|&(_, span)| span).collect();
        for client in past {
            self.leave_client(client, decisions);
        }
        self.left.insert((closed_ns, span));
        let oldest_ns = self.sent.first().map_or(u64::MAX, |&(sent_ns, _)| sent_ns);
        while let Some(&(closed_ns, span)) = self.left.first()
            && closed_ns < oldest_ns
        {
            self.left.pop_first();
            if let Some(server) = self.servers.remove(&span) {
                self.streams.remove(&(server.conn, server.stream));
            }
        }
    }

    fn decide(&mut self, span: u64, decisions: &mut Vec<Decision>) {
        if self.clients.get(&span).is_none_or(|client| client.decided.is_some()) {
            return;
        }
        let parent = self.verdict(span).map(|verdict| {
            self.learn(span, &verdict);
            verdict.parent()
        });
        if let Some(client) = self.clients.get_mut(&span) {
            client.decided = Some(parent);
        }
        decisions.push(Decision { client: span, parent });
    }

    fn leave_client(&mut self, span: u64, decisions: &mut Vec<Decision>) {
        self.decide(span, decisions);
        if let Some(client) = self.clients.get(&span) {
            self.sent.remove(&(client.sent_ns, span));
        }
        self.past.push_back(span);
    }

    fn forget_client(&mut self, span: u64) {
        let Some(client) = self.clients.remove(&span) else { return };
        self.streams.remove(&(client.conn, client.stream));
        if let Some(conn) = self.conns.get_mut(&client.conn) {
            conn.asked.retain(|asked| *asked != span);
        }
    }

    /// Decides all that is left.
    pub(in super::super) fn finish(&mut self, decisions: &mut Vec<Decision>) {
        self.advance(u64::MAX, decisions);
        while let Some((_, span)) = self.sent.pop_first() {
            self.decide(span, decisions);
        }
    }

    /// When it has to be looked at again, ns.
    pub(in super::super) fn due_ns(&self) -> Option<u64> {
        self.checks.peek().map(|Reverse((due_ns, _))| *due_ns)
    }
}

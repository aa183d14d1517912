//! When requests are decided on, and when they are forgotten.

use super::{Check, ProcessState};
use crate::context::{ContextConfig, Decision};
use std::cmp::Reverse;

impl ProcessState {
    /// Keeps to the bounds: the oldest goes first.
    pub(super) fn bound(&mut self, config: &ContextConfig, decisions: &mut Vec<Decision>) {
        self.bound_requests(config.max_requests, decisions);
        self.bound_actors(config.max_actors);
        self.bound_conns(config.max_actors);
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
        if self.outlive.len() > config.max_actors {
            self.outlive.clear();
        }
        if self.sessions.len() > config.max_actors {
            self.sessions.clear();
        }
        if self.made.len() > config.max_requests {
            let oldest = self.groups.saturating_sub(config.max_requests as u64 / 2);
            self.made.retain(|group, _| *group > oldest);
        }
    }

    fn bound_requests(&mut self, max: usize, decisions: &mut Vec<Decision>) {
        while self.sent.len() > max
            && let Some((_, span)) = self.sent.pop_first()
        {
            self.leave_client(span, decisions);
        }
        while self.past.len() > max / 2
            && let Some(span) = self.past.pop_front()
        {
            self.forget_client(span);
        }
        while self.servers.len() > max
            && let Some((_, span)) = self.left.pop_first().or_else(|| self.since.pop_first())
        {
            self.forget_server(span);
        }
        // Most are of requests that were decided on before, by what they were made for.
        if self.checks.len() > 4 * max {
            let Self { checks, clients, servers, .. } = self;
            checks.retain(|Reverse((_, check))| match check {
                Check::Client(span) => clients.get(span).is_some_and(|client| client.decided.is_none()),
                Check::Server(span) => servers.contains_key(span),
            });
        }
    }

    fn bound_actors(&mut self, max: usize) {
        if self.actors.len() <= max {
            return;
        }
        let mut times: Vec<u64> = self.actors.values().map(|actor| actor.last_ns).collect();
        let middle = times.len() / 2;
        let (_, &mut median, _) = times.select_nth_unstable(middle);
        self.actors.retain(|_, actor| actor.last_ns > median || !actor.open.is_empty() || actor.unseen > 0);
        if self.actors.len() > max {
            self.actors.clear();
        }
    }

    fn bound_conns(&mut self, max: usize) {
        if self.conns.len() <= max {
            return;
        }
        self.conns.retain(|_, conn| {
            !conn.asked.is_empty() || !conn.open.is_empty() || conn.unseen.or(conn.held).is_some()
        });
        if self.conns.len() > max {
            self.conns.clear();
            self.unseen = 0;
            self.actors.values_mut().for_each(|actor| actor.unseen = 0);
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
        while let Some(&(sent_ns, client)) = self.sent.first()
            && sent_ns < oldest_ns
        {
            self.sent.pop_first();
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

    /// Nothing that comes now can have been made for the same as this one, which is in [`Self::sent`] no more.
    fn leave_client(&mut self, span: u64, decisions: &mut Vec<Decision>) {
        self.decide(span, decisions);
        self.past.push_back(span);
    }

    fn forget_client(&mut self, span: u64) {
        let Some(client) = self.clients.remove(&span) else { return };
        self.streams.remove(&(client.conn, client.stream));
        if let Some(conn) = self.conns.get_mut(&client.conn) {
            conn.asked.retain(|asked| *asked != span);
        }
    }

    /// There are too many. Of one that is still open, nobody will know when it is answered.
    fn forget_server(&mut self, span: u64) {
        let Some(server) = self.servers.remove(&span) else { return };
        self.streams.remove(&(server.conn, server.stream));
        if server.closed_ns.is_none() {
            self.open -= 1;
            self.carriers.remove(span, &server.ids);
        }
        if let Some(conn) = self.conns.get_mut(&server.conn) {
            conn.open.retain(|open| *open != span);
        }
        if let Some(actor) = self.actors.get_mut(&server.actor) {
            actor.closes(span);
            actor.unsure = true;
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

//! Responses: to what the process asked, and from it.

use super::{Check, Client, ProcessState};
use crate::context::ContextConfig;
use crate::context::actor::ActorId;
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use std::cmp::Reverse;
use wirespan_records::Rule;

/// Responses that are followed from one to the one before.
const MAX_STEPS: usize = 16;

impl ProcessState {
    pub(super) fn client_response(&mut self, at: &Moment, span: u64) {
        let new = self.group();
        let (group, came) = self.actor(at).head(at, Node::Client(span), new);
        self.came(group, came);
        let Some(client) = self.clients.get_mut(&span) else { return };
        client.heard_ns = Some(at.time_ns);
        self.count_opened(span);
        let Some(client) = self.clients.get_mut(&span) else { return };
        if let Some(actor) = self.actors.get_mut(&client.actor) {
            actor.answered(span);
            if client.actor != ActorId::of(at) {
                actor.calls.retain(|call| *call != span);
            }
        }
        if let Some(conn) = self.conns.get_mut(&client.conn) {
            conn.asked.retain(|asked| *asked != span);
            conn.answered = Some(span);
            conn.looked = false;
        }
    }

    /// What goes on with this response was for something that is not known, which is one of those that came.
    pub(super) fn unseen_answer(&mut self, at: &Moment) {
        let new = self.group();
        let (group, came) = self.actor(at).head(at, Node::UNKNOWN, new);
        self.came(group, came);
    }

    /// What waits for the whole response goes on now.
    pub(super) fn client_done(&mut self, at: &Moment, span: u64) {
        let conn = self.clients.get(&span).map(|client| client.conn);
        if let Some(conn) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            conn.beside = true;
        }
        let node = Node::Client(span);
        if self.actor(at).brings_more(at, node) {
            let new = self.group();
            let (group, came) = self.actor(at).head(at, node, new);
            self.came(group, came);
        }
    }

    pub(super) fn server_response(&mut self, config: &ContextConfig, at: &Moment, span: u64) {
        let actor = self.actors.entry(ActorId::of(at)).or_default();
        let (nodes, class) = match actor.current(at) {
            Some(current) => {
                let stream = self.streams.get(&(current.conn, at.stream));
                let nodes = stream.map_or_else(|| current.nodes.clone(), |node| Nodes::from_iter([*node]));
                (nodes, actor.answer_class(at))
            }
            None if actor.serves => (Nodes::new(), Class::LateAnswer),
            None if actor.is_vague(at) => (Nodes::new(), Class::WokenAnswer),
            None => (actor.hands_on(at), Class::WokenAnswer),
        };
        let unserved = actor.current(at).map_or_else(Nodes::new, |current| current.unserved.clone());
        let futex = if class == Class::WokenAnswer { actor.woken.futex() } else { 0 };
        if class == Class::WokenAnswer {
            // What it was woken for is done.
            actor.woken.clear();
        }
        if actor.several && self.unseen == 0 {
            self.answers.count(nodes.is_empty());
        }
        let conn = self.servers.get(&span).and_then(|server| self.conns.get_mut(&server.conn));
        let event = (at.tid, at.thread_event);
        self.answers.together |= conn.is_some_and(|conn| conn.responded.replace(event) == Some(event));
        if at.coroutine == 0
            && actor.serves
            && let Some(server) = self.servers.get(&span)
        {
            self.moves.count(server.actor != ActorId::of(at));
        }
        let rule = if class == Class::WokenAnswer { Rule::Handoff } else { Rule::Socket };
        if let ([Node::Client(client)], true) = (nodes.as_slice(), config.rules.allow(rule)) {
            if class == Class::WokenAnswer {
                self.count_answer(*client, span);
            }
            if class == Class::Answer && self.unseen == 0 {
                self.count_queued(*client, span);
            }
            let nodes = Nodes::from_iter([Node::Server(span)]);
            let piece = Evidence { futex, unserved, ..Evidence::new(nodes, class, rule) };
            self.connect(*client, piece);
            if class == Class::LateAnswer {
                self.actor(at).late.push((*client, class));
            }
        }
        if let Some(current) = self.actors.get(&ActorId::of(at)).and_then(|actor| actor.current(at))
            && matches!(current.nodes.as_slice(), [Node::Client(_), Node::Client(_), ..])
        {
            self.made.entry(current.group).or_default().answered.push(span);
        }
        self.count_deferral(at, span);
        self.answers_next(config, at, span);
        // Goroutines that write for others were made by whoever needed their connection first.
        if at.coroutine != 0 && config.rules.coroutine && !self.goroutines {
            self.answering_coroutine(at, span);
        }
        self.close_server(config, at, span);
        self.actor(at).closes(span);
    }

    /// `server` was answered after the response to `client`: counts whether that was made after the response to what was for another.
    fn count_queued(&mut self, client: u64, server: u64) {
        let Some(Client { evidence, .. }) = self.clients.get(&client) else { return };
        if let Some(piece) = evidence.first()
            && matches!(piece.class, Class::LoneTurn | Class::Turn)
            && let [node @ Node::Client(_)] = piece.nodes.as_slice()
            && let Some(cause) = self.cause(*node)
        {
            self.queued.count(cause != server);
        }
    }

    /// The server request that a response was for: the one that was answered with it, else what the request followed from.
    fn cause(&self, mut node: Node) -> Option<u64> {
        for _ in 0..MAX_STEPS {
            let Node::Client(span) = node else { break };
            let client = self.clients.get(&span)?;
            if let Some(decided) = client.decided {
                return decided.map(|parent| parent.span);
            }
            let answer = client.evidence.iter().find(|piece| piece.class == Class::Answer);
            node = *answer.or(client.evidence.first())?.nodes.first()?;
        }
        if let Node::Server(span) = node { Some(span) } else { None }
    }

    /// Counts whether several requests are answered after one response that others came before.
    fn count_deferral(&mut self, at: &Moment, span: u64) {
        let conn = self.servers.get(&span).map(|server| server.conn);
        let Some(current) = self.actor(at).current.as_mut().filter(|current| current.turn == at.turn) else {
            return;
        };
        let last = std::mem::replace(&mut current.answered_to, conn);
        if !current.unserved.is_empty() && matches!(current.nodes.as_slice(), [Node::Client(_)]) {
            self.deferrals.count(last.is_some() && last != conn);
        }
    }

    /// The thread that answers `span` waited for each response before: what it asked since it answered another was for this.
    fn answers_next(&mut self, config: &ContextConfig, at: &Moment, span: u64) {
        let calls = self.actor(at).calls_before(at);
        if !config.rules.allow(Rule::Thread) {
            return;
        }
        let heard = |call: &u64| self.clients.get(call).is_some_and(|client| client.heard_ns.is_some());
        let calls: Vec<u64> = calls.into_iter().filter(heard).collect();
        for client in calls {
            let nodes = Nodes::from_iter([Node::Server(span)]);
            self.connect(client, Evidence::new(nodes, Class::AnswersNext, Rule::Thread));
        }
    }

    pub(super) fn close_server(&mut self, config: &ContextConfig, at: &Moment, span: u64) {
        let Some(server) = self.servers.get_mut(&span) else { return };
        if server.closed_ns.is_some() {
            return;
        }
        server.closed_ns = Some(at.time_ns);
        self.open -= 1;
        self.carriers.remove(span, &server.ids);
        if let Some(actor) = self.actors.get_mut(&server.actor) {
            actor.closes(span);
        }
        if let Some(conn) = self.conns.get_mut(&server.conn) {
            conn.open.retain(|open| *open != span);
        }
        self.checks.push(Reverse((at.time_ns.saturating_add(config.grace_ns), Check::Server(span))));
    }

    pub(super) fn over(&mut self, config: &ContextConfig, at: &Moment, span: u64) {
        self.close_server(config, at, span);
        let Some(client) = self.clients.get(&span) else { return };
        if let Some(conn) = self.conns.get_mut(&client.conn) {
            conn.asked.retain(|asked| *asked != span);
        }
        if let Some(actor) = self.actors.get_mut(&client.actor) {
            actor.answered(span);
        }
    }
}

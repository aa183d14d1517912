//! Requests: those that the process answers, and those that it makes.

use super::conn::Sending;
use super::ids::Ids;
use super::{Check, Pieces, ProcessState};
use crate::context::ContextConfig;
use crate::context::actor::ActorId;
use crate::context::evidence::{Class, Evidence, Node};
use crate::context::happening::{Moment, Wait};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::sync::Arc;
use wirespan_records::{Parent, Rule};

/// A request that the process answers.
#[derive(Debug)]
pub(in super::super) struct Server {
    pub conn: u64,
    pub stream: u32,
    pub actor: ActorId,
    pub heard_ns: u64,
    /// Answered, or given up.
    pub closed_ns: Option<u64>,
    pub ids: Ids,
    /// Requests that may have been made for it.
    pub clients: Vec<u64>,
}

/// A request that the process makes.
#[derive(Debug)]
pub(in super::super) struct Client {
    pub conn: u64,
    pub stream: u32,
    pub peer: u64,
    pub sent_ns: u64,
    /// The coroutine that began it; 0 for none.
    pub coroutine: u64,
    pub actor: ActorId,
    /// One request was open in the process when it was sent.
    pub alone: bool,
    pub heard_ns: Option<u64>,
    pub evidence: Pieces,
    /// Client requests that were made in the context of this one's response.
    pub after: SmallVec<[u64; 2]>,
    /// It was made for one of several requests that carry the same id, which is this.
    pub carries: Option<(Rule, Arc<str>)>,
    /// The thread was at what its timers are for, and at nothing else.
    pub by_timer: bool,
    /// It was told when it was begun, not only when it was sent.
    pub begun: bool,
    /// It was the first on a connection that was opened or taken for it.
    pub fresh: bool,
    pub decided: Option<Option<Parent>>,
}

impl ProcessState {
    pub(super) fn server_request(
        &mut self,
        at: &Moment,
        span: u64,
        (conn, stream): (u64, u32),
        beside: bool,
        ids: Ids,
    ) {
        let new = self.group();
        let actor = self.actor(at);
        let (group, came) = actor.head(at, Node::Server(span), new);
        actor.opens(span, conn, at);
        actor.overlaps |= beside && actor.open.len() > 1;
        if beside {
            self.reads_stream(at, span, conn);
        }
        self.came(group, came);
        self.conns.entry(conn).or_default().open.push(span);
        self.put_stream(conn, stream, Node::Server(span));
        self.since.insert((at.time_ns, span));
        self.open += 1;
        self.carriers.add(span, &ids);
        self.servers.insert(
            span,
            Server {
                conn,
                stream,
                actor: ActorId::of(at),
                heard_ns: at.time_ns,
                closed_ns: None,
                ids,
                clients: Vec::new(),
            },
        );
    }

    pub(super) fn client_request(
        &mut self,
        config: &ContextConfig,
        at: &Moment,
        span: u64,
        (id, stream): (u64, u32),
        peer: u64,
        began: &Moment,
    ) {
        self.lives(began);
        let mut sending = self.conn(id).sends_request(span, began);
        let begun = self.begun(began, id, stream);
        self.put_stream(id, stream, Node::Client(span));
        // A goroutine opens a connection for one request, and another may be the first to use it.
        sending.fresh &= !self.goroutines;
        // A loop's callback for a connection that is open belongs to no task.
        let coroutine = match &begun {
            Some(begun) if begun.coroutine != 0 => begun.coroutine,
            _ if sending.fresh && sending.opener != 0 => sending.opener,
            _ => began.coroutine,
        };
        let begun = begun.map(|begun| begun.pieces);
        let (begun, told) = (begun.is_some(), begun.or(sending.sent.take()));
        let now = told.unwrap_or_else(|| self.pieces(at));
        self.count_start(peer, began, &sending, begun, &now);
        let (together_since_ns, fresh) = (sending.since_ns, sending.fresh);
        let loops = self.actor(began).loops();
        let (counted, mut evidence) = self.evidence(began, sending, begun, now);
        self.allow(config, &mut evidence);
        if let Some(piece) = evidence.first()
            && piece.group != 0
        {
            self.made.entry(piece.group).or_default().requests += 1;
        }
        let actor = self.actor(began);
        if !counted {
            actor.made_one();
        }
        actor.asks(span, began);
        let at_nothing =
            evidence.iter().all(|piece| matches!(piece.class, Class::Blocking | Class::FirstOpen));
        self.sent.insert((began.time_ns, span));
        self.clients.insert(
            span,
            Client {
                conn: id,
                stream,
                peer,
                sent_ns: began.time_ns,
                coroutine,
                actor: ActorId::of(began),
                alone: self.open == 1 && self.unseen == 0,
                heard_ns: None,
                evidence: Pieces::new(),
                after: SmallVec::new(),
                carries: None,
                begun,
                fresh,
                by_timer: began.wait == Wait::Timers && at_nothing,
                decided: None,
            },
        );
        let by_itself = evidence.iter().all(|piece| piece.class > Class::LateAnswer);
        let actor = self.actor(began);
        if by_itself && actor.several && !fresh && !begun && actor.timer_due(began) {
            actor.late.push((span, Class::LateTurn));
        }
        for piece in evidence {
            if piece.class == Class::LateTurn && !counted {
                self.actor(began).late.push((span, piece.class));
            }
            self.connect(span, piece);
        }
        if loops && self.peers.get(&peer).is_some_and(|starts| starts.collected()) {
            self.share(began, span, id, peer, together_since_ns);
        }
        let latest = match self.since.is_empty() {
            true => config.grace_ns,
            false => config.max_wait_ns,
        };
        self.checks.push(Reverse((began.time_ns.saturating_add(latest), Check::Client(span))));
    }

    /// Counts whether a loop makes a request for what came before it in the turn. `now` is what speaks for the request.
    fn count_start(&mut self, peer: u64, began: &Moment, sending: &Sending, begun: bool, now: &Pieces) {
        let actor = self.actor(began);
        let several = actor.several;
        if !several && !(actor.loops() && (actor.serves || began.wait == Wait::Timers)) {
            return;
        }
        let pieces = if sending.fresh && !begun { &sending.opened } else { now };
        let by_itself = pieces.iter().all(|piece| piece.class > Class::LateAnswer);
        let untimed = if sending.fresh { sending.untimed } else { actor.is_untimed(began) };
        let idle = self.open == 0;
        let starts = self.peers.entry(peer).or_default();
        starts.together |= sending.together;
        // While nothing is open, nothing can be what it is made for.
        if self.unseen == 0 {
            starts.count(idle || several && by_itself);
            if several && untimed && !begun {
                starts.count_untimed(by_itself, sending.fresh);
            }
        }
    }

    /// What speaks for a request: what does `now`, or what did when its connection was opened or taken; and whether that was counted
    /// as a request then.
    fn evidence(&mut self, began: &Moment, sending: Sending, begun: bool, now: Pieces) -> (bool, Pieces) {
        let actor = self.actor(began);
        let Sending { opened, fresh, vague, .. } = sending;
        // A coroutine that sends knows better than the one that opened the connection; a loop that sends because the
        // connection is open knows nothing.
        match now.first() {
            _ if begun => (true, now),
            Some(piece) if !fresh || piece.class == Class::Coroutine => (false, now),
            _ if fresh && vague && actor.loops() => (true, Pieces::new()),
            _ if !fresh || opened.is_empty() && !actor.several => (false, now),
            _ => (true, opened.into_iter().map(|piece| Evidence { rule: Rule::Socket, ..piece }).collect()),
        }
    }

    /// Something speaks for `span` having been made for the same as others.
    pub(super) fn connect(&mut self, span: u64, piece: Evidence) {
        if let [Node::Client(other)] = piece.nodes.as_slice()
            && let Some(other) = self.clients.get_mut(other)
        {
            other.after.push(span);
        }
        for node in &piece.nodes {
            let server = self.root(*node, 0).and_then(|server| self.servers.get_mut(&server));
            let Some(server) = server.filter(|server| server.clients.last() != Some(&span)) else { continue };
            if server.clients.len() == server.clients.capacity() {
                // A request that is open for long, as a stream is, has ever more.
                let waits = |client: &u64| self.clients.get(client).is_some_and(|c| c.decided.is_none());
                server.clients.retain(waits);
            }
            server.clients.push(span);
        }
        if let Some(client) = self.clients.get_mut(&span) {
            client.evidence.push(piece);
        }
    }

    /// What spoke for `span` as far as no timer was due: none was.
    pub(super) fn no_timer(&mut self, span: u64, late: Class) {
        let Some(client) = self.clients.get_mut(&span) else { return };
        let mut by_itself = true;
        for piece in client.evidence.iter_mut().filter(|piece| piece.class == late) {
            by_itself = false;
            piece.class = if late == Class::LateTurn { Class::Turn } else { Class::Answer };
        }
        if late == Class::LateTurn && self.unseen == 0 {
            self.peers.entry(client.peer).or_default().count_untimed(by_itself, client.fresh);
        }
    }

    /// The server request that a node leads to by what is known first.
    pub(super) fn root(&self, node: Node, depth: u32) -> Option<u64> {
        match node {
            Node::Server(span) => Some(span),
            Node::Client(span) => {
                let client = self.clients.get(&span)?;
                if let Some(decided) = client.decided {
                    return decided.map(|parent| parent.span);
                }
                let first = client.evidence.first()?.nodes.first()?;
                (depth < 16).then(|| self.root(*first, depth + 1)).flatten()
            }
        }
    }

    /// Of several that come with one event it matters how many there are.
    pub(super) fn came(&mut self, group: u64, came: usize) {
        if came > 1 {
            self.made.entry(group).or_default().came = came;
        }
    }
}

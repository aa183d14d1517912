//! From evidence to a parent: what all the best evidence agrees on, or nothing.

use super::actor::MAX_NODES;
use super::evidence::{Class, Evidence, Node, PROOF, WEAK};
use super::process::{Client, ProcessState, Server};
use smallvec::SmallVec;
use wirespan_records::{Parent, Rule};

/// Connected requests that are looked at for one verdict.
const MAX_CONNECTED: usize = 256;
/// A thread that was woken while one request was open works for that one.
const ALONE: f32 = 0.6;
/// A thread that was woken works for what it was woken for, where such threads do nothing else.
const DIRECT: f32 = 0.6;
/// Nothing that programs do proves more.
const MOST: f32 = 0.98;

/// For what a client request was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub server: u64,
    rule: Rule,
    /// Least trusted evidence that was needed.
    level: f32,
    /// Evidence of two kinds leads there by itself.
    agreed: bool,
}

impl Verdict {
    pub(super) fn parent(&self) -> Parent {
        let confidence = if self.agreed { (self.level + 1.0) / 2.0 } else { self.level };
        Parent { span: self.server, rule: self.rule, confidence: confidence.min(MOST) }
    }
}

type Servers = SmallVec<[u64; 2]>;

/// It speaks for what a response was for, not for the request that came.
fn is_after_response(piece: &Evidence) -> bool {
    matches!(piece.nodes.first(), Some(Node::Client(_)))
}

impl ProcessState {
    /// How far evidence for this client request is to be trusted.
    fn trust_in(&self, client: &Client, piece: &Evidence) -> f32 {
        // What timers do turned out to be told: none was due.
        let no_timer = self.actors.get(&client.actor).is_some_and(|actor| actor.tells_timers);
        let class = match piece.class {
            Class::LateTurn if no_timer => Class::Turn,
            Class::LateAnswer if no_timer => Class::Answer,
            class => class,
        };
        let trust = match (self.trust.of(class), class) {
            // There is no other request that the thread could have been woken for.
            (trust, Class::WokenOpens | Class::Woken | Class::WokenAnswer)
                if client.alone && trust >= WEAK =>
            {
                trust.max(ALONE)
            }
            (trust, Class::WokenAnswer) if self.is_shared(piece.futex) => trust.min(WEAK),
            (trust, Class::WokenOpens) if self.opens.direct() || self.agreed.proven() => trust.max(DIRECT),
            (trust, Class::WokenAnswer) if self.answered_by.direct() || self.agreed.proven() => {
                trust.max(DIRECT)
            }
            (trust, _) => trust,
        };
        let peer = self.peers.get(&client.peer).copied().unwrap_or_default();
        let doubtful = match class {
            Class::Turn | Class::LateTurn if peer.collected() && !client.begun => true,
            Class::LoneTurn | Class::Turn | Class::LateTurn
                if peer.often_unprompted(client.fresh)
                    || self.queued.is_often() && is_after_response(piece) =>
            {
                true
            }
            Class::LateTurn if self.follows.exceeded(piece) => true,
            Class::LateTurn | Class::Blocking => peer.often_by_itself(),
            // It turned out that the thread does not wait for answers.
            Class::FirstOpen => self.actors.get(&client.actor).is_some_and(|actor| actor.overlaps),
            // When it was begun tells more, also that it was for none.
            Class::Share => client.begun,
            Class::WakesWaiting => self.is_no_answer(piece.futex),
            Class::WokenOpens => self.opens.mixed(),
            Class::WokenAnswer => self.answered_by.mixed(),
            Class::Answer | Class::LateAnswer if self.is_crowded(piece) => true,
            Class::Answer if self.answers.collected() => true,
            Class::LateAnswer => self.answers.collected() || self.answers.often_by_itself(),
            _ => false,
        };
        let doubtful = doubtful || self.often_outlive(piece.made_at);
        let doubtful = doubtful || self.moves.often() && !client.alone && !self.stays(piece);
        match piece.nodes.len() {
            _ if doubtful => trust.min(PROOF / 2.0),
            1 if !self.is_crowded(piece) => trust,
            _ => trust.min(self.trust.of(Class::Order)),
        }
    }

    /// What came before may be what this was done for, beside what came last.
    fn is_crowded(&self, piece: &Evidence) -> bool {
        !piece.unserved.is_empty() && (self.deferrals.often() || self.moves.often())
    }

    /// It holds where tasks go from thread to thread: the thread went on at once, or does one thing after the other.
    fn stays(&self, piece: &Evidence) -> bool {
        match piece.class {
            Class::Coroutine | Class::AnswersNext => true,
            Class::LoneTurn | Class::Turn | Class::LateTurn | Class::Answer | Class::LateAnswer => {
                piece.unserved.is_empty() && piece.position == 0
            }
            _ => false,
        }
    }

    /// The client request can have been made for this one.
    fn fits(&self, client: &Client, server: u64) -> bool {
        self.servers.get(&server).is_some_and(|Server { heard_ns, closed_ns, ids, .. }| {
            *heard_ns <= client.sent_ns
                && closed_ns.is_none_or(|closed_ns| client.sent_ns <= closed_ns)
                && client.carries.as_ref().is_none_or(|id| ids.carry(id))
        })
    }

    /// The server request that a decided or single node stands for.
    fn stands_for(&self, node: Node) -> Option<u64> {
        match node {
            Node::Server(span) => Some(span),
            Node::Client(span) => Some(self.clients.get(&span)?.decided??.span),
        }
    }

    /// A timer made this request.
    pub(super) fn is_of_timer(&self, node: Node) -> bool {
        matches!(node, Node::Client(span) if self.clients.get(&span).is_some_and(|client| client.by_timer))
    }

    /// A timer made this request, and timers make no other when they hear the response.
    fn ends_with(&self, node: Node) -> bool {
        self.is_of_timer(node) && !self.timers_go_on
    }

    /// The one request that evidence speaks of: the only one, or the one whose turn it was among those that came with one
    /// event, if for each of them one was made.
    fn points_to(&self, client: &Client, piece: &Evidence) -> Option<Node> {
        if piece.class == Class::Share {
            return self.share_of(client.peer, piece);
        }
        if self.is_crowded(piece) {
            return None;
        }
        if let [node] = piece.nodes.as_slice() {
            return Some(*node);
        }
        let made = self.made.get(&piece.group)?;
        if made.came != piece.nodes.len() || made.unsure {
            return None;
        }
        // What ended with an answer made no further request.
        let went_on = piece.nodes.iter().filter(|node| match node {
            Node::Server(_) => true,
            Node::Client(_) if self.ends_with(**node) => false,
            Node::Client(_) => !self.stands_for(**node).is_some_and(|server| made.answered.contains(&server)),
        });
        let one_each = went_on.clone().count() == made.requests;
        went_on.copied().nth(piece.position as usize).filter(|_| one_each)
    }

    /// The server request that evidence leads to, if that can be told.
    fn one_of(&self, client: &Client, piece: &Evidence) -> Option<u64> {
        if let Some(node) = self.points_to(client, piece) {
            return self.stands_for(node).filter(|server| self.fits(client, *server));
        }
        let crowded = self.is_crowded(piece);
        if piece.class == Class::Share || crowded && piece.unserved.len() >= MAX_NODES {
            return None;
        }
        // A request that was answered before this one's response came did not need it.
        let can = |server: u64| {
            self.fits(client, server)
                && self
                    .servers
                    .get(&server)
                    .and_then(|server| server.closed_ns)
                    .is_none_or(|closed_ns| client.heard_ns.is_none_or(|heard_ns| heard_ns <= closed_ns))
        };
        let mut possible = Servers::new();
        let before = piece.unserved.iter().filter(|_| crowded);
        for node in piece.nodes.iter().chain(before).filter(|node| !self.ends_with(**node)) {
            let server = self.stands_for(*node)?;
            if can(server) && !possible.contains(&server) {
                possible.push(server);
            }
        }
        match possible.as_slice() {
            [server] => Some(*server),
            _ => None,
        }
    }

    /// What the evidence says, if it says one thing.
    pub(super) fn verdict(&self, span: u64) -> Option<Verdict> {
        let client = self.clients.get(&span)?;
        if let Some(decided) = client.decided {
            let parent = decided?;
            return Some(Verdict {
                server: parent.span,
                rule: parent.rule,
                level: parent.confidence,
                agreed: false,
            });
        }
        if self.moves.often() && !client.alone {
            let servers = self.connected(span, PROOF);
            let [server] = servers.as_slice() else { return None };
            return self.is_confirmed(span).then(|| self.found(client, *server, PROOF));
        }
        let mut level = 1.0;
        while let Some(next) = self.next_level(span, level) {
            level = next;
            let servers = self.connected(span, level);
            match servers.as_slice() {
                [] if self.leads_to_timer(span, level) => return None,
                [] => {}
                [server] => return Some(self.found(client, *server, level)),
                _ => return self.directly(client, level),
            }
        }
        // Whoever woke the thread that sent it is weak evidence, unless the thread that answered was woken for its response.
        let has = |class| client.evidence.iter().any(|piece| piece.class == class);
        let woken = has(Class::WokenOpens) || has(Class::Woken);
        (woken && has(Class::WokenAnswer)).then(|| self.directly(client, WEAK)).flatten()
    }

    /// The most trusted evidence around this request that is trusted less than `below`.
    fn next_level(&self, span: u64, below: f32) -> Option<f32> {
        let mut best: Option<f32> = None;
        self.walk(span, PROOF, |client, piece| {
            let trust = self.trust_in(client, piece);
            if trust < below && best.is_none_or(|best| trust > best) {
                best = Some(trust);
            }
        });
        best.filter(|best| *best >= PROOF)
    }

    /// All server requests that evidence of this level leads to and that fit.
    fn connected(&self, span: u64, level: f32) -> Servers {
        let mut servers = Servers::new();
        let Some(origin) = self.clients.get(&span) else { return servers };
        self.walk(span, level, |client, piece| {
            if let Some(server) = self.one_of(client, piece)
                && self.fits(origin, server)
                && !servers.contains(&server)
            {
                servers.push(server);
            }
        });
        servers
    }

    /// What was done before it and what was done behind it lead to one request. Where tasks go from thread to thread, the thread may
    /// have gone on with another by then.
    fn is_confirmed(&self, span: u64) -> bool {
        let (mut before, mut behind) = (false, false);
        self.walk(span, PROOF, |_, piece| {
            let sure = matches!(piece.class, Class::Coroutine | Class::AnswersNext);
            before |= sure || matches!(piece.class, Class::LoneTurn | Class::Turn | Class::LateTurn);
            behind |= sure || matches!(piece.class, Class::Answer | Class::LateAnswer);
        });
        before && behind
    }

    /// Evidence of this level leads to a request that a timer made, for none.
    fn leads_to_timer(&self, span: u64, level: f32) -> bool {
        let mut found = false;
        self.walk(span, level, |client, piece| {
            found |= self.points_to(client, piece).is_some_and(|node| self.is_of_timer(node));
        });
        found
    }

    /// Shows all evidence of this level or better on requests that are connected by such.
    fn walk<'a>(&'a self, span: u64, level: f32, mut show: impl FnMut(&'a Client, &'a Evidence)) {
        let mut seen: SmallVec<[u64; 16]> = SmallVec::from_iter([span]);
        let mut next = 0;
        while let Some(&span) = seen.get(next) {
            next += 1;
            let Some(client) = self.clients.get(&span) else { continue };
            let mut reach = |other: u64| {
                let open = self.clients.get(&other).is_some_and(|other| other.decided.is_none());
                if open && seen.len() < MAX_CONNECTED && !seen.contains(&other) {
                    seen.push(other);
                }
            };
            for piece in client.evidence.iter().filter(|piece| self.trust_in(client, piece) >= level) {
                show(client, piece);
                if let Some(Node::Client(other)) = self.points_to(client, piece) {
                    reach(other);
                }
            }
            for other in &client.after {
                let trusted = self.clients.get(other).is_some_and(|after| {
                    after.evidence.iter().any(|piece| {
                        piece.nodes.as_slice() == [Node::Client(span)]
                            && !self.is_crowded(piece)
                            && self.trust_in(after, piece) >= level
                    })
                });
                if trusted {
                    reach(*other);
                }
            }
        }
    }

    /// The one parent that two kinds of evidence on the request itself agree on, where what surrounds it disagrees.
    fn directly(&self, client: &Client, level: f32) -> Option<Verdict> {
        let mut found: SmallVec<[(u64, Class); 4]> = SmallVec::new();
        for piece in client.evidence.iter().filter(|piece| self.trust_in(client, piece) >= level) {
            found.push((self.one_of(client, piece)?, piece.class));
        }
        let (server, class) = *found.first()?;
        let agree = found.iter().all(|(other, _)| *other == server);
        (agree && found.iter().any(|(_, other)| *other != class)).then(|| self.found(client, server, level))
    }

    fn found(&self, client: &Client, server: u64, level: f32) -> Verdict {
        let mut rule = None;
        let mut classes: SmallVec<[Class; 4]> = SmallVec::new();
        for piece in &client.evidence {
            if self.one_of(client, piece) == Some(server) {
                rule = rule.or(Some(piece.rule));
                if !classes.contains(&piece.class) {
                    classes.push(piece.class);
                }
            }
        }
        let rule = rule.or(client.evidence.first().map(|piece| piece.rule)).unwrap_or(Rule::Socket);
        Verdict { server, rule, level, agreed: classes.len() > 1 }
    }

    /// Judges the kinds of evidence by what came out.
    pub(super) fn learn(&mut self, span: u64, verdict: &Verdict) {
        let Some(client) = self.clients.get(&span) else { return };
        // Where threads that were woken answer too, those that were woken for something else may look the same.
        let woken = client.evidence.iter().any(|piece| piece.class == Class::WokenAnswer);
        let judged: SmallVec<[(Class, bool); 4]> = client
            .evidence
            .iter()
            .filter(|_| client.evidence.len() > 1)
            .filter_map(|piece| {
                let server = self.one_of(client, piece)?;
                let right = server == verdict.server;
                let known = piece.class == Class::WakesWaiting && self.is_no_answer(piece.futex);
                let judge = match piece.class {
                    Class::WokenOpens if woken => false,
                    Class::Woken if woken => !right,
                    _ => !right || verdict.agreed,
                };
                (judge && !known).then_some((piece.class, right))
            })
            .collect();
        for (class, right) in judged {
            self.trust.judge(class, right);
        }
    }
}

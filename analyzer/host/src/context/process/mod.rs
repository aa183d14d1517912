//! One process: its threads, its connections, and the requests that it answers and makes.
//!
//! | module | what |
//! |---|---|
//! | `answers` | responses, to what it asked and from it |
//! | `batch` | requests that go out together |
//! | `conn` | its connections |
//! | `coroutines` | whom coroutines are made for, and what they asked |
//! | `decide` | when requests are decided on and forgotten |
//! | `habits` | what the process often does, so that some evidence proves little |
//! | `streams` | HTTP/2 streams, where the process tells which of them a thread is at |
//! | `wake` | threads that make each other go on |

mod answers;
mod batch;
mod conn;
mod coroutines;
mod decide;
mod habits;
mod streams;
#[cfg(test)]
mod tests;
mod wake;

use super::actor::{Actor, ActorId, Waking};
use super::evidence::{Class, Evidence, Node, Nodes, Trust};
use super::happening::{Happening, Moment, Wait};
use super::{ContextConfig, Decision};
use batch::Shares;
use conn::Conn;
pub(super) use coroutines::Streams;
use foldhash::HashMap;
use habits::{Agreement, Follows, Handovers, Made, Moves, Starts};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use wake::{Futex, Places};
use wirespan_records::{Parent, Rule};

pub(super) type Pieces = SmallVec<[Evidence; 2]>;

/// A request that the process answers.
#[derive(Debug)]
pub(super) struct Server {
    pub conn: u64,
    stream: u32,
    pub actor: ActorId,
    pub heard_ns: u64,
    /// Answered, or given up.
    pub closed_ns: Option<u64>,
    trace_id: Option<Box<str>>,
    x_request_id: Option<Box<str>>,
    /// Requests that may have been made for it.
    pub clients: Vec<u64>,
}

/// A request that the process makes.
#[derive(Debug)]
pub(super) struct Client {
    pub conn: u64,
    stream: u32,
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
    /// If not empty, it is one of these: they carry the same id.
    pub within: SmallVec<[u64; 2]>,
    /// The thread was at what its timers are for, and at nothing else.
    pub by_timer: bool,
    /// It was told when it was begun, not only when it was sent.
    pub begun: bool,
    pub decided: Option<Option<Parent>>,
}

/// When something is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    Server(u64),
    Client(u64),
}

#[derive(Debug, Default)]
pub(super) struct ProcessState {
    pub(super) actors: HashMap<ActorId, Actor>,
    conns: HashMap<u64, Conn>,
    /// Requests by connection and stream.
    streams: HashMap<(u64, u32), Node>,
    pub(super) servers: HashMap<u64, Server>,
    pub(super) clients: HashMap<u64, Client>,
    /// Servers that are open or just closed, by the time that they were heard.
    since: BTreeSet<(u64, u64)>,
    /// Servers that are left, by the time that they were closed: what was sent before may still speak of them.
    left: BTreeSet<(u64, u64)>,
    /// Clients that are remembered, by the time that they were sent.
    sent: BTreeSet<(u64, u64)>,
    /// Clients that are decided and past, oldest first: others may still refer to them.
    past: VecDeque<u64>,
    checks: BinaryHeap<Reverse<(u64, Check)>>,
    futexes: HashMap<u64, Futex>,
    /// Addresses of locks that threads wait for in turn.
    locks: BTreeSet<u64>,
    places: Places,
    /// Work in queues, by its number, and what it is for.
    items: HashMap<u64, Nodes>,
    pub(super) peers: HashMap<u64, Starts>,
    pub(super) shares: HashMap<u64, Shares>,
    pub(super) answers: Starts,
    /// Threads that open or take connections, and threads that answer, without being those that hear requests.
    pub(super) opens: Handovers,
    pub(super) answered_by: Handovers,
    pub(super) agreed: Agreement,
    pub(super) follows: Follows,
    /// How many requests were made for what came with one event.
    pub(super) made: HashMap<u64, Made>,
    /// Timers make requests when they hear responses to those that they made.
    pub(super) timers_go_on: bool,
    pub(super) trust: Trust,
    /// Requests that are open.
    open: usize,
    /// Connections that may have brought requests which are open and were not seen.
    unseen: usize,
    /// When events, or bytes with requests, were lost last.
    lost_ns: Option<u64>,
    pub(super) moves: Moves,
    groups: u64,
    coroutines: u64,
    serials: HashMap<u64, u64>,
    /// Goroutines wake each other; what threads do then says nothing.
    goroutines: bool,
    pub(super) last_ns: u64,
}

impl ProcessState {
    /// Something happened.
    pub(super) fn happen(
        &mut self,
        config: &ContextConfig,
        at: &Moment,
        what: Happening<'_>,
        decisions: &mut Vec<Decision>,
    ) {
        self.last_ns = at.time_ns;
        self.bound(config, decisions);
        let at = &Moment { coroutine: self.serial(at.coroutine), ..*at };
        match what {
            Happening::Data { conn, ingress: true, ahead } => self.received(at, conn, ahead),
            Happening::Data { conn, ingress: false, ahead } => self.sent(config, at, conn, ahead),
            Happening::ServerRequest { span, conn, stream, beside, trace_id, x_request_id } => {
                let ids = (trace_id.map(Box::from), x_request_id.map(Box::from));
                self.server_request(at, span, (conn, stream), beside, ids);
            }
            Happening::Begins { conn, stream } => self.begins(config, at, conn, stream),
            Happening::ClientRequest { span, conn, stream, peer, began, trace_id, x_request_id } => {
                let began = Moment { coroutine: self.serial(began.coroutine), ..began };
                self.client_request(config, at, span, (conn, stream), peer, &began);
                self.same_ids(config, span, trace_id, x_request_id, decisions);
            }
            Happening::ClientResponse { span } => self.client_response(at, span),
            Happening::ClientDone { span } => self.client_done(at, span),
            Happening::ServerResponse { span } => self.server_response(config, at, span),
            Happening::Over { span } => self.over(config, at, span),
            Happening::Connect { conn } => self.connect_to(config, at, conn),
            Happening::Look { conn } => self.look(config, at, conn),
            Happening::Accept { conn } => {
                self.actor(at).acts(at);
                self.new_conn(conn, Conn::default());
            }
            Happening::Gap { conn } => self.gap(at, conn),
            Happening::Unseen { conn, open } => self.unseen(at, conn, open),
            Happening::Held { conn, held } => self.held(at, conn, held),
            Happening::UnseenResponse { conn } => self.unseen_response(at, conn),
            Happening::UnseenCalls => self.unseen_calls(at),
            Happening::Close { conn } => self.close(config, at, conn),
            Happening::Wake { tid, coroutine, futex, timed } => {
                self.goroutines |= coroutine != 0;
                if coroutine != 0 {
                    let id = ActorId::Coroutine(self.serial(coroutine));
                    self.wake(at, id, 0, timed);
                } else if !self.goroutines && !self.wakes_anyone(at, tid, futex, timed) {
                    self.wake(at, ActorId::Thread(tid), futex, timed);
                }
            }
            Happening::Fork { tid, coroutine, place } => {
                let stream = self.stream_of(at, place);
                let maker = self.actor(at);
                let (nodes, vague) = match stream {
                    Some(span) => (Nodes::from_iter([Node::Server(span)]), false),
                    None => (maker.hands_on(at), maker.is_vague(at)),
                };
                let id = match coroutine {
                    0 => ActorId::Thread(tid),
                    _ => ActorId::Coroutine(self.new_serial(coroutine)),
                };
                let mut actor =
                    Actor { maker: (at.coroutine, at.time_ns), last_ns: at.time_ns, ..Actor::default() };
                let how = if coroutine == 0 { Waking::Made } else { Waking::Coroutine };
                actor.wakes(nodes, 0, how, vague);
                self.actors.insert(id, actor);
            }
            Happening::Put { item } => self.put(config, at, item),
            Happening::Take { item } => {
                let nodes = self.items.remove(&item).unwrap_or_default();
                self.actor(at).takes(nodes);
            }
            Happening::Lost => self.lost(at),
            Happening::Exit => {
                self.actors.remove(&ActorId::Thread(at.tid));
            }
            Happening::Exec => {
                self.finish(decisions);
                *self = Self { last_ns: at.time_ns, ..Self::default() };
            }
        }
    }

    /// The number of a coroutine here. Its own, which may be an address, can be another's later.
    fn serial(&mut self, coroutine: u64) -> u64 {
        match self.serials.get(&coroutine) {
            _ if coroutine == 0 => 0,
            Some(serial) => *serial,
            None => self.new_serial(coroutine),
        }
    }

    fn new_serial(&mut self, coroutine: u64) -> u64 {
        self.coroutines += 1;
        self.serials.insert(coroutine, self.coroutines);
        self.coroutines
    }

    fn actor(&mut self, at: &Moment) -> &mut Actor {
        self.actors.entry(ActorId::of(at)).or_default()
    }

    fn group(&mut self) -> u64 {
        self.groups += 1;
        self.groups
    }

    /// Leaves out what the rules forbid.
    fn allow(&self, config: &ContextConfig, pieces: &mut Pieces) {
        pieces.retain(|piece| config.rules.allow(piece.rule));
    }

    fn received(&mut self, at: &Moment, id: u64, ahead: bool) {
        let conn = self.conns.get(&id).filter(|_| !(ahead && self.lost_ns.is_some()));
        let nodes = conn.map(Conn::bytes_of).unwrap_or_default();
        let group = self.group();
        let actor = self.actor(at);
        actor.acts(at);
        let before = actor.no_timer();
        if let Some(node) = actor.unused.take() {
            self.follows.count(node, 0);
        }
        let actor = self.actor(at);
        if let Some((node, made)) = actor.alone() {
            self.follows.count(node, made);
            self.timers_go_on |= made > 0 && self.is_of_timer(node);
        }
        self.actor(at).bytes(at, id, nodes, group);
        before.into_iter().for_each(|(span, class)| self.no_timer(span, class));
    }

    fn sent(&mut self, config: &ContextConfig, at: &Moment, id: u64, ahead: bool) {
        let mut pieces = self.pieces(at);
        self.allow(config, &mut pieces);
        self.actor(at).acts(at);
        if ahead && self.lost_ns.is_some() {
            // It may be a response to what was not seen.
            self.actor(at).forgets();
        }
        let conn = self.conn(id);
        if conn.sends.len() == 4 {
            conn.sends.remove(0);
        }
        conn.sends.push(((at.tid, at.thread_event), pieces));
    }

    fn server_request(
        &mut self,
        at: &Moment,
        span: u64,
        (conn, stream): (u64, u32),
        beside: bool,
        ids: (Option<Box<str>>, Option<Box<str>>),
    ) {
        let new = self.group();
        let actor = self.actor(at);
        let (group, came) = actor.head(at, Node::Server(span), new);
        actor.opens(span, conn, at);
        actor.overlaps |= beside && actor.open.len() > 1;
        if beside {
            self.reads_stream(at, span);
        }
        self.came(group, came);
        self.conns.entry(conn).or_default().open.push(span);
        self.put_stream(conn, stream, Node::Server(span));
        self.since.insert((at.time_ns, span));
        self.open += 1;
        self.servers.insert(
            span,
            Server {
                conn,
                stream,
                actor: ActorId::of(at),
                heard_ns: at.time_ns,
                closed_ns: None,
                trace_id: ids.0,
                x_request_id: ids.1,
                clients: Vec::new(),
            },
        );
    }

    fn client_request(
        &mut self,
        config: &ContextConfig,
        at: &Moment,
        span: u64,
        (id, stream): (u64, u32),
        peer: u64,
        began: &Moment,
    ) {
        let conn = self.conn(id);
        let event = (began.tid, began.thread_event);
        let sent = conn.sends.iter().rev().find(|(sent, _)| *sent == event).map(|(_, pieces)| pieces.clone());
        let (opened, opener) = (std::mem::take(&mut conn.opened), conn.opener);
        let (fresh, vague) = (std::mem::take(&mut conn.fresh), std::mem::take(&mut conn.vague));
        let together = conn.requested.replace(event) == Some(event);
        if !together {
            conn.requested_ns = [began.time_ns, conn.requested_ns[0]];
        }
        let since_ns = conn.requested_ns[1];
        conn.asked.push_back(span);
        let told = conn.begun(stream);
        let begun = told.is_some();
        self.put_stream(id, stream, Node::Client(span));
        // A goroutine opens a connection for one request, and another may be the first to use it.
        let fresh = fresh && !self.goroutines;
        // A loop's callback for a connection that is open belongs to no task.
        let coroutine = if fresh && opener != 0 { opener } else { began.coroutine };
        let actor = self.actor(began);
        let (several, serves, loops) = (actor.several, actor.serves, actor.loops());
        let now = match told.or(sent) {
            Some(pieces) => pieces,
            None => self.pieces(at),
        };
        let by_itself = |pieces: &Pieces| pieces.iter().all(|piece| piece.class > Class::LateAnswer);
        if several || loops && (serves || began.wait == Wait::Timers) {
            let idle = self.open == 0;
            let starts = self.peers.entry(peer).or_default();
            starts.together |= together;
            // While nothing is open, nothing can be what it is made for.
            let alone = several && by_itself(if fresh && !begun { &opened } else { &now });
            if self.unseen == 0 {
                starts.count(idle || alone);
            }
        }
        // A coroutine that sends knows better than the one that opened the connection; a loop that sends because the
        // connection is open knows nothing.
        let (counted, mut evidence) = match now.first() {
            _ if begun => (true, now),
            Some(piece) if !fresh || piece.class == Class::Coroutine => (false, now),
            _ if fresh && vague && loops => (true, Pieces::new()),
            _ if !fresh || opened.is_empty() && !several => (false, now),
            _ => (true, opened.into_iter().map(|piece| Evidence { rule: Rule::Socket, ..piece }).collect()),
        };
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
                within: SmallVec::new(),
                begun,
                by_timer: began.wait == Wait::Timers
                    && evidence.iter().all(|piece| matches!(piece.class, Class::Blocking | Class::FirstOpen)),
                decided: None,
            },
        );
        for piece in evidence {
            if piece.class == Class::LateTurn && !counted {
                self.actor(began).late.push((span, piece.class));
            }
            self.connect(span, piece);
        }
        if loops && self.peers.get(&peer).is_some_and(|starts| starts.collected()) {
            self.share(began, span, id, peer, since_ns);
        }
        let latest = match self.since.is_empty() {
            true => config.grace_ns,
            false => config.max_wait_ns,
        };
        self.checks.push(Reverse((began.time_ns.saturating_add(latest), Check::Client(span))));
    }

    /// Something speaks for `span` having been made for the same as others.
    fn connect(&mut self, span: u64, piece: Evidence) {
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
    fn no_timer(&mut self, span: u64, late: Class) {
        let Some(client) = self.clients.get_mut(&span) else { return };
        for piece in client.evidence.iter_mut().filter(|piece| piece.class == late) {
            piece.class = if late == Class::LateTurn { Class::Turn } else { Class::Answer };
        }
    }

    /// The server request that a node leads to by what is known first.
    fn root(&self, node: Node, depth: u32) -> Option<u64> {
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

    /// Decides at once what carries the id of an open request.
    fn same_ids(
        &mut self,
        config: &ContextConfig,
        span: u64,
        trace_id: Option<&str>,
        x_request_id: Option<&str>,
        decisions: &mut Vec<Decision>,
    ) {
        for (allowed, rule, id) in [
            (config.rules.wire_id, Rule::WireId, trace_id),
            (config.rules.request_id, Rule::RequestId, x_request_id),
        ] {
            let (true, Some(id)) = (allowed, id) else { continue };
            let same = |server: &Server| {
                let its = if rule == Rule::WireId { &server.trace_id } else { &server.x_request_id };
                server.closed_ns.is_none() && its.as_deref() == Some(id)
            };
            let within: SmallVec<[u64; 2]> =
                self.servers.iter().filter(|(_, server)| same(server)).map(|(span, _)| *span).collect();
            let Some(client) = self.clients.get_mut(&span) else { return };
            if let [server] = within.as_slice() {
                let parent = Some(Parent { span: *server, rule, confidence: 1.0 });
                client.decided = Some(parent);
                decisions.push(Decision { client: span, parent });
                return;
            }
            if !within.is_empty() && client.within.is_empty() {
                client.within = within;
            }
        }
    }

    /// Of several that come with one event it matters how many there are.
    fn came(&mut self, group: u64, came: usize) {
        if came > 1 {
            self.made.entry(group).or_default().came = came;
        }
    }
}

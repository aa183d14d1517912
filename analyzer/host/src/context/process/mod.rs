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
//! | `ids` | what requests carry that says what they are for |
//! | `requests` | requests that it answers and makes |
//! | `streams` | HTTP/2 streams, where the process tells which of them a thread is at |
//! | `wake` | threads that make each other go on |

mod answers;
mod batch;
mod conn;
mod coroutines;
mod decide;
mod habits;
mod ids;
mod requests;
mod streams;
#[cfg(test)]
mod tests;
mod wake;

use super::actor::{Actor, ActorId};
use super::evidence::{Evidence, Node, Nodes, Trust};
use super::happening::{Happening, Moment};
use super::{ContextConfig, Decision};
use batch::Shares;
use conn::{Conn, Sent};
pub(super) use coroutines::Streams;
use foldhash::HashMap;
use habits::{Agreement, Deferrals, Follows, Handovers, Made, Moves, Starts, Tally};
use ids::{Carriers, Ids};
pub(super) use requests::{Client, Server};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use streams::Session;
use wake::{Futex, Places};

pub(super) type Pieces = SmallVec<[Evidence; 2]>;

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
    /// HTTP/2 sessions that requests were begun on, by their addresses.
    sessions: HashMap<u64, Session>,
    pub(super) servers: HashMap<u64, Server>,
    pub(super) clients: HashMap<u64, Client>,
    carriers: Carriers,
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
    pub(super) deferrals: Deferrals,
    /// How often a request that was made after a response turned out to be for another request, as those are that waited for one of few
    /// connections; and how often for the same.
    pub(super) queued: Tally,
    /// How often goroutines asked others when the request was answered that they were made for, beside how many were made, by the go
    /// statements that made them.
    outlive: HashMap<u32, Tally>,
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
                self.server_request(at, span, (conn, stream), beside, Ids::new(trace_id, x_request_id));
            }
            Happening::Begins { session, conn, stream } => self.begins(config, at, session, conn, stream),
            Happening::Queues { writer, stream } => {
                let session = self.serial(writer);
                self.begins(config, at, session, None, stream);
            }
            Happening::Reads { session } => self.reads_session(at, session),
            Happening::Answers { session, stream } => self.answers_stream(at, session, stream),
            Happening::Carries { session, conn } => self.bind(session, conn),
            Happening::Sends { session } => self.sends(at, session),
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
            Happening::UnseenAnswer => self.unseen_answer(at),
            Happening::UnseenCalls => self.unseen_calls(at),
            Happening::Close { conn } => self.close(config, at, conn),
            Happening::Wake { tid, coroutine, futex, timed } => self.wakes(at, tid, coroutine, futex, timed),
            Happening::Fork { tid, coroutine, place } => self.makes(at, tid, coroutine, place),
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
        let lost = ahead && self.lost_ns.is_some();
        let actor = self.actor(at);
        actor.acts(at);
        let session = actor.sends.take();
        if lost {
            // It may be a response to what was not seen.
            actor.forgets();
        }
        let conn = self.conn(id);
        if conn.sends.len() == 4 {
            conn.sends.remove(0);
        }
        conn.sends.push(Sent { event: (at.tid, at.thread_event), pieces, session });
    }
}

//! A connection of the process.

use super::batch::Batch;
use super::{Pieces, ProcessState};
use crate::context::ContextConfig;
use crate::context::actor::{Actor, ActorId};
use crate::context::evidence::{Class, Node, Nodes};
use crate::context::happening::Moment;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Conn {
    /// What it was opened or taken for, until its first request then.
    pub opened: Pieces,
    /// The coroutine that opened it; 0 for none.
    pub opener: u64,
    pub fresh: bool,
    /// No timer was due when it was opened.
    pub untimed: bool,
    /// It may have been opened for something that was not seen.
    pub vague: bool,
    /// The last sends: a request may take several.
    pub sends: SmallVec<[Sent; 2]>,
    /// The HTTP/2 session that it carries, if that was told.
    pub session: Option<u64>,
    /// The event that sent its last request.
    pub requested: Option<(u32, u32)>,
    /// When it sent that, and the event with requests before that, ns.
    pub requested_ns: [u64; 2],
    pub batch: Option<Box<Batch>>,
    /// The event that sent its last response.
    pub responded: Option<(u32, u32)>,
    /// Requests without a response, oldest first.
    pub asked: VecDeque<u64>,
    /// Responses come beside each other: bytes may be of any.
    pub beside: bool,
    /// The last request that has a response.
    pub answered: Option<u64>,
    /// Somebody looked since whether it is still open.
    pub looked: bool,
    /// Requests to answer.
    pub open: SmallVec<[u64; 2]>,
    /// Who reads the requests that may be open and were not seen.
    pub unseen: Option<ActorId>,
    /// Who reads what waits for lost bytes.
    pub held: Option<ActorId>,
}

/// An event that sent bytes.
#[derive(Debug)]
pub(super) struct Sent {
    /// The thread, and its event.
    pub event: (u32, u32),
    /// What spoke for it.
    pub pieces: Pieces,
    /// The HTTP/2 session that the thread was about to send of.
    pub session: Option<u64>,
}

/// What a connection tells of a request that goes out on it.
#[derive(Debug)]
pub(super) struct Sending {
    /// What the connection was opened or taken for, if this is the first request since.
    pub opened: Pieces,
    /// The coroutine that opened it; 0 for none.
    pub opener: u64,
    /// It was opened or taken, and this is the first request since.
    pub fresh: bool,
    /// No timer was due when it was opened.
    pub untimed: bool,
    /// It may have been opened for something that was not seen.
    pub vague: bool,
    /// What spoke for the event that sent its first byte, as far as that is remembered.
    pub sent: Option<Pieces>,
    /// The same event sent another one.
    pub together: bool,
    /// When the event was that sent requests before, ns.
    pub since_ns: u64,
}

impl Conn {
    /// A request goes out, since `began`.
    pub fn sends_request(&mut self, span: u64, began: &Moment) -> Sending {
        let event = (began.tid, began.thread_event);
        let sent = self.sent_by(began).map(|sent| sent.pieces.clone());
        let together = self.requested.replace(event) == Some(event);
        if !together {
            self.requested_ns = [began.time_ns, self.requested_ns[0]];
        }
        self.asked.push_back(span);
        Sending {
            opened: std::mem::take(&mut self.opened),
            opener: self.opener,
            fresh: std::mem::take(&mut self.fresh),
            untimed: std::mem::take(&mut self.untimed),
            vague: std::mem::take(&mut self.vague),
            sent,
            together,
            since_ns: self.requested_ns[1],
        }
    }

    /// The event by which bytes were sent at this moment, as far as that is remembered.
    pub fn sent_by(&self, began: &Moment) -> Option<&Sent> {
        self.sends.iter().rev().find(|sent| sent.event == (began.tid, began.thread_event))
    }

    /// What more bytes from the other end belong to, as far as that is certain.
    pub fn bytes_of(&self) -> Nodes {
        match (self.open.as_slice(), self.asked.front(), self.answered) {
            _ if self.unseen.is_some() || self.held.is_some() => Nodes::new(),
            ([], _, _) if self.beside => Nodes::new(),
            ([], None, None) => match self.opened.first() {
                Some(piece) => piece.nodes.clone(),
                None => Nodes::new(),
            },
            ([open], _, _) => Nodes::from_iter([Node::Server(*open)]),
            ([], Some(asked), None) => Nodes::from_iter([Node::Client(*asked)]),
            ([], None, Some(answered)) => Nodes::from_iter([Node::Client(answered)]),
            ([], Some(asked), Some(answered)) => {
                Nodes::from_iter([Node::Client(answered), Node::Client(*asked)])
            }
            _ => Nodes::new(),
        }
    }
}

impl ProcessState {
    /// What a connection is for that this thread opens or takes: its first request is made for that, whenever it is sent, and by
    /// whomever.
    fn takes(&mut self, config: &ContextConfig, at: &Moment) -> Pieces {
        let mut pieces = self.pieces(at);
        self.allow(config, &mut pieces);
        let actor = self.actor(at);
        if actor.begins_one() {
            pieces.iter_mut().filter(|piece| piece.class == Class::Woken).for_each(|piece| {
                piece.class = Class::WokenOpens;
            });
        }
        actor.acts(at);
        actor.made_one();
        pieces
    }

    /// The thread opens a connection.
    pub(super) fn connect_to(&mut self, config: &ContextConfig, at: &Moment, id: u64) {
        let opened = self.takes(config, at);
        let lost_ns = self.lost_ns;
        let actor = self.actor(at);
        let forgot = lost_ns.is_some_and(|lost_ns| lost_ns >= actor.turn_began_ns);
        let vague = opened.is_empty() && (forgot || actor.unseen > 0);
        let (opener, untimed) = (at.coroutine, actor.is_untimed(at));
        self.new_conn(id, Conn { opened, opener, fresh: true, untimed, vague, ..Conn::default() });
    }

    /// A connection begins. What was known by its number is over.
    pub(super) fn new_conn(&mut self, id: u64, conn: Conn) {
        if let Some(before) = self.conns.insert(id, conn) {
            self.seen(before.unseen);
            self.seen(before.held);
        }
    }

    /// The thread looked whether an idle connection is still open: it takes it from a pool, or puts it there.
    pub(super) fn look(&mut self, config: &ContextConfig, at: &Moment, id: u64) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.asked.is_empty()) else { return };
        let Some(answered) = conn.answered else { return };
        let first = !std::mem::replace(&mut conn.looked, true);
        let actor = self.actor(at);
        let mut at_work = actor.pieces(at).into_iter().map(|piece| piece.nodes);
        // Who is done with a response looks before others can take the connection.
        if first && at_work.all(|nodes| nodes.as_slice() == [Node::Client(answered)]) {
            actor.begins = false;
            return;
        }
        let opened = if !actor.several && (actor.serves || !actor.polls && actor.begins_one()) {
            self.takes(config, at)
        } else {
            if !actor.begins && at.coroutine == 0 {
                // It found more work when it was done with what it was woken for.
                actor.woken.clear();
            }
            actor.acts(at);
            Pieces::new()
        };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.fresh = !opened.is_empty();
            conn.opener = at.coroutine;
            conn.opened = opened;
        }
    }

    /// Events of a connection were lost.
    pub(super) fn gap(&mut self, at: &Moment, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        for span in conn.open {
            let Some(server) = self.servers.get(&span) else { continue };
            if let Some(actor) = self.actors.get_mut(&server.actor) {
                // What it does next may still be for this one, and nobody will tell when that ends.
                actor.doubts(at);
            }
        }
        self.actors.values_mut().for_each(Actor::forgets);
        let Conn { fresh, unseen, held, session, .. } = conn;
        self.conns.insert(id, Conn { fresh, vague: fresh, unseen, held, session, ..Conn::default() });
    }

    /// A connection; one that was not told of may be new when events were lost.
    pub(super) fn conn(&mut self, id: u64) -> &mut Conn {
        let lost = self.lost_ns.is_some();
        self.conns.entry(id).or_insert_with(|| Conn { fresh: lost, vague: lost, ..Conn::default() })
    }

    /// Requests that were not seen may have come, or all that may have come are answered.
    pub(super) fn unseen(&mut self, at: &Moment, id: u64, open: bool) {
        let reader = open.then_some(ActorId::of(at));
        let before = std::mem::replace(&mut self.conns.entry(id).or_default().unseen, reader);
        self.seen(before);
        if open {
            self.lost_ns = Some(at.time_ns);
            self.misses(at);
        }
    }

    /// Bytes wait for others that are missing, or not any more. Where events were lost, they may wait for those.
    pub(super) fn held(&mut self, at: &Moment, id: u64, held: bool) {
        let held = held && self.lost_ns.is_some();
        let reader = held.then_some(ActorId::of(at));
        // Of one that begins with bytes that wait, as when its opening was lost, nothing is known yet.
        let conn = if held { Some(self.conn(id)) } else { self.conns.get_mut(&id) };
        let Some(conn) = conn else { return };
        let before = std::mem::replace(&mut conn.held, reader);
        self.seen(before);
        if held {
            self.misses(at);
        }
    }

    /// What this reader is at may be more than what was seen.
    fn misses(&mut self, at: &Moment) {
        self.unseen += 1;
        let actor = self.actor(at);
        actor.unseen += 1;
        actor.forgets();
    }

    /// Nothing is open that was not seen on a connection of this reader.
    fn seen(&mut self, reader: Option<ActorId>) {
        let Some(reader) = reader else { return };
        self.unseen -= 1;
        if let Some(actor) = self.actors.get_mut(&reader) {
            actor.unseen = actor.unseen.saturating_sub(1);
        }
    }

    /// A response was sent to a request that was not seen. What came before may be what that waited for.
    pub(super) fn unseen_response(&mut self, at: &Moment, id: u64) {
        let event = (at.tid, at.thread_event);
        let together = self.conn(id).responded.replace(event) == Some(event);
        self.answers.together |= together;
        self.actor(at).forgets();
    }

    /// Requests went out that were not seen: how many were made for each that came is not known.
    pub(super) fn unseen_calls(&mut self, at: &Moment) {
        if let Some(group) = self.actor(at).current(at).map(|current| current.group) {
            self.made.entry(group).or_default().unsure = true;
        }
    }

    /// Events of a thread were lost.
    pub(super) fn lost(&mut self, at: &Moment) {
        self.lost_ns = Some(at.time_ns);
        self.unseen_calls(at);
        // Work may have been taken, and put there under the same number.
        self.items.clear();
        // What connections were opened for may have been asked already.
        for conn in self.conns.values_mut().filter(|conn| conn.fresh) {
            conn.opened.clear();
            conn.vague = true;
        }
        // Others may have been made go on.
        self.actors.values_mut().for_each(Actor::forgets);
        self.actor(at).doubts(at);
        if at.coroutine != 0 {
            // Any may have run on the thread.
            self.actors.values_mut().for_each(|actor| actor.doubts(at));
        }
    }

    /// A connection is over.
    pub(super) fn close(&mut self, config: &ContextConfig, at: &Moment, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.seen(conn.unseen);
        self.seen(conn.held);
        if let Some(session) = conn.session {
            self.unbind(session, id);
        }
        for span in conn.open {
            self.close_server(config, at, span);
        }
    }
}

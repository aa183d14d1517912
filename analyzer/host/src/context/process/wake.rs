//! Threads that make each other go on.

use super::ProcessState;
use crate::context::ContextConfig;
use crate::context::actor::{Actor, ActorId};
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use crate::context::woken::{SAME_WAIT, Waking};
use smallvec::SmallVec;
use wirespan_records::Rule;

/// So many threads do not wait for each other's work by chance.
const MANY: usize = 3;

/// Locks that are told from handoffs.
const MAX_LOCKS: usize = 1024;

/// Who waited for a futex.
#[derive(Debug, Default)]
pub(super) struct Futex {
    timed: bool,
    threads: SmallVec<[u32; MANY]>,
    /// Those of them that answer requests.
    serving: SmallVec<[u32; MANY]>,
}

/// The two futexes of a condition variable that are used in turn are one place to wait.
fn place(address: u64) -> u64 {
    address & !7
}

/// Where threads wait for what others do for their requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    timed: u32,
    untimed: u32,
}

impl Places {
    fn count(&mut self, timed: bool) {
        let times = if timed { &mut self.timed } else { &mut self.untimed };
        *times = times.saturating_add(1);
    }

    /// Many wait without a limit: those that look again after some time do not wait for an answer but for a lock, as the monitors
    /// of Java do.
    fn often_untimed(self) -> bool {
        u64::from(self.untimed) * 8 > u64::from(self.timed)
    }
}

impl ProcessState {
    /// A lock that many threads wait for in turn, as the GIL of Python: who lets it go does not hand on work.
    fn wakes_anyone(&mut self, at: &Moment, tid: u32, address: u64, timed: bool) -> bool {
        if address == 0 {
            return false;
        }
        let open = |id| self.actors.get(&id).is_some_and(|actor: &Actor| !actor.open.is_empty());
        // Who is at a request of its own does no other's work.
        let contended = open(ActorId::of(at)) && open(ActorId::Thread(tid));
        let serves = self.actors.get(&ActorId::Thread(tid)).is_some_and(|actor| actor.serves);
        let futex = self.futexes.entry(place(address)).or_default();
        futex.timed |= timed;
        for (counts, threads) in [(true, &mut futex.threads), (serves, &mut futex.serving)] {
            if counts && threads.len() < MANY && !threads.contains(&tid) {
                threads.push(tid);
            }
        }
        // A pool's workers may all wait for one lock, but they wait until there is work, and answer nothing themselves.
        let lock = contended || futex.timed && futex.threads.len() > 1 || futex.serving.len() >= MANY;
        if lock && self.locks.len() < MAX_LOCKS {
            self.locks.insert(address);
        }
        self.is_lock(address)
    }

    /// This futex is one of a lock, as far as is known by now.
    fn is_lock(&self, address: u64) -> bool {
        let near = address.saturating_sub(SAME_WAIT - 1)..address.saturating_add(SAME_WAIT);
        address != 0 && self.locks.range(near).next().is_some()
    }

    /// Threads wait for this futex for a limited time, or did.
    fn is_timed(&self, address: u64) -> bool {
        self.futexes.get(&place(address)).is_some_and(|futex| futex.timed)
    }

    /// Several threads wait here: whichever of them goes on need not take what the one was woken for.
    pub(in super::super) fn is_shared(&self, address: u64) -> bool {
        self.futexes.get(&place(address)).is_some_and(|futex| futex.threads.len() > 1)
    }

    /// Nobody waits for an answer here, as far as is known by now.
    pub(in super::super) fn is_no_answer(&self, futex: u64) -> bool {
        self.is_lock(futex) || self.is_timed(futex) && self.places.often_untimed()
    }

    /// Work was put into a queue.
    pub(super) fn put(&mut self, config: &ContextConfig, at: &Moment, item: u64) {
        let mut nodes = self.actor(at).hands_on(at);
        // The same object twice: it cannot be told which of them is taken first.
        if self.items.contains_key(&item) {
            nodes.clear();
        }
        if self.items.len() >= config.max_actors {
            self.items.clear();
        }
        self.items.insert(item, nodes);
    }

    /// The response to a client request came: had the request been answered by then that the thread was woken for which began it?
    pub(super) fn count_opened(&mut self, span: u64) {
        let Some(client) = self.clients.get(&span) else { return };
        let opened = client.evidence.iter().find(|piece| piece.class == Class::WokenOpens);
        let Some([Node::Server(server)]) = opened.map(|piece| piece.nodes.as_slice()) else { return };
        if !self.opens.is_due(self.since.len()) {
            return;
        }
        let is_open = |span| self.servers.get(&span).is_some_and(|server| server.closed_ns.is_none());
        let (mut open, mut answered) = (0, 0);
        for &(_, span) in self.since.range(..(client.sent_ns, 0)) {
            let Some(server) = self.servers.get(&span) else { continue };
            if server.closed_ns.is_none_or(|closed_ns| client.sent_ns <= closed_ns) {
                open += 1;
                answered += usize::from(server.closed_ns.is_some());
            }
        }
        self.opens.count(!is_open(*server), answered, open);
    }

    /// A thread answered that was woken for the response to a client request: did the server request come after that was sent?
    pub(super) fn count_answer(&mut self, client: u64, server: u64) {
        let Some(client) = self.clients.get(&client) else { return };
        if self.answered_by.is_due(self.since.len()) {
            let is_open = |(_, span): &&(u64, u64)| {
                self.servers.get(span).is_some_and(|server| server.closed_ns.is_none())
            };
            let later = self.since.range((client.sent_ns.saturating_add(1), 0)..);
            let came_later = later.filter(is_open).count();
            let is_later = self.servers.get(&server).is_some_and(|server| server.heard_ns > client.sent_ns);
            self.answered_by.count(is_later, came_later, self.open);
        }
        let opened = client.evidence.iter().find(|piece| piece.class == Class::WokenOpens);
        if let Some([Node::Server(begun)]) = opened.map(|piece| piece.nodes.as_slice())
            && self.open > 1
        {
            self.agreed.count(*begun == server);
        }
    }

    /// This thread makes another, or a coroutine, which goes on for what it is at.
    pub(super) fn makes(&mut self, at: &Moment, tid: u32, coroutine: u64, place: u32) {
        let stream = self.stream_of(at, place);
        let maker = self.actor(at);
        let (nodes, vague, maker_at) = match stream {
            Some(span) => (Nodes::from_iter([Node::Server(span)]), false, 0),
            None => (maker.hands_on(at), maker.is_vague(at), maker.made_at()),
        };
        let (id, how) = match coroutine {
            0 => (ActorId::Thread(tid), Waking::Made),
            _ => (ActorId::Coroutine(self.new_serial(coroutine)), Waking::Coroutine),
        };
        let made_at = if place == 0 { 0 } else { maker_at.rotate_left(5) ^ place };
        let mut actor = Actor {
            maker: (at.coroutine, at.time_ns),
            born_at: made_at,
            made_for: self.born_for(&nodes, made_at),
            last_ns: at.time_ns,
            ..Actor::default()
        };
        actor.wakes(nodes, 0, how, vague, made_at);
        self.actors.insert(id, actor);
    }

    /// This thread makes another, or a coroutine, go on.
    pub(super) fn wakes(&mut self, at: &Moment, tid: u32, coroutine: u64, futex: u64, timed: bool) {
        self.goroutines |= coroutine != 0;
        self.lives(at);
        if coroutine != 0 {
            let id = ActorId::Coroutine(self.serial(coroutine));
            self.wake(at, id, 0, timed);
        } else if !self.goroutines && !self.wakes_anyone(at, tid, futex, timed) {
            self.wake(at, ActorId::Thread(tid), futex, timed);
        }
    }

    fn wake(&mut self, at: &Moment, id: ActorId, futex: u64, limited: bool) {
        let nodes = self.actor(at).hands_on(at);
        let (vague, among) = (self.actor(at).is_vague(at), self.actor(at).at_woken());
        let made_at = self.actor(at).made_at();
        let timed = self.is_timed(futex);
        let woken = self.actors.entry(id).or_default();
        if let [Node::Client(span)] = nodes.as_slice()
            && let Some(server) = woken.only_open()
            && let Some(client) = self.clients.get(span)
            && client.heard_ns.is_some()
            && woken.last_ns <= client.sent_ns
            && !vague
        {
            let nodes = Nodes::from_iter([Node::Server(server)]);
            let (class, rule) = (Class::WakesWaiting, Rule::Handoff);
            self.connect(*span, Evidence { futex, ..Evidence::new(nodes, class, rule) });
            self.places.count(timed);
            if !timed {
                self.actor(at).finishes();
            }
        } else {
            let how = match id {
                ActorId::Coroutine(_) => Waking::Coroutine,
                ActorId::Thread(_) if limited => Waking::Limited,
                ActorId::Thread(_) if among => Waking::Among,
                ActorId::Thread(_) => Waking::Endless,
            };
            woken.wakes(nodes, futex, how, vague, made_at);
            self.actor(at).handed_on();
        }
    }
}

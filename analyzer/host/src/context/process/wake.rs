//! Threads that make each other go on.

use super::ProcessState;
use crate::context::ContextConfig;
use crate::context::actor::{ActorId, SAME_WAIT};
use crate::context::evidence::{Class, Evidence, Node, Nodes};
use crate::context::happening::Moment;
use smallvec::SmallVec;
use wirespan_records::Rule;

/// So many threads do not wait for each other's work by chance.
const MANY: usize = 3;

/// Locks that are told from handoffs.
const MAX_LOCKS: usize = 64;

/// Who waited for a futex.
#[derive(Debug, Default)]
pub(super) struct Futex {
    timed: bool,
    threads: SmallVec<[u32; MANY]>,
    /// Those of them that answer requests.
    serving: SmallVec<[u32; MANY]>,
}

impl ProcessState {
    /// A lock that many threads wait for in turn, as the GIL of Python: who lets it go does not hand on work.
    pub(super) fn wakes_anyone(&mut self, tid: u32, address: u64, timed: bool) -> bool {
        if address == 0 {
            return false;
        }
        let serves = self.actors.get(&ActorId::Thread(tid)).is_some_and(|actor| actor.serves);
        let futex = self.futexes.entry(address).or_default();
        futex.timed |= timed;
        for (counts, threads) in [(true, &mut futex.threads), (serves, &mut futex.serving)] {
            if counts && threads.len() < MANY && !threads.contains(&tid) {
                threads.push(tid);
            }
        }
        // A pool's workers may all wait for one lock, but they wait until there is work, and answer nothing themselves.
        let lock = futex.timed && futex.threads.len() > 1 || futex.serving.len() >= MANY;
        if lock && !self.locks.contains(&address) && self.locks.len() < MAX_LOCKS {
            self.locks.push(address);
        }
        self.locks.iter().any(|lock| lock.abs_diff(address) < SAME_WAIT)
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

    pub(super) fn wake(&mut self, at: &Moment, id: ActorId, futex: u64) {
        let nodes = self.actor(at).hands_on(at);
        let woken = self.actors.entry(id).or_default();
        if let [Node::Client(span)] = nodes.as_slice()
            && let Some(server) = woken.only_open()
            && let Some(client) = self.clients.get(span)
            && client.heard_ns.is_some()
            && woken.last_ns <= client.sent_ns
        {
            let nodes = Nodes::from_iter([Node::Server(server)]);
            let (class, rule) = (Class::WakesWaiting, Rule::Handoff);
            self.connect(*span, Evidence { nodes, class, rule, position: 0, group: 0 });
            self.actor(at).finishes();
        } else {
            woken.wakes(nodes, futex, matches!(id, ActorId::Coroutine(_)));
        }
    }
}

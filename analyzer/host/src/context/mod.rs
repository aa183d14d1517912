//! For which request of its own a process made a request.
//!
//! Takes in [`Happening`]s in the order of time; hands on one [`Decision`] for every client request: the server request of
//! the same process for which it was made, with the rule that says so. Several candidates and no proof make no link.
//!
//! | module | what |
//! |---|---|
//! | [`happening`] | what the engine is told |
//! | `process` | one process: its threads, connections and requests; what happens becomes evidence |
//! | `actor` | a thread or a coroutine: what it is at work on |
//! | `evidence` | kinds of evidence, and how far each is trusted |
//! | `verdict` | from evidence to a parent |
//! | `woken` | what a thread or coroutine was made go on for |

mod actor;
mod evidence;
pub mod happening;
mod process;
#[cfg(test)]
mod tests;
mod verdict;
mod woken;

use foldhash::HashMap;
pub use happening::{Happening, Moment, ProcessKey, Wait};
use process::ProcessState;
use std::collections::BTreeSet;
use wirespan_records::{Parent, Rule};

/// What a client request was made for; told exactly once for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Id of the client span.
    pub client: u64,
    /// The server span, unless none is proven.
    pub parent: Option<Parent>,
}

/// Which rules may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The same trace id in both requests.
    pub wire_id: bool,
    /// The same x-request-id in both requests.
    pub request_id: bool,
    /// The same goroutine.
    pub coroutine: bool,
    /// A response goes on with what its request was made for.
    pub socket: bool,
    /// The same thread between two waits.
    pub turn: bool,
    /// The only open request of the thread.
    pub thread: bool,
    /// Threads and goroutines that wake or make each other.
    pub handoff: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        wire_id: true,
        request_id: true,
        coroutine: true,
        socket: true,
        turn: true,
        thread: true,
        handoff: true,
    };
    /// Without what is in the requests themselves: how much is known of programs that hand on no ids.
    pub const BLIND: Self = Self { wire_id: false, request_id: false, ..Self::ALL };

    /// Evidence of this rule counts.
    pub fn allow(&self, rule: Rule) -> bool {
        match rule {
            Rule::WireId => self.wire_id,
            Rule::RequestId => self.request_id,
            Rule::Coroutine => self.coroutine,
            Rule::Socket => self.socket,
            Rule::Turn => self.turn,
            Rule::Thread => self.thread,
            Rule::Handoff => self.handoff,
            Rule::Path | Rule::Guess => false,
        }
    }
}

/// Rules and bounds of the engine.
#[derive(Clone, Copy, Debug)]
pub struct ContextConfig {
    /// Which rules may decide.
    pub rules: Rules,
    /// A decision waits for this long after its server request was answered, ns.
    pub grace_ns: u64,
    /// A decision waits at most this long after its client request, ns.
    pub max_wait_ns: u64,
    /// Processes that are remembered.
    pub max_processes: usize,
    /// Client requests of one process that wait for their decision, and server requests that are open.
    pub max_requests: usize,
    /// Threads and goroutines of one process that are remembered, and connections.
    pub max_actors: usize,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            rules: Rules::ALL,
            grace_ns: 200_000_000,
            max_wait_ns: 30_000_000_000,
            max_processes: 4096,
            max_requests: 4096,
            max_actors: 16_384,
        }
    }
}

/// The engine, for all processes of a host.
#[derive(Debug)]
pub struct Context {
    config: ContextConfig,
    processes: HashMap<ProcessKey, ProcessState>,
    /// When processes have to be looked at.
    due: BTreeSet<(u64, ProcessKey)>,
}

impl Context {
    /// An engine that knows of nothing yet.
    pub fn new(config: ContextConfig) -> Self {
        Self { config, processes: HashMap::default(), due: BTreeSet::new() }
    }

    /// Something happened; times of later calls are not smaller.
    pub fn happen(&mut self, at: &Moment, what: Happening<'_>, decisions: &mut Vec<Decision>) {
        if !self.processes.contains_key(&at.process) {
            // The sockets of a process are closed after its end.
            if what.is_end() {
                return;
            }
            if self.processes.len() >= self.config.max_processes {
                self.forget_oldest(decisions);
            }
        }
        if what == Happening::Exit && at.tid == at.process.tgid {
            self.forget(at.process, decisions);
            return;
        }
        let process = self.processes.entry(at.process).or_default();
        let was_due = process.due_ns();
        process.happen(&self.config, at, what, decisions);
        let due = process.due_ns();
        self.reschedule(at.process, was_due, due);
    }

    /// Time passed: decides what can wait no longer.
    pub fn advance(&mut self, now_ns: u64, decisions: &mut Vec<Decision>) {
        while let Some(&(due_ns, key)) = self.due.first()
            && due_ns <= now_ns
        {
            self.due.pop_first();
            if let Some(process) = self.processes.get_mut(&key) {
                process.advance(now_ns, decisions);
                self.due.extend(process.due_ns().map(|due_ns| (due_ns, key)));
            }
        }
    }

    /// Decides all that is left.
    pub fn finish(&mut self, decisions: &mut Vec<Decision>) {
        for process in self.processes.values_mut() {
            process.finish(decisions);
        }
        self.processes.clear();
        self.due.clear();
    }

    fn reschedule(&mut self, key: ProcessKey, was: Option<u64>, is: Option<u64>) {
        if was != is {
            self.due.extend(is.map(|due_ns| (due_ns, key)));
            if let Some(due_ns) = was {
                self.due.remove(&(due_ns, key));
            }
        }
    }

    fn forget(&mut self, key: ProcessKey, decisions: &mut Vec<Decision>) {
        if let Some(mut process) = self.processes.remove(&key) {
            self.reschedule(key, process.due_ns(), None);
            process.finish(decisions);
        }
    }

    fn forget_oldest(&mut self, decisions: &mut Vec<Decision>) {
        if let Some(key) =
            self.processes.iter().min_by_key(|(_, process)| process.last_ns).map(|(key, _)| *key)
        {
            self.forget(key, decisions);
        }
    }
}

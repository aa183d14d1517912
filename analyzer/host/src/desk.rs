//! Spans wait here until it is decided for what they were made, and leave with their process.

use crate::context::{Decision, ProcessKey};
use crate::host::Stats;
use crate::talk::Made;
use compact_str::format_compact;
use std::collections::VecDeque;
use std::sync::Arc;
use wirespan_l7::SpanSink;
use wirespan_records::{L7Protocol, Parent, Process};

type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::RandomState>;

/// Processes are remembered for so long after their end, ns: spans come later than the event of their end.
const REMEMBER_NS: u64 = 10_000_000_000;
/// Processes that are remembered.
const MAX_PROCESSES: usize = 65_536;

pub(crate) struct Desk {
    max_wait_ns: u64,
    max_waiting: usize,
    /// Client spans.
    clients: Map<u64, State>,
    /// When complete spans leave at the latest, in this order.
    due: VecDeque<(u64, u64)>,
    ready: Vec<Made>,
    processes: Map<ProcessKey, Arc<Process>>,
    /// What processes speak TLS with whose contents are not seen.
    tls_unseen: Map<ProcessKey, Box<str>>,
    /// Processes that ended, and when they are forgotten.
    ended: VecDeque<(u64, ProcessKey)>,
    /// As [`Self::expire`] was told.
    now_ns: u64,
    handed_on: u64,
    without_process: u64,
    undecided: u64,
}

/// What is known of a client span.
enum State {
    /// Its request was heard.
    Heard,
    /// It was decided for what it was made; it is not complete.
    Decided(Option<Parent>),
    /// It is complete, and not decided.
    Complete(Box<Made>),
    /// It left undecided.
    Gone,
}

impl Desk {
    pub(crate) fn new(max_wait_ns: u64, max_waiting: usize) -> Self {
        Self {
            max_wait_ns,
            max_waiting,
            clients: Map::default(),
            due: VecDeque::new(),
            ready: Vec::new(),
            processes: Map::default(),
            tls_unseen: Map::default(),
            ended: VecDeque::new(),
            now_ns: 0,
            handed_on: 0,
            without_process: 0,
            undecided: 0,
        }
    }

    /// A client span with this id is in the making: there will be one decision, and one span.
    pub(crate) fn expect(&mut self, id: u64) {
        self.clients.insert(id, State::Heard);
    }

    /// It was decided for what a client span was made.
    pub(crate) fn decide(&mut self, decision: Decision) {
        let Some(state) = self.clients.get_mut(&decision.client) else { return };
        match std::mem::replace(state, State::Decided(decision.parent)) {
            State::Heard | State::Decided(_) => return,
            State::Complete(mut made) => {
                made.span.parent = decision.parent;
                self.ready.push(*made);
            }
            State::Gone => {}
        }
        self.clients.remove(&decision.client);
    }

    /// A span has all that belongs to it but its parent.
    pub(crate) fn complete(&mut self, mut made: Made, now_ns: u64) {
        let id = made.span.id;
        match self.clients.get_mut(&id) {
            Some(State::Decided(parent)) => {
                made.span.parent = *parent;
                self.clients.remove(&id);
                self.ready.push(made);
            }
            Some(state @ State::Heard) => {
                *state = State::Complete(Box::new(made));
                self.due.push_back((now_ns.saturating_add(self.max_wait_ns), id));
                if self.due.len() > self.max_waiting {
                    self.give_up_oldest();
                }
            }
            Some(State::Complete(_) | State::Gone) | None => self.ready.push(made),
        }
    }

    /// Spans that waited for too long leave as they are.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        while self.due.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            self.give_up_oldest();
        }
        self.now_ns = now_ns;
    }

    fn give_up_oldest(&mut self) {
        let Some((_, id)) = self.due.pop_front() else { return };
        let Some(state @ State::Complete(_)) = self.clients.get_mut(&id) else { return };
        if let State::Complete(made) = std::mem::replace(state, State::Gone) {
            self.undecided += 1;
            self.ready.push(*made);
        }
    }

    /// What is known of a process.
    pub(crate) fn process(&mut self, key: ProcessKey, process: Arc<Process>) {
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&key) {
            // Ends must have been lost. Any is as good as another.
            let victim = self.processes.keys().next().copied();
            victim.and_then(|victim| self.processes.remove(&victim));
        }
        let executable = process.executable.clone();
        if self.processes.insert(key, process).is_some_and(|before| before.executable != executable) {
            self.tls_unseen.remove(&key);
        }
    }

    /// Contents of a process's TLS are not seen, as it uses this library; with `None`, they are from now on.
    pub(crate) fn tls_unseen(&mut self, key: ProcessKey, library: Option<&str>) {
        match library {
            Some(library) if self.tls_unseen.len() < MAX_PROCESSES => {
                self.tls_unseen.insert(key, library.into());
            }
            Some(_) => {}
            None => drop(self.tls_unseen.remove(&key)),
        }
    }

    /// A process ended.
    pub(crate) fn ended(&mut self, key: ProcessKey, now_ns: u64) {
        if self.processes.contains_key(&key) || self.tls_unseen.contains_key(&key) {
            self.ended.push_back((now_ns + REMEMBER_NS, key));
        }
    }

    /// Adds what was counted here.
    pub(crate) fn count(&self, stats: &mut Stats) {
        stats.spans = self.handed_on;
        stats.spans_without_process = self.without_process;
        stats.spans_undecided = self.undecided;
        stats.waiting_spans +=
            self.clients.values().filter(|state| matches!(state, State::Complete(_))).count() as u64;
    }

    /// Hands on the spans that are ready, and only then forgets processes that ended.
    pub(crate) fn hand_on(&mut self, sink: &mut dyn SpanSink) {
        for Made { mut span, process, .. } in self.ready.drain(..) {
            span.process = self.processes.get(&process).cloned();
            if span.l7_protocol == L7Protocol::Tls
                && let Some(library) = self.tls_unseen.get(&process)
            {
                span.attributes
                    .push(("tls.unseen", format_compact!("TLS of {library}: contents not visible")));
            }
            self.without_process += u64::from(span.process.is_none());
            self.handed_on += 1;
            sink.span(*span);
        }
        let now_ns = self.now_ns;
        while let Some((_, key)) = self.ended.pop_front_if(|(until_ns, _)| *until_ns <= now_ns) {
            self.processes.remove(&key);
            self.tls_unseen.remove(&key);
        }
    }
}

//! A thread or a coroutine: what it is at work on.

use super::evidence::{Class, Evidence, Node, Nodes};
use super::happening::{Moment, Wait};
use super::process::Streams;
use super::woken::{WakeUps, Waking};
use smallvec::SmallVec;
use wirespan_records::Rule;

/// What can be at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ActorId {
    Thread(u32),
    Coroutine(u64),
}

impl ActorId {
    pub(crate) fn of(at: &Moment) -> Self {
        if at.coroutine == 0 { Self::Thread(at.tid) } else { Self::Coroutine(at.coroutine) }
    }
}

/// What the last bytes that came in belong to.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// Empty: it is not known.
    pub nodes: Nodes,
    pub group: u64,
    pub turn: u32,
    /// Which event of which thread brought it.
    event: (u32, u32),
    /// The connection that brought it.
    pub conn: u64,
    /// What the same connection brought before in this turn, when nothing was done for that yet.
    before: Nodes,
    /// What other connections brought before in this turn, when nothing was done for that yet.
    pub unserved: Nodes,
    /// It came with the head of a message, not with more of its bytes.
    told: bool,
    /// Requests that were made for it so far.
    pub made: u32,
    /// Another was made go on for it.
    handed: bool,
    /// Another was made go on since.
    handed_on: bool,
    /// A response was sent since.
    pub answered: bool,
    /// The connection to which the last response since then was sent.
    pub answered_to: Option<u64>,
}

impl Current {
    /// Bytes of this moment brought `nodes`; nothing was done for them yet.
    fn new(at: &Moment, nodes: Nodes, group: u64) -> Self {
        Self {
            nodes,
            group,
            turn: at.turn,
            event: (at.tid, at.thread_event),
            conn: 0,
            before: Nodes::new(),
            unserved: Nodes::new(),
            told: false,
            made: 0,
            handed: false,
            handed_on: false,
            answered: false,
            answered_to: None,
        }
    }
}

/// Open requests that are remembered for a thread; one that has more is known not to block.
const MAX_OPEN: usize = 8;
/// Requests that came with one event and are told apart.
pub(super) const MAX_NODES: usize = 64;
/// Requests that a thread made for one that it answers.
const MAX_CALLS: usize = 64;
/// Timers are set in milliseconds, and loops look at the clock a moment before they wait.
const TIMER_SLACK_NS: u64 = 2_000_000;
/// What was lost may be worked on for so long by who waits for several things, ns.
const DOUBT_NS: u64 = 10_000_000_000;
/// Loops set no timer that is due before this time.
const SHORTEST_TIMER_NS: u64 = 1_000_000;

/// What is known of a thread or coroutine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actor {
    pub current: Option<Current>,
    /// Requests that came in on it and are not answered, with their connection.
    pub open: SmallVec<[(u64, u64); 2]>,
    /// More were open at some time than `open` can tell of, or one whose bytes were lost.
    pub unsure: bool,
    /// When that was found last, ns.
    pub unsure_ns: u64,
    /// Connections that may have brought it requests which are open and were not seen.
    pub unseen: u32,
    /// It took requests.
    pub serves: bool,
    /// It had requests of several connections open at a time.
    pub several: bool,
    /// It waits for whatever comes (epoll, poll, select).
    pub polls: bool,
    /// What its timers do are turns of their own.
    pub tells_timers: bool,
    /// The HTTP/2 session whose requests it sends next, where the connection of that is not known.
    pub sends: Option<u64>,
    /// It made requests before others were answered, or took several that are answered beside each other: it does not wait.
    pub overlaps: bool,
    /// The last request that it made, and the thread's event.
    pub asks: Option<(u64, (u32, u32))>,
    /// Requests that it made since it answered one, without those whose responses another reads.
    pub calls: SmallVec<[u64; 4]>,
    /// Time of its last event, ns; 0 for none.
    pub last_ns: u64,
    /// Requests that it read, and goroutines that it made for them.
    pub streams: Streams,
    /// The coroutine that made this one, and when, ns; 0 for none.
    pub maker: (u64, u64),
    /// The go statements that made this coroutine, one in the other; 0 for none.
    pub born_at: u32,
    /// The request that it was made for, until it is known to outlive that.
    pub made_for: Option<u64>,
    pub turn: u32,
    /// Not earlier than this did the wait begin that the present turn ended, ns.
    pub wait_began_ns: u64,
    /// Events of the present turn that brought bytes.
    pub came: u32,
    /// Time of the first event of the present turn, ns.
    pub turn_began_ns: u64,
    pub woken: WakeUps,
    /// It was made go on, and has opened or looked at no connection since, and moved no bytes.
    pub begins: bool,
    /// What the work is for that it took from a queue; empty if it took none, or that is not known.
    pub task: Nodes,
    /// Client requests with evidence of the present turn that holds unless a timer was due, or with none but that a timer may have been.
    pub late: SmallVec<[(u64, Class); 2]>,
    /// The one thing that came last in a turn before, and that nothing was made for to its end.
    pub unused: Option<Node>,
}

impl Actor {
    /// It does something at this moment.
    pub(crate) fn acts(&mut self, at: &Moment) {
        if self.turn != at.turn {
            let unused = self.alone().filter(|(_, made)| *made == 0).map(|(node, _)| node);
            self.turn = at.turn;
            self.wait_began_ns = self.last_ns;
            self.turn_began_ns = at.time_ns;
            self.came = 0;
            self.sends = None;
            self.late.clear();
            self.unused = unused.or(self.unused);
        }
        self.last_ns = at.time_ns;
        self.polls |= at.wait != Wait::Unknown;
        self.tells_timers |= at.wait == Wait::Timers;
        self.woken.used();
        self.begins = false;
    }

    /// It waits for several things at a time, so that what runs need not be for the request that it has open.
    pub(crate) fn loops(&self) -> bool {
        self.several || self.polls
    }

    /// A timer may have been due by now, so that what runs need not come from the last bytes.
    pub(crate) fn timer_due(&self, at: &Moment) -> bool {
        match at.wait {
            Wait::Timers => false,
            _ if self.tells_timers => false,
            // Timers are looked at before the next wait too, so one that this turn set may be due at the end of it.
            Wait::Forever => {
                self.turn == at.turn && at.time_ns.saturating_sub(self.turn_began_ns) >= SHORTEST_TIMER_NS
            }
            Wait::Until(ms) => {
                at.time_ns.saturating_add(TIMER_SLACK_NS)
                    >= self.wait_began_ns.saturating_add(u64::from(ms) * 1_000_000)
            }
            Wait::Unknown | Wait::Look => true,
        }
    }

    /// What it does at this moment is not what a timer was for.
    pub(crate) fn is_untimed(&self, at: &Moment) -> bool {
        at.wait != Wait::Timers && !self.timer_due(at)
    }

    /// Bytes come in. Loops look at timers behind all that came, so that none was before; gives what that makes certain.
    pub(crate) fn no_timer(&mut self) -> SmallVec<[(u64, Class); 2]> {
        std::mem::take(&mut self.late)
    }

    /// The one thing that the bytes before brought in this turn, and how many requests were made for that.
    pub(crate) fn alone(&self) -> Option<(Node, u32)> {
        let current = self.current.as_ref().filter(|current| current.turn == self.turn && current.told)?;
        match *current.nodes.as_slice() {
            [node] if self.serves && !current.answered => Some((node, current.made)),
            _ => None,
        }
    }

    /// These came, one request, and nothing else did in this turn.
    pub(crate) fn brought_only(&self, at: &Moment, came: &Nodes) -> bool {
        came.len() == 1 && self.came == 1 && self.current(at).is_some_and(|current| current.nodes == *came)
    }

    /// This event brought bytes, and it was not told that it brings this.
    pub(crate) fn brings_more(&self, at: &Moment, node: Node) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let told = current.told && current.nodes.contains(&node);
            current.event == (at.tid, at.thread_event) && !told
        })
    }

    /// Bytes came in that belong to `nodes`, or to something unknown.
    pub(crate) fn bytes(&mut self, at: &Moment, conn: u64, nodes: Nodes, group: u64) {
        self.came += 1;
        let (mut before, mut unserved) = (Nodes::new(), Nodes::new());
        if let Some(last) = self.current.take().filter(|last| last.turn == at.turn && last.made == 0) {
            let brought = if last.told { last.nodes } else { last.before };
            if last.conn == conn {
                (before, unserved) = (brought, last.unserved);
            } else if !last.answered && !last.handed_on {
                unserved = last.unserved;
                unserved.extend(brought);
                unserved.truncate(MAX_NODES);
            }
        }
        self.current = Some(Current { conn, before, unserved, ..Current::new(at, nodes, group) });
        self.woken.clear();
    }

    /// The head of a message came in. Says with which group, and how many came with that so far.
    pub(crate) fn head(&mut self, at: &Moment, node: Node, group: u64) -> (u64, usize) {
        let event = (at.tid, at.thread_event);
        if let Some(current) = &mut self.current
            && current.event == event
        {
            if !current.told {
                current.told = true;
                current.nodes = std::mem::take(&mut current.before);
            }
            if current.nodes.len() < MAX_NODES {
                current.nodes.push(node);
            }
            return (current.group, current.nodes.len());
        }
        let nodes = Nodes::from_iter([node]);
        self.current = Some(Current { told: true, ..Current::new(at, nodes, group) });
        self.woken.clear();
        (group, 1)
    }

    /// A request of this connection is open from now on.
    pub(crate) fn opens(&mut self, span: u64, conn: u64, at: &Moment) {
        self.serves = true;
        self.several |= self.open.iter().any(|&(_, other)| other != conn);
        // Who waits for several things may be at one that was not seen yet.
        let past = !self.polls || at.time_ns.saturating_sub(self.unsure_ns) > DOUBT_NS;
        if !self.several && self.open.is_empty() && past {
            self.unsure = false;
        }
        if self.open.len() < MAX_OPEN {
            self.open.push((span, conn));
        } else {
            self.unsure = true;
        }
    }

    /// It may be at work on something that is not known.
    pub(crate) fn doubts(&mut self, at: &Moment) {
        (self.unsure, self.unsure_ns) = (true, at.time_ns);
    }

    /// A request is answered, or given up.
    pub(crate) fn closes(&mut self, span: u64) {
        self.open.retain(|(open, _)| *open != span);
        if let Some(current) = &mut self.current {
            current.answered = true;
            current.nodes.retain(|node| *node != Node::Server(span));
        }
        // What one request's calls brought is not what the next request of the connection is at.
        let calls = |current: &Current| matches!(current.nodes.first(), Some(Node::Client(_)));
        if !self.several && !self.overlaps && self.current.as_ref().is_some_and(calls) {
            self.current = None;
        }
    }

    /// Nothing is known any more of what it is at work on.
    pub(crate) fn forgets(&mut self) {
        self.current = None;
        self.sends = None;
        self.woken.clear();
        self.task.clear();
        self.calls.clear();
    }

    /// Its task is done: the next thing that it does is another's, unless a queue said what that is.
    pub(crate) fn finishes(&mut self) {
        if !self.serves {
            self.current = None;
            self.woken.clear();
        }
    }

    /// It took work from a queue. Who has requests of its own takes other things too: connections, answers.
    pub(crate) fn takes(&mut self, nodes: Nodes) {
        self.finishes();
        if !self.serves {
            self.task = nodes;
        }
    }

    /// It begins to answer a request that another read.
    pub(crate) fn answers(&mut self, nodes: Nodes) {
        self.forgets();
        self.made_for = None;
        self.wakes(nodes, 0, Waking::Coroutine, false, 0);
    }

    /// Another made it go on.
    pub(crate) fn wakes(&mut self, nodes: Nodes, futex: u64, how: Waking, vague: bool, made_at: u32) {
        if !self.woken.add(nodes, futex, how, vague, made_at) {
            return;
        }
        if !self.serves {
            self.current = None;
        }
        self.begins = true;
    }

    /// What the bytes belong to that came in last, if it still is at that.
    pub(crate) fn current(&self, at: &Moment) -> Option<&Current> {
        self.current.as_ref().filter(|current| current.turn == at.turn || at.coroutine != 0 && !self.several)
    }

    /// The request that it must be at work on, because it has no other.
    pub(crate) fn only_open(&self) -> Option<u64> {
        match *self.open.as_slice() {
            _ if self.unseen > 0 => None,
            [(span, _)] if !self.unsure => Some(span),
            // Who waits for each answer works on one request after the other, in the order in which a connection brought them.
            [(span, _), ..] if !self.unsure && !self.several && !self.overlaps => Some(span),
            _ => None,
        }
    }

    /// How far a response that it sends now proves what it was at before.
    pub(crate) fn answer_class(&self, at: &Moment) -> Class {
        if at.coroutine != 0 && !self.several {
            Class::Coroutine
        } else if !self.serves || self.loops() && self.timer_due(at) {
            Class::LateAnswer
        } else {
            Class::Answer
        }
    }

    /// What speaks for whatever it does now, best first.
    pub(crate) fn pieces(&self, at: &Moment) -> SmallVec<[Evidence; 2]> {
        let mut out = SmallVec::new();
        let mut add = |nodes: &Nodes, class, rule, position, group, unserved: &Nodes| {
            if !nodes.is_empty() {
                let (nodes, unserved) = (nodes.clone(), unserved.clone());
                out.push(Evidence { position, group, unserved, ..Evidence::new(nodes, class, rule) });
            }
        };
        let none = Nodes::new();
        if !self.serves {
            add(&self.task, Class::Task, Rule::Handoff, 0, 0, &none);
        }
        let by_timer = self.several && at.wait == Wait::Timers;
        let only = self.only_open().filter(|_| !by_timer).map(|span| Nodes::from_iter([Node::Server(span)]));
        if let Some(current) = self.current(at) {
            let class = if at.coroutine != 0 && !self.several {
                Class::Coroutine
            } else if !self.serves {
                Class::Pool
            } else if self.loops() && self.timer_due(at) {
                Class::LateTurn
            } else if self.came == 1 && current.nodes.len() == 1 {
                Class::LoneTurn
            } else {
                Class::Turn
            };
            let rule = match current.nodes.first() {
                _ if class == Class::Coroutine => Rule::Coroutine,
                Some(Node::Client(_)) => Rule::Socket,
                _ => Rule::Turn,
            };
            let unserved = if class == Class::Coroutine { &none } else { &current.unserved };
            add(&current.nodes, class, rule, current.made, current.group, unserved);
        } else if let (false, Some(current)) = (self.serves, &self.current) {
            add(&current.nodes, Class::Pool, Rule::Socket, current.made, current.group, &none);
        }
        if let Some(only) = &only {
            let (class, rule) = match (self.several, at.coroutine) {
                (true, _) => (Class::OnlyOpen, Rule::Thread),
                (false, 0) if self.open.len() > 1 => (Class::FirstOpen, Rule::Thread),
                (false, 0) => (Class::Blocking, Rule::Thread),
                (false, _) => (Class::Coroutine, Rule::Coroutine),
            };
            add(only, class, rule, 0, 0, &none);
        }
        if out.is_empty() && !self.several {
            out.extend(self.woken_piece());
        }
        out
    }

    fn woken_piece(&self) -> Option<Evidence> {
        let nodes = self.woken.nodes();
        let (class, rule) = match self.woken.is_by_coroutines() {
            true => (Class::Coroutine, Rule::Coroutine),
            false => (Class::Woken, Rule::Handoff),
        };
        let made_at = self.woken.made_at();
        (!nodes.is_empty()).then_some(Evidence { made_at, ..Evidence::new(nodes, class, rule) })
    }

    /// A request was made, or one was answered that came with others.
    pub(crate) fn made_one(&mut self) {
        if let Some(current) = &mut self.current {
            current.made += 1;
        }
    }

    /// It is about to make a request.
    pub(crate) fn asks(&mut self, span: u64, at: &Moment) {
        let event = (at.tid, at.thread_event);
        self.overlaps |= self.asks.is_some_and(|(_, other)| other != event);
        self.asks = Some((span, event));
        if self.calls.len() == MAX_CALLS {
            self.calls.remove(0);
        }
        self.calls.push(span);
    }

    /// It answers a request. Gives those that it made for that, if it waits for each response before it goes on.
    pub(crate) fn calls_before(&mut self, at: &Moment) -> SmallVec<[u64; 4]> {
        let calls = std::mem::take(&mut self.calls);
        if self.polls || self.overlaps || at.coroutine != 0 { SmallVec::new() } else { calls }
    }

    /// A request that it made has its answer, or will have none.
    pub(crate) fn answered(&mut self, span: u64) {
        if self.asks.is_some_and(|(asked, _)| asked == span) {
            self.asks = None;
        }
    }

    /// It made another go on. Who only reads for others gives each thing that comes to one of them; what it does then comes from
    /// elsewhere: a connection that is open, a request that another wants sent.
    pub(crate) fn handed_on(&mut self) {
        if let Some(current) = &mut self.current {
            current.handed = self.polls && !self.serves;
            current.handed_on = true;
        }
    }

    /// What it hands on may not be what those are made go on for.
    pub(crate) fn is_vague(&self, at: &Moment) -> bool {
        at.coroutine == 0 && self.at_woken() && (self.polls || !self.woken.is_sure())
    }

    /// Nothing but what it was made go on for says what it is at.
    pub(crate) fn at_woken(&self) -> bool {
        self.current.is_none() && self.only_open().is_none() && !self.serves && self.task.is_empty()
    }

    /// The go statements that what it is at rests on; 0 for none.
    pub(crate) fn made_at(&self) -> u32 {
        if self.at_woken() { self.woken.made_at() } else { 0 }
    }

    /// It was made go on for one thing, and has done nothing since.
    pub(crate) fn begins_one(&self) -> bool {
        self.begins && self.woken.is_sure() && self.woken.nodes().len() == 1
    }

    /// What those are given that it makes go on: the one thing that it is at, or all that it may be at.
    pub(crate) fn hands_on(&self, at: &Moment) -> Nodes {
        if let Some(current) = self.current(at) {
            return if current.handed { Nodes::new() } else { current.nodes.clone() };
        }
        if let Some(span) = self.only_open() {
            return Nodes::from_iter([Node::Server(span)]);
        }
        if self.serves {
            return Nodes::new();
        }
        match &self.current {
            // Who waits for whatever comes is done with what came before.
            Some(_) if self.polls => Nodes::new(),
            Some(current) => current.nodes.clone(),
            None if !self.task.is_empty() => self.task.clone(),
            None => self.woken.nodes(),
        }
    }
}

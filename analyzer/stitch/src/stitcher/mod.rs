//! Gives each span the key of its trace while it is on its way to the store.
//!
//! Takes in spans in any order; hands on a key for each, and the pairs of keys that turned out to be one trace after rows had
//! been written under both. Everything is bounded by time and count, and what was given up is counted. No clock: the owner says
//! when time has passed.
//!
//! Spans are one trace when they are one exchange seen at two points ([`crate::facts`]), when one is the parent of the other in
//! a process, or when they carry the same trace id or request id.
//!
//! | module | what |
//! |---|---|
//! | `components` | disjoint sets of spans |
//! | `generations` | maps that forget |

mod components;
mod generations;

use crate::facts::{Facts, Key, hash_of, usable_id};
use components::{Components, State};
use generations::Generations;
use wirespan_records::{Merge, ObservationPoint, Rule, Signal, Span, TraceKey};

/// Keys made of trace ids have this bit; ids of rows, which are keys of the others, begin with the second of their making.
const WIRE_KEY: u64 = 1 << 63;

/// The key of the trace that a trace id in a header names; the same in every process.
pub fn wire_key(trace_id: &str) -> u64 {
    hash_of(&trace_id) | WIRE_KEY
}

/// Whether a key is made of a trace id. Otherwise it is the id of a span of the trace.
pub fn is_wire_key(key: u64) -> bool {
    key & WIRE_KEY != 0
}

/// Bounds of a [`Stitcher`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Points of exchanges that are remembered, times two: each is found by both its sequence numbers.
    pub exchanges: usize,
    /// Ids of spans, traces and requests that are remembered, times two.
    pub names: usize,
    /// Sets of spans that are remembered.
    pub sets: usize,
    /// Spans of one trace that are joined; what comes later is a trace of its own unless a trace id names it.
    pub trace_spans: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { exchanges: 524_288, names: 524_288, sets: 524_288, trace_spans: 50_000 }
    }
}

/// What became of the spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Taken in.
    pub spans: u64,
    /// Of these, those that belonged to a span taken in before.
    pub joined: u64,
    /// Points, ids and sets that are remembered now.
    pub remembered: u64,
    /// Points and ids that were forgotten, by age or for want of room.
    pub forgotten: u64,
    /// Joins that were given up because the trace would have had too many spans.
    pub too_large: u64,
    /// Keys that turned out to be of one trace after rows had been written under them.
    pub merges: u64,
}

/// What a span is waiting with for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// A point that saw an exchange.
struct Seen {
    facts: Facts,
    set: u64,
}

/// See the module.
pub struct Stitcher {
    sets: Components,
    exchanges: Generations<Key, Seen>,
    names: Generations<u64, u64>,
    merges: Vec<Merge>,
    limits: Limits,
    stats: Stats,
}

impl Stitcher {
    /// Knows nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            sets: Components::new(limits.sets),
            exchanges: Generations::new(limits.exchanges),
            names: Generations::new(limits.names),
            merges: Vec::new(),
            stats: Stats::default(),
            limits,
        }
    }

    /// Takes in a span that has its id.
    pub fn add(&mut self, span: &Span) -> Ticket {
        // Taps may be of devices with clocks of their own.
        let facts = Facts::of(span, u32::from(span.tap));
        let mut set = None;
        // The keys under which the exchange is not known yet.
        let mut new = [None; 2];
        for (key, new) in facts.keys().zip(&mut new) {
            match self.known(&facts, key) {
                Ok(known) => set = self.join(set, known),
                Err(key) => *new = Some(key),
            }
        }
        let names = names(span);
        let wire = usable_id(span.trace_id.as_deref());
        let mut wire_is_new = true;
        for (name, is_wire) in names.into_iter().zip([false, false, true, false]) {
            let Some(known) = name.and_then(|name| self.names.get_mut(name)).map(|set| *set) else {
                continue;
            };
            set = self.join(set, known);
            wire_is_new &= !is_wire || set.is_none();
        }
        self.stats.spans += 1;
        self.stats.joined += u64::from(set.is_some());
        let mut set = set.unwrap_or_else(|| self.sets.push(State::default()));
        let mut state = self.sets.state(set);
        if state.spans >= self.limits.trace_spans {
            self.stats.too_large += 1;
            set = self.sets.push(State::default());
            state = State::default();
        }
        state.spans += 1;
        if let Some(id) = wire.filter(|_| wire_is_new || state.wire == 0) {
            state = self.with_wire_key(state, wire_key(id));
        }
        self.sets.set_state(set, state);
        for key in new.into_iter().flatten() {
            self.stats.forgotten += self.exchanges.insert(key, Seen { facts, set }) as u64;
        }
        for name in names.into_iter().flatten() {
            self.stats.forgotten += self.names.insert(name, set) as u64;
        }
        Ticket(set)
    }

    /// The key that a span is written with. `id` is its own.
    pub fn settle(&mut self, ticket: Ticket, id: u64) -> TraceKey {
        // Forgotten means that so many came meanwhile that nothing is known of it any more.
        let Some(set) = self.sets.find(ticket.0) else { return TraceKey { key: id, traced: false } };
        let mut state = self.sets.state(set);
        let key = if state.key() != 0 { state.key() } else { id };
        state.written = key;
        self.sets.set_state(set, state);
        TraceKey { key, traced: state.spans > 1 }
    }

    /// Keys that turned out to be of one trace since the last call.
    pub fn take_merges(&mut self) -> Vec<Merge> {
        std::mem::take(&mut self.merges)
    }

    /// A generation has passed: what was not used since the one before is forgotten.
    pub fn turn(&mut self) {
        self.stats.forgotten += (self.exchanges.turn() + self.names.turn()) as u64;
    }

    /// What became of the spans so far.
    pub fn stats(&self) -> Stats {
        let remembered = self.exchanges.len() + self.names.len() + self.sets.len();
        Stats { remembered: remembered as u64, ..self.stats }
    }

    /// The set of an exchange that is known by `key`; else the key that it is to be known by.
    fn known(&mut self, facts: &Facts, mut key: Key) -> Result<u64, Key> {
        loop {
            let Some(seen) = self.exchanges.get_mut(key) else { return Err(key) };
            if seen.facts.alike(facts).is_none() {
                return Err(key);
            }
            if !seen.facts.is_apart(facts) {
                seen.facts.complete_with(facts);
                return Ok(seen.set);
            }
            key = facts.elsewhere(key);
        }
    }

    /// The set of a span that belongs to `set` and to `known`.
    fn join(&mut self, set: Option<u64>, known: u64) -> Option<u64> {
        let Some(known) = self.sets.use_set(known) else { return set };
        // Renewing `known` may have moved the other one out.
        let Some(set) = set.and_then(|set| self.sets.find(set)) else { return Some(known) };
        if set == known {
            return Some(set);
        }
        let (a, b) = (self.sets.state(set), self.sets.state(known));
        if a.spans.saturating_add(b.spans) > self.limits.trace_spans {
            self.stats.too_large += 1;
            return Some(set);
        }
        let state = self.united(a, b);
        Some(self.sets.join(set, known, state))
    }

    /// The state of two sets that are one. The key of the larger one stays, but one made of a trace id goes first.
    fn united(&mut self, a: State, b: State) -> State {
        let rank = |s: &State| (s.wire != 0, s.written != 0, s.spans);
        let (first, second) = if rank(&a) >= rank(&b) { (a, b) } else { (b, a) };
        self.merge(second.written, first.key());
        self.merge(second.wire, first.key());
        let any_written = first.written != 0 || second.written != 0;
        State {
            spans: a.spans.saturating_add(b.spans),
            written: if any_written { first.key() } else { 0 },
            wire: first.wire,
        }
    }

    fn with_wire_key(&mut self, state: State, wire: u64) -> State {
        match state.wire {
            0 => {
                self.merge(state.written, wire);
                State { wire, written: if state.written == 0 { 0 } else { wire }, ..state }
            }
            known => {
                self.merge(wire, known);
                state
            }
        }
    }

    fn merge(&mut self, from: u64, to: u64) {
        if from != 0 && from != to && self.merges.last() != Some(&Merge { from, to }) {
            self.stats.merges += 1;
            self.merges.push(Merge { from, to });
        }
    }
}

/// Ids that only spans of one trace have in common: of the server's span that others name as their parent, of the parent, of
/// the trace and of the request.
fn names(span: &Span) -> [Option<u64>; 4] {
    let in_process = span.signal != Signal::Packet;
    let own = in_process && span.observation_point == ObservationPoint::ServerProcess;
    [
        own.then(|| hash_of(&(0u8, span.id))),
        span.parent.filter(|p| p.rule != Rule::Guess).map(|p| hash_of(&(0u8, p.span))),
        usable_id(span.trace_id.as_deref()).map(|id| hash_of(&(1u8, id))),
        usable_id(span.x_request_id.as_deref()).map(|id| hash_of(&(2u8, id))),
    ]
}

#[cfg(test)]
mod tests;

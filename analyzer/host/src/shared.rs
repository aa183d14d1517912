//! What all conversations share: the two engines, the spans that wait, time and counters.

use crate::context::{Context, Decision, Happening, Moment};
use crate::desk::Desk;
use crate::host::{HostConfig, Stats};
use wirespan_event::{Clock, Header};
use wirespan_l7::{Chunk, Engine, FlowContext, Heard, Side, SpanSink, Stream};
use wirespan_records::{L7Counts, Span};

/// Threads of which it is remembered that events were lost.
const MAX_LOSSES: usize = 16_384;
/// What a thread has at hand it works on within this time, ns, also where it never waits for several sockets.
const AT_HAND_NS: u64 = 1_000_000_000;

pub(crate) struct Shared {
    pub clock: Clock,
    /// Time of the newest event that was looked at, or later.
    pub now_ns: u64,
    pub stats: Stats,
    pub desk: Desk,
    /// What the L7 engine said and was not gone on with.
    pub outputs: Outputs,
    engine: Engine,
    context: Context,
    decisions: Vec<Decision>,
    counts: L7Counts,
    /// Threads of which events were lost.
    losses: hashbrown::HashMap<u32, Loss, foldhash::fast::RandomState>,
}

/// The first event behind the last ones of a thread that were lost.
struct Loss {
    time_ns: u64,
    turn: u32,
}

/// What the L7 engine said.
pub(crate) enum Output {
    /// A message, and the side of the client.
    Heard(Side, Heard),
    /// The side of the client, and whether it may have requests open that were not seen.
    Unseen(Side, bool),
    Span(Box<Span>),
}

/// What the L7 engine said, in order.
#[derive(Default)]
pub(crate) struct Outputs(Vec<Output>);

impl Outputs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Output> {
        self.0.drain(..)
    }
}

impl SpanSink for Outputs {
    fn span(&mut self, span: Span) {
        self.0.push(Output::Span(Box::new(span)));
    }

    fn message(&mut self, _: &FlowContext, client: Side, message: Heard) {
        self.0.push(Output::Heard(client, message));
    }

    fn unseen(&mut self, _: &FlowContext, client: Side, unseen: bool) {
        self.0.push(Output::Unseen(client, unseen));
    }
}

impl Shared {
    pub(crate) fn new(config: &HostConfig) -> Self {
        let l7 = wirespan_l7::Config { messages: true, cautious: true, ..config.l7.clone() };
        Self {
            clock: config.clock,
            now_ns: 0,
            stats: Stats::default(),
            desk: Desk::new(config.max_parent_wait_ns, config.max_waiting_spans),
            outputs: Outputs::default(),
            engine: Engine::new(l7),
            context: Context::new(config.context),
            decisions: Vec::new(),
            counts: L7Counts::default(),
            losses: hashbrown::HashMap::default(),
        }
    }

    /// See [`Stats::unpaired`].
    pub(crate) fn unpaired(&self) -> u64 {
        self.engine.stats().unpaired
    }

    /// Events of a thread were lost before this one.
    pub(crate) fn lost_before(&mut self, header: &Header) {
        if self.losses.len() >= MAX_LOSSES {
            self.losses.clear();
        }
        self.losses.insert(header.tid, Loss { time_ns: header.exit_ns, turn: header.turn });
    }

    /// Events of a thread were lost before this time, if any were; else 0.
    pub(crate) fn lost_ns(&self, tid: u32) -> u64 {
        self.losses.get(&tid).map_or(0, |loss| loss.time_ns)
    }

    /// Events of a thread were lost that may be of this turn of it.
    pub(crate) fn is_unsure(&self, tid: u32, turn: u32) -> bool {
        let loss = self.losses.get(&tid).filter(|loss| loss.turn == turn);
        loss.is_some_and(|loss| self.now_ns < loss.time_ns.saturating_add(AT_HAND_NS))
    }

    /// A thread is no more.
    pub(crate) fn exit(&mut self, tid: u32) {
        self.losses.remove(&tid);
    }

    /// Tells the context engine, for whom time never goes back.
    pub(crate) fn happen(&mut self, at: &Moment, what: Happening<'_>) {
        self.now_ns = self.now_ns.max(at.time_ns);
        let at = Moment { time_ns: self.now_ns, ..*at };
        self.context.happen(&at, what, &mut self.decisions);
        self.decide();
    }

    /// It is `now_ns`.
    pub(crate) fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.context.advance(self.now_ns, &mut self.decisions);
        self.decide();
        self.desk.expire(self.now_ns);
    }

    /// Nothing will happen any more.
    pub(crate) fn finish(&mut self) {
        self.context.finish(&mut self.decisions);
        self.decide();
        self.desk.expire(u64::MAX);
    }

    fn decide(&mut self) {
        for decision in self.decisions.drain(..) {
            self.desk.decide(decision);
        }
    }

    pub(crate) fn data(&mut self, stream: &mut Stream, flow: &FlowContext, side: Side, chunk: Chunk<'_>) {
        self.engine.data(stream, flow, side, chunk, &mut self.counts, &mut self.outputs);
    }

    pub(crate) fn gap(&mut self, stream: &mut Stream, flow: &FlowContext, side: Side, missing: u64) {
        self.engine.gap(stream, flow, side, missing, &mut self.counts, &mut self.outputs);
    }

    pub(crate) fn sweep(&mut self, stream: &mut Stream, flow: &FlowContext) {
        let now_ns = self.clock.epoch_ns(self.now_ns);
        self.engine.sweep(stream, flow, now_ns, &mut self.counts, &mut self.outputs);
    }

    pub(crate) fn close(&mut self, stream: &mut Stream, flow: &FlowContext) {
        self.engine.close(stream, flow, &mut self.counts, &mut self.outputs);
    }
}

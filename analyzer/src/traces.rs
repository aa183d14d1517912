//! Spans on their way to the store wait a moment, so that the key of their trace is known when their rows are written.
//!
//! A request ends after the calls that were made for it, and each point of its path tells of it by itself. With a wait longer
//! than most traces, nearly all of them are written under one key; for the rest, the store learns which keys are one trace.

use crate::registry::{Counter, Registry};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use wirespan_records::{Merge, Span, TraceKey, next_id};
use wirespan_stitch::{Limits, Stitcher, Ticket};

/// How long spans wait.
const WAIT: Duration = Duration::from_secs(1);
/// Spans that wait at most; with more, the oldest go early.
const MAX_WAITING: usize = 65_536;
/// What is not used between two turns is forgotten.
const TURN: Duration = Duration::from_secs(30);

/// Spans that came together, and their tickets.
struct Waiting {
    since: Instant,
    spans: Vec<Span>,
    tickets: Vec<Ticket>,
}

/// Gives spans the keys of their traces.
pub struct Stitching {
    stitcher: Stitcher,
    waiting: VecDeque<Waiting>,
    waiting_spans: usize,
    turned: Instant,
}

impl Stitching {
    /// Knows no trace yet.
    pub fn new(now: Instant) -> Self {
        Self {
            stitcher: Stitcher::new(Limits::default()),
            waiting: VecDeque::new(),
            waiting_spans: 0,
            turned: now,
        }
    }

    /// Takes spans in. Those without an id get one.
    pub fn take(&mut self, mut spans: Vec<Span>, now: Instant) {
        if spans.is_empty() {
            return;
        }
        if now.saturating_duration_since(self.turned) >= TURN {
            self.stitcher.turn();
            self.turned = now;
        }
        for span in spans.iter_mut().filter(|span| span.id == 0) {
            span.id = next_id();
        }
        let tickets = spans.iter().map(|span| self.stitcher.add(span)).collect();
        self.waiting_spans += spans.len();
        self.waiting.push_back(Waiting { since: now, spans, tickets });
    }

    /// Hands on the spans that waited long enough, then the pairs of keys that turned out to be one trace.
    pub fn hand_on(&mut self, now: Instant, spans: impl FnMut(&[Span], &[TraceKey])) -> Vec<Merge> {
        self.hand_on_if(spans, |waiting, all| {
            all > MAX_WAITING || now.saturating_duration_since(waiting.since) >= WAIT
        })
    }

    /// The same for all spans.
    pub fn hand_on_all(&mut self, spans: impl FnMut(&[Span], &[TraceKey])) -> Vec<Merge> {
        self.hand_on_if(spans, |_, _| true)
    }

    fn hand_on_if(
        &mut self,
        mut sink: impl FnMut(&[Span], &[TraceKey]),
        is_due: impl Fn(&Waiting, usize) -> bool,
    ) -> Vec<Merge> {
        while let Some(batch) = self.waiting.pop_front_if(|batch| is_due(batch, self.waiting_spans)) {
            self.waiting_spans -= batch.spans.len();
            let settle = |(span, ticket): (&Span, &Ticket)| self.stitcher.settle(*ticket, span.id);
            let keys: Vec<_> = batch.spans.iter().zip(&batch.tickets).map(settle).collect();
            sink(&batch.spans, &keys);
        }
        self.stitcher.take_merges()
    }
}

/// What `/metrics` says of traces.
pub struct TraceCounters {
    joined: Counter,
    merges: Counter,
    forgotten: Counter,
    too_large: Counter,
    remembered: Counter,
    waiting: Counter,
}

impl TraceCounters {
    /// Those of this process.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help, &[]);
        let gauge = |name, help| registry.gauge(name, help, &[]);
        Self {
            joined: counter("wirespan_trace_joined_total", "Spans that belonged to one taken in before."),
            merges: counter(
                "wirespan_trace_merges_total",
                "Keys that turned out to be one trace after rows had been written.",
            ),
            forgotten: counter(
                "wirespan_trace_forgotten_total",
                "Points and ids forgotten by age or for want of room.",
            ),
            too_large: counter(
                "wirespan_trace_too_large_total",
                "Joins given up because a trace was too large.",
            ),
            remembered: gauge(
                "wirespan_trace_remembered",
                "Points, ids and sets of spans that are remembered.",
            ),
            waiting: gauge("wirespan_trace_waiting", "Spans that wait for the key of their trace."),
        }
    }

    /// Shows the state of a [`Stitching`].
    pub fn set(&self, stitching: &Stitching) {
        let stats = stitching.stitcher.stats();
        self.joined.set(stats.joined);
        self.merges.set(stats.merges);
        self.forgotten.set(stats.forgotten);
        self.too_large.set(stats.too_large);
        self.remembered.set(stats.remembered);
        self.waiting.set(stitching.waiting_spans as u64);
    }
}

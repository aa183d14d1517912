//! Settings of a host and the way of its events.

mod stats;

pub use stats::Stats;

use crate::context::{ContextConfig, ProcessKey};
use std::sync::Arc;
use wirespan_event::{Clock, Event};
use wirespan_l7::SpanSink;
use wirespan_records::Process;

/// Limits and settings of a host.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// How the events' times lie to the time of day.
    pub clock: Clock,
    /// Events wait this long for others that happened before them, ns.
    pub watermark_ns: u64,
    /// Bytes of events that wait; beyond, the oldest are taken early.
    pub max_waiting_bytes: usize,
    /// Connections that are remembered.
    pub max_connections: usize,
    /// A complete span waits at most this long for its parent, ns.
    pub max_parent_wait_ns: u64,
    /// Spans that wait for their parent.
    pub max_waiting_spans: usize,
    /// Settings of the L7 engine; messages are always told.
    pub l7: wirespan_l7::Config,
    /// Settings of the context engine.
    pub context: ContextConfig,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            watermark_ns: 30_000_000,
            max_waiting_bytes: 32 << 20,
            max_connections: 65_536,
            max_parent_wait_ns: 2_000_000_000,
            max_waiting_spans: 262_144,
            l7: wirespan_l7::Config::default(),
            context: ContextConfig::default(),
        }
    }
}

/// Makes spans of processes from the events of one host.
pub struct Host {
    stats: Stats,
}

impl Host {
    /// A host of which nothing is known yet.
    pub fn new(_config: HostConfig) -> Self {
        Self { stats: Stats::default() }
    }

    /// The next event, roughly in order of time. It is looked at when [`Self::advance`] says that its time has come.
    pub fn event(&mut self, _event: &Event<'_>) {
        self.stats.events += 1;
    }

    /// What is known of a process. Spans that are handed on later carry it.
    pub fn process(&mut self, _key: ProcessKey, _process: Arc<Process>) {}

    /// The clocks lie differently to each other now; for spans that begin from now on.
    pub fn set_clock(&mut self, _clock: Clock) {}

    /// It is `now_boot_ns` by CLOCK_BOOTTIME: hands on what is ready. To be called at least every few 10 ms.
    pub fn advance(&mut self, _now_boot_ns: u64, _sink: &mut dyn SpanSink) {}

    /// No event will follow: hands on all that is left.
    pub fn finish(&mut self, _sink: &mut dyn SpanSink) {}

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}

//! Settings of a host and the way of its events.

mod stats;

pub use stats::Stats;

use crate::context::{self, ContextConfig};
use crate::numbers::Numbers;
use crate::order::Order;
use crate::tracker::Tracker;
use std::sync::Arc;
use wirespan_event::{Clock, Entry, Event, Header, ProcessKey, Source};
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
    /// Connections, and flows of datagrams, that are remembered.
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
    order: Order,
    numbers: Numbers,
    tracker: Tracker,
    /// Everything up to this time was taken.
    taken_ns: u64,
    watermark_ns: u64,
    max_waiting_bytes: usize,
    events: u64,
    late: u64,
    early: u64,
}

impl Host {
    /// A host of which nothing is known yet.
    pub fn new(config: HostConfig) -> Self {
        Self {
            order: Order::default(),
            numbers: Numbers::default(),
            tracker: Tracker::new(&config),
            taken_ns: 0,
            watermark_ns: config.watermark_ns,
            max_waiting_bytes: config.max_waiting_bytes,
            events: 0,
            late: 0,
            early: 0,
        }
    }

    /// What a source of events says next.
    pub fn entry(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Clock(clock) => self.set_clock(clock),
            Entry::Process(key, process) => self.process(key, Arc::clone(process)),
            Entry::Event(event) => self.event(&event),
            Entry::TlsUnseen(ProcessKey { tgid, start_ns }, library) => {
                self.tracker.shared.desk.tls_unseen(context::ProcessKey { tgid, start_ns }, library);
            }
            Entry::Gap => self.gap(),
        }
    }

    /// The next event, roughly in order of time. It is looked at when [`Self::advance`] says that its time has come.
    pub fn event(&mut self, event: &Event<'_>) {
        self.events += 1;
        let time_ns = order_ns(event.header);
        self.late += u64::from(time_ns < self.taken_ns);
        self.numbers.came(event.header.tid, event.header.thread_event);
        self.order.push(time_ns, event);
        while self.order.bytes() > self.max_waiting_bytes && self.take(u64::MAX) {
            self.early += 1;
        }
    }

    /// What is known of a process. Spans that are handed on later carry it.
    pub fn process(&mut self, key: ProcessKey, process: Arc<Process>) {
        let ProcessKey { tgid, start_ns } = key;
        self.tracker.shared.desk.process(context::ProcessKey { tgid, start_ns }, process);
    }

    /// The clocks lie differently to each other from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.tracker.shared.clock = clock;
    }

    /// It is `now_boot_ns` by CLOCK_BOOTTIME: hands on what is ready. To be called at least every few 10 ms.
    pub fn advance(&mut self, now_boot_ns: u64, sink: &mut dyn SpanSink) {
        let until_ns = now_boot_ns.saturating_sub(self.watermark_ns);
        while self.take(until_ns) {}
        self.taken_ns = self.taken_ns.max(until_ns);
        self.tracker.advance(self.taken_ns);
        self.tracker.shared.desk.hand_on(sink);
    }

    /// Things happened that are not told: nothing that was open is gone on with, so that nothing is taken for what it was before.
    pub fn gap(&mut self) {
        while self.take(u64::MAX) {}
        self.tracker.finish();
    }

    /// No event will follow: hands on all that is left.
    pub fn finish(&mut self, sink: &mut dyn SpanSink) {
        self.gap();
        self.tracker.shared.desk.hand_on(sink);
    }

    /// Looks at the oldest event that waits, if it counts from `until_ns` or before.
    fn take(&mut self, until_ns: u64) -> bool {
        let Some(slot) = self.order.pop(until_ns) else { return false };
        if let Some((header, payload)) = self.order.get(slot) {
            self.taken_ns = self.taken_ns.max(order_ns(&header));
            if self.numbers.lost_before(header.tid, header.thread_event) {
                self.tracker.lost_before(&header);
            }
            self.tracker.take(&Event { header: &header, payload });
        }
        self.order.release(slot);
        true
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let counted = self.tracker.shared.stats;
        let mut stats =
            Stats { events: self.events, late_events: self.late, early_events: self.early, ..counted };
        stats.unpaired = self.tracker.shared.unpaired();
        self.tracker.shared.desk.count(&mut stats);
        stats
    }
}

/// When an event is looked at. Calls of TLS libraries come behind the system calls that were made within them.
fn order_ns(header: &Header) -> u64 {
    match header.source() {
        Some(Source::OpenSsl | Source::GnuTls | Source::GoTls) => header.exit_ns,
        _ => header.time_ns(),
    }
}

//! What flows do in the current second. While a flow is active, its counters are those of the second; what it had counted
//! before waits here. So an idle flow costs nothing for its seconds.

use super::RecordSink;
use super::counts::Counts;
use super::entry::Entry;
use super::parts::Parts;
use super::slab::{NONE, Slab};
use wirespan_records::{CloseType, L7Counts};

/// A flow with packets in the current second, and what it had counted before.
struct Active {
    flow: u32,
    counts: Counts,
    requests: L7Counts,
}

/// The flows with packets in the current second.
pub(super) struct Seconds {
    active: Vec<Active>,
    second: u32,
}

impl Seconds {
    pub(super) fn new() -> Self {
        Self { active: Vec::new(), second: 0 }
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.active.capacity() * size_of::<Active>()
    }

    /// The current second, since the epoch.
    pub(super) fn second(&self) -> u32 {
        self.second
    }

    /// Packets of `second` follow. True when that is another one than before, whose flows are to be handed on first.
    #[inline]
    pub(super) fn is_over(&self, second: u32) -> bool {
        second != self.second
    }

    /// From now on the flow's counters are those of this second.
    #[inline]
    pub(super) fn activate(&mut self, number: u32, entry: &mut Entry, parts: &mut Parts) {
        if entry.active == NONE {
            entry.active = self.active.len() as u32;
            let counts = std::mem::take(&mut entry.counts);
            let requests = match entry.payload {
                NONE => L7Counts::default(),
                payload => std::mem::take(&mut parts.payloads[payload].counts),
            };
            self.active.push(Active { flow: number, counts, requests });
        }
    }

    /// Requests before this second.
    pub(super) fn requests_before(&self, entry: &Entry) -> L7Counts {
        self.active.get(entry.active as usize).map_or_else(L7Counts::default, |active| active.requests)
    }

    /// Bytes on the wire, with those before this second.
    pub(super) fn bytes_of(&self, entry: &Entry, parts: &Parts) -> u64 {
        let before =
            self.active.get(entry.active as usize).map_or(0, |active| active.counts.bytes(&parts.wide));
        before + entry.counts.bytes(&parts.wide)
    }

    /// Client and server turn out to be the other way round.
    pub(super) fn forget_responses(&mut self, entry: &Entry, parts: &mut Parts) {
        if let Some(active) = self.active.get_mut(entry.active as usize) {
            active.counts.forget_responses(&mut parts.wide);
        }
    }

    /// Hands on the current second of one flow, and adds it to what the flow had counted before.
    pub(super) fn end_of_flow(
        &mut self,
        entry: &mut Entry,
        closed: Option<CloseType>,
        parts: &mut Parts,
        sink: &mut dyn RecordSink,
    ) {
        let Some(active) = self.active.get_mut(entry.active as usize) else { return };
        active.flow = NONE;
        entry.active = NONE;
        let mut metrics = entry.counts.metrics(&parts.wide);
        let second = std::mem::replace(&mut entry.counts, active.counts);
        entry.counts.merge(second, &mut parts.wide);
        if entry.payload == NONE && active.requests != L7Counts::default() {
            entry.payload = parts.payloads.take();
        }
        if entry.payload != NONE {
            let requests = &mut parts.payloads[entry.payload].counts;
            metrics.l7 = std::mem::replace(requests, active.requests);
            requests.merge(&metrics.l7);
        }
        sink.tick(entry.tick(self.second, metrics, closed, parts));
    }

    /// Hands on the current second of every flow that was active in it; `second` begins.
    pub(super) fn end(
        &mut self,
        second: u32,
        flows: &mut Slab<Entry>,
        parts: &mut Parts,
        sink: &mut dyn RecordSink,
    ) {
        for at in 0..self.active.len() {
            let number = self.active[at].flow;
            if number != NONE {
                self.end_of_flow(&mut flows[number], None, parts, sink);
            }
        }
        self.active.clear();
        self.second = second;
    }
}

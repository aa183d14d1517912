//! Ids that requests carry, which the requests that are made for them carry too.

use super::ProcessState;
use crate::context::{ContextConfig, Decision};
use foldhash::HashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use wirespan_records::{Parent, Rule};

/// What one request carries.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Ids {
    trace: Option<Arc<str>>,
    request: Option<Arc<str>>,
}

impl Ids {
    pub(super) fn new(trace_id: Option<&str>, x_request_id: Option<&str>) -> Self {
        Self { trace: trace_id.map(Arc::from), request: x_request_id.map(Arc::from) }
    }

    fn of(&self, rule: Rule) -> Option<&Arc<str>> {
        if rule == Rule::WireId { self.trace.as_ref() } else { self.request.as_ref() }
    }

    /// It carries this id, of the kind that the rule is about.
    pub(in super::super) fn carry(&self, (rule, id): &(Rule, Arc<str>)) -> bool {
        self.of(*rule) == Some(id)
    }
}

/// The open requests that carry an id: thousands may be open, and each request that is made asks for its own.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    traces: HashMap<Arc<str>, SmallVec<[u64; 2]>>,
    requests: HashMap<Arc<str>, SmallVec<[u64; 2]>>,
}

impl Carriers {
    pub(super) fn of(&self, rule: Rule) -> &HashMap<Arc<str>, SmallVec<[u64; 2]>> {
        if rule == Rule::WireId { &self.traces } else { &self.requests }
    }

    /// A request is open from now on.
    pub(super) fn add(&mut self, span: u64, ids: &Ids) {
        for (spans, id) in [(&mut self.traces, &ids.trace), (&mut self.requests, &ids.request)] {
            if let Some(id) = id {
                spans.entry(Arc::clone(id)).or_default().push(span);
            }
        }
    }

    /// It is not open any more.
    pub(super) fn remove(&mut self, span: u64, ids: &Ids) {
        for (spans, id) in [(&mut self.traces, &ids.trace), (&mut self.requests, &ids.request)] {
            let Some(id) = id else { continue };
            let Some(carriers) = spans.get_mut(id) else { continue };
            carriers.retain(|carrier| *carrier != span);
            if carriers.is_empty() {
                spans.remove(id);
            }
        }
    }
}

impl ProcessState {
    /// Decides at once what carries the id of an open request.
    pub(super) fn same_ids(
        &mut self,
        config: &ContextConfig,
        span: u64,
        trace_id: Option<&str>,
        x_request_id: Option<&str>,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(client) = self.clients.get_mut(&span) else { return };
        for (allowed, rule, id) in [
            (config.rules.wire_id, Rule::WireId, trace_id),
            (config.rules.request_id, Rule::RequestId, x_request_id),
        ] {
            let (true, Some(id)) = (allowed, id) else { continue };
            let Some((id, carriers)) = self.carriers.of(rule).get_key_value(id) else { continue };
            if let [server] = carriers.as_slice() {
                let parent = Some(Parent { span: *server, rule, confidence: 1.0 });
                client.decided = Some(parent);
                decisions.push(Decision { client: span, parent });
                return;
            }
            client.carries.get_or_insert_with(|| (rule, Arc::clone(id)));
        }
    }
}

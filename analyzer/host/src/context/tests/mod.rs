//! The engine beside programs whose truth is known.

mod goroutines;
mod patterns;
mod pools;
mod programs;
mod streams;
mod threads;
mod timers;

use super::*;

/// Builds what happens in one process, in the order of time.
pub(super) struct Script {
    pub(super) context: Context,
    decisions: Vec<Decision>,
    pub(super) now_ns: u64,
    events: u32,
}

pub(super) const PEER: u64 = 9;

/// When something happens.
pub(super) trait When {
    fn moment(self, script: &mut Script) -> Moment;
}

/// With the same event as something else.
impl When for Moment {
    fn moment(self, _: &mut Script) -> Moment {
        self
    }
}

/// Next: a thread, its turn and how long the wait before that was to last.
impl When for (u32, u32, Wait) {
    fn moment(self, script: &mut Script) -> Moment {
        script.at(self.0, self.1, self.2)
    }
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with(Rules::BLIND)
    }

    pub(super) fn with(rules: Rules) -> Self {
        Self::of(ContextConfig { rules, ..ContextConfig::default() })
    }

    pub(super) fn of(config: ContextConfig) -> Self {
        Self { context: Context::new(config), decisions: Vec::new(), now_ns: 1_000_000, events: 0 }
    }

    /// What is known of the process.
    pub(super) fn process(&self) -> Option<&ProcessState> {
        self.context.processes.values().next()
    }

    /// A thread, its turn and how long the wait before it was to last.
    pub(super) fn at(&mut self, tid: u32, turn: u32, wait: Wait) -> Moment {
        self.now_ns += 1000;
        self.events += 1;
        let process = ProcessKey { tgid: 1, start_ns: 1 };
        let (time_ns, thread_event) = (self.now_ns, self.events);
        Moment { process, tid, turn, wait, time_ns, thread_event, ..Moment::default() }
    }

    pub(super) fn happen(&mut self, when: impl When, what: Happening<'_>) {
        let at = when.moment(self);
        self.context.advance(at.time_ns, &mut self.decisions);
        self.context.happen(&at, what, &mut self.decisions);
    }

    pub(super) fn serve(&mut self, when: impl When, span: u64, conn: u64) {
        let at = when.moment(self);
        self.happen(at, Happening::Data { conn, ingress: true, ahead: false });
        self.happen(
            at,
            Happening::ServerRequest {
                span,
                conn,
                stream: 0,
                beside: false,
                trace_id: None,
                x_request_id: None,
            },
        );
    }

    pub(super) fn ask(&mut self, when: impl When, span: u64, conn: u64) {
        let at = when.moment(self);
        self.happen(at, Happening::Data { conn, ingress: false, ahead: false });
        let (began, peer) = (at, PEER);
        self.happen(
            at,
            Happening::ClientRequest {
                span,
                conn,
                stream: 0,
                peer,
                began,
                trace_id: None,
                x_request_id: None,
            },
        );
    }

    pub(super) fn hear(&mut self, when: impl When, span: u64, conn: u64) {
        let at = when.moment(self);
        self.happen(at, Happening::Data { conn, ingress: true, ahead: false });
        self.happen(at, Happening::ClientResponse { span });
    }

    pub(super) fn answer(&mut self, when: impl When, span: u64, conn: u64) {
        let at = when.moment(self);
        self.happen(at, Happening::Data { conn, ingress: false, ahead: false });
        self.happen(at, Happening::ServerResponse { span });
    }

    /// Client spans with their parents; fails when one is decided twice.
    pub(super) fn parents(mut self) -> Vec<(u64, Option<u64>)> {
        self.context.finish(&mut self.decisions);
        let mut parents: Vec<_> =
            self.decisions.iter().map(|d| (d.client, d.parent.map(|parent| parent.span))).collect();
        parents.sort_unstable();
        let clients = parents.len();
        parents.dedup_by_key(|(client, _)| *client);
        assert_eq!(parents.len(), clients, "each client request is decided once");
        parents
    }

    /// Client spans linked with the right parent, whose id is one less, and with a wrong one.
    pub(super) fn linked(self) -> (usize, usize) {
        let parents = self.parents();
        let linked = |right| {
            let of =
                |(client, parent): &&(u64, Option<u64>)| parent.is_some_and(|p| (p + 1 == *client) == right);
            parents.iter().filter(of).count()
        };
        (linked(true), linked(false))
    }
}

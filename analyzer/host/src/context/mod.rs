//! For which request of its own a process made a request.
//!
//! Takes in [`Happening`]s in the order of time; hands on one [`Decision`] for every client request: the server request of
//! the same process for which it was made, with the rule that says so. Several candidates and no proof make no link.
//!
//! | module | what |
//! |---|---|
//! | [`happening`] | what the engine is told |

pub mod happening;

pub use happening::{Happening, Moment, ProcessKey, Wait};
use wirespan_records::Parent;

/// What a client request was made for; told exactly once for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Id of the client span.
    pub client: u64,
    /// The server span, unless none is proven.
    pub parent: Option<Parent>,
}

/// Which rules may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The same trace id in both requests.
    pub wire_id: bool,
    /// The same x-request-id in both requests.
    pub request_id: bool,
    /// The same goroutine.
    pub coroutine: bool,
    /// A response goes on with what its request was made for.
    pub socket: bool,
    /// The same thread between two waits.
    pub turn: bool,
    /// The only open request of the thread.
    pub thread: bool,
    /// Threads and goroutines that wake or make each other.
    pub handoff: bool,
}

impl Rules {
    /// All of them.
    pub const ALL: Self = Self {
        wire_id: true,
        request_id: true,
        coroutine: true,
        socket: true,
        turn: true,
        thread: true,
        handoff: true,
    };
    /// Without what is in the requests themselves: how much is known of programs that hand on no ids.
    pub const BLIND: Self = Self { wire_id: false, request_id: false, ..Self::ALL };
}

/// Rules and bounds of the engine.
#[derive(Clone, Copy, Debug)]
pub struct ContextConfig {
    /// Which rules may decide.
    pub rules: Rules,
    /// A decision waits for this long after its server request was answered, ns.
    pub grace_ns: u64,
    /// A decision waits at most this long after its client request, ns.
    pub max_wait_ns: u64,
    /// Processes that are remembered.
    pub max_processes: usize,
    /// Client requests of one process that wait for their decision, and server requests that are open.
    pub max_requests: usize,
    /// Threads and goroutines of one process that are remembered, and connections.
    pub max_actors: usize,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            rules: Rules::ALL,
            grace_ns: 200_000_000,
            max_wait_ns: 30_000_000_000,
            max_processes: 4096,
            max_requests: 4096,
            max_actors: 16_384,
        }
    }
}

/// The engine, for all processes of a host.
#[derive(Debug)]
pub struct Context {
    config: ContextConfig,
    waiting: Vec<(u64, u64)>,
}

impl Context {
    /// An engine that knows of nothing yet.
    pub fn new(config: ContextConfig) -> Self {
        Self { config, waiting: Vec::new() }
    }

    /// Something happened; times of later calls are not smaller.
    pub fn happen(&mut self, at: &Moment, what: Happening<'_>, decisions: &mut Vec<Decision>) {
        if let Happening::ClientRequest { span, .. } = what {
            self.waiting.push((span, at.time_ns + self.config.grace_ns));
        }
        self.advance(at.time_ns, decisions);
    }

    /// Time passed: decides what can wait no longer.
    pub fn advance(&mut self, now_ns: u64, decisions: &mut Vec<Decision>) {
        self.waiting.retain(|&(client, until_ns)| {
            let waits = until_ns > now_ns;
            if !waits {
                decisions.push(Decision { client, parent: None });
            }
            waits
        });
    }

    /// Decides all that is left.
    pub fn finish(&mut self, decisions: &mut Vec<Decision>) {
        self.advance(u64::MAX, decisions);
    }
}

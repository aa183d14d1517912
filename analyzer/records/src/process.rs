//! Processes, and for what they did what they did.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A process of a host, as it was when it was first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// In the host's pid namespace.
    pub pid: u32,
    /// When it began, ns since the epoch; tells processes apart that had the same pid.
    pub start_ns: u64,
    /// The program's name, such as `nginx` or `python3.11`.
    pub name: String,
    /// The program's file, as the process sees it.
    pub executable: String,
    /// Its command line, arguments separated by blanks.
    pub command: String,
    /// Id of its container, from the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<Arc<str>>,
    /// Uid of its pod, from the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Arc<str>>,
}

/// How it was found out what a request was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// An id in a header names the parent: traceparent, b3, sw8.
    WireId,
    /// The same x-request-id on both sides of a process.
    RequestId,
    /// The same goroutine, or one that it began.
    Coroutine,
    /// Context that came with the bytes of a socket: a response goes on with what its request was made for.
    Socket,
    /// The same thread between two waits.
    Turn,
    /// The only request that was open on this thread.
    Thread,
    /// A thread that was woken, or made, while it worked on the parent.
    Handoff,
    /// The same exchange, seen at the next point of its path.
    Path,
    /// Timing and content alone; never shown as fact.
    Guess,
}

impl Rule {
    /// Every rule, most trusted first.
    pub const ALL: [Self; 9] = [
        Self::WireId,
        Self::RequestId,
        Self::Coroutine,
        Self::Socket,
        Self::Turn,
        Self::Thread,
        Self::Handoff,
        Self::Path,
        Self::Guess,
    ];

    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WireId => "wire_id",
            Self::RequestId => "request_id",
            Self::Coroutine => "coroutine",
            Self::Socket => "socket",
            Self::Turn => "turn",
            Self::Thread => "thread",
            Self::Handoff => "handoff",
            Self::Path => "path",
            Self::Guess => "guess",
        }
    }
}

/// What a span was done for, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parent {
    /// `id` of the parent span.
    pub span: u64,
    /// How it was found.
    pub rule: Rule,
    /// From 0 to 1.
    pub confidence: f32,
}

impl Serialize for Parent {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut o = s.serialize_struct("Parent", 3)?;
        o.serialize_field("span", &self.span.to_string())?;
        o.serialize_field("rule", &self.rule)?;
        o.serialize_field("confidence", &self.confidence)?;
        o.end()
    }
}

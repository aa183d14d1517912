//! The answer to `GET /api/traces/ID`.

use crate::row::SpanRow;
use serde::{Deserialize, Serialize};
use wirespan_records::Rule;

/// One trace: a request and everything that was done for it, at every point where it was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The id in its trace headers; without one, `trace_key`.
    pub trace_id: String,
    /// wirespan's own name of the trace, 16 hex digits. Both are an ID of `GET /api/traces/ID`.
    pub trace_key: String,
    /// When its first span began, ns since the epoch.
    pub start_ns: u64,
    /// From there to the end of its last span, microseconds.
    pub duration_us: u64,
    /// In the order of the tree: a parent before its children, these in the order they began.
    pub spans: Vec<TraceSpan>,
    /// Exchanges, each with all points that saw it.
    pub paths: Vec<Path>,
    /// Where the time went.
    pub breakdown: Breakdown,
    /// What was left out, as a sentence; null when all is there.
    pub truncated: Option<String>,
}

/// A span in its trace. `start_ns` and `end_ns` are corrected by `clock_shift_us`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceSpan {
    /// As stored, with the observation point that its path proves.
    #[serde(flatten)]
    pub row: SpanRow,
    /// `id` of the span it was done for, or of the point before it on its path; null for roots.
    pub parent_id: Option<String>,
    /// How the parent was found; `path` for the next point of the same exchange.
    pub parent_rule: Option<Rule>,
    /// How sure that is, from 0 to 1.
    pub parent_confidence: Option<f32>,
    /// The part of its duration in which none of its children ran, microseconds.
    pub self_us: u64,
    /// 0 for roots.
    pub depth: u32,
    /// What was added to its times because its host's clock differs from that of the root's host, microseconds.
    pub clock_shift_us: i64,
    /// Its place in `paths`.
    pub path: usize,
}

/// One exchange seen at several points, or at one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// `id`s from the client to the server.
    pub spans: Vec<String>,
    /// From each point to the next.
    pub hops: Vec<Hop>,
}

/// From one point of a path to the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// `id` of the point nearer to the client.
    pub from: String,
    /// `id` of the point nearer to the server.
    pub to: String,
    /// There and back, microseconds: the difference of the two durations, which no clock offset can falsify. Null when one
    /// of them is no complete exchange.
    pub latency_us: Option<i64>,
    /// The request's way, microseconds; between two hosts it depends on the estimated clock offset.
    pub request_us: i64,
    /// The response's way back; null as `latency_us`.
    pub response_us: Option<i64>,
}

/// Where the time of a trace went, microseconds. Calls that run at the same time count each, so the sum may be longer than the
/// trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakdown {
    /// The answer was there and the client's process did not take it yet.
    pub client_process_us: u64,
    /// In the client's host, between the process and the outermost interface seen.
    pub client_node_us: u64,
    /// Between the hosts.
    pub network_us: u64,
    /// In the server's host, between the outermost interface seen and the process; waiting for the process is part of it.
    pub server_node_us: u64,
    /// The server's process worked, not waiting for calls of its own.
    pub server_process_us: u64,
    /// Behind the last point that saw the request, where the server's process was not traced.
    pub beyond_us: u64,
}

/// A trace in a list: a row of `GET /api/traces?last=15m`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// As [`Trace::trace_id`].
    pub trace_id: String,
    /// As [`Trace::trace_key`].
    pub trace_key: String,
    /// When its first span began, ns since the epoch.
    pub start_ns: u64,
    /// From there to the end of its last span, microseconds.
    pub duration_us: u64,
    /// How many there are.
    pub spans: u64,
    /// Of these, how many exchanges failed, as seen at all points.
    pub errors: u64,
    /// The span that began first; of several the longest.
    pub root: SummaryRoot,
    /// Servers that were asked: name, or address, and port.
    pub services: Vec<String>,
}

/// The first span of a trace in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SummaryRoot {
    /// Its `id`.
    pub id: String,
    /// Application protocol.
    pub l7_protocol: String,
    /// Method, command or query type.
    pub request_type: Option<String>,
    /// What requests are grouped by.
    pub endpoint: Option<String>,
    /// Server: name, or address, and port.
    pub server: String,
    /// How it ended.
    pub response_status: String,
    /// Status code.
    pub response_code: Option<i32>,
}

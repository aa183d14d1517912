//! Counters.

/// What became of the events and of the spans. All but [`Self::waiting_spans`] only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events given to the host.
    pub events: u64,
    /// Events of a kind or source that this version does not know.
    pub unknown_events: u64,
    /// Events that came more than the watermark after they happened: what happened after them was looked at before.
    pub late_events: u64,
    /// Events that were looked at before the watermark had passed, because too many waited.
    pub early_events: u64,
    /// Times that events of a thread were missing before another.
    pub losses: u64,
    /// Bytes that went through sockets and TLS libraries by events.
    pub bytes: u64,
    /// Bytes of them whose content did not come with the event.
    pub unseen_bytes: u64,
    /// Bytes on TCP connections that no event told of.
    pub lost_bytes: u64,
    /// Bytes that two events told of.
    pub repeated_bytes: u64,
    /// Events whose place on the stream was not certain, so that their content was left out.
    pub ambiguous_events: u64,
    /// Events that waited for another one of their connection, which came before them on the stream.
    pub held_events: u64,
    /// Connections and flows of datagrams that were forgotten because there were too many, or because nothing came for long.
    pub evicted_connections: u64,
    /// Messages that were understood.
    pub messages: u64,
    /// Messages of which it is not known by which event they came.
    pub messages_without_event: u64,
    /// Responses that were taken apart from a request which they cannot answer: it was not read when they were written.
    pub mispaired: u64,
    /// Requests and responses told apart, because others may have been open when their connection was seen first.
    pub unpaired: u64,
    /// Spans handed on.
    pub spans: u64,
    /// Of them, without the process, which nobody told of.
    pub spans_without_process: u64,
    /// Client spans handed on before it was decided for what they were made.
    pub spans_undecided: u64,
    /// Spans that wait for their parent or their place.
    pub waiting_spans: u64,
    /// TLS sessions seen.
    pub tls_sessions: u64,
    /// Of them, bound to a socket because a system call on it was made within the library's call.
    pub tls_bound_by_nesting: u64,
    /// Of them, bound to a socket by thread, turn and the lengths of records.
    pub tls_bound_by_records: u64,
    /// Of them, over without a socket.
    pub tls_unbound: u64,
    /// Times a TLS session fitted several sockets, and was bound to none of them.
    pub tls_ambiguous: u64,
    /// Messages in TLS whose record was not found.
    pub tls_messages_without_record: u64,
}

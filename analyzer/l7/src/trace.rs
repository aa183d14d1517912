//! Trace context in headers. (being written)

/// Which headers carry trace context and request ids, most wanted first.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders {}

//! System calls and TLS library calls of the host's processes, as events.
//!
//! Takes in what the tracer's programs (`bpf`) say; hands on [`wirespan_event::Event`]s and the processes they belong to.

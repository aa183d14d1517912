//! Real sockets, driven by this process, which the tracer is told to watch.

mod less;
mod watch;

mod tcp;

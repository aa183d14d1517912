//! Real sockets, driven by this process, which the tracer is told to watch.

mod arch;
mod calls;
mod closes;
mod datagram;
mod full;
mod identity;
mod layout;
mod less;
mod limits;
mod mptcp;
mod process;
mod tcp;
mod uprobe;
mod uring;
mod verifier;
mod watch;

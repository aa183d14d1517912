//! What a tracer is asked for.

use std::path::PathBuf;

use super::Snap;

/// How to trace. The default traces all processes but this one.
#[derive(Clone, Debug)]
pub struct TracerOptions {
    /// The process whose calls are not traced; this one unless told.
    pub left_out: Option<u32>,
    /// The one process that is traced; all when `None`. Processes that it makes are not.
    pub only: Option<u32>,
    /// Bytes of the ring between the kernel and [`Tracer::drain`](super::Tracer::drain); rounded up to a power of two.
    pub ring_bytes: u32,
    /// Threads that are remembered, rounded up to a power of two, and as many again of those whose ids collide.
    pub threads: u32,
    /// Sockets that are remembered; the one that was used longest ago makes room for another.
    pub sockets: u32,
    /// How much payload comes with events.
    pub snap: Snap,
    /// What is traced.
    pub groups: Groups,
    /// Load what [`Tracer::take_prober`](super::Tracer::take_prober) attaches.
    pub uprobes: bool,
    /// Type information of the kernel; `/sys/kernel/btf/vmlinux` when `None`.
    pub btf: Option<PathBuf>,
}

impl Default for TracerOptions {
    fn default() -> Self {
        Self {
            left_out: Some(std::process::id()),
            only: None,
            ring_bytes: 8 << 20,
            threads: 32_768,
            sockets: 65_536,
            snap: Snap::DEFAULT,
            groups: Groups::default(),
            uprobes: false,
            btf: None,
        }
    }
}

/// A switch for each thing that can be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// System calls that move bytes through sockets.
    pub data: bool,
    /// Connections that open and close.
    pub connections: bool,
    /// Waits (epoll, poll, select, io_uring), counted by thread.
    pub turns: bool,
    /// Processes and threads that begin and end, programs that are executed.
    pub processes: bool,
    /// Bytes that io_uring moves through sockets; Linux 6.3.
    pub lengths: bool,
    /// Threads that wake others of their process; Linux 5.15.
    pub wakes: bool,
}

impl Default for Groups {
    fn default() -> Self {
        Self { data: true, connections: true, turns: true, processes: true, lengths: true, wakes: true }
    }
}

#[cfg(test)]
impl Groups {
    /// Nothing.
    pub(super) const NONE: Self = Self {
        data: false,
        connections: false,
        turns: false,
        processes: false,
        lengths: false,
        wakes: false,
    };
}

//! The shape of what the tracer says: one [`Event`] for each system call or TLS library call that moved bytes, and for what
//! happens to connections, threads and processes.
//!
//! Takes in nothing; hands on the types that the eBPF programs, their reader and everything behind them share, as
//! `capture/frame` does for packets. Times are nanoseconds of CLOCK_BOOTTIME; [`Clock`] makes them times since the epoch.
//!
//! | module | what |
//! |---|---|
//! | [`header`] | the fixed part of an event, byte for byte as in `bpf/programs/event.h` |
//! | [`log`] | event logs: files of what a source said, to be read again as if it said it now |

pub mod header;
pub mod log;

pub use header::{Call, Flags, Header, Kind, Source};

use std::sync::Arc;
use wirespan_records::Process;

/// One happening: its header, and the payload that was copied.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Who, which socket, when, where on the stream.
    pub header: &'a Header,
    /// The first bytes that the call moved; for [`Kind::Exec`] the program's file name.
    pub payload: &'a [u8],
}

/// How CLOCK_BOOTTIME lies to the time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds since the epoch at which CLOCK_BOOTTIME was 0.
    pub boot_ns: u64,
}

impl Clock {
    /// A time of an event as nanoseconds since the epoch.
    pub fn epoch_ns(self, boottime_ns: u64) -> u64 {
        self.boot_ns.wrapping_add(boottime_ns)
    }
}

/// A process, as events name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Process, in the initial pid namespace.
    pub tgid: u32,
    /// When it began, ns of CLOCK_BOOTTIME.
    pub start_ns: u64,
}

impl Header {
    /// The process that did it.
    pub fn process(&self) -> ProcessKey {
        ProcessKey { tgid: self.tgid, start_ns: self.process_start_ns }
    }
}

/// What a source of events says, live or from an event log, in this order: first the clock; a process before the first event
/// that needs it, and again when it has become another program.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// How times of events are to be read from now on.
    Clock(Clock),
    /// Who a process is.
    Process(ProcessKey, &'a Arc<Process>),
    /// The library that a process speaks TLS with whose contents are not seen; `None` when they are from now on.
    TlsUnseen(ProcessKey, Option<&'a str>),
    /// What happened.
    Event(Event<'a>),
    /// From the last event to here, things happened that are not told: what was open may be over.
    Gap,
}

//! What a live source could not have, and what it does instead.

use std::fmt;
use std::net::SocketAddr;

use wirespan_bpf::xdp::Fallback;

/// A fallback that was taken: for the operator, who may prefer to change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// What the XDP program could not have.
    Program(Fallback),
    /// The driver does not receive into our memory.
    NoZeroCopy {
        /// On which interface.
        interface: String,
        /// What the driver said.
        reason: String,
    },
    /// Frames cannot span more than one buffer.
    NoMultiBuffer {
        /// On which interface.
        interface: String,
        /// The longest frame that can be received.
        longest: usize,
    },
    /// The memory of the frames is not made of huge pages.
    FewHugePages {
        /// How many are needed for all queues.
        needed: u64,
        /// How many of them are free.
        free: u64,
        /// How many the machine must have so that they suffice.
        total: u64,
        /// The kernel makes huge pages of ordinary memory where it can.
        transparent: bool,
    },
    /// A setting for busy polling cannot be made.
    NoBusyPoll {
        /// On which interface.
        interface: String,
        /// What was refused.
        reason: String,
    },
    /// Busy polling is on and frames still come by interrupts.
    BusyPollWithoutEffect {
        /// On which interface.
        interface: String,
        /// How that was noticed.
        reason: &'static str,
    },
    /// The kernel keeps fewer datagrams than it should until they are read.
    SmallReceiveBuffer {
        /// Of the socket that listens here.
        address: SocketAddr,
        /// Size of the buffer.
        bytes: usize,
        /// What it should be.
        wanted: usize,
    },
    /// The flows of tunnels are not told apart where frames are shared among sources.
    NoInnerFanout {
        /// On which interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
}

impl Note {
    /// The name in counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Program(Fallback::NoHints { .. }) => "no_nic_hints",
            Self::Program(Fallback::Generic { .. }) => "generic_xdp",
            Self::NoZeroCopy { .. } => "no_zero_copy",
            Self::NoMultiBuffer { .. } => "no_multi_buffer",
            Self::FewHugePages { .. } => "few_huge_pages",
            Self::NoBusyPoll { .. } => "no_busy_poll",
            Self::BusyPollWithoutEffect { .. } => "busy_poll_without_effect",
            Self::SmallReceiveBuffer { .. } => "small_receive_buffer",
            Self::NoInnerFanout { .. } => "no_inner_fanout",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(fallback) => fallback.fmt(f),
            Self::NoZeroCopy { interface, reason } => {
                write!(f, "{interface} has no zero-copy AF_XDP ({reason}): the kernel copies each frame")
            }
            Self::NoMultiBuffer { interface, longest } => write!(
                f,
                "{interface} cannot receive frames in parts (Linux 6.6): those longer than {longest} bytes are dropped and counted"
            ),
            Self::FewHugePages { needed, free, total, transparent } => write!(
                f,
                "too few huge pages: {needed} are needed and {free} are free, so {} used; \
                 `sysctl vm.nr_hugepages={total}` before the start changes that",
                if *transparent { "transparent huge pages are" } else { "ordinary memory is" }
            ),
            Self::NoBusyPoll { interface, reason } => {
                write!(f, "{interface} cannot be busy-polled ({reason}): frames come by interrupts")
            }
            Self::BusyPollWithoutEffect { interface, reason } => write!(
                f,
                "busy polling of {interface} has no effect ({reason}): switch it off, it costs CPU time only"
            ),
            Self::SmallReceiveBuffer { address, bytes, wanted } => write!(
                f,
                "the receive buffer of {address} has {bytes} bytes, so short bursts are lost: \
                 `sysctl net.core.rmem_max={wanted}` before the start changes that"
            ),
            Self::NoInnerFanout { interface, reason } => write!(
                f,
                "frames of {interface} are shared by their outer addresses ({reason}): the traffic of one tunnel goes to one worker"
            ),
        }
    }
}

//! Why DPDK or a port cannot be used.

use std::io;

/// Each text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpdkError {
    /// DPDK refused its options or found no memory.
    #[error("DPDK cannot start: {said}; {advice}")]
    Eal {
        /// What DPDK said first.
        said: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A second start with other options.
    #[error("DPDK runs in this process already with other options; give all ports the same ones")]
    OtherOptions,
    /// A second start after one that failed.
    #[error("DPDK could not start before in this process; run the program again with other options")]
    FailedBefore,
    /// An option cannot be handed to C.
    #[error("the DPDK option {option:?} contains a zero byte; remove it")]
    ZeroByte {
        /// As given by the user.
        option: String,
    },
    /// No such port.
    #[error("DPDK has no port named {name}{complaint}; its ports are: {known}")]
    NoPort {
        /// As given by the user.
        name: String,
        /// What DPDK said when it started, in brackets.
        complaint: String,
        /// Those that exist.
        known: String,
    },
    /// The port is open already.
    #[error(
        "the DPDK port {name} is in use by this process already; open it once, with as many queues as needed"
    )]
    PortInUse {
        /// Its name.
        name: String,
    },
    /// Memory for frames.
    #[error(
        "DPDK has no {mib} MiB in one piece for the frames of a queue; reserve more huge pages (without them, give it a \
         larger -m), or give the port fewer queues or descriptors"
    )]
    NoMemory {
        /// How much was asked for.
        mib: u64,
    },
    /// The device cannot take frames of this length.
    #[error("the DPDK port {port} takes an MTU of at most {most}, not {asked}; ask for less")]
    Mtu {
        /// Its name.
        port: String,
        /// What was asked for.
        asked: u16,
        /// What the device takes.
        most: u16,
    },
    /// DPDK or the driver refused for another reason.
    #[error("cannot {action} the DPDK port {port}: {reason}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The port's name.
        port: String,
        /// What DPDK or the driver said.
        reason: String,
    },
}

/// The operating system's text for a negative errno.
pub(crate) fn errno_text(result: i32) -> String {
    io::Error::from_raw_os_error(result.saturating_neg()).to_string()
}

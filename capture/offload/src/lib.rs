//! What a NIC can do for a mirror: shown, set up, and restored.
//!
//! Takes in an interface's name and a [`Plan`] (`--offload auto|off|channels=4,rx-ring=max,...`); hands on a [`Report`] of what
//! the NIC has, and [`Applied`], what was changed and what the driver refused. Dropping it puts everything back. Before each change the value
//! that was there goes into a file ([`restore_leftovers`] reads it), so that also a killed process leaves nothing behind after
//! the next start. Nothing that a driver refuses is an error.
//!
//! | module | what it does |
//! |---|---|
//! | `kernel` | the system calls, behind a trait that a recorded conversation can implement |
//! | `netlink`, `attr` | requests, answers and attributes of netlink, with netlink-packet-core |
//! | `ethtool`, `nfc`, `link` | what is asked and set: ethtool netlink, the ethtool ioctl, rtnetlink and netdev |
//! | `plan` | `--offload` as text |
//! | `report`, `machine`, `table` | what is there, as a value and as rows of a table |
//! | `setting`, `steps`, `nic` | one setting; from plan to settings; making and undoing them |
//! | `state` | the file that tells what to undo |
//! | `shunt`, `hardware_first` | drop rules in the NIC for shunted flows |
//!
//! Settings are to be made before capture begins and undone after it ended: changing channels or rings makes most drivers take the
//! link down for a moment, and drivers refuse it while AF_XDP sockets use the queues.

mod attr;
mod ethtool;
mod hardware_first;
mod kernel;
mod link;
mod machine;
mod netlink;
mod nfc;
mod nic;
mod plan;
mod refusal;
mod report;
mod setting;
mod shunt;
mod state;
mod steps;
mod table;
#[cfg(test)]
mod tests;

pub use ethtool::{Channels, Feature, TunnelPorts, UpTo};
pub use hardware_first::HardwareFirst;
pub use link::{Link, Xdp};
pub use machine::{HugePages, Machine};
pub use nfc::{Direction, HashFields, Hashed, NtupleTable, Rss, Timestamps};
pub use nic::{Applied, Nic, restore_leftovers};
pub use plan::{Amount, Counting, Entry, Plan, PlanError, Switch};
pub use refusal::Refusal;
pub use report::{Answer, Report};
pub use shunt::HardwareShunt;
pub use table::Row;

use std::path::PathBuf;

/// Where `up` keeps its state files: on tmpfs, for nothing of it outlives a boot.
pub const STATE_DIR: &str = "/run/wirespan/offload";

/// Why nothing could be shown or set up at all.
#[derive(Debug, thiserror::Error)]
pub enum OffloadError {
    /// There is no such interface.
    #[error("no interface is called `{name}`; there are {known}")]
    UnknownInterface {
        /// The name that was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The kernel does not even list its interfaces.
    #[error("cannot ask the kernel about interfaces: {0}")]
    Kernel(Refusal),
    /// Another process has set this interface up.
    #[error("another wirespan has set up {interface} and is still running; stop it, or use --offload off")]
    InUse {
        /// The interface.
        interface: String,
    },
    /// The state file cannot be kept, and without it nothing may be changed.
    #[error(
        "cannot keep the offload state in {path}: {source}; run as root, make it writable, or use --offload off"
    )]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

//! Where packets enter.
//!
//! Takes in capture files and the traffic of network interfaces; hands on [`Batch`]es of frames through one trait,
//! [`PacketSource`]. Frames are lent where they lie (file buffer, kernel ring), never copied. What is done with a
//! frame is not known here.
//!
//! - [`af_packet`]: any network interface, through a ring shared with the kernel
//! - [`af_xdp`]: mirror ports, before the network stack
//! - [`pcap_file`]: pcap and pcapng files, also gzip, and a writer for tests and benchmarks
//! - [`udp_mirror`]: VXLAN and GENEVE datagrams that are sent here, without privileges
//! - [`link_type`]: numbers of the LINKTYPE registry
//! - `nic_missed`: frames that a NIC had no room for
//! - `note`: what a source could not have
//! - [`placement`]: which CPU a worker best runs on
//! - [`source`]: the trait, its counters and its errors
//! - [`spread`]: one source for several workers, by flow
//! - `ways`: whether this process may capture at all
//! - `interface`: what the kernel says of an interface
//! - `sys`: system calls

pub mod af_packet;
pub mod af_xdp;
mod interface;
pub mod link_type;
mod nic_missed;
mod note;
pub mod pcap_file;
pub mod placement;
pub mod source;
pub mod spread;
mod sys;
pub mod udp_mirror;
mod ways;

pub use nic_missed::NicMissed;
pub use note::Note;
pub use source::{
    CaptureError, KeptBack, LendingSource, Loss, Memory, PacketSource, Region, SourceStats, Unreadable,
};
pub use sys::{Bell, Listening};
pub use ways::{Way, ways};
pub use wirespan_frame::{
    Batch, Descriptor, Filter, Frame, Hints, LinkType, Network, Rules, Shunt, ShuntCounters, ShuntKey,
    ShuntMode,
};

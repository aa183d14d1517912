//! Packets from DPDK ports: the NIC's queues without the kernel, polled by user space.
//!
//! **A port is taken away from the system** as long as DPDK has it. Takes in the received frames of a port; hands on
//! batches that lie in DPDK's own packet buffers (mbufs), which go back to their pool at the next call. Needs the system's
//! libdpdk, 22.11 or later.
//!
//! ```no_run
//! # fn main() -> Result<(), wirespan_dpdk::DpdkError> {
//! use wirespan_dpdk::{Dpdk, EalOptions, PortOptions};
//! let eal = EalOptions { no_huge: true, no_pci: true, vdevs: vec!["net_null0".to_owned()], ..EalOptions::default() };
//! let sources = Dpdk::start(&eal, &PortOptions::new("net_null0"))?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`eal`]: starting DPDK, once per process
//! - [`port`]: opening a port and its queues
//! - [`source`]: the frames of one queue
//! - [`stats`]: what the port counts
//! - [`transmit`]: sending frames, for benchmarks and tests
//! - `lending`: frames that stay lent for longer than a batch
//! - `clock`: from the device's timestamps to the time of day
//! - `pool`: the memory of a queue's frames
//! - `shunt`: rules in the NIC for flows that need not be delivered
//! - `thread`: what makes a worker's thread known to DPDK
//! - `sys`: the C functions of `shim/`, which wraps what is inline in DPDK's headers

mod clock;
pub mod eal;
mod error;
mod lending;
mod pool;
pub mod port;
mod shunt;
pub mod source;
pub mod stats;
mod sys;
mod thread;
pub mod transmit;

pub use eal::{Eal, EalOptions};
pub use error::DpdkError;
pub use port::{PortInfo, PortOptions};
pub use source::DpdkSource;
pub use stats::PortStats;
pub use transmit::Transmitter;

/// DPDK as a capture backend.
pub struct Dpdk;

impl Dpdk {
    /// Starts DPDK, opens a port, and gives one source for each of its queues.
    ///
    /// To be called again with the same [`EalOptions`] for each further port.
    pub fn start(eal: &EalOptions, port: &PortOptions) -> Result<Vec<DpdkSource>, DpdkError> {
        port::open(Eal::start(eal)?, port)
    }
}

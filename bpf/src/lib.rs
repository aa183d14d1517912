//! eBPF programs: compiled from C by the build script, embedded here, loaded and attached.
//!
//! Takes in the name of what to watch; hands on handles to running programs. A program lives as long as its handle.
//!
//! - [`generate`]: traffic for the benchmark suite
//! - [`xdp`]: frames of an interface to AF_XDP sockets, filtered, counted and stamped

mod error;
pub mod generate;
pub mod xdp;

pub use error::BpfError;

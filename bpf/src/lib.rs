//! eBPF programs: compiled from C by the build script, embedded here, loaded and attached.
//!
//! Takes in the name of what to watch; hands on handles to running programs. A program lives as long as its handle.
//!
//! - [`xdp_redirect`]: frames of an interface to AF_XDP sockets

mod error;
pub mod xdp_redirect;

pub use error::BpfError;

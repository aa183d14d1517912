//! eBPF programs: compiled from C by the build script, embedded here, loaded and attached.
//!
//! Takes in the name of what to watch; hands on handles to running programs. A program lives as long as its handle.
//!
//! - [`effective_capabilities()`]: what a process may do, load programs among it
//! - [`fanout`]: frames of an AF_PACKET group to its sockets, by the innermost packet
//! - [`flow_hash()`]: the symmetric hash that the programs give a packet
//! - [`generate`]: traffic for the benchmark suite
//! - `object`, `sys`: from an object file to a program in the kernel
//! - [`tracer`]: what processes do with sockets
//! - [`xdp`]: frames of an interface to AF_XDP sockets, filtered, counted and stamped

mod capabilities;
mod error;
pub mod fanout;
mod flow_hash;
pub mod generate;
mod object;
mod sys;
pub mod tracer;
pub mod xdp;

pub use capabilities::effective_capabilities;
pub use error::BpfError;
pub use flow_hash::flow_hash;

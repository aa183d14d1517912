//! Hosts, from made-up events.

mod common;
mod loss;
mod spans;

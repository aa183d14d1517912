//! Hosts, from made-up events.
#![allow(clippy::unwrap_used)]

mod common;
mod loss;
mod spans;
mod tls;

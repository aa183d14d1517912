//! Hosts, from made-up events.
#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod common;
mod gap;
mod http2;
mod links;
mod loss;
mod spans;
mod tls;

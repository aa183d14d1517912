//! Spans of the host's processes.
//!
//! Takes in [`wirespan_event::Event`]s; hands on spans that say which process asked or answered, and for which request of its
//! own it did so.
//!
//! | module | what |
//! |---|---|
//! | [`host`] | settings, counters, the way of the events |
//! | `order` | events of all CPUs in order of time |
//! | `tracker` | gives each event to its connection |
//! | `connection` | a socket's events in order of its bytes; what is missing |
//! | `talk` | what was said on it: bytes to messages and spans |
//! | `tls` | what went through TLS libraries, and the sockets below |
//! | `facts` | by which event each byte came |
//! | `numbers` | whether events of a thread were lost |
//! | [`context`] | for which request a request was made |
//! | `shared` | the engines, time |
//! | `desk` | spans that wait for their parent |

pub mod context;
pub mod host;

mod connection;
mod desk;
mod facts;
mod numbers;
mod order;
mod shared;
mod talk;
mod tls;
mod tracker;

pub use host::{Host, HostConfig, Stats};

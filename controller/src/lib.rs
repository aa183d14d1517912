//! What is out there: names for the addresses and ports that are seen on the wire.
//!
//! Takes in hosts(5) files; hands on [`Names`] (address to name) to the answers over HTTP and to the store's
//! dictionary, and [`port_name`] for the display of a server's port.
//!
//! | module | what |
//! |---|---|
//! | `hosts` | reads hosts(5) files into [`Names`] |
//! | `ports` | well-known ports and what they are called |

mod hosts;
mod ports;

pub use hosts::{HostsError, Names};
pub use ports::{PortProtocol, port_name};

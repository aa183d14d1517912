//! Source and destination of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Source and destination address of one packet. IPv4 addresses are the low 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// Source.
    pub src: u128,
    /// Destination.
    pub dst: u128,
    /// IPv6.
    pub v6: bool,
}

impl Addresses {
    /// The source as text would show it.
    pub fn src_ip(&self) -> IpAddr {
        to_ip(self.src, self.v6)
    }

    /// The destination as text would show it.
    pub fn dst_ip(&self) -> IpAddr {
        to_ip(self.dst, self.v6)
    }
}

/// An address as text would show it.
pub fn to_ip(address: u128, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(address))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(address as u32))
    }
}

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

    /// The hash of a flow, the same for both directions and never 0: what the eBPF programs give it (`bpf/src/flow_hash.rs`).
    #[inline(always)]
    pub fn flow_hash(self, seed: u64, src_port: u16, dst_port: u16, protocol: u8) -> u32 {
        let Self { src, dst, v6 } = self;
        let ends = end(seed, v6, src, src_port).wrapping_add(end(seed, v6, dst, dst_port));
        ((mix(ends ^ u64::from(protocol)) >> 32) as u32).max(1)
    }
}

#[inline(always)]
fn end(seed: u64, v6: bool, address: u128, port: u16) -> u64 {
    let port = u64::from(port);
    if v6 {
        mix(mix(mix(seed ^ (address >> 64) as u64) ^ address as u64) ^ port)
    } else {
        mix(seed ^ ((address as u64) << 16 | port))
    }
}

/// Spreads a number over all bits.
#[inline(always)]
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

/// An address as text would show it.
pub fn to_ip(address: u128, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(address))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(address as u32))
    }
}

//! What an IP packet carries: ports, TCP header fields, ICMP types, or a tunnel.

use super::Walk;
use super::rest::{Rest, be16};
use crate::packet::{Addresses, Packet, Tcp};
use wirespan_records::{DropReason, L4Protocol, NO_TAP};

/// IP protocol numbers.
mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
    pub const UDP_LITE: u8 = 136;
}

/// What the L4 header tells.
#[derive(Default)]
struct Header {
    src_port: u16,
    dst_port: u16,
    icmp_type: u8,
    tcp: Tcp,
}

impl<'a> Walk<'a, '_> {
    /// Decodes what follows the IP header and its extensions.
    #[inline(always)]
    pub fn upper(
        &mut self,
        addresses: Addresses,
        protocol: u8,
        mut rest: Rest<'a>,
    ) -> Result<Packet<'a>, DropReason> {
        let l3_len = rest.wire;
        let header = match protocol {
            protocol::TCP => tcp(&mut rest)?,
            protocol::UDP => {
                let header = udp(&mut rest)?;
                if let Some(tunnel) = self.state.ports.get(header.dst_port)
                    && let Some(inner) = self.enter(tunnel, addresses, rest)
                {
                    return inner;
                }
                header
            }
            _ => return self.other(addresses, protocol, rest),
        };
        Ok(self.packet(addresses, L4Protocol::from_ip_number(protocol), l3_len, header, rest))
    }

    /// Protocols other than TCP and UDP.
    #[inline(never)]
    fn other(
        &mut self,
        addresses: Addresses,
        protocol: u8,
        mut rest: Rest<'a>,
    ) -> Result<Packet<'a>, DropReason> {
        let l3_len = rest.wire;
        let header = match protocol {
            protocol::ICMP => icmp(&mut rest, [0, 8])?,
            protocol::ICMPV6 => icmp(&mut rest, [128, 129])?,
            protocol::SCTP => ports(rest.take::<12>()?),
            protocol::UDP_LITE => ports(rest.take::<8>()?),
            // IPv4 has no extension headers; this one is the same.
            protocol::AUTHENTICATION if !addresses.v6 => return self.extensions(addresses, protocol, rest),
            _ => {
                if let Some(tunnel) = super::tunnels::over_ip(protocol)
                    && let Some(inner) = self.enter(tunnel, addresses, rest)
                {
                    return inner;
                }
                Header::default()
            }
        };
        Ok(self.packet(addresses, L4Protocol::from_ip_number(protocol), l3_len, header, rest))
    }

    #[inline(always)]
    fn packet(
        &self,
        addresses: Addresses,
        l4: L4Protocol,
        l3_len: usize,
        header: Header,
        rest: Rest<'a>,
    ) -> Packet<'a> {
        let (l4_len, captured) = (rest.wire as u32, rest.data.len() as u32);
        // Bytes of the frame that were not captured.
        let cut = self.frame.wire_len.saturating_sub(self.frame.data.len() as u32);
        Packet {
            ts_ns: self.frame.ts_ns,
            wire_len: self.wire_len,
            addresses,
            l4,
            src_port: header.src_port,
            dst_port: header.dst_port,
            icmp_type: header.icmp_type,
            tcp: header.tcp,
            vlan: self.vlan,
            tunnel: self.tunnel,
            tap: NO_TAP,
            l3_len: l3_len as u32,
            l4_len,
            l4_wire: l4_len.min(captured.saturating_add(cut)),
            payload: rest.data,
        }
    }
}

/// RFC 9293 section 3.1.
#[inline(always)]
fn tcp(rest: &mut Rest) -> Result<Header, DropReason> {
    let &[p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] = rest.take()?;
    let options = ((offset >> 4) as usize * 4).checked_sub(20).ok_or(DropReason::Malformed)?;
    if options > rest.wire {
        return Err(DropReason::Malformed);
    }
    rest.skip(options)?;
    Ok(Header {
        src_port: be16(p0, p1),
        dst_port: be16(p2, p3),
        icmp_type: 0,
        tcp: Tcp {
            seq: u32::from_be_bytes([s0, s1, s2, s3]),
            ack: u32::from_be_bytes([a0, a1, a2, a3]),
            window: be16(w0, w1),
            flags,
        },
    })
}

/// RFC 768. Length 0 is a jumbogram's (RFC 2675): it reaches to the end of the IP packet, and so does a length beyond
/// that, as in the first fragment of a datagram that cannot be put together.
#[inline(always)]
fn udp(rest: &mut Rest) -> Result<Header, DropReason> {
    let header = rest.take::<8>()?;
    let len = be16(header[4], header[5]) as usize;
    if len != 0 {
        rest.limit(len.checked_sub(8).ok_or(DropReason::Malformed)?);
    }
    Ok(ports(header))
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): `echo` are the types whose identifier tells one ping from another.
fn icmp(rest: &mut Rest, echo: [u8; 2]) -> Result<Header, DropReason> {
    let &[icmp_type, _, _, _, id_high, id_low, _, _] = rest.take::<8>()?;
    let id = if echo.contains(&icmp_type) { be16(id_high, id_low) } else { 0 };
    Ok(Header { src_port: id, dst_port: id, icmp_type, tcp: Tcp::default() })
}

/// Source and destination port at the start of a header.
#[inline(always)]
fn ports(header: &[u8]) -> Header {
    match header {
        &[s0, s1, d0, d1, ..] => {
            Header { src_port: be16(s0, s1), dst_port: be16(d0, d1), ..Header::default() }
        }
        _ => Header::default(),
    }
}

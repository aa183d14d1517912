//! What an IP packet carries: ports, TCP header fields, ICMP types, or a tunnel.

use wirespan_records::DropReason;

use crate::rest::{Rest, be16};
use crate::{Addresses, Innermost, Visit, Walk, tunnels};

/// IP protocol numbers, IANA.
pub mod protocol {
    /// Options for every hop; behind IPv6's header only.
    pub const HOP_BY_HOP: u8 = 0;
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// Source routes of IPv6.
    pub const ROUTING: u8 = 43;
    /// IPv6's fragment header.
    pub const FRAGMENT: u8 = 44;
    /// RFC 4302.
    pub const AUTHENTICATION: u8 = 51;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// Options for the receiver.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// RFC 9260.
    pub const SCTP: u8 = 132;
    /// RFC 6275.
    pub const MOBILITY: u8 = 135;
    /// RFC 3828.
    pub const UDP_LITE: u8 = 136;
    /// RFC 7401.
    pub const HIP: u8 = 139;
    /// RFC 5533.
    pub const SHIM6: u8 = 140;
}

/// The TCP header fields that flows use; zero for other protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number of the first payload byte (of the SYN itself when that is set).
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Window as in the header, before scaling.
    pub window: u16,
    /// As in the header, FIN lowest.
    pub flags: u8,
}

/// What an L4 header tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct L4Header {
    /// Source port; the identifier for ICMP echo; else 0.
    pub src_port: u16,
    /// Destination port; the identifier for ICMP echo; else 0.
    pub dst_port: u16,
    /// ICMP type, else 0.
    pub icmp_type: u8,
    /// TCP header fields.
    pub tcp: Tcp,
}

impl<'a, V: Visit<'a>> Walk<V> {
    /// What follows the IP header and its extensions.
    #[inline(always)]
    pub(crate) fn upper(
        &mut self,
        addresses: Addresses,
        protocol: u8,
        mut rest: Rest<'a>,
    ) -> Result<V::Found, DropReason> {
        let l3_len = rest.wire;
        let header = match protocol {
            protocol::TCP => {
                if self.visit.is_start() {
                    start(&mut rest)?
                } else {
                    tcp(&mut rest)?
                }
            }
            protocol::UDP => {
                let header = udp(&mut rest)?;
                if let Some(tunnel) = self.visit.tunnel_on(header.dst_port)
                    && let Some(inner) = self.enter(tunnel, addresses, rest)
                {
                    return inner;
                }
                header
            }
            _ => return self.other(addresses, protocol, rest),
        };
        Ok(self.visit.found(Innermost { addresses, vlan: self.vlan, protocol, l3_len, header, rest }))
    }

    /// Protocols other than TCP and UDP.
    #[inline(never)]
    fn other(
        &mut self,
        addresses: Addresses,
        protocol: u8,
        mut rest: Rest<'a>,
    ) -> Result<V::Found, DropReason> {
        let l3_len = rest.wire;
        let header = match protocol {
            protocol::ICMP => icmp(&mut rest, [0, 8])?,
            protocol::ICMPV6 => icmp(&mut rest, [128, 129])?,
            protocol::SCTP | protocol::UDP_LITE if self.visit.is_start() => start(&mut rest)?,
            protocol::SCTP => ports(rest.take::<12>()?),
            protocol::UDP_LITE => ports(rest.take::<8>()?),
            // IPv4 has no extension headers; this one is the same.
            protocol::AUTHENTICATION if !addresses.v6 => return self.extensions(addresses, protocol, rest),
            _ => {
                if let Some(tunnel) = tunnels::over_ip(protocol)
                    && let Some(inner) = self.enter(tunnel, addresses, rest)
                {
                    return inner;
                }
                L4Header::default()
            }
        };
        Ok(self.visit.found(Innermost { addresses, vlan: self.vlan, protocol, l3_len, header, rest }))
    }
}

/// The ports of a header that need not be there to its end.
fn start(rest: &mut Rest) -> Result<L4Header, DropReason> {
    Ok(ports(rest.take::<4>()?))
}

/// RFC 9293 section 3.1.
#[inline(always)]
fn tcp(rest: &mut Rest) -> Result<L4Header, DropReason> {
    let &[p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] = rest.take()?;
    let options = ((offset >> 4) as usize * 4).checked_sub(20).ok_or(DropReason::Malformed)?;
    if options > rest.wire {
        return Err(DropReason::Malformed);
    }
    rest.skip(options)?;
    Ok(L4Header {
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
fn udp(rest: &mut Rest) -> Result<L4Header, DropReason> {
    let header = rest.take::<8>()?;
    let len = be16(header[4], header[5]) as usize;
    if len != 0 {
        rest.limit(len.checked_sub(8).ok_or(DropReason::Malformed)?);
    }
    Ok(ports(header))
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): `echo` are the types whose identifier tells one ping from another.
fn icmp(rest: &mut Rest, echo: [u8; 2]) -> Result<L4Header, DropReason> {
    let &[icmp_type, _, _, _, id_high, id_low, _, _] = rest.take::<8>()?;
    let id = if echo.contains(&icmp_type) { be16(id_high, id_low) } else { 0 };
    Ok(L4Header { src_port: id, dst_port: id, icmp_type, tcp: Tcp::default() })
}

/// Source and destination port at the start of a header.
#[inline(always)]
fn ports(header: &[u8]) -> L4Header {
    match header {
        &[s0, s1, d0, d1, ..] => {
            L4Header { src_port: be16(s0, s1), dst_port: be16(d0, d1), ..L4Header::default() }
        }
        _ => L4Header::default(),
    }
}

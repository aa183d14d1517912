//! IPv4 (RFC 791), IPv6 (RFC 8200) with its extension headers, and what they carry.

use super::rest::{Rest, be16};
use super::{Addresses, Stop, Walk, tunnels};

/// Most IPv6 extension headers that are followed.
const MAX_EXTENSIONS: u8 = 16;

/// IP protocol numbers.
pub(super) mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const MOBILITY: u8 = 135;
    pub const UDP_LITE: u8 = 136;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;
}

/// What the headers of a fragment say.
struct FragmentHeader {
    /// Identification; IPv4 tells datagrams apart by protocol too.
    id: u64,
    protocol: u8,
    is_first: bool,
}

impl Walk {
    #[inline]
    pub fn ipv4(&mut self, mut rest: Rest<'_>) -> Result<u32, Stop> {
        const MORE_FRAGMENTS: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let header = rest.take::<20>()?;
        let options = match header[0] {
            0x45 => 0,
            0x46..=0x4f => (header[0] & 0x0f) as usize * 4 - 20,
            _ => return Err(Stop::Undecodable),
        };
        let total = be16(header[2], header[3]) as usize;
        if total != 0 {
            rest.set_len(total.checked_sub(20).ok_or(Stop::Undecodable)?);
        }
        if options != 0 {
            rest.skip(options)?;
        }
        let &[_, _, _, _, id_high, id_low, flags, offset, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            header;
        let addresses = Addresses {
            src: u128::from(u32::from_be_bytes([s0, s1, s2, s3])),
            dst: u128::from(u32::from_be_bytes([d0, d1, d2, d3])),
            v6: false,
        };
        let fragment = be16(flags, offset);
        if fragment & (MORE_FRAGMENTS | OFFSET) == 0 {
            return self.upper(addresses, protocol, rest);
        }
        let id = u64::from(be16(id_high, id_low)) | u64::from(protocol) << 32;
        self.fragment(addresses, FragmentHeader { id, protocol, is_first: fragment & OFFSET == 0 }, rest)
    }

    #[inline]
    pub fn ipv6(&mut self, mut rest: Rest<'_>) -> Result<u32, Stop> {
        let header = rest.take::<40>()?;
        if header[0] >> 4 != 6 {
            return Err(Stop::Undecodable);
        }
        let len = be16(header[4], header[5]) as usize;
        if len != 0 {
            rest.set_len(len);
        }
        let mut source = [0; 16];
        source.copy_from_slice(&header[8..24]);
        let mut destination = [0; 16];
        destination.copy_from_slice(&header[24..]);
        let addresses =
            Addresses { src: u128::from_be_bytes(source), dst: u128::from_be_bytes(destination), v6: true };
        match header[6] {
            protocol @ (protocol::TCP | protocol::UDP) => self.upper(addresses, protocol, rest),
            protocol => self.extensions(addresses, protocol, rest),
        }
    }

    #[inline(never)]
    fn extensions(&mut self, addresses: Addresses, mut next: u8, mut rest: Rest<'_>) -> Result<u32, Stop> {
        for _ in 0..MAX_EXTENSIONS {
            match next {
                protocol::HOP_BY_HOP => {
                    if let Some(len) = jumbo_payload_len(rest.data) {
                        rest.limit(len);
                    }
                    next = extension(&mut rest, 8)?;
                }
                protocol::ROUTING
                | protocol::DESTINATION_OPTIONS
                | protocol::MOBILITY
                | protocol::HIP
                | protocol::SHIM6 => next = extension(&mut rest, 8)?,
                protocol::AUTHENTICATION => next = extension(&mut rest, 4)?,
                protocol::FRAGMENT => {
                    let &[following, _, offset_high, offset_low, i0, i1, i2, i3] = rest.take::<8>()?;
                    let offset = be16(offset_high, offset_low);
                    // Neither offset nor more: an atomic fragment, whole in itself (RFC 6946).
                    if offset & 0xfff9 != 0 {
                        let id = u64::from(u32::from_be_bytes([i0, i1, i2, i3])) | 1 << 40;
                        let is_first = offset & 0xfff8 == 0;
                        return self.fragment(
                            addresses,
                            FragmentHeader { id, protocol: following, is_first },
                            rest,
                        );
                    }
                    next = following;
                }
                upper => return self.upper(addresses, upper, rest),
            }
        }
        Err(Stop::Undecodable)
    }

    /// The first fragment leads to the flow; a later one is known by its datagram alone.
    #[inline(never)]
    fn fragment(
        &mut self,
        addresses: Addresses,
        fragment: FragmentHeader,
        rest: Rest<'_>,
    ) -> Result<u32, Stop> {
        let datagram = addresses.datagram(fragment.id, self.vlan, self.tunnel);
        let found = self.fragment.get_or_insert_default();
        if !fragment.is_first {
            found.follows = Some(datagram);
            return Ok(addresses.flow_hash(self.seed, 0, 0, fragment.protocol));
        }
        if let Some(free) = found.leads.iter_mut().find(|lead| lead.is_none()) {
            *free = Some(datagram);
        }
        self.partial = true;
        if addresses.v6 {
            self.extensions(addresses, fragment.protocol, rest)
        } else {
            self.upper(addresses, fragment.protocol, rest)
        }
    }

    /// What follows the IP header and its extensions.
    #[inline(always)]
    fn upper(&mut self, addresses: Addresses, protocol: u8, mut rest: Rest<'_>) -> Result<u32, Stop> {
        let (src_port, dst_port) = match protocol {
            protocol::TCP => self.tcp(rest)?,
            protocol::UDP => {
                let ports = self.udp(&mut rest)?;
                if let Some(tunnel) = tunnels::on_port(ports.1)
                    && let Some(inner) = self.enter(tunnel, rest)
                {
                    return inner;
                }
                ports
            }
            _ => return self.other(addresses, protocol, rest),
        };
        Ok(addresses.flow_hash(self.seed, src_port, dst_port, protocol))
    }

    /// Protocols other than TCP and UDP.
    #[inline(never)]
    fn other(&mut self, addresses: Addresses, protocol: u8, mut rest: Rest<'_>) -> Result<u32, Stop> {
        let (src_port, dst_port) = match protocol {
            protocol::ICMP => echo_id(&mut rest, [0, 8])?,
            protocol::ICMPV6 => echo_id(&mut rest, [128, 129])?,
            protocol::SCTP => self.ports::<12>(&mut rest)?,
            protocol::UDP_LITE => self.ports::<8>(&mut rest)?,
            protocol::AUTHENTICATION => return self.extensions(addresses, protocol, rest),
            _ => {
                if let Some(tunnel) = tunnels::over_ip(protocol)
                    && let Some(inner) = self.enter(tunnel, rest)
                {
                    return inner;
                }
                (0, 0)
            }
        };
        Ok(addresses.flow_hash(self.seed, src_port, dst_port, protocol))
    }

    /// RFC 9293 section 3.1.
    #[inline(always)]
    fn tcp(&self, mut rest: Rest<'_>) -> Result<(u16, u16), Stop> {
        if self.partial {
            return self.ports::<20>(&mut rest);
        }
        let header = rest.take::<20>()?;
        let options = ((header[12] >> 4) as usize * 4).checked_sub(20).ok_or(Stop::Undecodable)?;
        if options > rest.wire {
            return Err(Stop::Undecodable);
        }
        Ok((be16(header[0], header[1]), be16(header[2], header[3])))
    }

    /// RFC 768; a length of 0 reaches to the end of the packet.
    #[inline(always)]
    fn udp(&self, rest: &mut Rest<'_>) -> Result<(u16, u16), Stop> {
        let &[s0, s1, d0, d1, len_high, len_low, _, _] = rest.take::<8>()?;
        let len = be16(len_high, len_low) as usize;
        if len != 0 {
            rest.limit(len.checked_sub(8).ok_or(Stop::Undecodable)?);
        }
        Ok((be16(s0, s1), be16(d0, d1)))
    }

    /// Ports at the start of a header of `N` bytes, of which a fragment need not have more than the ports.
    fn ports<const N: usize>(&self, rest: &mut Rest<'_>) -> Result<(u16, u16), Stop> {
        let &[s0, s1, d0, d1] = rest.take::<4>()?;
        if !self.partial && rest.data.len() < N - 4 {
            return Err(Stop::Undecodable);
        }
        Ok((be16(s0, s1), be16(d0, d1)))
    }
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): `echo` are the types whose identifier tells one ping from another.
fn echo_id(rest: &mut Rest<'_>, echo: [u8; 2]) -> Result<(u16, u16), Stop> {
    let &[icmp_type, _, _, _, id_high, id_low, _, _] = rest.take::<8>()?;
    let id = if echo.contains(&icmp_type) { be16(id_high, id_low) } else { 0 };
    Ok((id, id))
}

/// Skips an extension header of `unit`-byte length units and gives the next header.
fn extension(rest: &mut Rest<'_>, unit: usize) -> Result<u8, Stop> {
    let &[next, len] = rest.take::<2>()?;
    rest.skip(6 + len as usize * unit)?;
    Ok(next)
}

/// The payload length in a jumbo payload option (RFC 2675) of the hop-by-hop options header that starts `data`.
fn jumbo_payload_len(data: &[u8]) -> Option<usize> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let len = 8 + *data.get(1)? as usize * 8;
    let mut options = data.get(2..len)?;
    while let Some((&kind, behind)) = options.split_first() {
        if kind == PAD1 {
            options = behind;
            continue;
        }
        let (&len, behind) = behind.split_first()?;
        let (value, behind) = behind.split_at_checked(len as usize)?;
        if kind == JUMBO {
            return Some(u32::from_be_bytes(value.try_into().ok()?) as usize);
        }
        options = behind;
    }
    None
}

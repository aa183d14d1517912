//! IPv4 (RFC 791) and IPv6 (RFC 8200) with its extension headers.

use wirespan_records::DropReason;

use crate::rest::{Rest, be16};
use crate::transport::protocol;
use crate::{Addresses, Onward, Visit, Walk};

/// Most IPv6 extension headers that are followed.
const MAX_EXTENSIONS: u8 = 16;

/// What the headers of a fragment say.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// Protocol of the datagram's payload.
    pub protocol: u8,
    /// First byte in the datagram's payload.
    pub offset: usize,
    /// More fragments follow behind this one.
    pub more: bool,
}

impl<'a, V: Visit<'a>> Walk<V> {
    #[inline]
    pub(crate) fn ipv4(&mut self, mut rest: Rest<'a>) -> Result<V::Found, DropReason> {
        const MORE_FRAGMENTS: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        self.visit.ip(rest.data);
        let header = rest.take::<20>()?;
        let options = match header[0] {
            0x45 => 0,
            0x46..=0x4f => (header[0] & 0x0f) as usize * 4 - 20,
            _ => return Err(DropReason::Malformed),
        };
        // 0 with TCP segmentation offload: the datagram is longer than the field can say.
        let total = be16(header[2], header[3]) as usize;
        if total != 0 {
            rest.set_len(total.checked_sub(20).ok_or(DropReason::Malformed)?);
        }
        if options != 0 {
            rest.skip(options)?;
        }
        let &[_, _, _, _, id_high, id_low, flags, offset, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            header;
        let addresses = Addresses {
            src: u32::from_be_bytes([s0, s1, s2, s3]) as u128,
            dst: u32::from_be_bytes([d0, d1, d2, d3]) as u128,
            v6: false,
        };
        let fragment = be16(flags, offset);
        if fragment & (MORE_FRAGMENTS | OFFSET) != 0 {
            let fragment = Fragment {
                id: be16(id_high, id_low) as u32,
                protocol,
                offset: (fragment & OFFSET) as usize * 8,
                more: fragment & MORE_FRAGMENTS != 0,
            };
            return match self.visit.fragment(addresses, self.vlan, fragment, rest)? {
                Onward::With(protocol, rest) => self.upper(addresses, protocol, rest),
                Onward::Found(found) => Ok(found),
            };
        }
        self.upper(addresses, protocol, rest)
    }

    #[inline]
    pub(crate) fn ipv6(&mut self, mut rest: Rest<'a>) -> Result<V::Found, DropReason> {
        self.visit.ip(rest.data);
        let header = rest.take::<40>()?;
        if header[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        // 0 with a jumbo payload option or segmentation offload: the payload is longer than the field can say.
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

    /// Follows IPv6 extension headers to the upper layer.
    #[inline(never)]
    pub(crate) fn extensions(
        &mut self,
        addresses: Addresses,
        mut next: u8,
        mut rest: Rest<'a>,
    ) -> Result<V::Found, DropReason> {
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
                    next = following;
                    // Neither offset nor more: an atomic fragment, whole in itself (RFC 6946).
                    if offset & 0xfff9 != 0 {
                        let fragment = Fragment {
                            id: u32::from_be_bytes([i0, i1, i2, i3]),
                            protocol: following,
                            offset: (offset & 0xfff8) as usize,
                            more: offset & 1 != 0,
                        };
                        match self.visit.fragment(addresses, self.vlan, fragment, rest)? {
                            Onward::With(protocol, datagram) => (next, rest) = (protocol, datagram),
                            Onward::Found(found) => return Ok(found),
                        }
                    }
                }
                upper => return self.upper(addresses, upper, rest),
            }
        }
        Err(DropReason::TooManyExtensions)
    }
}

/// Skips an extension header of `unit`-byte length units and gives the next header. The length byte counts units
/// beyond the first 8 bytes.
fn extension(rest: &mut Rest, unit: usize) -> Result<u8, DropReason> {
    let &[next, len] = rest.take::<2>()?;
    rest.skip(6 + len as usize * unit)?;
    Ok(next)
}

/// The payload length in a jumbo payload option (RFC 2675) of a hop-by-hop options header that starts `data`.
/// It counts from behind the IPv6 header, as the header's own length field does.
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

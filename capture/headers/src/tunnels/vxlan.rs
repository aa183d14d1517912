//! VXLAN (RFC 7348), its generic protocol extension (draft-ietf-nvo3-vxlan-gpe) and NSH in that (RFC 8300).

use super::{Carrier, Encapsulation, Inside, Opened};
use crate::rest::{Rest, be16};
use wirespan_records::{DropReason, TunnelKind};

/// IANA's port, Linux's first choice, Cisco's and Weave's, and GPE's.
pub(super) const VXLAN: Encapsulation =
    Encapsulation { kind: TunnelKind::Vxlan, carrier: Carrier::Udp(&[4789, 8472, 6784, 4790]), open };

/// The VNI is valid.
const FLAG_VNI: u8 = 0x08;
/// GPE: the fourth byte says what is inside.
const FLAG_NEXT_PROTOCOL: u8 = 0x04;
const FLAG_OAM: u8 = 0x01;

/// Service headers inside each other that are followed.
const NSH_MAX: usize = 2;

/// What is inside, in the numbers that GPE and NSH share.
mod next_protocol {
    pub const IPV4: u8 = 1;
    pub const IPV6: u8 = 2;
    pub const ETHERNET: u8 = 3;
    pub const NSH: u8 = 4;
    pub const MPLS: u8 = 5;
}

fn open(mut rest: Rest) -> Result<Opened, DropReason> {
    let &[flags, _, _, next, vni @ .., reserved] = rest.take::<8>()?;
    if flags & FLAG_VNI == 0 || reserved != 0 {
        return Err(DropReason::Malformed);
    }
    let inside = if flags & FLAG_NEXT_PROTOCOL == 0 {
        Inside::Ethernet
    } else if flags & FLAG_OAM == 0 {
        inside_gpe(next, &mut rest)?
    } else {
        return Err(DropReason::UnknownLink);
    };
    let [v0, v1, v2] = vni;
    Ok(Opened { kind: TunnelKind::Vxlan, id: u32::from_be_bytes([0, v0, v1, v2]), inside, rest })
}

fn inside_gpe(mut next: u8, rest: &mut Rest) -> Result<Inside, DropReason> {
    for _ in 0..=NSH_MAX {
        match next {
            next_protocol::IPV4 | next_protocol::IPV6 => return Ok(Inside::Ip),
            next_protocol::ETHERNET => return Ok(Inside::Ethernet),
            next_protocol::MPLS => return Ok(Inside::from_ethertype(super::ethertype::MPLS)),
            next_protocol::NSH => next = skip_service_header(rest)?,
            _ => return Err(DropReason::UnknownLink),
        }
    }
    Err(DropReason::TooDeep)
}

/// Skips a network service header (RFC 8300 section 2.2) and gives its next protocol.
fn skip_service_header(rest: &mut Rest) -> Result<u8, DropReason> {
    const VERSION: u16 = 0xc000;
    const OAM: u16 = 0x2000;
    const LENGTH: u16 = 0x003f;
    let &[b0, b1, _, next] = rest.take::<4>()?;
    let base = be16(b0, b1);
    let words = (base & LENGTH) as usize;
    if base & (VERSION | OAM) != 0 || words < 2 {
        return Err(DropReason::Malformed);
    }
    rest.skip(words * 4 - 4)?;
    Ok(next)
}

//! Tunnels: VXLAN (RFC 7348) with GPE and NSH (RFC 8300), GENEVE (RFC 8926), GTP-U (3GPP TS 29.281), GRE (RFC 2784, 2890)
//! with ERSPAN (draft-foschiano-erspan), IP in IP (RFC 2003, 2473, 4213).

use super::link::{MAX_TAGS, ethertype};
use super::rest::{Rest, be16};
use super::{Stop, Walk};

/// Most extension headers of GTP-U that are followed.
const MAX_GTP_EXTENSIONS: usize = 8;
/// Most service headers inside each other that are followed.
const MAX_NSH: usize = 2;

/// What a packet carries instead of payload.
#[derive(Clone, Copy)]
pub(super) enum Tunnel {
    Vxlan,
    Geneve,
    Gtpu,
    Gre,
    Ipip,
}

/// What follows a tunnel's header.
enum Inside {
    Ethernet,
    Ip,
    EtherType(u16),
}

impl Inside {
    fn from_ethertype(ethertype: u16) -> Self {
        if ethertype == ethertype::TEB { Self::Ethernet } else { Self::EtherType(ethertype) }
    }
}

/// The tunnel on a UDP destination port.
#[inline(always)]
pub(super) fn on_port(port: u16) -> Option<Tunnel> {
    match port {
        4789 | 8472 | 6784 | 4790 => Some(Tunnel::Vxlan),
        6081 => Some(Tunnel::Geneve),
        2152 => Some(Tunnel::Gtpu),
        _ => None,
    }
}

/// The tunnel with an IP protocol number of its own.
pub(super) fn over_ip(protocol: u8) -> Option<Tunnel> {
    match protocol {
        47 => Some(Tunnel::Gre),
        4 | 41 => Some(Tunnel::Ipip),
        _ => None,
    }
}

impl Walk {
    /// The packet inside; `None` where the outer packet is all that can be told.
    #[inline(never)]
    pub fn enter(&mut self, tunnel: Tunnel, mut rest: Rest<'_>) -> Option<Result<u32, Stop>> {
        let (inside, id) = open(tunnel, &mut rest).ok()?;
        let (vlan, outer, depth, partial) = (self.vlan, self.tunnel, self.depth, self.partial);
        self.tunnel = u64::from(id) | (tunnel as u64 + 1) << 32;
        match self.inside(inside, rest) {
            Err(Stop::Undecodable) => {
                (self.vlan, self.tunnel, self.depth, self.partial) = (vlan, outer, depth, partial);
                None
            }
            inner => Some(inner),
        }
    }

    fn inside(&mut self, inside: Inside, rest: Rest<'_>) -> Result<u32, Stop> {
        if let Inside::Ethernet = inside {
            return self.inner_ethernet(rest);
        }
        self.depth = self.depth.checked_sub(1).ok_or(Stop::Dropped)?;
        match inside {
            Inside::EtherType(ethertype) => self.ethertype(ethertype, rest, MAX_TAGS),
            _ => self.ip(rest),
        }
    }
}

/// Reads a tunnel's own header: what is inside, and the tunnel's id.
fn open(tunnel: Tunnel, rest: &mut Rest<'_>) -> Result<(Inside, u32), Stop> {
    match tunnel {
        Tunnel::Vxlan => vxlan(rest),
        Tunnel::Geneve => geneve(rest),
        Tunnel::Gtpu => gtpu(rest),
        Tunnel::Gre => gre(rest),
        Tunnel::Ipip => Ok((Inside::Ip, 0)),
    }
}

fn vxlan(rest: &mut Rest<'_>) -> Result<(Inside, u32), Stop> {
    const VNI: u8 = 0x08;
    const NEXT_PROTOCOL: u8 = 0x04;
    const OAM: u8 = 0x01;
    let &[flags, _, _, next, v0, v1, v2, reserved] = rest.take::<8>()?;
    if flags & VNI == 0 || reserved != 0 {
        return Err(Stop::Undecodable);
    }
    let inside = match flags & (NEXT_PROTOCOL | OAM) {
        NEXT_PROTOCOL => inside_gpe(next, rest)?,
        flags if flags & NEXT_PROTOCOL == 0 => Inside::Ethernet,
        _ => return Err(Stop::Undecodable),
    };
    Ok((inside, u32::from_be_bytes([0, v0, v1, v2])))
}

/// GPE's next protocol, behind service headers.
fn inside_gpe(mut next: u8, rest: &mut Rest<'_>) -> Result<Inside, Stop> {
    for _ in 0..=MAX_NSH {
        match next {
            1 | 2 => return Ok(Inside::Ip),
            3 => return Ok(Inside::Ethernet),
            4 => next = skip_service_header(rest)?,
            5 => return Ok(Inside::EtherType(ethertype::MPLS)),
            _ => return Err(Stop::Undecodable),
        }
    }
    Err(Stop::Undecodable)
}

fn skip_service_header(rest: &mut Rest<'_>) -> Result<u8, Stop> {
    const VERSION_AND_OAM: u16 = 0xe000;
    const LENGTH: u16 = 0x003f;
    let &[b0, b1, _, next] = rest.take::<4>()?;
    let base = be16(b0, b1);
    let words = (base & LENGTH) as usize;
    if base & VERSION_AND_OAM != 0 || words < 2 {
        return Err(Stop::Undecodable);
    }
    rest.skip(words * 4 - 4)?;
    Ok(next)
}

fn geneve(rest: &mut Rest<'_>) -> Result<(Inside, u32), Stop> {
    const CONTROL: u8 = 0x80;
    let &[version_and_len, flags, p0, p1, v0, v1, v2, _] = rest.take::<8>()?;
    if version_and_len >> 6 != 0 || flags & CONTROL != 0 {
        return Err(Stop::Undecodable);
    }
    rest.skip((version_and_len & 0x3f) as usize * 4)?;
    Ok((Inside::from_ethertype(be16(p0, p1)), u32::from_be_bytes([0, v0, v1, v2])))
}

fn gtpu(rest: &mut Rest<'_>) -> Result<(Inside, u32), Stop> {
    const VERSION_AND_TYPE: u8 = 0xf0;
    const VERSION_1_GTP: u8 = 0x30;
    const OPTIONAL_FIELDS: u8 = 0x07;
    const EXTENSION: u8 = 0x04;
    const G_PDU: u8 = 255;
    let &[flags, message, len_high, len_low, t0, t1, t2, t3] = rest.take::<8>()?;
    if flags & VERSION_AND_TYPE != VERSION_1_GTP || message != G_PDU {
        return Err(Stop::Undecodable);
    }
    rest.limit(be16(len_high, len_low) as usize);
    if flags & OPTIONAL_FIELDS != 0 {
        let &[_, _, _, extension] = rest.take::<4>()?;
        if flags & EXTENSION != 0 {
            skip_gtp_extensions(extension, rest)?;
        }
    }
    Ok((Inside::Ip, u32::from_be_bytes([t0, t1, t2, t3])))
}

/// A length in units of 4 bytes first, the next one's type last.
fn skip_gtp_extensions(mut next: u8, rest: &mut Rest<'_>) -> Result<(), Stop> {
    for _ in 0..MAX_GTP_EXTENSIONS {
        if next == 0 {
            return Ok(());
        }
        let len = rest.first()? as usize * 4;
        next = *rest.data.get(..len).and_then(<[u8]>::last).ok_or(Stop::Undecodable)?;
        rest.skip(len)?;
    }
    Err(Stop::Undecodable)
}

fn gre(rest: &mut Rest<'_>) -> Result<(Inside, u32), Stop> {
    const CHECKSUM: u8 = 0x80;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    const OBSOLETE: u8 = 0x4f;
    const ERSPAN_I_OR_II: u16 = 0x88be;
    const ERSPAN_III: u16 = 0x22eb;
    let &[flags, version, p0, p1] = rest.take::<4>()?;
    if flags & OBSOLETE != 0 || version != 0 {
        return Err(Stop::Undecodable);
    }
    if flags & CHECKSUM != 0 {
        rest.skip(4)?;
    }
    let id = if flags & KEY != 0 { u32::from_be_bytes(*rest.take()?) } else { 0 };
    if flags & SEQUENCE != 0 {
        rest.skip(4)?;
    }
    match be16(p0, p1) {
        // Type I has no header of its own, and no sequence number.
        ERSPAN_I_OR_II if flags & SEQUENCE == 0 => Ok((Inside::Ethernet, 0)),
        ERSPAN_I_OR_II | ERSPAN_III => erspan(rest),
        ethertype => Ok((Inside::from_ethertype(ethertype), id)),
    }
}

/// Types II and III.
fn erspan(rest: &mut Rest<'_>) -> Result<(Inside, u32), Stop> {
    const VERSION_II: u8 = 1;
    const VERSION_III: u8 = 2;
    const SESSION: u16 = 0x03ff;
    const SUBHEADER: u8 = 0x01;
    let &[version_and_vlan, _, session_high, session_low, ..] = rest.take::<8>()?;
    let id = u32::from(be16(session_high, session_low) & SESSION);
    match version_and_vlan >> 4 {
        VERSION_II => return Ok((Inside::Ethernet, id)),
        VERSION_III => {}
        _ => return Err(Stop::Undecodable),
    }
    let &[_, _, frame_type, flags] = rest.take::<4>()?;
    if flags & SUBHEADER != 0 {
        rest.skip(8)?;
    }
    match (frame_type >> 2) & 0x1f {
        0 => Ok((Inside::Ethernet, id)),
        2 => Ok((Inside::Ip, id)),
        _ => Err(Stop::Undecodable),
    }
}

//! ERSPAN over GRE (draft-foschiano-erspan): type I has no header, types II and III tell each other by a version.

use super::{Inside, Opened};
use crate::rest::{Rest, be16};
use wirespan_records::{DropReason, TunnelKind};

/// GRE protocol type; type I comes without GRE sequence numbers.
pub(super) const TYPE_I_OR_II: u16 = 0x88be;
/// GRE protocol type.
pub(super) const TYPE_III: u16 = 0x22eb;

/// Type I: the mirrored frame follows GRE.
pub(super) fn open_type_i(rest: Rest) -> Opened {
    Opened { kind: TunnelKind::Erspan, id: 0, inside: Inside::Ethernet, rest }
}

/// Types II and III.
pub(super) fn open(mut rest: Rest) -> Result<Opened, DropReason> {
    const VERSION_II: u8 = 1;
    const VERSION_III: u8 = 2;
    const SESSION: u16 = 0x03ff;
    let &[version_and_vlan, _, session_high, session_low, ..] = rest.take::<8>()?;
    let inside = match version_and_vlan >> 4 {
        VERSION_II => Inside::Ethernet,
        VERSION_III => rest_of_type_iii(&mut rest)?,
        _ => return Err(DropReason::Malformed),
    };
    let id = (be16(session_high, session_low) & SESSION) as u32;
    Ok(Opened { kind: TunnelKind::Erspan, id, inside, rest })
}

/// The third word: frame type, and whether a platform specific subheader follows.
fn rest_of_type_iii(rest: &mut Rest) -> Result<Inside, DropReason> {
    const SUBHEADER: u8 = 0x01;
    const FRAME_ETHERNET: u8 = 0;
    const FRAME_IP: u8 = 2;
    let &[_, _, frame_type, flags] = rest.take::<4>()?;
    if flags & SUBHEADER != 0 {
        rest.skip(8)?;
    }
    match (frame_type >> 2) & 0x1f {
        FRAME_ETHERNET => Ok(Inside::Ethernet),
        FRAME_IP => Ok(Inside::Ip),
        _ => Err(DropReason::UnknownLink),
    }
}

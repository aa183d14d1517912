//! GENEVE (RFC 8926): options are skipped.

use super::{Carrier, Encapsulation, Inside, Opened};
use crate::rest::{Rest, be16};
use wirespan_records::{DropReason, TunnelKind};

pub(super) const GENEVE: Encapsulation =
    Encapsulation { kind: TunnelKind::Geneve, carrier: Carrier::Udp(&[6081]), open };

fn open(mut rest: Rest) -> Result<Opened, DropReason> {
    const CONTROL: u8 = 0x80;
    let &[version_and_len, flags, p0, p1, v0, v1, v2, _] = rest.take::<8>()?;
    let (version, options) = (version_and_len >> 6, (version_and_len & 0x3f) as usize * 4);
    if version != 0 {
        return Err(DropReason::Malformed);
    }
    if flags & CONTROL != 0 {
        return Err(DropReason::UnknownLink);
    }
    rest.skip(options)?;
    Ok(Opened {
        kind: TunnelKind::Geneve,
        id: u32::from_be_bytes([0, v0, v1, v2]),
        inside: Inside::from_ethertype(be16(p0, p1)),
        rest,
    })
}

//! GRE version 0 with checksum, key and sequence number (RFC 2784, RFC 2890). PPTP's version 1 is not opened.

use super::{Carrier, Encapsulation, Inside, Opened, erspan};
use crate::rest::{Rest, be16};
use wirespan_records::{DropReason, TunnelKind};

pub(super) const GRE: Encapsulation =
    Encapsulation { kind: TunnelKind::Gre, carrier: Carrier::Ip(&[47]), open };

const CHECKSUM: u8 = 0x80;
const KEY: u8 = 0x20;
const SEQUENCE: u8 = 0x10;
/// Source routes of RFC 1701, and bits that have to be 0 since.
const OBSOLETE: u8 = 0x4f;

fn open(mut rest: Rest) -> Result<Opened, DropReason> {
    let &[flags, version, p0, p1] = rest.take::<4>()?;
    if flags & OBSOLETE != 0 || version != 0 {
        return Err(DropReason::Malformed);
    }
    if flags & CHECKSUM != 0 {
        rest.skip(4)?;
    }
    let id = if flags & KEY != 0 { u32::from_be_bytes(*rest.take()?) } else { 0 };
    if flags & SEQUENCE != 0 {
        rest.skip(4)?;
    }
    match be16(p0, p1) {
        erspan::TYPE_I_OR_II if flags & SEQUENCE == 0 => Ok(erspan::open_type_i(rest)),
        erspan::TYPE_I_OR_II | erspan::TYPE_III => erspan::open(rest),
        ethertype => {
            Ok(Opened { kind: TunnelKind::Gre, id, inside: Inside::from_ethertype(ethertype), rest })
        }
    }
}

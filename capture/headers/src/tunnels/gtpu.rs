//! GTP-U (3GPP TS 29.281): G-PDUs with their optional fields and extension headers. Other messages are plain UDP.

use super::{Carrier, Encapsulation, Inside, Opened};
use crate::rest::{Rest, be16};
use wirespan_records::{DropReason, TunnelKind};

pub(super) const GTPU: Encapsulation =
    Encapsulation { kind: TunnelKind::Gtpu, carrier: Carrier::Udp(&[2152]), open };

/// Most extension headers that are followed.
const MAX_EXTENSIONS: usize = 8;

fn open(mut rest: Rest) -> Result<Opened, DropReason> {
    const VERSION_AND_TYPE: u8 = 0xf0;
    const VERSION_1_GTP: u8 = 0x30;
    const OPTIONAL_FIELDS: u8 = 0x07;
    const EXTENSION: u8 = 0x04;
    const G_PDU: u8 = 255;
    let &[flags, message, len_high, len_low, t0, t1, t2, t3] = rest.take::<8>()?;
    if flags & VERSION_AND_TYPE != VERSION_1_GTP || message != G_PDU {
        return Err(DropReason::Malformed);
    }
    rest.limit(be16(len_high, len_low) as usize);
    if flags & OPTIONAL_FIELDS != 0 {
        let &[_, _, _, extension] = rest.take::<4>()?;
        if flags & EXTENSION != 0 {
            skip_extensions(extension, &mut rest)?;
        }
    }
    let id = u32::from_be_bytes([t0, t1, t2, t3]);
    Ok(Opened { kind: TunnelKind::Gtpu, id, inside: Inside::Ip, rest })
}

/// Skips extension headers: a length in units of 4 bytes first, the next one's type last.
fn skip_extensions(mut next: u8, rest: &mut Rest) -> Result<(), DropReason> {
    for _ in 0..MAX_EXTENSIONS {
        if next == 0 {
            return Ok(());
        }
        let len = rest.first()? as usize * 4;
        next = *rest.data.get(..len).and_then(<[u8]>::last).ok_or(DropReason::Malformed)?;
        rest.skip(len)?;
    }
    Err(DropReason::TooManyExtensions)
}

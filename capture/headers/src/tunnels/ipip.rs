//! IP in IP in all four mixes: IPv4 (RFC 2003, 2473) and IPv6 (RFC 4213, 2473) in either. It has no header of its own.

use super::{Carrier, Encapsulation, Inside, Opened};
use crate::rest::Rest;
use wirespan_records::{DropReason, TunnelKind};

pub(super) const IPIP: Encapsulation =
    Encapsulation { kind: TunnelKind::Ipip, carrier: Carrier::Ip(&[4, 41]), open };

fn open(rest: Rest) -> Result<Opened, DropReason> {
    Ok(Opened { kind: TunnelKind::Ipip, id: 0, inside: Inside::Ip, rest })
}

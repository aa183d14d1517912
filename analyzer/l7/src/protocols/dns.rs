//! (being written)

use crate::parser::{Cx, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use wirespan_records::L7Protocol;

/// (being written)
#[derive(Default)]
pub struct Dns;

impl Parser for Dns {
    const PROTOCOL: L7Protocol = L7Protocol::Dns;
    const PAIRING: Pairing = Pairing::ById;

    fn probe(_: &[u8], _: &ProbeInfo) -> Verdict {
        Verdict::No
    }

    fn parse(&mut self, _: Role, _: &[u8], _: &mut Cx<'_>) -> Step {
        Step::Opaque
    }
}

//! (being written)

use crate::parser::{Cx, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use wirespan_records::L7Protocol;

/// (being written)
#[derive(Default)]
pub struct MySql;

impl Parser for MySql {
    const PROTOCOL: L7Protocol = L7Protocol::MySql;
    const PAIRING: Pairing = Pairing::InOrder;

    fn probe(_: &[u8], _: &ProbeInfo) -> Verdict {
        Verdict::No
    }

    fn parse(&mut self, _: Role, _: &[u8], _: &mut Cx<'_>) -> Step {
        Step::Opaque
    }
}

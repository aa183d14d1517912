//! The protocols, one file each, and the one list where they are registered.

use crate::parser::{Cx, Pairing, Parser, ProbeInfo, Role, Step, Verdict};
use wirespan_records::L7Protocol;

macro_rules! protocols {
    ($($module:ident :: $parser:ident,)*) => {
        $(pub mod $module;)*

        /// The parser of one stream. Static dispatch, one variant per protocol.
        pub(crate) enum AnyParser { $($parser($module::$parser),)* }

        /// Every protocol with its probe, in the order they are asked.
        pub(crate) const PROBES: &[(L7Protocol, fn(&[u8], &ProbeInfo) -> Verdict)] =
            &[$((<$module::$parser as Parser>::PROTOCOL, <$module::$parser as Parser>::probe),)*];

        impl AnyParser {
            /// A fresh parser for a protocol of the list.
            pub(crate) fn new(protocol: L7Protocol) -> Option<Self> {
                $(if protocol == <$module::$parser as Parser>::PROTOCOL {
                    return Some(Self::$parser(Default::default()));
                })*
                None
            }

            pub(crate) fn protocol(&self) -> L7Protocol {
                match self { $(Self::$parser(_) => <$module::$parser as Parser>::PROTOCOL,)* }
            }

            pub(crate) fn pairing(&self) -> Pairing {
                match self { $(Self::$parser(_) => <$module::$parser as Parser>::PAIRING,)* }
            }

            pub(crate) fn timeout_ms(&self) -> u64 {
                match self { $(Self::$parser(_) => <$module::$parser as Parser>::TIMEOUT_MS,)* }
            }

            pub(crate) fn probe(&self, data: &[u8], info: &ProbeInfo) -> Verdict {
                match self { $(Self::$parser(_) => <$module::$parser as Parser>::probe(data, info),)* }
            }

            pub(crate) fn parse(&mut self, role: Role, data: &[u8], cx: &mut Cx<'_>) -> Step {
                match self { $(Self::$parser(p) => p.parse(role, data, cx),)* }
            }

            pub(crate) fn lost(&mut self, role: Role) {
                match self { $(Self::$parser(p) => p.lost(role),)* }
            }
        }
    };
}

protocols! {
    http::Http,
    http2::Http2,
    tls::Tls,
    redis::Redis,
    mysql::MySql,
    fastcgi::FastCgi,
    dns::Dns,
}

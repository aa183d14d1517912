//! Detection: what a stream speaks, told by its content; what server endpoints speak, remembered to ask that first.

use crate::engine::{Chunk, FlowContext, Side};
use crate::exchange::At;
use crate::parser::{MAX_PROBE, ProbeInfo, Role, Verdict};
use crate::protocols::PROBES;
use crate::stream::{Known, role_of};
use std::collections::HashMap;
use wirespan_records::{Endpoint, L4Protocol, L7Protocol};

/// How far detection has come on a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probing {
    /// Segments seen in vain.
    segments: u16,
    /// Times the other side began to speak.
    turns: u8,
    last: Option<Side>,
    /// It was seen from its beginning on.
    whole: bool,
    switches: u8,
    /// What was spoken before the stream changed its protocol.
    pub known: Option<Known>,
}

/// Changes of protocol that are followed on one stream: a proxy, TLS in it, and one to spare.
const MAX_SWITCHES: u8 = 3;

/// Segments of a TCP stream that are waited for per allowed probe.
const SEGMENTS_PER_PROBE: u16 = 32;

impl Probing {
    /// Takes note of a segment. Is it worth looking at? In a capture that begins in the middle of a long message, the
    /// next message most likely begins where the other side takes its turn.
    pub(crate) fn wants(&mut self, side: Side, stream_start: bool, l4: L4Protocol, max_probes: u8) -> bool {
        let new_turn = self.last != Some(side);
        self.whole |= self.last.is_none() && stream_start;
        self.last = Some(side);
        self.turns = self.turns.saturating_add(u8::from(new_turn));
        self.segments = self.segments.saturating_add(1);
        new_turn || l4 != L4Protocol::Tcp || self.segments <= max_probes.into()
    }

    /// Is there no hope any more?
    pub(crate) fn is_exhausted(self, l4: L4Protocol, max_probes: u8) -> bool {
        match l4 {
            L4Protocol::Tcp => {
                self.turns >= max_probes
                    || self.segments >= SEGMENTS_PER_PROBE.saturating_mul(max_probes.into())
            }
            _ => self.segments >= max_probes.into(),
        }
    }

    /// Was it seen from its beginning on? Else what is passed over may be the rest of a message.
    pub(crate) fn is_whole(self) -> bool {
        self.whole
    }

    /// Begins anew after a change from the protocol `known`; `None` when that happened too often.
    pub(crate) fn switch(self, known: Option<Known>) -> Option<Self> {
        (self.switches < MAX_SWITCHES).then(|| Self { switches: self.switches + 1, known, ..Self::default() })
    }

    pub(crate) fn has_switched(self) -> bool {
        self.switches > 0
    }
}

/// Bytes of one side that did not tell yet.
pub(crate) struct Undecided {
    pub probing: Probing,
    pub side: Side,
    pub at: At,
    pub stream_start: bool,
    pub data: Vec<u8>,
}

impl Undecided {
    pub(crate) fn chunk(&self) -> Chunk<'_> {
        let Self { at, stream_start, data, .. } = self;
        Chunk { data, ts_ns: at.ts_ns, seq: at.seq, stream_start: *stream_start }
    }
}

/// What detection says.
pub(crate) enum Found {
    No,
    Maybe,
    /// The protocol, and where its client is.
    Yes(L7Protocol, Side),
}

/// Protocols of server endpoints, learned from exchanges that paired. Forgets everything when it is full: it only
/// saves time.
pub(crate) struct Endpoints {
    known: HashMap<Server, L7Protocol, foldhash::fast::RandomState>,
    max: usize,
}

/// A server endpoint, in its network namespace.
type Server = (u32, Endpoint, L4Protocol);

/// One end of a flow; `None` where it has no address, as UNIX sockets have none.
fn server_at(flow: &FlowContext, end: Side) -> Option<Server> {
    let endpoint = flow.endpoints[end as usize];
    (endpoint != Endpoint::default()).then_some((flow.netns, endpoint, flow.l4))
}

impl Endpoints {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: HashMap::default(), max }
    }

    /// Asks the protocol remembered for either endpoint first, then all.
    pub(crate) fn find(&self, data: &[u8], flow: &FlowContext, side: Side, stream_start: bool) -> Found {
        let info = ProbeInfo {
            l4: flow.l4,
            src_port: flow.endpoints[side as usize].port,
            dst_port: flow.endpoints[side.other() as usize].port,
            role: flow.client.map(|client| role_of(client, side)),
            stream_start,
        };
        let remembered = self.remembered(flow, side);
        let mut best = Found::No;
        let first = PROBES.iter().filter(|(protocol, _)| remembered == Some(*protocol));
        let others = PROBES.iter().filter(|(protocol, _)| remembered != Some(*protocol));
        for (protocol, probe) in first.chain(others) {
            match probe(data, &info) {
                Verdict::Yes(role) if info.role.is_none_or(|known| known == role) => {
                    let client = if role == Role::Client { side } else { side.other() };
                    return Found::Yes(*protocol, client);
                }
                Verdict::Maybe if flow.l4 == L4Protocol::Tcp && data.len() < MAX_PROBE => best = Found::Maybe,
                _ => {}
            }
        }
        best
    }

    pub(crate) fn remembered(&self, flow: &FlowContext, side: Side) -> Option<L7Protocol> {
        if self.known.is_empty() {
            return None;
        }
        [side.other(), side].into_iter().find_map(|end| self.known.get(&server_at(flow, end)?).copied())
    }

    pub(crate) fn remember(&mut self, flow: &FlowContext, end: Side, protocol: L7Protocol) {
        let Some(server) = server_at(flow, end) else { return };
        if self.known.len() >= self.max {
            self.known.clear();
        }
        self.known.insert(server, protocol);
    }

    pub(crate) fn forget(&mut self, flow: &FlowContext, end: Side, protocol: L7Protocol) {
        let Some(server) = server_at(flow, end) else { return };
        if self.known.get(&server) == Some(&protocol) {
            self.known.remove(&server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_are_looked_at_after_the_first_segments() {
        let mut probing = Probing::default();
        for _ in 0..4 {
            assert!(probing.wants(Side::A, false, L4Protocol::Tcp, 4));
        }
        assert!(!probing.wants(Side::A, false, L4Protocol::Tcp, 4));
        assert!(probing.wants(Side::B, false, L4Protocol::Tcp, 4));
        assert!(!probing.is_exhausted(L4Protocol::Tcp, 4));
        assert!(
            probing.wants(Side::A, false, L4Protocol::Tcp, 4)
                && probing.wants(Side::B, false, L4Protocol::Tcp, 4)
        );
        assert!(probing.is_exhausted(L4Protocol::Tcp, 4));
    }

    #[test]
    fn the_memory_of_endpoints_is_bounded() {
        let mut endpoints = Endpoints::new(2);
        for netns in 0..5 {
            let flow = FlowContext { netns, ..crate::drive::flow(L4Protocol::Tcp) };
            endpoints.remember(&flow, Side::B, L7Protocol::Http);
            assert!(endpoints.known.len() <= 2);
        }
    }

    #[test]
    fn one_address_is_another_server_in_another_namespace_and_unix_sockets_have_none() {
        let mut endpoints = Endpoints::new(9);
        let flow = |netns| FlowContext { netns, ..crate::drive::flow(L4Protocol::Tcp) };
        endpoints.remember(&flow(1), Side::B, L7Protocol::Redis);
        endpoints.remember(&flow(2), Side::B, L7Protocol::Http);
        let of = |flow: &FlowContext| endpoints.remembered(flow, Side::A);
        assert_eq!(
            [1, 2, 3].map(|netns| of(&flow(netns))),
            [Some(L7Protocol::Redis), Some(L7Protocol::Http), None]
        );
        let unix = FlowContext { endpoints: Default::default(), ..flow(1) };
        endpoints.remember(&unix, Side::B, L7Protocol::MySql);
        assert_eq!(endpoints.remembered(&unix, Side::A), None);
    }
}

//! Whether a source that keeps the packets of a flow back does so with those that its tap saw, each once.
//!
//! It knows addresses, ports, the VLAN and the innermost tunnel. Of taps that are told apart by more, the same flow may be seen
//! by several; where headers are lent, they tell. A tap that drops duplicates needs the payload of both copies.

use super::{Conditions, Tap, Taps};
use crate::packet::Packet;
use std::collections::HashMap;
use std::time::Duration;
use wirespan_frame::ShuntMode;
use wirespan_records::{NO_TAP, TunnelKind};

/// What tells packets of a tap from those of others that its interfaces may bring.
#[derive(Debug, Default)]
struct Told {
    drops_copies: bool,
    /// By more than a source knows.
    by_more: bool,
    by_vlan: bool,
    /// By the ids of these tunnels, outermost.
    by_tunnels: Vec<TunnelKind>,
}

/// What tells the packets of each tap.
#[derive(Debug)]
pub(crate) struct Counted(HashMap<u16, Told>);

impl Counted {
    pub(crate) fn new(taps: &Taps) -> Self {
        let none = Conditions::default();
        let of_tap = taps.taps.iter().map(|tap| (tap.id, told(taps, &tap.conditions, tap.dedup)));
        Self(of_tap.chain([(NO_TAP, told(taps, &none, taps.dedup))]).collect())
    }

    /// A source may so keep back all packets with the flow, VLAN and innermost tunnel of this one.
    pub(crate) fn allows(&self, mode: ShuntMode, packet: &Packet<'_>) -> bool {
        let Some(told) = self.0.get(&packet.tap) else { return false };
        if told.drops_copies || mode == ShuntMode::Headers {
            return !told.drops_copies;
        }
        // In a tunnel, a packet's VLAN is that inside, and its tunnel may lie in another.
        let tunnel = packet.tunnel.as_ref();
        let by_tunnel = |tunnel: TunnelKind| told.by_tunnels.iter().all(|&kind| kind == tunnel);
        !told.by_more && tunnel.is_none_or(|tunnel| !told.by_vlan && by_tunnel(tunnel.kind))
    }
}

fn told(taps: &Taps, own: &Conditions, dedup: Option<Duration>) -> Told {
    let meets = |tap: &&Tap| match (&own.interface, &tap.conditions.interface) {
        (Some(own), Some(other)) => own == other,
        _ => true,
    };
    let mut told = Told { drops_copies: dedup.is_some(), ..Told::default() };
    for Tap { conditions, .. } in taps.taps.iter().filter(meets) {
        let Conditions { interface: _, vlan, tunnel, outer_source, source_mac, destination_mac } = conditions;
        told.by_more |= outer_source.is_some() || source_mac.is_some() || destination_mac.is_some();
        told.by_vlan |= vlan.is_some();
        told.by_tunnels.extend(tunnel.as_ref().map(|(kind, _)| *kind));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;
    use wirespan_records::Tunnel;

    #[test]
    fn what_a_source_does_not_know_must_not_tell_taps_apart() {
        let counts = |file: &str, tap: u16, tunnel: Option<TunnelKind>| {
            let outer = [0, 0, 0, 0].into();
            let tunnel = tunnel.map(|kind| Tunnel { kind, id: 5, outer_src: outer, outer_dst: outer });
            let packet = Packet { tap, tunnel, ..tcp(1, 2, 3, 4) };
            Counted::new(&Taps::parse(file).unwrap()).allows(ShuntMode::Count, &packet)
        };
        let tap = |name: &str, conditions: &str| {
            format!("- {{name: {name}, kind: nic, match: {{{conditions}}}}}\n")
        };
        let taps = |a: &str, b: &str| format!("taps:\n{}{}", tap("a", a), tap("b", b));
        let vxlan = Some(TunnelKind::Vxlan);

        assert!(counts("taps: []", 0, vxlan) && !counts("{dedup: true, taps: []}", 0, None));
        let interfaces = taps("interface: eth1", "interface: eth2, source_mac: '02:00:00:00:00:01'");
        assert!(
            counts(&interfaces, 1, None) && counts(&interfaces, 1, vxlan) && !counts(&interfaces, 2, None)
        );
        let senders = taps("outer_source: 10.0.0.1", "interface: eth1");
        assert!(!counts(&senders, 1, vxlan) && !counts(&senders, 2, None) && !counts(&senders, 0, None));
        let vlans = taps("vlan: 5", "interface: eth1");
        assert!(counts(&vlans, 1, None) && counts(&vlans, 2, None) && !counts(&vlans, 1, vxlan));
        let sessions = taps("erspan_session: 5", "erspan_session: 6");
        assert!(counts(&sessions, 1, Some(TunnelKind::Erspan)) && counts(&sessions, 0, None));
        assert!(!counts(&sessions, 1, vxlan), "it may lie in either session");
    }
}

//! What makes two packets part of the same flow, whichever way they go.

use crate::packet::{Addresses, Packet, to_ip};
use std::hash::{BuildHasher, Hasher};
use std::hint::select_unpredictable;
use wirespan_l7::Side;
use wirespan_records::{Endpoint, L4Protocol};

/// Symmetric flow key: both directions of a connection give the same one. Side A is the smaller (address, port).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(2))]
pub(crate) struct FlowKey {
    a: u128,
    b: u128,
    /// The tap in the high 16 bits; below, VLAN and tunnel when they are part of the key, else 0.
    scope: u64,
    a_port: u16,
    b_port: u16,
    /// IP protocol number.
    protocol: u8,
    v6: bool,
}

/// Which of a packet's surroundings tell flows apart that have the same 5-tuple.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyScope {
    /// The VLAN id.
    pub vlan: bool,
    /// The tunnel's type and id.
    pub tunnel: bool,
}

impl FlowKey {
    /// The key of a packet and the side that sent it.
    #[inline]
    pub(crate) fn of(packet: &Packet<'_>, scope: KeyScope) -> (Self, Side) {
        let Addresses { src, dst, v6 } = packet.addresses;
        let (sport, dport) = (packet.src_port, packet.dst_port);
        let mut scope_id = u64::from(packet.tap) << 48;
        if scope.vlan {
            scope_id |= packet.vlan.map_or(0, |vlan| u64::from(vlan & 0xfff) + 1) << 35;
        }
        if scope.tunnel
            && let Some(tunnel) = packet.tunnel
        {
            scope_id |= u64::from(tunnel.id) | (tunnel.kind as u64 + 1) << 32;
        }
        let protocol = packet.l4.ip_number();
        // Every other packet goes the other way, which no branch can predict.
        let from_a = (src, sport) <= (dst, dport);
        let key = Self {
            a: select_unpredictable(from_a, src, dst),
            b: select_unpredictable(from_a, dst, src),
            scope: scope_id,
            a_port: select_unpredictable(from_a, sport, dport),
            b_port: select_unpredictable(from_a, dport, sport),
            protocol,
            v6,
        };
        (key, select_unpredictable(from_a, Side::A, Side::B))
    }

    /// Both ends, A first.
    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        [
            Endpoint { ip: to_ip(self.a, self.v6), port: self.a_port },
            Endpoint { ip: to_ip(self.b, self.v6), port: self.b_port },
        ]
    }

    /// The tap that saw the flow: what two taps see are two flows.
    pub(crate) fn tap(&self) -> u16 {
        (self.scope >> 48) as u16
    }

    pub(crate) fn l4(&self) -> L4Protocol {
        L4Protocol::from_ip_number(self.protocol)
    }

    /// Seeded, so that traffic cannot be made to collide.
    #[inline]
    pub(crate) fn hash(&self, state: &foldhash::fast::RandomState) -> u64 {
        let mut hasher = state.build_hasher();
        let ports = u64::from(self.a_port) << 16 | u64::from(self.b_port);
        let ports = u128::from(ports << 8 | u64::from(self.protocol));
        if self.v6 {
            hasher.write_u128(self.a);
            hasher.write_u128(self.b);
            hasher.write_u128(ports);
        } else {
            hasher.write_u128(ports << 64 | self.a << 32 | self.b);
        }
        hasher.write_u64(self.scope);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;
    use wirespan_records::{Tunnel, TunnelKind};

    #[test]
    fn both_directions_have_one_key() {
        let there = tcp(1, 2, 40_000, 80);
        let back = tcp(2, 1, 80, 40_000);
        let (key, side) = FlowKey::of(&there, KeyScope::default());
        let (key_back, side_back) = FlowKey::of(&back, KeyScope::default());
        assert_eq!(key, key_back);
        assert_eq!(side, side_back.other());
        let state = foldhash::fast::RandomState::default();
        assert_eq!(key.hash(&state), key_back.hash(&state));
    }

    #[test]
    fn the_tap_is_always_part_of_the_key() {
        let of = |tap| FlowKey::of(&Packet { tap, ..tcp(1, 2, 40_000, 80) }, KeyScope::default()).0;
        assert_ne!(of(0), of(1));
        assert_eq!((of(0).tap(), of(65_535).tap()), (0, 65_535));
    }

    #[test]
    fn scope_is_part_of_the_key_only_when_asked_for() {
        let plain = tcp(1, 2, 40_000, 80);
        let mut tagged = plain;
        tagged.vlan = Some(0);
        let outer = [0, 0, 0, 0].into();
        tagged.tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: 0, outer_src: outer, outer_dst: outer });
        let of = |packet, vlan, tunnel| FlowKey::of(packet, KeyScope { vlan, tunnel }).0;
        assert_eq!(of(&plain, false, false), of(&tagged, false, false));
        assert_ne!(of(&plain, true, false), of(&tagged, true, false));
        assert_ne!(of(&plain, false, true), of(&tagged, false, true));
    }
}

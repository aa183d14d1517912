//! Which packets are wanted: the rules of [`wirespan_frame::Filter`] in a form that is quick to ask, for sources that do not
//! choose by themselves. The XDP program knows the same rules.

use crate::packet::Packet;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use wirespan_frame::{Filter as Wanted, Rules};
use wirespan_headers::transport::protocol;
use wirespan_records::{DropReason, L4Protocol};

/// Rules of all kinds, compiled.
#[derive(Debug)]
pub struct Filter {
    protocols: Sets<256>,
    ports: Sets<65536>,
    vlans: Sets<4096>,
    networks: Networks,
    tunnel_ids: [HashSet<u32>; 2],
    /// Flows whose spread hash is less are in the sample.
    sample_below: Option<u32>,
    seed: u64,
}

/// What rules say of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Met {
    allowed: bool,
    denied: bool,
}

impl std::ops::BitOr for Met {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { allowed: self.allowed || other.allowed, denied: self.denied || other.denied }
    }
}

impl Met {
    /// Is a packet to go that met these rules, when there are some that allow?
    fn rejects(self, has_allow: bool) -> bool {
        self.denied || has_allow && !self.allowed
    }
}

/// Two sets of numbers below `N`: what is allowed and what is denied; empty ones take no memory.
#[derive(Debug)]
struct Sets<const N: usize> {
    allowed: Box<[bool]>,
    denied: Box<[bool]>,
}

impl<const N: usize> Sets<N> {
    fn new(allow: impl Iterator<Item = usize>, deny: impl Iterator<Item = usize>) -> Self {
        Self { allowed: Self::set(allow), denied: Self::set(deny) }
    }

    fn set(members: impl Iterator<Item = usize>) -> Box<[bool]> {
        let mut set = Vec::new();
        for member in members.filter(|&member| member < N) {
            set.resize(N, false);
            set[member] = true;
        }
        set.into_boxed_slice()
    }

    fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty()
    }

    fn met(&self, member: usize) -> Met {
        let has = |set: &[bool]| set.get(member).copied().unwrap_or(false);
        Met { allowed: has(&self.allowed), denied: has(&self.denied) }
    }

    fn rejects(&self, met: Met) -> bool {
        met.rejects(!self.allowed.is_empty())
    }
}

/// Networks by the length of their prefix, longest first.
#[derive(Debug, Default)]
struct Networks {
    v4: Vec<(u32, HashMap<u32, Met>)>,
    v6: Vec<(u32, HashMap<u128, Met>)>,
    has_allow: bool,
}

impl Networks {
    fn new(rules: &Wanted) -> Self {
        let (mut v4, mut v6) = (BTreeMap::<_, HashMap<_, Met>>::new(), BTreeMap::<_, HashMap<_, Met>>::new());
        let allowed = Met { allowed: true, denied: false };
        let denied = Met { allowed: false, denied: true };
        for (networks, met) in [(&rules.allow.networks, allowed), (&rules.deny.networks, denied)] {
            for network in networks {
                let length = u32::from(network.prefix());
                let place = match network.address() {
                    IpAddr::V4(address) => {
                        v4.entry(length).or_default().entry(prefix_v4(address.to_bits(), length)).or_default()
                    }
                    IpAddr::V6(address) => {
                        v6.entry(length).or_default().entry(prefix_v6(address.to_bits(), length)).or_default()
                    }
                };
                *place = *place | met;
            }
        }
        Self {
            v4: v4.into_iter().rev().collect(),
            v6: v6.into_iter().rev().collect(),
            has_allow: !rules.allow.networks.is_empty(),
        }
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// By the smallest network around the address.
    fn met(&self, address: u128, v6: bool) -> Met {
        let found = if v6 {
            self.v6.iter().find_map(|(length, set)| set.get(&prefix_v6(address, *length)))
        } else {
            self.v4.iter().find_map(|(length, set)| set.get(&prefix_v4(address as u32, *length)))
        };
        found.copied().unwrap_or_default()
    }
}

fn prefix_v4(address: u32, length: u32) -> u32 {
    address & u32::MAX.checked_shl(32u32.saturating_sub(length)).unwrap_or(0)
}

fn prefix_v6(address: u128, length: u32) -> u128 {
    address & u128::MAX.checked_shl(128u32.saturating_sub(length)).unwrap_or(0)
}

impl Filter {
    /// Compiles rules. `sample` is the part of the flows that is wanted, 0.0 to 1.0, and `seed` decides which they are; workers
    /// of one process share it.
    pub fn new(wanted: &Wanted, sample: Option<f64>, seed: u64) -> Self {
        let Wanted { allow, deny } = wanted;
        let protocols = |rules: &Rules| rules.protocols.clone().into_iter().map(usize::from);
        let ports = |rules: &Rules| rules.ports.clone().into_iter().map(usize::from);
        let vlans = |rules: &Rules| rules.vlans.clone().into_iter().map(usize::from);
        Self {
            protocols: Sets::new(protocols(allow), protocols(deny)),
            ports: Sets::new(ports(allow), ports(deny)),
            vlans: Sets::new(vlans(allow), vlans(deny)),
            networks: Networks::new(wanted),
            tunnel_ids: [allow, deny].map(|rules| rules.tunnel_ids.iter().copied().collect()),
            // As the XDP program takes it.
            sample_below: sample.map(|part| ((part * f64::from(u32::MAX)) as u32).max(1)),
            seed,
        }
    }

    /// Why the packet is not wanted, if it is not.
    pub fn rejects(&self, packet: &Packet<'_>) -> Option<DropReason> {
        let Packet { addresses, l4, src_port, dst_port, .. } = packet;
        if !self.protocols.is_empty() && self.protocols.rejects(self.protocols.met(l4.ip_number().into())) {
            return Some(DropReason::FilteredProtocol);
        }
        if !self.networks.is_empty() {
            let Networks { has_allow, .. } = self.networks;
            let of = |address| self.networks.met(address, addresses.v6);
            if (of(addresses.src) | of(addresses.dst)).rejects(has_allow) {
                return Some(DropReason::FilteredNetwork);
            }
        }
        if !self.ports.is_empty() {
            const UDP_LITE: L4Protocol = L4Protocol::Other(protocol::UDP_LITE);
            let has_ports = matches!(*l4, L4Protocol::Tcp | L4Protocol::Udp | L4Protocol::Sctp | UDP_LITE);
            let met = if has_ports {
                self.ports.met((*src_port).into()) | self.ports.met((*dst_port).into())
            } else {
                Met::default()
            };
            if self.ports.rejects(met) {
                return Some(DropReason::FilteredPort);
            }
        }
        if !self.vlans.is_empty() && self.vlans.rejects(self.vlans.met(packet.vlan.unwrap_or(0).into())) {
            return Some(DropReason::FilteredVlan);
        }
        let [allowed, denied] = &self.tunnel_ids;
        if !allowed.is_empty() || !denied.is_empty() {
            let has = |set: &HashSet<u32>| packet.tunnel.is_some_and(|tunnel| set.contains(&tunnel.id));
            if (Met { allowed: has(allowed), denied: has(denied) }).rejects(!allowed.is_empty()) {
                return Some(DropReason::FilteredTunnel);
            }
        }
        let is_out = self.sample_below.is_some_and(|below| self.place(packet) >= below);
        is_out.then_some(DropReason::SampledOut)
    }

    /// Where the packet's flow is among all flows; the same for both directions, and in the XDP program (`sampled`).
    fn place(&self, packet: &Packet<'_>) -> u32 {
        let Packet { addresses, l4, src_port, dst_port, .. } = packet;
        addresses.flow_hash(self.seed, *src_port, *dst_port, l4.ip_number()).wrapping_mul(0x9e37_79b1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use wirespan_frame::Network;
    use wirespan_records::{Tunnel, TunnelKind};

    fn rules(change: impl FnOnce(&mut Wanted)) -> Filter {
        let mut wanted = Wanted::default();
        change(&mut wanted);
        Filter::new(&wanted, None, 7)
    }

    fn net(address: u32, length: u8) -> BTreeSet<Network> {
        Network::new(Ipv4Addr::from_bits(address).into(), length).into_iter().collect()
    }

    #[test]
    fn without_rules_everything_is_wanted() {
        assert_eq!(rules(|_| {}).rejects(&tcp(1, 2, 40_000, 80)), None);
    }

    #[test]
    fn the_smallest_network_around_an_address_decides() {
        let filter = rules(|wanted| {
            wanted.deny.networks = net(0x0a00_0000, 8);
            wanted.allow.networks = net(0x0a01_0000, 16);
        });
        let from = |address: u32| filter.rejects(&tcp(address.into(), 0x0a01_0001, 40_000, 80));
        assert_eq!(from(0x0a01_0203), None);
        assert_eq!(from(0x0a02_0304), Some(DropReason::FilteredNetwork));
        assert_eq!(from(0x0b00_0001), None);
        let elsewhere = tcp(0x0b00_0001, 0x0b00_0002, 40_000, 80);
        assert_eq!(filter.rejects(&elsewhere), Some(DropReason::FilteredNetwork));
    }

    #[test]
    fn a_prefix_of_length_zero_is_every_address() {
        let filter = rules(|wanted| wanted.deny.networks = net(0, 0));
        assert_eq!(filter.rejects(&tcp(1, 2, 3, 4)), Some(DropReason::FilteredNetwork));
    }

    #[test]
    fn each_kind_of_rule_has_its_reason() {
        let mut packet = tcp(1, 2, 40_000, 80);
        packet.vlan = Some(9);
        let outer = [0, 0, 0, 0].into();
        packet.tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, id: 42, outer_src: outer, outer_dst: outer });
        type Change = fn(&mut Rules);
        let reasons: [(Change, DropReason); 4] = [
            (|rules| rules.protocols = BTreeSet::from([6]), DropReason::FilteredProtocol),
            (|rules| rules.ports = (70..=90).collect(), DropReason::FilteredPort),
            (|rules| rules.vlans = BTreeSet::from([9]), DropReason::FilteredVlan),
            (|rules| rules.tunnel_ids = BTreeSet::from([42]), DropReason::FilteredTunnel),
        ];
        for (change, reason) in reasons {
            assert_eq!(rules(|wanted| change(&mut wanted.deny)).rejects(&packet), Some(reason));
            let allowing = rules(|wanted| change(&mut wanted.allow));
            assert_eq!(allowing.rejects(&packet), None);
            let mut other = tcp(1, 2, 40_000, 22);
            other.l4 = L4Protocol::Udp;
            assert_eq!(allowing.rejects(&other), Some(reason));
        }
    }

    #[test]
    fn all_that_has_ports_meets_rules_on_them() {
        let filter = rules(|wanted| wanted.deny.ports = BTreeSet::from([80]));
        for (number, wanted) in [(6, false), (17, false), (132, false), (136, false), (50, true)] {
            let packet = Packet { l4: L4Protocol::from_ip_number(number), ..tcp(1, 2, 40_000, 80) };
            assert_eq!(filter.rejects(&packet).is_none(), wanted, "{number}");
        }
    }

    #[test]
    fn a_sample_holds_whole_flows_and_its_share_of_them() {
        let filter = |part| Filter::new(&Wanted::default(), Some(part), 7);
        let quarter = filter(0.25);
        let mut taken = 0;
        for port in 1..=4000 {
            let there = quarter.rejects(&tcp(1, 2, port, 80));
            assert_eq!(there, quarter.rejects(&tcp(2, 1, 80, port)));
            taken += usize::from(there.is_none());
        }
        assert!((800..1200).contains(&taken), "{taken}");
        for (part, wanted) in [(0.0, Some(DropReason::SampledOut)), (1.0, None)] {
            assert_eq!(filter(part).rejects(&tcp(1, 2, 3, 4)), wanted);
        }
    }
}

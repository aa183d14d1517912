//! Finds the tap of a frame.
//!
//! For each interface, the taps are sorted by what they ask for first: those of a tunnel lie in an index by tunnel id,
//! those of a VLAN in one by VLAN, the others in a list. One look into each gives the taps that may fit, in the order of
//! the file; what else they ask for is compared. An interface that is one tap, or a tap per VNI or VLAN, needs no comparison.

use super::{Conditions, Network, Ranges, Taps};
use std::ops::RangeInclusive;
use wirespan_frame::{Frame, LinkType};
use wirespan_records::TunnelKind;

/// The outermost tunnel of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OuterTunnel {
    pub kind: TunnelKind,
    pub id: u32,
    /// Who sent the tunnel's packet; IPv4 in the low 32 bits.
    pub source: u128,
    pub v6: bool,
}

/// What is known of a frame from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub frame: &'a Frame<'a>,
    /// Outermost VLAN tag.
    pub vlan: Option<u16>,
    /// Outermost tunnel.
    pub tunnel: Option<OuterTunnel>,
}

/// The taps, compiled.
#[derive(Debug)]
pub(crate) struct Matcher {
    rules: Vec<Conditions>,
    /// By the number of the interface; the last is for interfaces without a name.
    interfaces: Vec<Index>,
}

/// The taps that are possible on one interface, as places in the file.
#[derive(Debug, Default)]
struct Index {
    /// The interface is this tap, whatever comes from it.
    whole: Option<u16>,
    tunnels: [Segments; TUNNELS],
    vlans: Segments,
    others: Vec<Candidate>,
    /// All of them, in order; `fits` where nothing is asked for that is known before the tunnel.
    before_tunnel: Vec<Candidate>,
}

/// Kinds of tunnels that conditions can ask for.
const TUNNELS: usize = 4;

fn tunnel_index(kind: TunnelKind) -> Option<usize> {
    match kind {
        TunnelKind::Vxlan => Some(0),
        TunnelKind::Geneve => Some(1),
        TunnelKind::Gre => Some(2),
        TunnelKind::Erspan => Some(3),
        TunnelKind::Ipip | TunnelKind::Gtpu => None,
    }
}

/// A tap that may fit.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    rule: u16,
    /// It asks for nothing but what led here.
    fits: bool,
}

/// Numbers cut into segments, each with the taps that have it in a range.
#[derive(Debug, Default)]
struct Segments {
    /// First number of each segment.
    starts: Vec<u32>,
    /// The taps of each segment, in order; none behind one that surely fits.
    candidates: Vec<Vec<Candidate>>,
}

impl Segments {
    fn new(ranges: &[(&Ranges, Candidate)]) -> Self {
        let bounds = |range: &RangeInclusive<u64>| [*range.start(), range.end().saturating_add(1)];
        let all = ranges.iter().flat_map(|(ranges, _)| ranges.iter().flat_map(bounds));
        let mut starts: Vec<u32> = all.filter_map(|bound| u32::try_from(bound).ok()).collect();
        starts.sort_unstable();
        starts.dedup();
        let of = |start: &u32| {
            let inside = |ranges: &Ranges| ranges.iter().any(|range| range.contains(&u64::from(*start)));
            until_sure(ranges.iter().filter(|(ranges, _)| inside(ranges)).map(|&(_, candidate)| candidate))
        };
        Self { candidates: starts.iter().map(of).collect(), starts }
    }

    #[inline]
    fn get(&self, number: u32) -> &[Candidate] {
        let behind = self.starts.partition_point(|&start| start <= number);
        behind.checked_sub(1).and_then(|segment| self.candidates.get(segment)).map_or(&[], Vec::as_slice)
    }
}

/// The candidates up to the first that surely fits.
fn until_sure(candidates: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
    let mut kept = Vec::new();
    for candidate in candidates {
        kept.push(candidate);
        if candidate.fits {
            break;
        }
    }
    kept
}

impl Index {
    /// The index of the rules that are possible on the interface `name`.
    fn new(rules: &[Conditions], name: Option<&str>) -> Self {
        let (mut tunnels, mut vlans, mut others) = ([const { Vec::new() }; TUNNELS], Vec::new(), Vec::new());
        let mut all = Vec::new();
        for (rule, conditions) in (0u16..).zip(rules) {
            if conditions.interface.as_deref().is_some_and(|wanted| Some(wanted) != name) {
                continue;
            }
            let Conditions { interface: _, vlan, tunnel, outer_source, source_mac, destination_mac } =
                conditions;
            let macs = source_mac.is_some() || destination_mac.is_some();
            let more = macs || outer_source.is_some();
            all.push(Candidate { rule, fits: !macs && vlan.is_none() });
            if let Some((kind, ids)) = tunnel {
                if let Some(tunnels) = tunnel_index(*kind).and_then(|kind| tunnels.get_mut(kind)) {
                    tunnels.push((ids, Candidate { rule, fits: !more && vlan.is_none() }));
                }
            } else if let Some(ids) = vlan {
                vlans.push((ids, Candidate { rule, fits: !more }));
            } else {
                others.push(Candidate { rule, fits: !more });
            }
        }
        let first = all.first().map(|candidate: &Candidate| candidate.rule);
        Self {
            tunnels: tunnels.map(|ranges| Segments::new(&ranges)),
            vlans: Segments::new(&vlans),
            whole: others
                .first()
                .filter(|other| other.fits && first == Some(other.rule))
                .map(|other| other.rule),
            others: until_sure(others.into_iter()),
            before_tunnel: until_sure(all.into_iter()),
        }
    }
}

impl Matcher {
    /// The taps' conditions, where interface number `n` has the name `interfaces[n]`.
    pub fn new(taps: &Taps, interfaces: &[String]) -> Self {
        let rules: Vec<Conditions> = taps.taps.iter().map(|tap| tap.conditions.clone()).collect();
        let names = interfaces.iter().map(|name| Some(name.as_str())).chain([None]);
        Self { interfaces: names.map(|name| Index::new(&rules, name)).collect(), rules }
    }

    /// The place of the frame's tap in the file.
    #[inline]
    pub fn find(&self, facts: &Facts<'_>) -> Option<usize> {
        let index = self.index(facts)?;
        if let Some(rule) = index.whole {
            return Some(usize::from(rule));
        }
        let mut first = u16::MAX;
        if let Some(tunnel) = facts.tunnel
            && let Some(segments) = tunnel_index(tunnel.kind).and_then(|kind| index.tunnels.get(kind))
        {
            first = self.first(segments.get(tunnel.id), first, facts);
        }
        if let Some(vlan) = facts.vlan {
            first = self.first(index.vlans.get(u32::from(vlan)), first, facts);
        }
        first = self.first(&index.others, first, facts);
        (first != u16::MAX).then_some(usize::from(first))
    }

    /// The first tap that the frame may belong to when it is not known yet which tunnel it has: for fragments of a
    /// tunnel's own packets.
    pub fn find_before_tunnel(&self, facts: &Facts<'_>) -> Option<usize> {
        let possible = |candidate: &&Candidate| {
            let rule = self.rules.get(usize::from(candidate.rule));
            candidate.fits || rule.is_some_and(|rule| rule.fits_outside(facts))
        };
        self.index(facts)?.before_tunnel.iter().find(possible).map(|candidate| usize::from(candidate.rule))
    }

    #[inline]
    fn index(&self, facts: &Facts<'_>) -> Option<&Index> {
        self.interfaces.get(usize::from(facts.frame.port)).or(self.interfaces.last())
    }

    /// The first of the candidates that fits and comes before `before`.
    #[inline]
    fn first(&self, candidates: &[Candidate], before: u16, facts: &Facts<'_>) -> u16 {
        for candidate in candidates {
            if candidate.rule >= before {
                break;
            }
            let fits = || self.rules.get(usize::from(candidate.rule)).is_some_and(|rule| rule.fits(facts));
            if candidate.fits || fits() {
                return candidate.rule;
            }
        }
        before
    }
}

impl Conditions {
    /// Everything but the interface holds.
    fn fits(&self, facts: &Facts<'_>) -> bool {
        let id = |(kind, ids): &(TunnelKind, Ranges)| {
            facts.tunnel.is_some_and(|tunnel| tunnel.kind == *kind && within(ids, u64::from(tunnel.id)))
        };
        let source = |networks: &Vec<Network>| {
            facts.tunnel.is_some_and(|tunnel| {
                networks.iter().any(|network| network.contains(tunnel.source, tunnel.v6))
            })
        };
        self.tunnel.as_ref().is_none_or(id)
            && self.outer_source.as_ref().is_none_or(source)
            && self.fits_outside(facts)
    }

    /// Everything holds that is known before the tunnel is.
    fn fits_outside(&self, facts: &Facts<'_>) -> bool {
        let vlan = |ids: &Ranges| facts.vlan.is_some_and(|vlan| within(ids, u64::from(vlan)));
        let mac = |ranges: &Ranges, at| mac(facts.frame, at).is_some_and(|mac| within(ranges, mac));
        self.vlan.as_ref().is_none_or(vlan)
            && self.destination_mac.as_ref().is_none_or(|ranges| mac(ranges, 0))
            && self.source_mac.as_ref().is_none_or(|ranges| mac(ranges, 6))
    }
}

fn within(ranges: &Ranges, number: u64) -> bool {
    ranges.iter().any(|range| range.contains(&number))
}

/// The MAC address at this place of an Ethernet frame, as a number.
fn mac(frame: &Frame<'_>, at: usize) -> Option<u64> {
    let &[a, b, c, d, e, f] = frame.data.get(at..)?.first_chunk()?;
    (frame.link == LinkType::Ethernet).then(|| u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::{Tap, TapKind};
    use proptest::option::of as maybe;
    use proptest::prelude::*;
    use wirespan_frame::Hints;

    fn ranges(max: u64) -> impl Strategy<Value = Ranges> {
        prop::collection::vec((0..max, 0..3u64).prop_map(|(first, more)| first..=first + more), 1..3)
    }

    fn kind() -> impl Strategy<Value = TunnelKind> {
        use TunnelKind::*;
        prop::sample::select(vec![Vxlan, Geneve, Gre, Erspan])
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let network = (0u128..8, 30u32..33).prop_map(|(ip, prefix)| {
            Network::new(std::net::Ipv4Addr::from(ip as u32).into(), prefix).unwrap()
        });
        (
            maybe("eth[01]"),
            maybe(ranges(6)),
            maybe((kind(), ranges(6))),
            maybe(prop::collection::vec(network, 1..3)),
            maybe(ranges(4)),
            maybe(ranges(4)),
        )
            .prop_map(|(interface, vlan, tunnel, outer_source, source_mac, destination_mac)| {
                Conditions { interface, vlan, tunnel, outer_source, source_mac, destination_mac }
            })
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_every_tap_finds(
            rules in prop::collection::vec(conditions(), 0..12),
            frames in prop::collection::vec(
                (0u16..4, maybe(0u16..8), maybe((kind(), 0u32..8, 0u128..10)), 0u8..5, 0u8..5), 1..40),
        ) {
            let tap = |(id, conditions): (u16, &Conditions)| Tap {
                id,
                name: id.to_string(),
                kind: TapKind::Nic,
                device: String::new(),
                port: String::new(),
                site: String::new(),
                dedup: None,
                conditions: conditions.clone(),
            };
            let taps = Taps { taps: (1..).zip(&rules).map(tap).collect(), dedup: None };
            let names = ["eth0".to_owned(), "eth1".to_owned()];
            let matcher = Matcher::new(&taps, &names);
            for (port, vlan, tunnel, source, destination) in frames {
                let data = [0, 0, 0, 0, 0, destination, 0, 0, 0, 0, 0, source, 8, 0];
                let frame = Frame { data: &data, wire_len: 14, ts_ns: 0, link: LinkType::Ethernet, port, hints: Hints::default() };
                let tunnel = tunnel.map(|(kind, id, source)| OuterTunnel { kind, id, source, v6: false });
                let facts = Facts { frame: &frame, vlan, tunnel };
                let here = |rule: &Conditions| {
                    rule.interface.as_ref().is_none_or(|name| names.get(usize::from(port)) == Some(name))
                };
                let wanted = rules.iter().position(|rule| here(rule) && rule.fits(&facts));
                prop_assert_eq!(matcher.find(&facts), wanted);
                if let Some(wanted) = wanted {
                    let possible = matcher.find_before_tunnel(&Facts { tunnel: None, ..facts });
                    prop_assert!(possible.is_some_and(|possible| possible <= wanted));
                }
            }
        }
    }

    #[test]
    fn an_interface_without_a_name_has_the_taps_that_ask_for_none() {
        let text = "taps:\n- {name: a, kind: nic, match: {interface: eth0}}\n- {name: b, kind: nic, match: {vlan: 5}}\n";
        let matcher = Matcher::new(&Taps::parse(text).unwrap(), &["eth0".into()]);
        let frame = |port| Frame {
            data: &[],
            wire_len: 0,
            ts_ns: 0,
            link: LinkType::RawIp,
            port,
            hints: Hints::default(),
        };
        let find = |port, vlan| matcher.find(&Facts { frame: &frame(port), vlan, tunnel: None });
        assert_eq!(
            [find(0, None), find(0, Some(5)), find(9, None), find(9, Some(5))],
            [Some(0), Some(0), None, Some(1)]
        );
    }
}

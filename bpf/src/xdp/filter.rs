//! Which frames are wanted (`programs/filter.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::BpfError;
use crate::sys::{Map, Plain};

/// Most networks of one IP version, and most tunnel ids: of both lists together.
pub const ENTRIES_MAX: usize = 65536;

/// Rules on the innermost packet of a frame. A frame is wanted when it meets no rule of `deny` and, for each kind of rule
/// that `allow` has, one of that kind.
///
/// - Of two networks that an address is in, the longer prefix decides; the same network in both lists is denied. A packet
///   has two addresses and two ports: that either is denied is enough, and so is that either is allowed.
/// - Rules on ports do not concern IP fragments, which do not all say theirs. What has no ports (ICMP) meets no such rule,
///   so `allow` with ports rejects it; likewise what is not IP (ARP) meets rules on the VLAN only, and what is in no
///   tunnel none on tunnel ids. So does a frame that the kernel's decoder does not know (LLC, NSH, IPv6 jumbograms).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where it has rules of a kind, only frames that meet one are wanted.
    pub allow: Rules,
    /// Frames that meet any are not wanted.
    pub deny: Rules,
}

/// Rules of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Networks of the source or destination address.
    pub networks: BTreeSet<Network>,
    /// Source or destination ports of TCP, UDP, SCTP, UDP-Lite.
    pub ports: BTreeSet<u16>,
    /// IP protocol numbers.
    pub protocols: BTreeSet<u8>,
    /// VLAN ids, of the outermost tag of the innermost Ethernet frame; 0 for frames without one.
    pub vlans: BTreeSet<u16>,
    /// Ids of the innermost tunnel: VNI, GRE key, ERSPAN session, TEID.
    pub tunnel_ids: BTreeSet<u32>,
}

/// An IP network in CIDR notation, such as `10.0.0.0/8`, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// `None` when the prefix is longer than the address. Bits behind the prefix are ignored.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                let host = 32u32.checked_sub(prefix.into())?;
                IpAddr::from((v4.to_bits() & u32::MAX.checked_shl(host).unwrap_or(0)).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let host = 128u32.checked_sub(prefix.into())?;
                IpAddr::from((v6.to_bits() & u128::MAX.checked_shl(host).unwrap_or(0)).to_be_bytes())
            }
        };
        Some(Self { address, prefix })
    }
}

impl FromStr for Network {
    type Err = BpfError;

    fn from_str(text: &str) -> Result<Self, BpfError> {
        let parse = || {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            Self::new(address, prefix.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
        };
        parse().ok_or_else(|| BpfError::Network { text: text.to_owned() })
    }
}

const ALLOW: u32 = 1;
const DENY: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
struct NetworkV4 {
    prefix: u32,
    address: [u8; 4],
}

// SAFETY: no padding.
unsafe impl Plain for NetworkV4 {}

#[repr(C)]
#[derive(Clone, Copy)]
struct NetworkV6 {
    prefix: u32,
    address: [u8; 16],
}

// SAFETY: no padding.
unsafe impl Plain for NetworkV6 {}

/// A bit for each member of the small sets.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    used: u32,
    allowing: u32,
    protocols: [[u64; 256 / 64]; 2],
    vlans: [[u64; 4096 / 64]; 2],
    ports: [[u64; 65536 / 64]; 2],
}

// SAFETY: no padding.
unsafe impl Plain for Sets {}

/// The filter of a running program. There is one handle for an interface.
#[derive(Debug)]
pub struct FilterMap {
    pub(super) sets: Arc<Map>,
    pub(super) networks_v4: Arc<Map>,
    pub(super) networks_v6: Arc<Map>,
    pub(super) tunnel_ids: Arc<Map>,
    /// What is in the maps.
    pub(super) networks: BTreeMap<Network, u32>,
    pub(super) ids: BTreeMap<u32, u32>,
}

impl FilterMap {
    /// From now on frames are filtered so. Only what differs from before is written; while it is, a few frames meet the
    /// rules of before and of now.
    pub fn set(&mut self, filter: &Filter) -> Result<(), BpfError> {
        let networks = rules(&filter.allow.networks, &filter.deny.networks);
        let ids = rules(&filter.allow.tunnel_ids, &filter.deny.tunnel_ids);
        let v4 = networks.keys().filter(|network| network.address.is_ipv4()).count();
        check("IPv4 networks", v4)?;
        check("IPv6 networks", networks.len() - v4)?;
        check("tunnel ids", ids.len())?;
        self.write(&Sets::of(filter), networks, ids).map_err(|error| BpfError::map(&error))
    }

    /// What goes makes room for what comes; the sets say last which rules count.
    fn write(
        &mut self,
        sets: &Sets,
        networks: BTreeMap<Network, u32>,
        ids: BTreeMap<u32, u32>,
    ) -> io::Result<()> {
        let gone: Vec<_> = self.networks.keys().filter(|key| !networks.contains_key(key)).copied().collect();
        for network in gone {
            self.remove_network(&network)?;
            self.networks.remove(&network);
        }
        let gone: Vec<_> = self.ids.keys().filter(|key| !ids.contains_key(key)).copied().collect();
        for id in gone {
            self.tunnel_ids.remove(&id)?;
            self.ids.remove(&id);
        }
        for (network, rule) in networks {
            if self.networks.get(&network) != Some(&rule) {
                self.set_network(&network, rule)?;
                self.networks.insert(network, rule);
            }
        }
        for (id, rule) in ids {
            if self.ids.get(&id) != Some(&rule) {
                self.tunnel_ids.set(&id, &rule, 0)?;
                self.ids.insert(id, rule);
            }
        }
        self.sets.set(&0u32, sets, 0)
    }

    fn set_network(&self, network: &Network, rule: u32) -> io::Result<()> {
        let prefix = network.prefix.into();
        match network.address {
            IpAddr::V4(v4) => self.networks_v4.set(&NetworkV4 { prefix, address: v4.octets() }, &rule, 0),
            IpAddr::V6(v6) => self.networks_v6.set(&NetworkV6 { prefix, address: v6.octets() }, &rule, 0),
        }
    }

    fn remove_network(&self, network: &Network) -> io::Result<bool> {
        let prefix = network.prefix.into();
        match network.address {
            IpAddr::V4(v4) => self.networks_v4.remove(&NetworkV4 { prefix, address: v4.octets() }),
            IpAddr::V6(v6) => self.networks_v6.remove(&NetworkV6 { prefix, address: v6.octets() }),
        }
    }
}

fn check(what: &'static str, entries: usize) -> Result<(), BpfError> {
    if entries > ENTRIES_MAX {
        return Err(BpfError::FilterTooLarge { what, entries, max: ENTRIES_MAX });
    }
    Ok(())
}

/// Denial wins where a member is in both lists.
fn rules<T: Ord + Copy>(allow: &BTreeSet<T>, deny: &BTreeSet<T>) -> BTreeMap<T, u32> {
    let rules = |members: &BTreeSet<T>, rule| -> Vec<_> { members.iter().map(|&key| (key, rule)).collect() };
    rules(allow, ALLOW).into_iter().chain(rules(deny, DENY)).collect()
}

impl Sets {
    fn of(filter: &Filter) -> Self {
        let lists = [&filter.allow, &filter.deny];
        // In the order of `enum dimension`.
        let used = |rules: &Rules| {
            let dimensions = [
                rules.protocols.is_empty(),
                rules.networks.is_empty(),
                rules.ports.is_empty(),
                rules.vlans.is_empty(),
                rules.tunnel_ids.is_empty(),
            ];
            dimensions.iter().rev().fold(0, |bits, &empty| bits << 1 | u32::from(!empty))
        };
        Self {
            used: used(&filter.allow) | used(&filter.deny),
            allowing: used(&filter.allow),
            protocols: lists.map(|rules| bits(rules.protocols.iter().map(|&protocol| protocol.into()))),
            // An id has 12 bits.
            vlans: lists.map(|rules| bits(rules.vlans.iter().map(|&vlan| vlan.into()))),
            ports: lists.map(|rules| bits(rules.ports.iter().map(|&port| port.into()))),
        }
    }
}

/// A bit for each member; members that are too large are no members of any frame either.
fn bits<const N: usize>(members: impl Iterator<Item = usize>) -> [u64; N] {
    let mut words = [0; N];
    for member in members {
        if let Some(word) = words.get_mut(member / 64) {
            *word |= 1 << (member % 64);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_lose_their_host_bits() {
        let network = |text: &str| text.parse::<Network>().ok();
        assert_eq!(network("10.1.2.3/8"), Network::new(IpAddr::from([10, 0, 0, 0]), 8));
        assert_eq!(network("10.1.2.3"), Network::new(IpAddr::from([10, 1, 2, 3]), 32));
        assert_eq!(network("0.0.0.0/0"), network("9.9.9.9/0"));
        assert_eq!(network("fd00::1/8"), network("fd00::/8"));
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "::/", "/8", ""] {
            assert_eq!(network(bad), None, "{bad}");
        }
    }

    #[test]
    fn denial_wins_over_permission() {
        let (allow, deny) = (BTreeSet::from([1, 2]), BTreeSet::from([2, 3]));
        assert_eq!(rules(&allow, &deny), BTreeMap::from([(1, ALLOW), (2, DENY), (3, DENY)]));
    }
}

//! Which frames are wanted (`programs/filter.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use wirespan_frame::{Filter, Network, Rules};

use crate::BpfError;
use crate::sys::{Map, Plain};

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
        if let Some((what, entries)) = filter.excess() {
            return Err(BpfError::FilterTooLarge { what, entries, max: Filter::ENTRIES_MAX });
        }
        let networks = rules(&filter.allow.networks, &filter.deny.networks);
        let ids = rules(&filter.allow.tunnel_ids, &filter.deny.tunnel_ids);
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
        let prefix = network.prefix().into();
        match network.address() {
            IpAddr::V4(v4) => self.networks_v4.set(&NetworkV4 { prefix, address: v4.octets() }, &rule, 0),
            IpAddr::V6(v6) => self.networks_v6.set(&NetworkV6 { prefix, address: v6.octets() }, &rule, 0),
        }
    }

    fn remove_network(&self, network: &Network) -> io::Result<bool> {
        let prefix = network.prefix().into();
        match network.address() {
            IpAddr::V4(v4) => self.networks_v4.remove(&NetworkV4 { prefix, address: v4.octets() }),
            IpAddr::V6(v6) => self.networks_v6.remove(&NetworkV6 { prefix, address: v6.octets() }),
        }
    }
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
    fn denial_wins_over_permission() {
        let (allow, deny) = (BTreeSet::from([1, 2]), BTreeSet::from([2, 3]));
        assert_eq!(rules(&allow, &deny), BTreeMap::from([(1, ALLOW), (2, DENY), (3, DENY)]));
    }
}

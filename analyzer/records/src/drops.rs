//! Why something that was taken in was not handed on. Each reason is one counter; in = out + the sum of the drops.

use serde::ser::{Serialize, SerializeMap, Serializer};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Why a frame or some bytes of it were not analysed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[doc = $doc])* $variant,)* }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in counters and stats.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// The frame ends before the link, network or transport header does.
    Truncated = "truncated",
    /// A header contradicts itself (version, length, offset).
    Malformed = "malformed",
    /// A link type or EtherType that is not decoded.
    UnknownLink = "unknown_link",
    /// ARP.
    Arp = "arp",
    /// Other L2 control traffic: LLDP, STP, LACP, PPPoE discovery.
    L2Control = "l2_control",
    /// More tunnels or tags inside each other than are followed.
    TooDeep = "too_deep",
    /// More IPv6 extension headers than are followed.
    TooManyExtensions = "too_many_extensions",
    /// A fragment that waits for the others, or was put together into another frame's packet.
    Fragment = "fragment",
    /// A fragment that was given up: the others did not come, or there was no room.
    FragmentLost = "fragment_lost",
    /// From or to an endpoint that is not watched: wirespan's own connections.
    OwnTraffic = "own_traffic",
    /// A fragment that overlaps others with different bytes or bounds.
    FragmentOverlap = "fragment_overlap",
    /// Left out by a rule about IP protocols.
    FilteredProtocol = "filtered_protocol",
    /// Left out by a rule about networks.
    FilteredNetwork = "filtered_network",
    /// Left out by a rule about ports.
    FilteredPort = "filtered_port",
    /// Left out by a rule about VLANs.
    FilteredVlan = "filtered_vlan",
    /// Left out by a rule about tunnel ids.
    FilteredTunnel = "filtered_tunnel",
    /// Of a flow that is not in the sample: by a rule, or because the worker could not keep up.
    SampledOut = "sampled_out",
    /// Of a new flow, while the flow table was full and none could leave.
    TableFull = "table_full",
    /// The same packet came a moment ago from the same tap: mirrored twice.
    Duplicate = "duplicate",
}

/// One counter per [`DropReason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Moves `n` from one reason to another that became known later.
    pub fn reclassify(&mut self, from: DropReason, to: DropReason, n: u64) {
        let n = n.min(self.get(from));
        self.0[from as usize] -= n;
        self.0[to as usize] += n;
    }

    /// How often.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Reasons with a count above zero.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&r| (r, self.get(r))).filter(|&(_, n)| n > 0)
    }
}

impl Serialize for Drops {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        for (reason, n) in self.iter() {
            map.serialize_entry(reason.as_str(), &n)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason_and_in_total() {
        let mut drops = Drops::default();
        drops.count(DropReason::Arp);
        drops.count(DropReason::Arp);
        drops.count(DropReason::FragmentOverlap);
        let mut sum = drops.clone();
        sum.merge(&drops);
        assert_eq!((sum.get(DropReason::Arp), sum.total()), (4, 6));
        assert_eq!(sum.iter().map(|(r, _)| r.as_str()).collect::<Vec<_>>(), ["arp", "fragment_overlap"]);
    }
}

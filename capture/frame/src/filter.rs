//! Which packets are wanted, as sources and workers are told.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Rules on the innermost packet of a frame. A frame is wanted when it meets no rule of `deny` and, for each kind of rule
/// that `allow` has, one of that kind.
///
/// - Of two networks that an address is in, the longer prefix decides; the same network in both lists is denied. A packet
///   has two addresses and two ports: that either is denied is enough, and so is that either is allowed.
/// - Sources let IP fragments pass rules on ports, as not all say theirs; the datagram meets those when it is put together.
///   What has no ports (ICMP) meets no such rule, so `allow` with ports rejects it; likewise what is not IP (ARP) meets rules on the VLAN only, and what is in no
///   tunnel none on tunnel ids. So does a frame that the kernel's decoder does not know (NSH, IPv6 jumbograms).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Where it has rules of a kind, only frames that meet one are wanted.
    pub allow: Rules,
    /// Frames that meet any are not wanted.
    pub deny: Rules,
}

impl Filter {
    /// Most networks of one IP version, and most tunnel ids, of both lists together: the kernel's maps have room for so many.
    pub const ENTRIES_MAX: usize = 65536;

    /// What there is more of than that, and how many.
    pub fn excess(&self) -> Option<(&'static str, usize)> {
        let Self { allow, deny } = self;
        let networks = |v4| {
            let all = allow.networks.union(&deny.networks);
            all.filter(|network| network.address.is_ipv4() == v4).count()
        };
        let counts = [
            ("IPv4 networks", networks(true)),
            ("IPv6 networks", networks(false)),
            ("tunnel ids", allow.tunnel_ids.union(&deny.tunnel_ids).count()),
        ];
        counts.into_iter().find(|&(_, count)| count > Self::ENTRIES_MAX)
    }
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

    /// The address, its bits behind the prefix zero.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let parse = || {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            Self::new(address, prefix.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
        };
        parse().ok_or_else(|| NotANetwork(text.to_owned()))
    }
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotANetwork(String);

impl fmt::Display for NotANetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no network; write an address such as 10.1.2.3, or a network such as 10.0.0.0/8 or fd00::/8",
            self.0
        )
    }
}

impl std::error::Error for NotANetwork {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_room_for_so_many_of_a_kind() {
        let network = |number: u32| Network::new(IpAddr::from(number.to_be_bytes()), 32);
        let mut filter = Filter::default();
        filter.allow.networks = (0..40_000).filter_map(network).collect();
        filter.deny.networks = (20_000..65_536).filter_map(network).collect();
        filter.deny.networks.extend(Network::new("::1".parse().unwrap(), 128));
        assert_eq!(filter.excess(), None);
        filter.deny.networks.extend(network(65_536));
        assert_eq!(filter.excess(), Some(("IPv4 networks", 65_537)));
    }

    #[test]
    fn a_network_is_written_as_a_prefix_or_an_address() {
        let network = |text: &str| text.parse::<Network>().ok();
        assert_eq!(network("10.1.2.3/8"), Network::new(IpAddr::from([10, 0, 0, 0]), 8));
        assert_eq!(network("10.1.2.3"), Network::new(IpAddr::from([10, 1, 2, 3]), 32));
        assert_eq!(network("fd00::1/8").map(|n| n.address()), "fd00::".parse().ok());
        for text in ["10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/-1", "/8", ""] {
            assert_eq!(network(text), None, "{text}");
        }
    }
}

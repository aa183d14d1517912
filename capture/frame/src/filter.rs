//! Which packets are wanted, as sources and workers are told.

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A packet is left out when it meets one of the `deny` rules, or when there are `allow` rules of a kind and it meets none of
/// that kind. Rules look at the innermost packet; those of networks and ports at both of its ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// What may stay.
    pub allow: Rules,
    /// What has to go, also when it is allowed. Of networks inside each other, the smallest around an address decides.
    pub deny: Rules,
    /// The part of the flows that is looked at, 0.0 to 1.0; a flow is wholly in or out. `None` is all.
    pub sample: Option<f64>,
}

impl Filter {
    /// Nothing is left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules of all kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Address and length of the prefix.
    pub networks: Vec<(IpAddr, u8)>,
    /// TCP, UDP and SCTP ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
    /// VLAN ids; 0 is a packet without a tag.
    pub vlans: Vec<u16>,
    /// VNIs, GRE keys, ERSPAN sessions and TEIDs of the innermost tunnel.
    pub tunnel_ids: Vec<u32>,
}

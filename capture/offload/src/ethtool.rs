//! Settings of a NIC through ethtool netlink (Documentation/netlink/specs/ethtool.yaml): channels, rings, features, what
//! timestamps and UDP tunnels the NIC knows, link speed.

use crate::attr::{self, Attrs};
use crate::netlink::Netlink;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FAMILY: &str = "ethtool";

/// Commands, as user space numbers them.
mod command {
    pub const LINKMODES_GET: u8 = 4;
    pub const FEATURES_GET: u8 = 11;
    pub const FEATURES_SET: u8 = 12;
    pub const RINGS_GET: u8 = 15;
    pub const RINGS_SET: u8 = 16;
    pub const CHANNELS_GET: u8 = 17;
    pub const CHANNELS_SET: u8 = 18;
    pub const TSINFO_GET: u8 = 25;
    pub const TUNNEL_INFO_GET: u8 = 28;
}

/// Every command's first attribute: the interface.
const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;

/// How many queues a NIC has, of those that both receive and send, and of those that do one. 0 where it has no such kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// Channels that receive and send.
    pub combined: u32,
    /// Channels that receive.
    pub rx: u32,
    /// Channels that send.
    pub tx: u32,
}

impl Channels {
    /// Queues that receive.
    pub fn receiving(&self) -> u32 {
        self.combined.saturating_add(self.rx)
    }
}

/// A setting and how far it can be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UpTo<T> {
    /// As it is now.
    pub now: T,
    /// The most the driver has.
    pub max: T,
}

/// A feature of `ethtool -k`, under the kernel's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// In effect now.
    pub on: bool,
    /// Can be changed.
    pub changeable: bool,
}

/// Kinds of tunnel whose UDP ports a NIC knows, and the ports it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TunnelPorts {
    /// Ports there is room for.
    pub room: u32,
    /// `vxlan`, `geneve`, `vxlan-gpe`.
    pub kinds: Vec<String>,
    /// Port and kind, as set by the kernel when such a tunnel device was made.
    pub ports: Vec<(u16, String)>,
}

fn about(index: u32) -> Attrs {
    Attrs::default().nest(HEADER, &Attrs::default().u32(HEADER_DEV_INDEX, index))
}

fn get(netlink: &mut Netlink, command: u8, index: u32) -> Result<Vec<u8>, Refusal> {
    netlink.generic(FAMILY, command, &about(index))?.into_iter().next().ok_or_else(Refusal::nonsense)
}

/// ETHTOOL_MSG_CHANNELS_GET.
pub fn channels(netlink: &mut Netlink, index: u32) -> Result<UpTo<Channels>, Refusal> {
    let answer = get(netlink, command::CHANNELS_GET, index)?;
    let number = |kind| attr::find_u32(&answer, kind).unwrap_or(0);
    Ok(UpTo {
        max: Channels { rx: number(2), tx: number(3), combined: number(5) },
        now: Channels { rx: number(6), tx: number(7), combined: number(9) },
    })
}

/// ETHTOOL_MSG_CHANNELS_SET; kinds that the NIC has not (0) are not named, because drivers refuse them.
pub fn set_channels(netlink: &mut Netlink, index: u32, to: Channels) -> Result<(), Refusal> {
    let named = [(6, to.rx), (7, to.tx), (9, to.combined)];
    let attrs = named.iter().filter(|(_, count)| *count > 0);
    let attrs = attrs.fold(about(index), |attrs, (kind, count)| attrs.u32(*kind, *count));
    netlink.generic(FAMILY, command::CHANNELS_SET, &attrs).map(drop)
}

/// ETHTOOL_MSG_RINGS_GET: descriptors in each receive ring.
pub fn rx_ring(netlink: &mut Netlink, index: u32) -> Result<UpTo<u32>, Refusal> {
    let answer = get(netlink, command::RINGS_GET, index)?;
    let number = |kind| attr::find_u32(&answer, kind).filter(|count| *count > 0);
    let no_ring = || Refusal::because("the driver names no receive ring");
    Ok(UpTo { max: number(2).ok_or_else(no_ring)?, now: number(6).ok_or_else(no_ring)? })
}

/// ETHTOOL_MSG_RINGS_SET.
pub fn set_rx_ring(netlink: &mut Netlink, index: u32, descriptors: u32) -> Result<(), Refusal> {
    netlink.generic(FAMILY, command::RINGS_SET, &about(index).u32(6, descriptors)).map(drop)
}

/// ETHTOOL_MSG_FEATURES_GET.
pub fn features(netlink: &mut Netlink, index: u32) -> Result<BTreeMap<String, Feature>, Refusal> {
    const HW: u16 = 2;
    const ACTIVE: u16 = 4;
    const NOCHANGE: u16 = 5;
    let answer = get(netlink, command::FEATURES_GET, index)?;
    let names = |kind| attr::find(&answer, kind).map(bit_names).unwrap_or_default();
    let (active, fixed) = (names(ACTIVE), names(NOCHANGE));
    let known = attr::find(&answer, HW).map(bit_names).unwrap_or_default();
    let feature = |name: &String| Feature {
        on: active.contains(name),
        changeable: known.contains(name) && !fixed.contains(name),
    };
    Ok(known.iter().chain(&active).map(|name| (name.clone(), feature(name))).collect())
}

/// ETHTOOL_MSG_FEATURES_SET of one feature, by name.
pub fn set_feature(netlink: &mut Netlink, index: u32, name: &str, on: bool) -> Result<(), Refusal> {
    const WANTED: u16 = 3;
    let bit = Attrs::default().text(2, name);
    let bit = if on { bit.flag(3) } else { bit };
    let bitset = Attrs::default().nest(3, &Attrs::default().nest(1, &bit));
    netlink.generic(FAMILY, command::FEATURES_SET, &about(index).nest(WANTED, &bitset)).map(drop)
}

/// Names in a bitset of the verbose form: those set, or those listed where there is no mask.
fn bit_names(bitset: &[u8]) -> Vec<String> {
    const NOMASK: u16 = 1;
    const BITS: u16 = 3;
    const BIT: u16 = 1;
    const BIT_NAME: u16 = 2;
    const BIT_VALUE: u16 = 3;
    let listed_are_set = attr::find(bitset, NOMASK).is_some();
    let bits = attr::find(bitset, BITS).map(attr::each).into_iter().flatten();
    let set =
        bits.filter(|(kind, bit)| *kind == BIT && (listed_are_set || attr::find(bit, BIT_VALUE).is_some()));
    set.filter_map(|(_, bit)| attr::find(bit, BIT_NAME)).map(attr::as_text).collect()
}

/// ETHTOOL_MSG_TSINFO_GET: the receive filters of the NIC's own timestamps, such as `all` or `ptpv2-event`.
pub fn timestamp_filters(netlink: &mut Netlink, index: u32) -> Result<Vec<String>, Refusal> {
    const RX_FILTERS: u16 = 4;
    let answer = get(netlink, command::TSINFO_GET, index)?;
    Ok(attr::find(&answer, RX_FILTERS).map(bit_names).unwrap_or_default())
}

/// ETHTOOL_MSG_TUNNEL_INFO_GET.
pub fn tunnel_ports(netlink: &mut Netlink, index: u32) -> Result<TunnelPorts, Refusal> {
    const UDP_PORTS: u16 = 2;
    const TABLE: u16 = 1;
    let answer = get(netlink, command::TUNNEL_INFO_GET, index)?;
    let mut ports = TunnelPorts::default();
    let tables = attr::find(&answer, UDP_PORTS).map(attr::each).into_iter().flatten();
    for (_, table) in tables.filter(|(kind, _)| *kind == TABLE) {
        for (kind, value) in attr::each(table) {
            match kind {
                1 => ports.room = ports.room.saturating_add(attr::as_u32(value).unwrap_or(0)),
                2 => ports.kinds.extend(bit_names(value)),
                3 => ports.ports.extend(tunnel_port(value)),
                _ => {}
            }
        }
    }
    Ok(ports)
}

fn tunnel_port(entry: &[u8]) -> Option<(u16, String)> {
    let port = attr::find(entry, 1).and_then(attr::as_be16)?;
    let kind = match attr::find_u32(entry, 2)? {
        0 => "vxlan",
        1 => "geneve",
        2 => "vxlan-gpe",
        _ => "unknown",
    };
    Some((port, kind.to_owned()))
}

/// ETHTOOL_MSG_LINKMODES_GET: Mb/s, `None` while the link is down or has no speed.
pub fn speed(netlink: &mut Netlink, index: u32) -> Result<Option<u32>, Refusal> {
    const SPEED: u16 = 5;
    const SPEED_UNKNOWN: u32 = u32::MAX;
    let answer = get(netlink, command::LINKMODES_GET, index)?;
    Ok(attr::find_u32(&answer, SPEED).filter(|speed| *speed != SPEED_UNKNOWN && *speed > 0))
}

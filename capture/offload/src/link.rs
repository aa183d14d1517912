//! Interfaces as rtnetlink tells them (Documentation/netlink/specs/rt-link.yaml), and what XDP their drivers have
//! (Documentation/netlink/specs/netdev.yaml).

use crate::attr::{self, Attrs};
use crate::kernel::Bus;
use crate::netlink::Netlink;
use crate::refusal::Refusal;
use netlink_packet_core::NLM_F_DUMP;
use serde::Serialize;

const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const IFLA_IFNAME: u16 = 3;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Number, for as long as it exists.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of a software interface, such as `veth` or `bond`.
    pub kind: Option<String>,
    /// Set up.
    pub up: bool,
    /// How many want it to be promiscuous.
    pub promiscuity: u32,
    /// How an XDP program is attached: `native`, `generic`, `offload` or several; `None` without one.
    pub xdp_attached: Option<&'static str>,
}

/// All interfaces, by number.
pub fn all(netlink: &mut Netlink) -> Result<Vec<Link>, Refusal> {
    let answers = netlink.request(Bus::Route, RTM_GETLINK, NLM_F_DUMP, &[0; IFINFOMSG])?;
    let mut links: Vec<Link> = answers.iter().filter_map(|answer| parse(answer)).collect();
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// The interface of a name.
pub fn by_name(netlink: &mut Netlink, name: &str) -> Result<Link, Refusal> {
    let mut payload = vec![0; IFINFOMSG];
    payload.extend_from_slice(Attrs::default().text(IFLA_IFNAME, name).as_bytes());
    first(netlink, &payload)
}

/// The interface of a number.
pub fn by_index(netlink: &mut Netlink, index: u32) -> Result<Link, Refusal> {
    let mut payload = vec![0; 4];
    payload.extend_from_slice(&index.to_ne_bytes());
    payload.resize(IFINFOMSG, 0);
    first(netlink, &payload)
}

fn first(netlink: &mut Netlink, payload: &[u8]) -> Result<Link, Refusal> {
    let answers = netlink.request(Bus::Route, RTM_GETLINK, 0, payload)?;
    answers.first().and_then(|answer| parse(answer)).ok_or_else(Refusal::nonsense)
}

fn parse(message: &[u8]) -> Option<Link> {
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_PROMISCUITY: u16 = 30;
    const IFLA_XDP: u16 = 43;
    const IFLA_XDP_ATTACHED: u16 = 2;
    let flags = message.get(8..).and_then(attr::as_u32)?;
    let attrs = message.get(IFINFOMSG..)?;
    let info = attr::find(attrs, IFLA_LINKINFO);
    let xdp = attr::find(attrs, IFLA_XDP).and_then(|xdp| attr::find(xdp, IFLA_XDP_ATTACHED));
    Some(Link {
        index: message.get(4..).and_then(attr::as_u32)?,
        name: attr::find(attrs, IFLA_IFNAME).map(attr::as_text)?,
        kind: info.and_then(|info| attr::find(info, IFLA_INFO_KIND)).map(attr::as_text),
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        promiscuity: attr::find_u32(attrs, IFLA_PROMISCUITY).unwrap_or(0),
        xdp_attached: match xdp.and_then(|mode| mode.first()) {
            Some(1) => Some("native"),
            Some(2) => Some("generic"),
            Some(3) => Some("offload"),
            Some(4) => Some("several"),
            _ => None,
        },
    })
}

/// What XDP a driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Xdp {
    /// Programs run in the driver, before a frame becomes an skb.
    pub native: bool,
    /// Frames can be redirected to other interfaces and to AF_XDP sockets.
    pub redirect: bool,
    /// Frames reach AF_XDP sockets without being copied.
    pub zero_copy: bool,
    /// Programs can run on the NIC itself. Not ours: from there, no frame can be handed to an AF_XDP socket.
    pub offload: bool,
    /// Programs see frames that lie in several buffers (jumbo frames).
    pub multi_buffer: bool,
    /// Buffers of one frame in zero-copy mode, at most.
    pub zero_copy_buffers: u32,
    /// Programs can read the NIC's time of a frame.
    pub timestamp: bool,
    /// Programs can read the NIC's hash of a frame.
    pub hash: bool,
    /// Programs can read the VLAN tag that the NIC took off.
    pub vlan_tag: bool,
}

/// NETDEV_CMD_DEV_GET.
pub fn xdp(netlink: &mut Netlink, index: u32) -> Result<Xdp, Refusal> {
    const NETDEV_CMD_DEV_GET: u8 = 1;
    let answers = netlink.generic("netdev", NETDEV_CMD_DEV_GET, &Attrs::default().u32(1, index))?;
    let answer = answers.first().ok_or_else(Refusal::nonsense)?;
    let bits = |kind| attr::find(answer, kind).and_then(attr::as_u64).unwrap_or(0);
    let (features, metadata) = (bits(3), bits(5));
    Ok(Xdp {
        native: features & 1 != 0,
        redirect: features & 2 != 0,
        zero_copy: features & 8 != 0,
        offload: features & 16 != 0,
        multi_buffer: features & 32 != 0,
        zero_copy_buffers: attr::find_u32(answer, 4).unwrap_or(0),
        timestamp: metadata & 1 != 0,
        hash: metadata & 2 != 0,
        vlan_tag: metadata & 4 != 0,
    })
}

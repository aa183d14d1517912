//! The frames that most are, in one go: IPv4 over Ethernet, whole, without options and tags, with TCP or UDP. And those that lie in
//! no tunnel, which are a few more.

use wirespan_frame::LinkType;
use wirespan_headers::rest::be16;
use wirespan_headers::tunnels::on_default_port;
use wirespan_headers::{Addresses, ethertype, protocol};

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// VLAN tags that NICs look behind.
const TAGS_MAX: usize = 2;

/// The EtherType and the bytes of an IP packet with nothing but an Ethernet header and VLAN tags before it.
#[inline(always)]
pub fn bare_ip(link: LinkType, data: &[u8]) -> Option<(u16, &[u8])> {
    let (ethernet, mut rest) = data.split_first_chunk::<ETHERNET_BYTES>()?;
    let mut ethertype = be16(ethernet[12], ethernet[13]);
    for _ in 0..TAGS_MAX {
        if !matches!(ethertype, ethertype::VLAN | ethertype::PROVIDER_VLAN | ethertype::QINQ_VLAN) {
            break;
        }
        let (tag, behind) = rest.split_first_chunk::<4>()?;
        (ethertype, rest) = (be16(tag[2], tag[3]), behind);
    }
    let is_ip = link == LinkType::Ethernet && matches!(ethertype, ethertype::IPV4 | ethertype::IPV6);
    is_ip.then_some((ethertype, rest))
}

/// True for such a packet that is whole, and of TCP or of UDP without a tunnel: a walk would find it [bare] too.
///
/// [bare]: super::InnerHash::is_bare
#[inline(always)]
pub fn is_plainly_bare(link: LinkType, data: &[u8]) -> bool {
    let Some((ethertype, ip)) = bare_ip(link, data) else { return false };
    let upper = match (ethertype, ip) {
        (ethertype::IPV4, &[version, _, _, _, _, _, flags, offset, _, protocol, ..])
            if be16(flags, offset) & 0x3fff == 0 =>
        {
            Some((protocol, usize::from(version & 0x0f) * 4))
        }
        (ethertype::IPV6, &[_, _, _, _, _, _, protocol, ..]) => Some((protocol, IPV6_BYTES)),
        _ => None,
    };
    match upper {
        Some((protocol::TCP, _)) => true,
        Some((protocol::UDP, at)) => {
            let ports = ip.get(at..).and_then(|udp| udp.first_chunk::<4>());
            ports.is_some_and(|ports| on_default_port(be16(ports[2], ports[3])).is_none())
        }
        _ => false,
    }
}

/// The hash of a frame that most are, the same as the walk finds; `None` for every other one.
#[inline(always)]
pub fn plain_hash(link: LinkType, data: &[u8], seed: u64) -> Option<u32> {
    let head = data.first_chunk::<{ ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES }>()?;
    let (ethernet, rest) = head.split_first_chunk::<ETHERNET_BYTES>()?;
    let (ip, rest) = rest.split_first_chunk::<IPV4_BYTES>()?;
    let l4 = rest.first_chunk::<UDP_BYTES>()?;
    let is_whole = be16(ip[6], ip[7]) & 0x3fff == 0;
    if link != LinkType::Ethernet
        || be16(ethernet[12], ethernet[13]) != ethertype::IPV4
        || ip[0] != 0x45
        || !is_whole
    {
        return None;
    }
    let payload = usize::from(be16(ip[2], ip[3])).checked_sub(IPV4_BYTES)?;
    let (src_port, dst_port) = (be16(l4[0], l4[1]), be16(l4[2], l4[3]));
    let is_sound = match ip[9] {
        protocol::TCP => {
            let header = usize::from(*data.get(ETHERNET_BYTES + IPV4_BYTES + 12)? >> 4) * 4;
            let captured = data.len() - ETHERNET_BYTES - IPV4_BYTES;
            header >= TCP_BYTES && header <= payload && captured >= TCP_BYTES
        }
        protocol::UDP => {
            let len = be16(l4[4], l4[5]);
            (len == 0 || usize::from(len) >= UDP_BYTES)
                && payload >= UDP_BYTES
                && on_default_port(dst_port).is_none()
        }
        _ => false,
    };
    let address = |at: usize| u128::from(u32::from_be_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]));
    let addresses = Addresses { src: address(12), dst: address(16), v6: false };
    is_sound.then(|| addresses.flow_hash(seed, src_port, dst_port, ip[9]))
}

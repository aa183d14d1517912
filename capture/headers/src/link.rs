//! Link layer: from the first byte of a frame to the IP header.

use wirespan_frame::LinkType;
use wirespan_records::DropReason;

use crate::rest::{Rest, be16};
use crate::{Visit, Walk};

/// Most tags (VLAN, MPLS, PPPoE, LLC) in a row that are followed.
pub(crate) const MAX_TAGS: u8 = 16;

/// EtherTypes, IEEE 802 numbers.
pub mod ethertype {
    /// Internet protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address resolution.
    pub const ARP: u16 = 0x0806;
    /// Transparent Ethernet bridging: an Ethernet frame follows.
    pub const TEB: u16 = 0x6558;
    /// Reverse address resolution.
    pub const RARP: u16 = 0x8035;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// LACP and others.
    pub const SLOW_PROTOCOLS: u16 = 0x8809;
    /// Internet protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// Label stack.
    pub const MPLS: u16 = 0x8847;
    /// Label stack, upstream-assigned.
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// PPPoE before a session.
    pub const PPPOE_DISCOVERY: u16 = 0x8863;
    /// PPPoE.
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Port authentication.
    pub const EAPOL: u16 = 0x888e;
    /// 802.1ad tag.
    pub const PROVIDER_VLAN: u16 = 0x88a8;
    /// Link layer discovery.
    pub const LLDP: u16 = 0x88cc;
    /// Precision time.
    pub const PTP: u16 = 0x88f7;
    /// Cisco's, an Ethernet frame in another.
    pub const FABRIC_PATH: u16 = 0x8903;
    /// Connectivity fault management.
    pub const CFM: u16 = 0x8902;
    /// Loopback test.
    pub const CONFIGURATION_TEST: u16 = 0x9000;
    /// Stacked VLANs before 802.1ad.
    pub const QINQ_VLAN: u16 = 0x9100;
    /// Smaller values are the length of an IEEE 802.3 frame.
    pub const MIN: u16 = 0x0600;
}

/// The VLAN id in 802.1Q tag control information; id 0 tags a priority only.
#[inline]
pub(crate) fn vlan_id(tci: u16) -> Option<u16> {
    Some(tci & 0x0fff).filter(|&id| id != 0)
}

/// Has an EtherType where an Ethernet frame has it.
fn looks_like_ethernet(data: &[u8]) -> bool {
    use ethertype::{ARP, IPV4, IPV6, PROVIDER_VLAN, VLAN};
    matches!(data, &[_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..]
        if [IPV4, IPV6, ARP, VLAN, PROVIDER_VLAN].contains(&be16(high, low)))
}

impl<'a, V: Visit<'a>> Walk<V> {
    /// A frame of this link type.
    #[inline]
    pub(crate) fn link(&mut self, link: LinkType, mut rest: Rest<'a>) -> Result<V::Found, DropReason> {
        match link {
            LinkType::Ethernet => self.ethernet(rest),
            LinkType::RawIp => self.ip(rest),
            LinkType::LinuxSll => {
                let header = rest.take::<16>()?;
                self.cooked(be16(header[2], header[3]), be16(header[14], header[15]), rest)
            }
            LinkType::LinuxSll2 => {
                let header = rest.take::<20>()?;
                self.cooked(be16(header[8], header[9]), be16(header[0], header[1]), rest)
            }
            LinkType::Null => {
                let family = u32::from_le_bytes(*rest.take()?);
                // Written in the host order of the machine that captured.
                self.loopback(if family > 0xffff { family.swap_bytes() } else { family }, rest)
            }
            LinkType::Loop => {
                let family = u32::from_be_bytes(*rest.take()?);
                self.loopback(family, rest)
            }
            LinkType::Other(_) => Err(DropReason::UnknownLink),
        }
    }

    /// Ethernet II, or IEEE 802.3 with LLC.
    #[inline]
    fn ethernet(&mut self, mut rest: Rest<'a>) -> Result<V::Found, DropReason> {
        let header = rest.take::<14>()?;
        match be16(header[12], header[13]) {
            ethertype::IPV4 => self.ipv4(rest),
            ethertype::IPV6 => self.ipv6(rest),
            other => self.ethertype(other, rest, MAX_TAGS),
        }
    }

    /// An Ethernet frame inside another: its tags replace those of the outer frame.
    #[inline(never)]
    pub(crate) fn inner_ethernet(&mut self, rest: Rest<'a>) -> Result<V::Found, DropReason> {
        self.depth = self.depth.checked_sub(1).ok_or(DropReason::TooDeep)?;
        self.vlan = None;
        self.ethernet(rest)
    }

    /// Linux cooked capture: the protocol is an EtherType where the interface's ARPHRD_ type has those.
    fn cooked(&mut self, arphrd: u16, protocol: u16, rest: Rest<'a>) -> Result<V::Found, DropReason> {
        const ARPHRD_NETLINK: u16 = 824;
        const PROTOCOL_802_2: u16 = 0x0004;
        match protocol {
            _ if arphrd == ARPHRD_NETLINK => Err(DropReason::UnknownLink),
            PROTOCOL_802_2 => self.llc(rest, MAX_TAGS),
            _ => self.ethertype(protocol, rest, MAX_TAGS),
        }
    }

    /// BSD loopback: address families as the BSDs, Darwin and Linux number them.
    fn loopback(&mut self, family: u32, rest: Rest<'a>) -> Result<V::Found, DropReason> {
        match family {
            2 => self.ipv4(rest),
            10 | 24 | 28 | 30 => self.ipv6(rest),
            _ => Err(DropReason::UnknownLink),
        }
    }

    /// IPv4 or IPv6, told by the version nibble.
    pub(crate) fn ip(&mut self, rest: Rest<'a>) -> Result<V::Found, DropReason> {
        match rest.first()? >> 4 {
            4 => self.ipv4(rest),
            6 => self.ipv6(rest),
            _ => Err(DropReason::Malformed),
        }
    }

    /// What an EtherType says; `tags` is how many more tags may follow.
    #[inline(never)]
    pub(crate) fn ethertype(
        &mut self,
        ethertype: u16,
        mut rest: Rest<'a>,
        tags: u8,
    ) -> Result<V::Found, DropReason> {
        let tags = tags.checked_sub(1).ok_or(DropReason::TooDeep)?;
        match ethertype {
            ethertype::IPV4 => self.ipv4(rest),
            ethertype::IPV6 => self.ipv6(rest),
            ethertype::VLAN | ethertype::PROVIDER_VLAN | ethertype::QINQ_VLAN => {
                let tag = rest.take::<4>()?;
                let id = vlan_id(be16(tag[0], tag[1]));
                self.vlan = self.vlan.or(id);
                self.visit.tag(id);
                self.ethertype(be16(tag[2], tag[3]), rest, tags)
            }
            ethertype::MPLS | ethertype::MPLS_MULTICAST => self.mpls(rest),
            ethertype::PPPOE_SESSION => self.pppoe(rest),
            ethertype::TEB => self.inner_ethernet(rest),
            ethertype::FABRIC_PATH => {
                rest.skip(2)?;
                self.inner_ethernet(rest)
            }
            ethertype::ARP | ethertype::RARP => Err(DropReason::Arp),
            ethertype::PPPOE_DISCOVERY
            | ethertype::SLOW_PROTOCOLS
            | ethertype::EAPOL
            | ethertype::LLDP
            | ethertype::PTP
            | ethertype::CFM
            | ethertype::CONFIGURATION_TEST => Err(DropReason::L2Control),
            length if length < ethertype::MIN => {
                rest.limit(length as usize);
                self.llc(rest, tags)
            }
            _ => Err(DropReason::UnknownLink),
        }
    }

    /// MPLS label stack (RFC 3032). What it carries is not said: IP by the nibble, else a pseudowire (RFC 4448).
    fn mpls(&mut self, mut rest: Rest<'a>) -> Result<V::Found, DropReason> {
        const BOTTOM_OF_STACK: u8 = 0x01;
        let mut labels = 0;
        while rest.take::<4>()?[2] & BOTTOM_OF_STACK == 0 {
            labels += 1;
            if labels == MAX_TAGS {
                return Err(DropReason::TooDeep);
            }
        }
        match rest.first()? >> 4 {
            4 => self.ipv4(rest),
            6 => self.ipv6(rest),
            // Control word (RFC 4385), unless it is the address of an Ethernet frame.
            0 if !looks_like_ethernet(rest.data) => {
                rest.take::<4>()?;
                self.inner_ethernet(rest)
            }
            // Associated channel: OAM.
            1 => Err(DropReason::L2Control),
            _ => self.inner_ethernet(rest),
        }
    }

    /// PPPoE session (RFC 2516).
    fn pppoe(&mut self, mut rest: Rest<'a>) -> Result<V::Found, DropReason> {
        let &[version_type, code, _, _, len_high, len_low] = rest.take::<6>()?;
        if version_type != 0x11 || code != 0 {
            return Err(DropReason::Malformed);
        }
        rest.limit(be16(len_high, len_low) as usize);
        let &[high, low] = rest.take::<2>()?;
        match be16(high, low) {
            0x0021 => self.ipv4(rest),
            0x0057 => self.ipv6(rest),
            0x0281 | 0x0283 => self.mpls(rest),
            _ => Err(DropReason::L2Control),
        }
    }

    /// IEEE 802.2 LLC, with SNAP (RFC 1042).
    fn llc(&mut self, mut rest: Rest<'a>, tags: u8) -> Result<V::Found, DropReason> {
        const SNAP: u8 = 0xaa;
        const IP: u8 = 0x06;
        const SPANNING_TREE: u8 = 0x42;
        const ISIS: u8 = 0xfe;
        let &[dsap, _, _] = rest.take::<3>()?;
        match dsap {
            SNAP => {
                let snap = rest.take::<5>()?;
                match [snap[0], snap[1], snap[2]] {
                    [0, 0, 0] | [0, 0, 0xf8] => self.ethertype(be16(snap[3], snap[4]), rest, tags),
                    // Cisco: CDP, VTP, DTP, PVST+.
                    [0, 0, 0x0c] => Err(DropReason::L2Control),
                    _ => Err(DropReason::UnknownLink),
                }
            }
            IP => self.ipv4(rest),
            SPANNING_TREE | ISIS => Err(DropReason::L2Control),
            _ => Err(DropReason::UnknownLink),
        }
    }
}

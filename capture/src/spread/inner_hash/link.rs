//! Link layer: from the first byte of a frame to the IP header.

use wirespan_frame::LinkType;

use super::rest::{Rest, be16};
use super::{Stop, Walk};

/// Most tags (VLAN, MPLS, PPPoE, LLC) in a row that are followed.
pub(super) const MAX_TAGS: u8 = 16;

/// EtherTypes, IEEE 802 numbers.
pub(super) mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    /// Transparent Ethernet bridging: an Ethernet frame follows.
    pub const TEB: u16 = 0x6558;
    pub const RARP: u16 = 0x8035;
    pub const VLAN: u16 = 0x8100;
    pub const SLOW_PROTOCOLS: u16 = 0x8809;
    pub const IPV6: u16 = 0x86dd;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
    pub const PPPOE_DISCOVERY: u16 = 0x8863;
    pub const PPPOE_SESSION: u16 = 0x8864;
    pub const EAPOL: u16 = 0x888e;
    pub const PROVIDER_VLAN: u16 = 0x88a8;
    pub const LLDP: u16 = 0x88cc;
    pub const PTP: u16 = 0x88f7;
    pub const CFM: u16 = 0x8902;
    pub const FABRIC_PATH: u16 = 0x8903;
    pub const CONFIGURATION_TEST: u16 = 0x9000;
    /// Stacked VLANs before 802.1ad.
    pub const QINQ_VLAN: u16 = 0x9100;
    /// Smaller values are the length of an IEEE 802.3 frame.
    pub const MIN: u16 = 0x0600;
}

/// The VLAN id in 802.1Q tag control information; 0 tags a priority only.
pub(super) fn vlan_id(tci: u16) -> u16 {
    tci & 0x0fff
}

fn looks_like_ethernet(data: &[u8]) -> bool {
    use ethertype::{ARP, IPV4, IPV6, PROVIDER_VLAN, VLAN};
    matches!(data, &[_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..]
        if [IPV4, IPV6, ARP, VLAN, PROVIDER_VLAN].contains(&be16(high, low)))
}

impl Walk {
    #[inline]
    pub fn link(&mut self, link: LinkType, mut rest: Rest<'_>) -> Result<u32, Stop> {
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
            LinkType::Other(_) => Err(Stop::Dropped),
        }
    }

    #[inline]
    fn ethernet(&mut self, mut rest: Rest<'_>) -> Result<u32, Stop> {
        let header = rest.take::<14>()?;
        match be16(header[12], header[13]) {
            ethertype::IPV4 => self.ipv4(rest),
            ethertype::IPV6 => self.ipv6(rest),
            other => self.ethertype(other, rest, MAX_TAGS),
        }
    }

    /// An Ethernet frame inside another: its tags replace those of the outer frame.
    pub fn inner_ethernet(&mut self, rest: Rest<'_>) -> Result<u32, Stop> {
        self.depth = self.depth.checked_sub(1).ok_or(Stop::Dropped)?;
        self.vlan = 0;
        self.ethernet(rest)
    }

    fn cooked(&mut self, arphrd: u16, protocol: u16, rest: Rest<'_>) -> Result<u32, Stop> {
        const ARPHRD_NETLINK: u16 = 824;
        const PROTOCOL_802_2: u16 = 0x0004;
        match protocol {
            _ if arphrd == ARPHRD_NETLINK => Err(Stop::Dropped),
            PROTOCOL_802_2 => self.llc(rest, MAX_TAGS),
            _ => self.ethertype(protocol, rest, MAX_TAGS),
        }
    }

    /// Address families as the BSDs, Darwin and Linux number them.
    fn loopback(&mut self, family: u32, rest: Rest<'_>) -> Result<u32, Stop> {
        match family {
            2 => self.ipv4(rest),
            10 | 24 | 28 | 30 => self.ipv6(rest),
            _ => Err(Stop::Dropped),
        }
    }

    /// IPv4 or IPv6, told by the version nibble.
    pub fn ip(&mut self, rest: Rest<'_>) -> Result<u32, Stop> {
        match rest.first()? >> 4 {
            4 => self.ipv4(rest),
            6 => self.ipv6(rest),
            _ => Err(Stop::Undecodable),
        }
    }

    /// What an EtherType says; `tags` is how many more tags may follow.
    #[inline(never)]
    pub fn ethertype(&mut self, ethertype: u16, mut rest: Rest<'_>, tags: u8) -> Result<u32, Stop> {
        let tags = tags.checked_sub(1).ok_or(Stop::Dropped)?;
        match ethertype {
            ethertype::IPV4 => self.ipv4(rest),
            ethertype::IPV6 => self.ipv6(rest),
            ethertype::VLAN | ethertype::PROVIDER_VLAN | ethertype::QINQ_VLAN => {
                let tag = rest.take::<4>()?;
                if self.vlan == 0 {
                    self.vlan = vlan_id(be16(tag[0], tag[1]));
                }
                self.ethertype(be16(tag[2], tag[3]), rest, tags)
            }
            ethertype::MPLS | ethertype::MPLS_MULTICAST => self.mpls(rest),
            ethertype::PPPOE_SESSION => self.pppoe(rest),
            ethertype::TEB => self.inner_ethernet(rest),
            ethertype::FABRIC_PATH => {
                rest.skip(2)?;
                self.inner_ethernet(rest)
            }
            ethertype::ARP
            | ethertype::RARP
            | ethertype::PPPOE_DISCOVERY
            | ethertype::SLOW_PROTOCOLS
            | ethertype::EAPOL
            | ethertype::LLDP
            | ethertype::PTP
            | ethertype::CFM
            | ethertype::CONFIGURATION_TEST => Err(Stop::Dropped),
            length if length < ethertype::MIN => {
                rest.limit(length as usize);
                self.llc(rest, tags)
            }
            _ => Err(Stop::Undecodable),
        }
    }

    /// MPLS label stack (RFC 3032): IP by the nibble, else a pseudowire (RFC 4448).
    fn mpls(&mut self, mut rest: Rest<'_>) -> Result<u32, Stop> {
        const BOTTOM_OF_STACK: u8 = 0x01;
        let mut labels = 0;
        while rest.take::<4>()?[2] & BOTTOM_OF_STACK == 0 {
            labels += 1;
            if labels == MAX_TAGS {
                return Err(Stop::Dropped);
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
            1 => Err(Stop::Dropped),
            _ => self.inner_ethernet(rest),
        }
    }

    /// PPPoE session (RFC 2516).
    fn pppoe(&mut self, mut rest: Rest<'_>) -> Result<u32, Stop> {
        let &[version_type, code, _, _, len_high, len_low] = rest.take::<6>()?;
        if version_type != 0x11 || code != 0 {
            return Err(Stop::Undecodable);
        }
        rest.limit(be16(len_high, len_low) as usize);
        let &[high, low] = rest.take::<2>()?;
        match be16(high, low) {
            0x0021 => self.ipv4(rest),
            0x0057 => self.ipv6(rest),
            0x0281 | 0x0283 => self.mpls(rest),
            _ => Err(Stop::Dropped),
        }
    }

    /// IEEE 802.2 LLC, with SNAP (RFC 1042).
    fn llc(&mut self, mut rest: Rest<'_>, tags: u8) -> Result<u32, Stop> {
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
                    [0, 0, 0x0c] => Err(Stop::Dropped),
                    _ => Err(Stop::Undecodable),
                }
            }
            IP => self.ipv4(rest),
            SPANNING_TREE | ISIS => Err(Stop::Dropped),
            _ => Err(Stop::Undecodable),
        }
    }
}

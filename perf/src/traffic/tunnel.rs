//! What made-up connections may be in.

use super::connections::{ETHERNET, IP, folded, ip_header, macs, sum};
use clap::ValueEnum;

const UDP: usize = 8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const IP_IN_IP: u8 = 4;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_GRE: u8 = 47;

/// VNI, key and session of every tunnel that has one.
const ID: u8 = 42;

/// A tunnel to put connections in, all with the same outer addresses, as a mirror sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tunnel {
    /// None
    #[default]
    None,
    /// VXLAN
    Vxlan,
    /// GENEVE
    Geneve,
    /// GRE with a key, around IP packets
    Gre,
    /// ERSPAN type II; every GRE sequence number is 0
    Erspan,
    /// IPv4 in IPv4
    Ipip,
}

impl Tunnel {
    /// As it is written in a name; empty for none.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Vxlan => "VXLAN",
            Self::Geneve => "GENEVE",
            Self::Gre => "GRE",
            Self::Erspan => "ERSPAN",
            Self::Ipip => "IPIP",
        }
    }

    /// What follows the outer IP header: its protocol and, without the UDP header, the tunnel's own.
    fn header(self) -> (u8, &'static [u8]) {
        match self {
            Self::None => (0, &[]),
            // RFC 7348: the flag of a valid VNI, the VNI.
            Self::Vxlan => (PROTOCOL_UDP, &[8, 0, 0, 0, 0, 0, ID, 0]),
            // RFC 8926: no options, the type of Ethernet, the VNI.
            Self::Geneve => (PROTOCOL_UDP, &[0, 0, 0x65, 0x58, 0, 0, ID, 0]),
            // RFC 2890: the flag of a key, the type of IPv4, the key.
            Self::Gre => (PROTOCOL_GRE, &[0x20, 0, 0x08, 0, 0, 0, 0, ID]),
            // draft-foschiano-erspan: GRE with a sequence number; version 1, the session, the index.
            Self::Erspan => (PROTOCOL_GRE, &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 0, 0x10, 0, 0, ID, 0, 0, 0, 0]),
            Self::Ipip => (IP_IN_IP, &[]),
        }
    }

    fn udp_port(self) -> Option<u16> {
        match self {
            Self::Vxlan => Some(4789),
            Self::Geneve => Some(6081),
            _ => None,
        }
    }

    /// Whether frames are in it and not IP packets.
    fn holds_ethernet(self) -> bool {
        matches!(self, Self::None | Self::Vxlan | Self::Geneve | Self::Erspan)
    }

    /// Bytes by which it makes a frame longer.
    pub fn bytes(self) -> usize {
        self.ip() - ETHERNET
    }

    /// Where the IP header of a connection is.
    pub fn ip(self) -> usize {
        if self == Self::None {
            return ETHERNET;
        }
        let udp = if self.udp_port().is_some() { UDP } else { 0 };
        let ethernet = if self.holds_ethernet() { ETHERNET } else { 0 };
        ETHERNET + IP + udp + self.header().1.len() + ethernet
    }

    /// Where the outer UDP header is, whose source port tells flows apart; 0 where there is none.
    pub fn outer_udp(self) -> usize {
        self.udp_port().map_or(0, |_| ETHERNET + IP)
    }

    /// Puts a frame with an IP packet of this length in. UDP checksums are left out, as they may be.
    pub fn wrap(self, frame: Vec<u8>, packet: usize, from_server: bool) -> Vec<u8> {
        if self == Self::None {
            return frame;
        }
        let (protocol, header) = self.header();
        // A packet's padding is the outer frame's then.
        let (inside, len) =
            if self.holds_ethernet() { (&frame[..], frame.len()) } else { (&frame[ETHERNET..], packet) };
        let mut outer = [0; ETHERNET + IP];
        outer[..12].copy_from_slice(&macs(from_server));
        outer[12..ETHERNET].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        let udp_len = (UDP + header.len() + len) as u16;
        let udp: Vec<u8> = self
            .udp_port()
            .map(|port| [[0; 2], port.to_be_bytes(), udp_len.to_be_bytes(), [0; 2]].concat())
            .unwrap_or_default();
        let ip = &mut outer[ETHERNET..];
        ip_header(ip, IP + udp.len() + header.len() + len, protocol);
        ip[12..].copy_from_slice(&[192, 168, 0, 1, 192, 168, 0, 2]);
        let check = !folded(sum(ip));
        ip[10..12].copy_from_slice(&check.to_ne_bytes());
        [&outer[..], &udp, header, inside].concat()
    }
}

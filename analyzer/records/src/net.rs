//! Endpoints, L4 protocols, tunnels and where a packet was seen.

use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};

/// An address and port; port 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IPv4 or IPv6 address.
    pub ip: IpAddr,
    /// TCP, UDP or SCTP port in host order.
    pub port: u16,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 }
    }
}

/// L4 protocol of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum L4Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
    /// RFC 792.
    Icmp,
    /// RFC 4443.
    Icmpv6,
    /// Any other IP protocol number.
    Other(u8),
}

impl L4Protocol {
    /// From the protocol number of an IPv4 header or the last next-header of an IPv6 chain.
    pub fn from_ip_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            132 => Self::Sctp,
            other => Self::Other(other),
        }
    }

    /// The IANA protocol number.
    pub fn ip_number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Sctp => 132,
            Self::Other(n) => n,
        }
    }

    /// The name in records: `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` or `other`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Other(_) => "other",
        }
    }
}

impl Serialize for L4Protocol {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

/// Encapsulation that carried a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// RFC 7348, with GPE and NSH (RFC 8300) too.
    Vxlan,
    /// RFC 8926.
    Geneve,
    /// RFC 2784 and 2890, with transparent Ethernet bridging.
    Gre,
    /// ERSPAN type I, II or III over GRE.
    Erspan,
    /// IP in IP, all four mixes (RFC 2003, 2473, 4213).
    Ipip,
    /// GTP-U, 3GPP TS 29.281.
    Gtpu,
}

impl TunnelKind {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::Ipip => "ipip",
            Self::Gtpu => "gtpu",
        }
    }
}

/// The innermost tunnel a flow's packets came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Tunnel {
    /// Encapsulation.
    #[serde(rename = "type")]
    pub kind: TunnelKind,
    /// VNI, GRE key, ERSPAN session or TEID; 0 where there is none.
    pub id: u32,
    /// Outer source address of the flow's first packet.
    pub outer_src: IpAddr,
    /// Outer destination address of the flow's first packet.
    pub outer_dst: IpAddr,
}

/// The id of no tap: the frames came from no tap of the taps file, or there is no such file.
pub const NO_TAP: u16 = 0;

/// How the bytes of a span were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// On the wire.
    #[default]
    Packet,
    /// At a system call.
    Syscall,
    /// At a TLS library call.
    Tls,
}

impl Signal {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Syscall => "syscall",
            Self::Tls => "tls",
        }
    }
}

/// Where on the path between client and server something was seen, in the order of that path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ObservationPoint {
    /// The client's process.
    ClientProcess,
    /// The client's own interface.
    Client,
    /// The node that the client's pod runs on.
    ClientNode,
    /// The client's hypervisor.
    ClientHypervisor,
    /// A gateway's hypervisor on the client's side.
    ClientGatewayHypervisor,
    /// A gateway on the client's side.
    ClientGateway,
    /// Both ends are this host.
    Local,
    /// Somewhere between, not known better.
    #[default]
    Rest,
    /// A gateway on the server's side.
    ServerGateway,
    /// A gateway's hypervisor on the server's side.
    ServerGatewayHypervisor,
    /// The server's hypervisor.
    ServerHypervisor,
    /// The node that the server's pod runs on.
    ServerNode,
    /// The server's own interface.
    Server,
    /// The server's process.
    ServerProcess,
}

impl ObservationPoint {
    /// Every point, from the client's process to the server's.
    pub const ALL: [Self; 14] = [
        Self::ClientProcess,
        Self::Client,
        Self::ClientNode,
        Self::ClientHypervisor,
        Self::ClientGatewayHypervisor,
        Self::ClientGateway,
        Self::Local,
        Self::Rest,
        Self::ServerGateway,
        Self::ServerGatewayHypervisor,
        Self::ServerHypervisor,
        Self::ServerNode,
        Self::Server,
        Self::ServerProcess,
    ];

    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientProcess => "c-p",
            Self::Client => "c",
            Self::ClientNode => "c-nd",
            Self::ClientHypervisor => "c-hv",
            Self::ClientGatewayHypervisor => "c-gw-hv",
            Self::ClientGateway => "c-gw",
            Self::Local => "local",
            Self::Rest => "rest",
            Self::ServerGateway => "s-gw",
            Self::ServerGatewayHypervisor => "s-gw-hv",
            Self::ServerHypervisor => "s-hv",
            Self::ServerNode => "s-nd",
            Self::Server => "s",
            Self::ServerProcess => "s-p",
        }
    }
}

impl Serialize for ObservationPoint {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

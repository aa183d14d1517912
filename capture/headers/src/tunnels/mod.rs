//! Tunnels: one file and one line of registration each.
//!
//! A tunnel is an `open` function that reads the tunnel's own header, and says what is inside. It returns an error for
//! whatever does not check out; the packet then counts for the outer flow.

mod erspan;
mod geneve;
mod gre;
mod gtpu;
mod ipip;
mod vxlan;

use wirespan_records::{DropReason, TunnelKind};

use crate::link::{MAX_TAGS, ethertype};
use crate::rest::Rest;
use crate::{Addresses, Visit, Walk};

/// Every tunnel. ERSPAN is one of GRE's protocol types and registered there.
const TUNNELS: &[Encapsulation] = &[vxlan::VXLAN, geneve::GENEVE, gtpu::GTPU, gre::GRE, ipip::IPIP];

/// What carries a tunnel.
enum Carrier {
    /// UDP destination ports, unless the configuration says otherwise.
    Udp(&'static [u16]),
    /// IP protocol numbers.
    Ip(&'static [u8]),
}

/// How a tunnel is recognised and opened.
pub struct Encapsulation {
    kind: TunnelKind,
    carrier: Carrier,
    open: for<'a> fn(Rest<'a>) -> Result<Opened<'a>, DropReason>,
}

/// What a tunnel's header says.
struct Opened<'a> {
    kind: TunnelKind,
    id: u32,
    inside: Inside,
    rest: Rest<'a>,
}

/// What follows a tunnel's header.
enum Inside {
    Ethernet,
    /// IPv4 or IPv6 by the version nibble.
    Ip,
    /// What an EtherType says.
    EtherType(u16),
}

impl Inside {
    /// From an EtherType, where transparent Ethernet bridging is one.
    fn from_ethertype(ethertype: u16) -> Self {
        match ethertype {
            ethertype::TEB => Self::Ethernet,
            other => Self::EtherType(other),
        }
    }
}

/// The UDP ports that tunnels are known to use.
pub fn default_ports() -> Vec<(u16, TunnelKind)> {
    let ports = |tunnel: &Encapsulation| match tunnel.carrier {
        Carrier::Udp(ports) => ports.iter().map(|&port| (port, tunnel.kind)).collect(),
        Carrier::Ip(_) => Vec::new(),
    };
    TUNNELS.iter().flat_map(ports).collect()
}

/// The tunnel with an IP protocol number of its own.
pub(crate) fn over_ip(protocol: u8) -> Option<&'static Encapsulation> {
    TUNNELS
        .iter()
        .find(|tunnel| matches!(tunnel.carrier, Carrier::Ip(numbers) if numbers.contains(&protocol)))
}

/// The tunnel that is known to use a UDP port.
#[inline]
pub fn on_default_port(port: u16) -> Option<&'static Encapsulation> {
    TUNNELS.iter().find(|tunnel| matches!(tunnel.carrier, Carrier::Udp(ports) if ports.contains(&port)))
}

/// The UDP destination ports that are looked into.
#[derive(Debug)]
pub struct TunnelPorts {
    ports: Vec<u16>,
    /// Index into [`TUNNELS`] of the port at the same place.
    tunnels: Vec<usize>,
}

impl TunnelPorts {
    /// Kinds that are not carried by UDP are ignored.
    pub fn new(ports: &[(u16, TunnelKind)]) -> Self {
        let over_udp = |kind| {
            TUNNELS.iter().position(|tunnel| tunnel.kind == kind && matches!(tunnel.carrier, Carrier::Udp(_)))
        };
        let (ports, tunnels) = ports.iter().filter_map(|&(port, kind)| Some((port, over_udp(kind)?))).unzip();
        Self { ports, tunnels }
    }

    /// The tunnel on a port.
    #[inline]
    pub fn get(&self, port: u16) -> Option<&'static Encapsulation> {
        let index = self.ports.iter().position(|&p| p == port)?;
        TUNNELS.get(*self.tunnels.get(index)?)
    }
}

impl<'a, V: Visit<'a>> Walk<V> {
    /// The packet inside a tunnel, or why there is none; `None` where the outer packet is all that can be told.
    #[inline(never)]
    pub(crate) fn enter(
        &mut self,
        tunnel: &Encapsulation,
        outer: Addresses,
        rest: Rest<'a>,
    ) -> Option<Result<V::Found, DropReason>> {
        let opened = (tunnel.open)(rest).ok()?;
        let (vlan, depth) = (self.vlan, self.depth);
        let outside = self.visit.enter(opened.kind, opened.id, outer);
        let inner = self.inside(opened.inside, opened.rest);
        match inner {
            Err(
                DropReason::Truncated
                | DropReason::Malformed
                | DropReason::UnknownLink
                | DropReason::TooManyExtensions,
            ) => {
                (self.vlan, self.depth) = (vlan, depth);
                self.visit.leave(outside);
                None
            }
            inner => Some(inner),
        }
    }

    fn inside(&mut self, inside: Inside, rest: Rest<'a>) -> Result<V::Found, DropReason> {
        if let Inside::Ethernet = inside {
            return self.inner_ethernet(rest);
        }
        self.depth = self.depth.checked_sub(1).ok_or(DropReason::TooDeep)?;
        match inside {
            Inside::EtherType(ethertype) => self.ethertype(ethertype, rest, MAX_TAGS),
            _ => self.ip(rest),
        }
    }
}

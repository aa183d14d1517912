//! From the first byte of a frame to its innermost packet.
//!
//! Takes in the captured bytes of one frame; follows its headers inwards, through tags and tunnels, and hands what they say to
//! a [`Visit`], which makes of the innermost packet what it is there for: decoding makes a packet for the flow table,
//! spreading a hash. So both stop at the same places, and a tunnel is known to both or to none. Nothing is kept from frame to
//! frame here.
//!
//! A tunnel header that does not check out, or whose inside cannot be read, is no reason to lose the frame: it is then a packet
//! of the outer flow.
//!
//! - [`rest`]: what is left of a packet behind the headers read so far
//! - `link`: link types, VLAN tags, MPLS, PPPoE, LLC/SNAP
//! - `ip`: IPv4, IPv6 with extension headers
//! - [`transport`]: TCP, UDP, SCTP, ICMP
//! - [`tunnels`]: one file per tunnel; the inner packet wins
//! - [`addresses`]: source and destination

pub mod addresses;
mod ip;
mod link;
pub mod rest;
pub mod transport;
pub mod tunnels;

use wirespan_frame::Frame;
use wirespan_records::{DropReason, TunnelKind};

pub use addresses::Addresses;
pub use ip::Fragment;
pub use link::ethertype;
pub use rest::Rest;
pub use transport::{L4Header, Tcp, protocol};
use tunnels::Encapsulation;

/// Most tunnels inside each other that are followed.
pub const MAX_TUNNELS: u8 = 4;

/// What the headers of one frame are read for.
pub trait Visit<'a> {
    /// What becomes of the innermost packet.
    type Found;
    /// What a tunnel changes, and is as it was when its inside cannot be read.
    type Outside;

    /// A VLAN tag, outermost first; of the frame in a tunnel too.
    fn tag(&mut self, id: Option<u16>);

    /// An IP packet begins; `captured` is what there is of it, and of what lies behind it.
    fn ip(&mut self, captured: &'a [u8]);

    /// The tunnel on a UDP destination port.
    fn tunnel_on(&self, port: u16) -> Option<&'static Encapsulation>;

    /// The packet between these addresses is a tunnel's.
    fn enter(&mut self, kind: TunnelKind, id: u32, outer: Addresses) -> Self::Outside;

    /// It is taken for a packet of the outer flow after all.
    fn leave(&mut self, outside: Self::Outside);

    /// An IP packet is a fragment.
    ///
    /// # Errors
    /// There is nothing to go on with.
    fn fragment(
        &mut self,
        addresses: Addresses,
        vlan: Option<u16>,
        fragment: Fragment,
        rest: Rest<'a>,
    ) -> Result<Onward<'a, Self::Found>, DropReason>;

    /// Whether what is read is the start of a datagram whose end is not there: of TCP and others the ports do then.
    fn is_start(&self) -> bool;

    /// The innermost packet: what its IP packet carries, `l3_len` bytes of it by the IP header, and what is behind the L4
    /// header.
    fn found(&mut self, packet: Innermost<'a>) -> Self::Found;
}

/// How it goes on with a fragment.
pub enum Onward<'a, F> {
    /// With what it is the start of, or completes: the protocol and the payload.
    With(u8, Rest<'a>),
    /// It is known without.
    Found(F),
}

/// What the headers tell of the innermost packet.
pub struct Innermost<'a> {
    /// Of the IP header.
    pub addresses: Addresses,
    /// Outermost VLAN id of the innermost Ethernet frame.
    pub vlan: Option<u16>,
    /// IP protocol number.
    pub protocol: u8,
    /// Bytes behind the IP header, by its length field.
    pub l3_len: usize,
    /// What the L4 header tells.
    pub header: L4Header,
    /// What is behind it.
    pub rest: Rest<'a>,
}

/// The walk through one frame: what the headers so far have told.
pub struct Walk<V> {
    /// Who is told.
    pub visit: V,
    vlan: Option<u16>,
    /// How many more tunnels may be entered.
    depth: u8,
}

impl<'a, V: Visit<'a>> Walk<V> {
    /// At the start of a frame; the tag that the NIC took off is the first.
    #[inline(always)]
    pub fn new(mut visit: V, frame: &Frame<'a>) -> Self {
        let vlan = frame.hints.vlan_tci.and_then(link::vlan_id);
        visit.tag(vlan);
        Self { visit, vlan, depth: MAX_TUNNELS }
    }

    /// Through the whole frame.
    ///
    /// # Errors
    /// Why there is no packet in it.
    #[inline]
    pub fn frame(&mut self, frame: &Frame<'a>) -> Result<V::Found, DropReason> {
        self.link(frame.link, Rest::new(frame.data, frame.wire_len as usize))
    }
}

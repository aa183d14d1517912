//! A symmetric hash of a frame's innermost addresses and ports: both directions of a flow, tunnelled or not, give the same.
//!
//! The headers are followed as for decoding, so that two frames of one flow never give different hashes. Nothing is kept; IP
//! fragments without ports are named by the datagram they belong to, for [`Router`](super::router::Router) to remember.
//!
//! - `plain`: the frames that most are, without a walk

mod plain;

use wirespan_frame::Frame;
use wirespan_headers::addresses::mix;
use wirespan_headers::tunnels::{Encapsulation, on_default_port};
use wirespan_headers::{self as headers, Addresses, Innermost, Onward, Rest, Visit, Walk};
use wirespan_records::{DropReason, TunnelKind};

use plain::bare_ip;
pub(super) use plain::{is_plainly_bare, plain_hash};

/// A first fragment in each tunnel level that is worth remembering: a tunnel's and the packet's in it.
const MAX_LEADS: usize = 2;

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InnerHash {
    /// Hash of the innermost addresses, ports and protocol; without ports in a fragment that has none; 0 when the frame
    /// has no IP packet that decoding would hand on.
    pub hash: u32,
    /// False when the frame has no such packet.
    pub is_flow: bool,
    /// The packet lies in no tunnel, behind an Ethernet header and VLAN tags alone: a NIC can hash its addresses.
    pub is_bare: bool,
    /// Present when a packet in the frame is an IP fragment.
    pub fragment: Option<Fragment>,
}

impl InnerHash {
    /// Of a plain frame.
    pub(super) fn plain(hash: u32) -> Self {
        Self { hash, is_flow: true, is_bare: true, fragment: None }
    }
}

/// Which frames a frame with a fragment belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The frame is a later fragment of this datagram and belongs where the first fragment does.
    pub follows: Option<u64>,
    /// The frame is the first fragment of these datagrams (one in the other), whose later fragments belong where it does.
    pub leads: [Option<u64>; MAX_LEADS],
}

/// The hash of a frame; with the `seed` of the XDP program it is the one that comes as [`Hints::flow_hash`].
///
/// [`Hints::flow_hash`]: wirespan_frame::Hints::flow_hash
pub fn inner_hash(frame: &Frame<'_>, seed: u64) -> InnerHash {
    match plain_hash(frame.link, frame.data, seed) {
        Some(hash) => InnerHash::plain(hash),
        None => walk(frame, seed),
    }
}

/// The hash of any frame.
#[inline(never)]
pub(super) fn walk(frame: &Frame<'_>, seed: u64) -> InnerHash {
    let mut walk = Walk::new(Hashing { seed, told: Told::default(), fragment: None }, frame);
    let hash = walk.frame(frame).ok();
    let Hashing { told, fragment, .. } = walk.visit;
    InnerHash {
        hash: hash.unwrap_or_default(),
        is_flow: hash.is_some(),
        is_bare: told.tunnel.is_none() && bare_ip(frame.link, frame.data).is_some(),
        fragment,
    }
}

/// What the headers of one frame have told so far.
struct Hashing {
    seed: u64,
    told: Told,
    fragment: Option<Fragment>,
}

/// What an inner packet may tell otherwise.
#[derive(Clone, Copy, Default)]
struct Told {
    tunnel: Option<(TunnelKind, u32)>,
    /// In the first fragment of a datagram: what lies behind its end is only missing here.
    is_start: bool,
}

impl<'a> Visit<'a> for Hashing {
    type Found = u32;
    type Outside = Told;

    fn tag(&mut self, _: Option<u16>) {}

    fn ip(&mut self, _: &'a [u8]) {}

    fn tunnel_on(&self, port: u16) -> Option<&'static Encapsulation> {
        on_default_port(port)
    }

    fn enter(&mut self, kind: TunnelKind, id: u32, _: Addresses) -> Told {
        let outside = self.told;
        self.told.tunnel = Some((kind, id));
        outside
    }

    fn leave(&mut self, outside: Told) {
        self.told = outside;
    }

    /// The first fragment leads to the flow; a later one is known by its datagram alone.
    fn fragment(
        &mut self,
        addresses: Addresses,
        vlan: Option<u16>,
        fragment: headers::Fragment,
        rest: Rest<'a>,
    ) -> Result<Onward<'a, u32>, DropReason> {
        let datagram = datagram(addresses, &fragment, vlan, self.told.tunnel);
        let found = self.fragment.get_or_insert_default();
        if fragment.offset > 0 {
            found.follows = Some(datagram);
            return Ok(Onward::Found(addresses.flow_hash(self.seed, 0, 0, fragment.protocol)));
        }
        if let Some(free) = found.leads.iter_mut().find(|lead| lead.is_none()) {
            *free = Some(datagram);
        }
        self.told.is_start = true;
        Ok(Onward::With(fragment.protocol, rest))
    }

    fn is_start(&self) -> bool {
        self.told.is_start
    }

    fn found(&mut self, packet: Innermost<'a>) -> u32 {
        let Innermost { addresses, protocol, header, .. } = packet;
        addresses.flow_hash(self.seed, header.src_port, header.dst_port, protocol)
    }
}

/// Names the datagram that a fragment is of, with all that tells it from others; RFC 791 counts the protocol among that.
fn datagram(
    addresses: Addresses,
    fragment: &headers::Fragment,
    vlan: Option<u16>,
    tunnel: Option<(TunnelKind, u32)>,
) -> u64 {
    let Addresses { src, dst, v6 } = addresses;
    let protocol = if v6 { u64::MAX } else { u64::from(fragment.protocol) };
    let tunnel = tunnel.map_or(0, |(kind, id)| u64::from(id) | (kind as u64 + 1) << 32);
    let words = [
        src as u64,
        (src >> 64) as u64,
        dst as u64,
        (dst >> 64) as u64,
        fragment.id.into(),
        protocol,
        tunnel,
    ];
    words.iter().fold(vlan.unwrap_or_default().into(), |hash, word| mix(hash ^ word))
}

#[cfg(test)]
mod tests;

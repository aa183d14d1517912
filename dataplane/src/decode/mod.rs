//! From a frame to its innermost packet.
//!
//! [`Decoder::decode`] takes a [`Frame`], walks its headers from the link inwards and hands on the innermost
//! [`Packet`], or the reason why there is none. It counts nothing: every frame gives exactly one result, so a caller
//! that counts packets and reasons has `frames = packets + drops`.
//!
//! - `visit`: what is made of the headers; [`wirespan_headers`] follows them
//! - `fragments`: puts IP fragments together
//! - `mirror`: which tap a frame came from, and whether it came before
//!
//! Lengths come from the IP header, also where they exceed the frame: what a snap length or a mirror cut off is missing
//! from [`Packet::payload`] only. A tunnel header that does not check out, or whose inside cannot be decoded, is no reason
//! to lose the frame: it is then a packet of the outer flow. Inner ARP, L2 control and fragments count as such.
//!
//! # Fragments
//!
//! Fragments that wait return [`DropReason::Fragment`]; the one that completes the datagram returns its packet, with
//! the wire length of all its frames. Fragments that turn out later to be lost were already returned as `Fragment`:
//! [`Decoder::lost_fragments`] says how many, for the caller to move from `Fragment` to `FragmentLost`, which leaves
//! the total as it is.

mod fragments;
mod mirror;
mod visit;

use crate::packet::Packet;
use crate::tap::{Facts, OuterTunnel};
pub use fragments::FragmentLimits;
use fragments::Reassembly;
use mirror::Mirror;
pub use mirror::MirrorConfig;
use visit::{Decoding, Told};
use wirespan_frame::Frame;
use wirespan_headers::tunnels::{TunnelPorts, default_ports};
use wirespan_headers::{MAX_TUNNELS, Walk};
use wirespan_records::{DropReason, TunnelKind};

/// A datagram per tunnel level, and one for a fragment header inside a datagram that was put together.
const MAX_DATAGRAMS_PER_FRAME: usize = MAX_TUNNELS as usize + 2;

/// What to look into, and how much memory to spend on it.
#[derive(Clone, Debug)]
pub struct DecodeConfig {
    /// UDP destination ports of tunnels. VXLAN includes GPE and NSH.
    pub tunnel_ports: Vec<(u16, TunnelKind)>,
    /// Bounds on fragments that wait for the others.
    pub fragments: FragmentLimits,
    /// What is known of mirrors.
    pub mirror: MirrorConfig,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            tunnel_ports: default_ports(),
            fragments: FragmentLimits::default(),
            mirror: MirrorConfig::default(),
        }
    }
}

/// What is kept from frame to frame.
#[derive(Debug)]
struct State {
    ports: TunnelPorts,
    reassembly: Reassembly,
    /// Where there are taps, or duplicates to drop.
    mirror: Option<Box<Mirror>>,
}

/// Decodes the frames of one worker.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Datagrams put together from fragments that the last packet may borrow; kept for their capacity.
    datagrams: [Vec<u8>; MAX_DATAGRAMS_PER_FRAME],
}

impl Decoder {
    /// A decoder with nothing seen yet.
    pub fn new(config: DecodeConfig) -> Self {
        Self {
            state: State {
                ports: TunnelPorts::new(&config.tunnel_ports),
                reassembly: Reassembly::new(config.fragments),
                mirror: Mirror::new(config.mirror).map(Box::new),
            },
            datagrams: Default::default(),
        }
    }

    /// The innermost packet of a frame, or why there is none.
    #[inline]
    pub fn decode<'a>(&'a mut self, frame: &Frame<'a>) -> Result<Packet<'a>, DropReason> {
        if self.state.mirror.is_some() {
            return self.decode_mirrored(frame);
        }
        self.walk(frame).frame(frame)
    }

    /// The same where there are taps, or duplicates to drop.
    #[inline(never)]
    fn decode_mirrored<'a>(&'a mut self, frame: &Frame<'a>) -> Result<Packet<'a>, DropReason> {
        let mut walk = self.walk(frame);
        let mut result = walk.frame(frame);
        let Told { outermost_vlan: vlan, outermost_tunnel: tunnel, ip, .. } = walk.visit.told;
        if let Some(mirror) = &mut walk.visit.state.mirror
            && let Ok(packet) = &mut result
        {
            match mirror.packet(&Facts { frame, vlan, tunnel }, ip) {
                Ok(tap) => packet.tap = tap,
                Err(reason) => return Err(reason),
            }
        }
        result
    }

    #[inline(always)]
    fn walk<'a, 'f>(&'a mut self, frame: &'f Frame<'a>) -> Walk<Decoding<'a, 'f>> {
        let told = Told {
            wire_len: frame.wire_bytes(),
            tunnel: None,
            outermost_vlan: None,
            outermost_tunnel: None,
            ip: &[],
        };
        let (state, datagrams) = (&mut self.state, &mut self.datagrams);
        Walk::new(Decoding { frame, state, datagrams, told }, frame)
    }

    /// How many frames that were returned as [`DropReason::Fragment`] have turned out to be lost since the last call.
    #[inline]
    pub fn lost_fragments(&mut self) -> u64 {
        self.state.reassembly.take_lost()
    }

    /// Packets that the search for duplicates forgot early, because more came in one window than it remembers.
    pub fn forgotten(&self) -> u64 {
        self.state.mirror.as_ref().map_or(0, |mirror| mirror.forgotten())
    }

    /// Gives up all fragments that wait, at the end of the input; [`Self::lost_fragments`] then counts them.
    pub fn finish(&mut self) {
        self.state.reassembly.give_up_all();
    }
}

#[cfg(test)]
mod tests;

//! A symmetric hash of a frame's innermost addresses and ports: both directions of a flow, tunnelled or not, give the same.
//!
//! The walk follows the same headers as decoding does and gives up at the same places, so that two frames of one flow never
//! give different hashes. It reads headers only and keeps nothing; IP fragments without ports are named by the datagram
//! they belong to, for [`Router`](super::router::Router) to remember.
//!
//! - `plain`: the frames that most are, without a walk
//! - `rest`: what is left behind the headers read so far
//! - `link`, `ip`, `tunnels`: the headers

mod ip;
mod link;
mod plain;
mod rest;
mod tunnels;

use wirespan_frame::Frame;

pub(super) use plain::plain_hash;
use rest::Rest;

/// Most tunnels inside each other that are followed.
const MAX_TUNNELS: u8 = 4;
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
    /// Present when a packet in the frame is an IP fragment.
    pub fragment: Option<Fragment>,
}

impl InnerHash {
    /// Of a frame with a whole packet.
    pub(super) fn whole(hash: u32) -> Self {
        Self { hash, is_flow: true, fragment: None }
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
        Some(hash) => InnerHash::whole(hash),
        None => walk(frame, seed),
    }
}

/// The hash of any frame.
#[inline(never)]
pub(super) fn walk(frame: &Frame<'_>, seed: u64) -> InnerHash {
    let mut walk = Walk {
        seed,
        depth: MAX_TUNNELS,
        vlan: frame.hints.vlan_tci.map_or(0, link::vlan_id),
        tunnel: 0,
        partial: false,
        fragment: None,
    };
    let rest = Rest::new(frame.data, frame.wire_len as usize);
    let hash = walk.link(frame.link, rest).ok();
    InnerHash { hash: hash.unwrap_or_default(), is_flow: hash.is_some(), fragment: walk.fragment }
}

/// Why a walk ends without a flow.
enum Stop {
    /// Decoding cannot read on: inside a tunnel, the frame then belongs to the tunnel's own flow.
    Undecodable,
    /// Decoding drops the frame: it belongs nowhere.
    Dropped,
}

/// What the headers so far have told.
struct Walk {
    seed: u64,
    /// How many more tunnels may be entered.
    depth: u8,
    /// 0 without a tag.
    vlan: u16,
    /// Kind and id of the innermost tunnel so far; 0 without one.
    tunnel: u64,
    /// In the first fragment of a datagram: what lies behind its end is only missing here.
    partial: bool,
    fragment: Option<Fragment>,
}

/// Addresses of a packet; IPv4 in the low 32 bits.
#[derive(Clone, Copy)]
struct Addresses {
    src: u128,
    dst: u128,
    v6: bool,
}

impl Addresses {
    /// What [`wirespan_bpf::flow_hash()`] gives for these addresses; never 0.
    #[inline(always)]
    fn flow_hash(self, seed: u64, src_port: u16, dst_port: u16, protocol: u8) -> u32 {
        let ends = self.end(seed, self.src, src_port).wrapping_add(self.end(seed, self.dst, dst_port));
        ((mix(ends ^ u64::from(protocol)) >> 32) as u32).max(1)
    }

    #[inline(always)]
    fn end(self, seed: u64, address: u128, port: u16) -> u64 {
        let port = u64::from(port);
        if self.v6 {
            mix(mix(mix(seed ^ (address >> 64) as u64) ^ address as u64) ^ port)
        } else {
            mix(seed ^ ((address as u64) << 16 | port))
        }
    }

    /// Names the datagram whose fragments are put together: `id` with all that tells it from others.
    fn datagram(self, id: u64, vlan: u16, tunnel: u64) -> u64 {
        let Self { src, dst, .. } = self;
        let words = [src as u64, (src >> 64) as u64, dst as u64, (dst >> 64) as u64, id, tunnel];
        words.iter().fold(u64::from(vlan), |hash, word| mix(hash ^ word))
    }
}

#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

#[cfg(test)]
mod tests;

//! What decoding makes of a frame's headers.

use super::fragments::{Outcome, Place};
use super::{Facts, OuterTunnel, State};
use crate::packet::{Addresses, Packet, to_ip};
use wirespan_frame::Frame;
use wirespan_headers::tunnels::Encapsulation;
use wirespan_headers::{Fragment, Innermost, Onward, Rest, Visit};
use wirespan_records::{DropReason, L4Protocol, NO_TAP, Tunnel, TunnelKind};

/// What the headers of one frame have told so far.
pub(super) struct Decoding<'a, 'f> {
    pub frame: &'f Frame<'a>,
    pub state: &'a mut State,
    /// Buffers for datagrams put together that this frame has not used yet.
    pub datagrams: &'a mut [Vec<u8>],
    pub told: Told<'a>,
}

/// What an inner packet may tell otherwise.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub wire_len: u32,
    pub tunnel: Option<Tunnel>,
    /// The first VLAN tag, which may be that of an outer frame.
    pub outermost_vlan: Option<u16>,
    pub outermost_tunnel: Option<OuterTunnel>,
    /// What was captured of the innermost IP packet so far, and what lies behind it; nothing when it was put together.
    pub ip: &'a [u8],
}

impl<'a> Visit<'a> for Decoding<'a, '_> {
    type Found = Packet<'a>;
    type Outside = Told<'a>;

    #[inline(always)]
    fn tag(&mut self, id: Option<u16>) {
        self.told.outermost_vlan = self.told.outermost_vlan.or(id);
    }

    #[inline(always)]
    fn ip(&mut self, captured: &'a [u8]) {
        self.told.ip = captured;
    }

    #[inline(always)]
    fn tunnel_on(&self, port: u16) -> Option<&'static Encapsulation> {
        self.state.ports.get(port)
    }

    #[inline]
    fn enter(&mut self, kind: TunnelKind, id: u32, outer: Addresses) -> Told<'a> {
        let outside = self.told;
        let outermost = OuterTunnel { kind, id, source: outer.src, v6: outer.v6 };
        self.told.outermost_tunnel = outside.outermost_tunnel.or(Some(outermost));
        let (outer_src, outer_dst) = (to_ip(outer.src, outer.v6), to_ip(outer.dst, outer.v6));
        self.told.tunnel = Some(Tunnel { kind, id, outer_src, outer_dst });
        outside
    }

    #[inline]
    fn leave(&mut self, outside: Told<'a>) {
        self.told = outside;
    }

    /// Hands in a fragment; goes on with the datagram that it completes.
    #[inline(never)]
    fn fragment(
        &mut self,
        addresses: Addresses,
        vlan: Option<u16>,
        fragment: Fragment,
        rest: Rest<'a>,
    ) -> Result<Onward<'a, Packet<'a>>, DropReason> {
        let ip = std::mem::take(&mut self.told.ip);
        let mut tap = NO_TAP;
        if let Some(mirror) = &mut self.state.mirror {
            let (vlan, tunnel) = (self.told.outermost_vlan, self.told.outermost_tunnel);
            tap = mirror.fragment(&Facts { frame: self.frame, vlan, tunnel }, ip)?;
        }
        if rest.data.len() < rest.wire {
            // Cut, so that it cannot be put together. The first one has the ports.
            return if fragment.offset == 0 {
                Ok(Onward::With(fragment.protocol, rest))
            } else {
                Err(DropReason::FragmentLost)
            };
        }
        let (buffer, unused) =
            std::mem::take(&mut self.datagrams).split_first_mut().ok_or(DropReason::TooDeep)?;
        self.datagrams = unused;
        let place = Place {
            addresses,
            scope: u64::from(tap) << 16 | vlan.map_or(0, |vlan| u64::from(vlan) + 1),
            tunnel: self.told.tunnel.map(|tunnel| (tunnel.kind, tunnel.id)),
        };
        let (ts_ns, wire_len) = (self.frame.ts_ns, self.told.wire_len);
        match self.state.reassembly.add(place, fragment, rest.data, ts_ns, wire_len, buffer) {
            Outcome::Complete { protocol, wire_len } => {
                self.told.wire_len = wire_len;
                Ok(Onward::With(protocol, Rest::new(buffer, buffer.len())))
            }
            Outcome::Absent(reason) => Err(reason),
        }
    }

    #[inline(always)]
    fn is_start(&self) -> bool {
        false
    }

    #[inline(always)]
    fn found(&mut self, packet: Innermost<'a>) -> Packet<'a> {
        let Innermost { addresses, vlan, protocol, l3_len, header, rest } = packet;
        let (l4_len, captured) = (rest.wire as u32, rest.data.len() as u32);
        // Bytes of the frame that were not captured.
        let cut = self.frame.wire_len.saturating_sub(self.frame.data.len() as u32);
        Packet {
            ts_ns: self.frame.ts_ns,
            wire_len: self.told.wire_len,
            addresses,
            l4: L4Protocol::from_ip_number(protocol),
            src_port: header.src_port,
            dst_port: header.dst_port,
            icmp_type: header.icmp_type,
            tcp: header.tcp,
            vlan,
            tunnel: self.told.tunnel,
            tap: NO_TAP,
            l3_len: l3_len as u32,
            l4_len,
            l4_wire: l4_len.min(captured.saturating_add(cut)),
            payload: rest.data,
        }
    }
}

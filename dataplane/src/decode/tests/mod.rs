//! Frames made by hand, decoded.

mod build;
mod fragments;
mod links;
mod mirror;
mod packets;
mod properties;
mod tunnels;

use super::*;
use crate::packet::Addresses;
use build::*;
use wirespan_frame::{Hints, LinkType};
use wirespan_records::L4Protocol;

/// A frame with nothing cut.
fn frame_of(link: LinkType, data: &[u8]) -> Frame<'_> {
    Frame { data, wire_len: data.len() as u32, ts_ns: 1, link, port: 0, hints: Hints::default() }
}

/// Decodes one frame and hands the packet to `check`.
fn with_packet<T>(frame: &Frame, check: impl FnOnce(&Packet) -> T) -> T {
    let mut decoder = Decoder::new(DecodeConfig::default());
    check(&decoder.decode(frame).unwrap())
}

/// Why an Ethernet frame gives no packet.
fn drop_reason(data: &[u8]) -> DropReason {
    Decoder::new(DecodeConfig::default()).decode(&frame_of(LinkType::Ethernet, data)).unwrap_err()
}

/// Checks that a frame of any link type carries [`sample`], and gives its VLAN.
fn assert_sample(link: LinkType, data: &[u8]) -> Option<u16> {
    with_packet(&frame_of(link, data), |packet| {
        assert_eq!((packet.l4, packet.src_port, packet.dst_port), (L4Protocol::Udp, 1000, 2000));
        assert_eq!(packet.payload, b"sample");
        packet.vlan
    })
}

//! Frames made by hand, decoded.

use super::*;
use crate::packet::{Addresses, Tcp, flags};
use wirespan_frame::{Hints, LinkType};
use wirespan_records::L4Protocol;

/// An Ethernet frame as captured, nothing cut.
fn frame(data: &[u8]) -> Frame<'_> {
    Frame {
        data,
        wire_len: data.len() as u32,
        ts_ns: 1,
        link: LinkType::Ethernet,
        port: 0,
        hints: Hints::default(),
    }
}

/// Headers one behind the other.
fn layers(layers: &[&[u8]]) -> Vec<u8> {
    layers.concat()
}

fn ethernet(ethertype: u16) -> Vec<u8> {
    layers(&[&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ethertype.to_be_bytes()])
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    layers(&[&[0x45, 0], &len, &[0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], payload])
}

fn tcp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    layers(&[
        &src.to_be_bytes(),
        &dst.to_be_bytes(),
        &[0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 1, 0, 0, 0, 0, 0],
        payload,
    ])
}

#[test]
fn decodes_tcp_over_ipv4_without_the_padding() {
    let data = layers(&[&ethernet(0x0800), &ipv4(6, &tcp(1000, 80, b"GET")), &[0; 3]]);
    let mut decoder = Decoder::new(DecodeConfig::default());
    let packet = decoder.decode(&frame(&data)).unwrap();
    assert_eq!(packet.addresses, Addresses { src: 0x0a000001, dst: 0x0a000002, v6: false });
    assert_eq!((packet.l4, packet.src_port, packet.dst_port), (L4Protocol::Tcp, 1000, 80));
    assert_eq!(packet.tcp, Tcp { seq: 7, ack: 9, window: 256, flags: flags::PSH | flags::ACK });
    assert_eq!((packet.wire_len, packet.l3_len, packet.l4_len, packet.payload), (60, 23, 3, &b"GET"[..]));
    assert_eq!((packet.vlan, packet.tunnel), (None, None));
}

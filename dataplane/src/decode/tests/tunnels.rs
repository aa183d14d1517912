//! Tunnels, and what is told when one does not check out.

use super::*;
use std::net::{IpAddr, Ipv4Addr};
use wirespan_records::Tunnel;

/// A UDP datagram in IPv4 to a tunnel's port.
fn over_udp(port: u16, header: &[u8], inside: &[u8]) -> Vec<u8> {
    ipv4(17, &udp(50_000, port, &layers(&[header, inside])))
}

/// Checks that [`sample`] is inside; gives the tunnel.
fn tunnel_of(data: &[u8]) -> (TunnelKind, u32) {
    assert_sample(LinkType::RawIp, data);
    let tunnel = with_packet(&frame_of(LinkType::RawIp, data), |packet| packet.tunnel).unwrap();
    (tunnel.kind, tunnel.id)
}

/// Checks that a packet is told as one of the outer flow.
fn assert_outer(data: &[u8], l4: L4Protocol, dst_port: u16) {
    with_packet(&frame_of(LinkType::RawIp, data), |packet| {
        assert_eq!((packet.l4, packet.dst_port, packet.tunnel, packet.vlan), (l4, dst_port, None, None));
    });
}

const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0x12, 0x34, 0];

#[test]
fn opens_vxlan_on_its_ports() {
    let inside = ethernet(0x0800, &sample());
    for port in [4789, 8472, 6784, 4790] {
        assert_eq!(tunnel_of(&over_udp(port, &VXLAN, &inside)), (TunnelKind::Vxlan, 0x1234));
    }
    assert_outer(&over_udp(4788, &VXLAN, &inside), L4Protocol::Udp, 4788);
}

#[test]
fn tunnel_ports_are_configurable() {
    let data = over_udp(9999, &VXLAN, &ethernet(0x0800, &sample()));
    let config = DecodeConfig { tunnel_ports: vec![(9999, TunnelKind::Vxlan)], ..DecodeConfig::default() };
    let mut decoder = Decoder::new(config);
    let packet = decoder.decode(&frame_of(LinkType::RawIp, &data)).unwrap();
    assert_eq!((packet.dst_port, packet.tunnel.map(|tunnel| tunnel.id)), (2000, Some(0x1234)));
}

#[test]
fn opens_vxlan_gpe_and_service_headers() {
    let gpe = |next: u8| [0x0c, 0, 0, next, 0, 0, 5, 0];
    let service = |next: u8| [0x0f, 0xc2, 1, next, 0, 0, 1, 255];
    let ethernet = ethernet(0x0800, &sample());
    let mpls = layers(&[&[0, 1, 1, 64], &sample()]);
    assert_eq!(tunnel_of(&over_udp(4790, &gpe(1), &sample())), (TunnelKind::Vxlan, 5));
    assert_eq!(tunnel_of(&over_udp(4790, &gpe(2), &sample_v6())), (TunnelKind::Vxlan, 5));
    assert_eq!(tunnel_of(&over_udp(4790, &gpe(3), &ethernet)), (TunnelKind::Vxlan, 5));
    assert_eq!(tunnel_of(&over_udp(4790, &gpe(5), &mpls)), (TunnelKind::Vxlan, 5));
    let served = layers(&[&service(3), &ethernet]);
    assert_eq!(tunnel_of(&over_udp(4789, &gpe(4), &served)), (TunnelKind::Vxlan, 5));
    let endless = layers(&[&service(4).repeat(9), &ethernet]);
    assert_outer(&over_udp(4790, &gpe(4), &endless), L4Protocol::Udp, 4790);
}

#[test]
fn opens_geneve_with_options() {
    let header = |options: u8, protocol: [u8; 2]| [options, 0, protocol[0], protocol[1], 0, 0x12, 0x34, 0];
    let bridged = ethernet(0x0800, &sample());
    assert_eq!(tunnel_of(&over_udp(6081, &header(0, [0x65, 0x58]), &bridged)), (TunnelKind::Geneve, 0x1234));
    let with_options = layers(&[&[0xff; 8], &sample()]);
    assert_eq!(tunnel_of(&over_udp(6081, &header(2, [8, 0]), &with_options)).0, TunnelKind::Geneve);
    assert_outer(&over_udp(6081, &header(0x80, [8, 0]), &sample()), L4Protocol::Udp, 6081);
    assert_outer(&over_udp(6081, &header(0x3f, [8, 0]), &sample()), L4Protocol::Udp, 6081);
    assert_outer(&over_udp(6081, &[0, 0x80, 8, 0, 0, 0, 1, 0], &sample()), L4Protocol::Udp, 6081);
}

#[test]
fn opens_gre_with_its_optional_fields() {
    let gre = |header: &[u8], inside: &[u8]| ipv4(47, &layers(&[header, inside]));
    let bridged = ethernet(0x0800, &sample());
    let checksum = [0x80, 0, 8, 0, 1, 2, 0, 0];
    let all = [0xb0, 0, 0x65, 0x58, 1, 2, 0, 0, 0, 0, 0, 77, 0, 0, 0, 1];
    assert_eq!(tunnel_of(&gre(&[0, 0, 8, 0], &sample())), (TunnelKind::Gre, 0));
    assert_eq!(tunnel_of(&gre(&[0, 0, 0x86, 0xdd], &sample_v6())), (TunnelKind::Gre, 0));
    assert_eq!(tunnel_of(&gre(&checksum, &sample())), (TunnelKind::Gre, 0));
    assert_eq!(tunnel_of(&gre(&all, &bridged)), (TunnelKind::Gre, 77));
    assert_eq!(tunnel_of(&ipv6(47, &layers(&[&[0, 0, 8, 0], &sample()]))), (TunnelKind::Gre, 0));
    let pptp = [0x30, 1, 0x88, 0x0b, 0, 4, 0, 1, 0, 0, 0, 1];
    let source_route = [0x40, 0, 8, 0, 0, 0, 0, 0];
    let keepalive = [0, 0, 0, 0];
    for header in [&pptp[..], &source_route, &keepalive] {
        assert_outer(&gre(header, &sample()), L4Protocol::Other(47), 0);
    }
}

#[test]
fn opens_every_type_of_erspan() {
    let erspan = |header: &[u8]| ipv4(47, &layers(&[header, &ethernet(0x0800, &sample())]));
    let type_i = [0, 0, 0x88, 0xbe];
    let type_ii = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 5, 8, 42, 0, 0, 0, 3];
    let type_iii = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 5, 8, 42, 0, 0, 0, 3, 0, 0, 0, 0];
    let subheader =
        layers(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 5, 8, 42, 0, 0, 0, 3, 0, 0, 0, 1], &[0; 8]]);
    assert_eq!(tunnel_of(&erspan(&type_i)), (TunnelKind::Erspan, 0));
    assert_eq!(tunnel_of(&erspan(&type_ii)), (TunnelKind::Erspan, 42));
    assert_eq!(tunnel_of(&erspan(&type_iii)), (TunnelKind::Erspan, 42));
    assert_eq!(tunnel_of(&erspan(&subheader)), (TunnelKind::Erspan, 42));
    let other_version = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x70, 5, 8, 42, 0, 0, 0, 3];
    assert_outer(&erspan(&other_version), L4Protocol::Other(47), 0);
}

#[test]
fn opens_ip_in_ip_in_all_mixes() {
    for data in [ipv4(4, &sample()), ipv4(41, &sample_v6()), ipv6(4, &sample()), ipv6(41, &sample_v6())] {
        assert_eq!(tunnel_of(&data), (TunnelKind::Ipip, 0));
    }
    assert_outer(&ipv4(4, b"not IP"), L4Protocol::Other(4), 0);
}

#[test]
fn opens_gtp_user_packets() {
    let gtp = |flags: u8, message: u8, optional: &[u8]| {
        let len = (optional.len() + sample().len()) as u16;
        let header = layers(&[&[flags, message], &len.to_be_bytes(), &[0, 0, 0, 9], optional]);
        over_udp(2152, &header, &sample())
    };
    assert_eq!(tunnel_of(&gtp(0x30, 255, &[])), (TunnelKind::Gtpu, 9));
    assert_eq!(tunnel_of(&gtp(0x32, 255, &[0, 1, 0, 0])), (TunnelKind::Gtpu, 9));
    let pdu_session = [0, 0, 0, 0x85, 1, 0, 9, 0xc0, 2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(tunnel_of(&gtp(0x34, 255, &pdu_session)), (TunnelKind::Gtpu, 9));
    assert_outer(&gtp(0x32, 1, &[0, 1, 0, 0]), L4Protocol::Udp, 2152);
    assert_outer(&gtp(0x34, 255, &[0, 0, 0, 0x85, 0]), L4Protocol::Udp, 2152);
    assert_outer(&gtp(0x34, 255, &[0, 0, 0, 0x85, 255]), L4Protocol::Udp, 2152);
}

#[test]
fn tells_of_the_innermost_tunnel() {
    let bridged = ethernet(0x8100, &layers(&[&[0, 8, 8, 0], &ipv4(4, &sample())]));
    let data = ethernet(0x8100, &layers(&[&[0, 7, 8, 0], &over_udp(4789, &VXLAN, &bridged)]));
    with_packet(&frame_of(LinkType::Ethernet, &data), |packet| {
        let outer = |address: u128| IpAddr::V4(Ipv4Addr::from_bits(address as u32));
        let tunnel = Tunnel { kind: TunnelKind::Ipip, id: 0, outer_src: outer(V4.0), outer_dst: outer(V4.1) };
        assert_eq!((packet.tunnel, packet.vlan, packet.dst_port), (Some(tunnel), Some(8), 2000));
    });
}

#[test]
fn an_inside_that_cannot_be_decoded_leaves_the_outer_packet() {
    let fields = |frame: &[u8]| over_udp(4789, &VXLAN, frame);
    let malformed = ethernet(0x8100, &[0, 9, 8, 0, 0x4f]);
    for inside in [&b""[..], b"short", &ethernet(0x1234, &[0; 50]), &malformed] {
        assert_outer(&fields(inside), L4Protocol::Udp, 4789);
    }
    let mut flags = VXLAN;
    flags[0] = 0;
    assert_outer(&over_udp(4789, &flags, &ethernet(0x0800, &sample())), L4Protocol::Udp, 4789);
    let arp = fields(&ethernet(0x0806, &[0; 28]));
    assert_eq!(drop_reason(&ethernet(0x0800, &arp)), DropReason::Arp);
}

#[test]
fn bounds_the_nesting() {
    let nested = |levels| (0..levels).fold(sample(), |inner, _| ipv4(4, &inner));
    assert_eq!(tunnel_of(&nested(4)).0, TunnelKind::Ipip);
    assert_eq!(drop_reason(&ethernet(0x0800, &nested(5))), DropReason::TooDeep);
    assert_eq!(drop_reason(&ethernet(0x0800, &nested(2000))), DropReason::TooDeep);
}

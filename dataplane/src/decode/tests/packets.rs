//! IP headers and what they carry.

use super::*;
use crate::packet::{Tcp, flags};

#[test]
fn decodes_tcp_over_ipv4_without_the_padding() {
    let data = layers(&[&ethernet(0x0800, &ipv4(6, &tcp(1000, 80, &[], b"GET"))), &[0; 3]]);
    with_packet(&frame_of(LinkType::Ethernet, &data), |packet| {
        assert_eq!(packet.addresses, Addresses { src: V4.0, dst: V4.1, v6: false });
        assert_eq!((packet.l4, packet.src_port, packet.dst_port), (L4Protocol::Tcp, 1000, 80));
        assert_eq!(packet.tcp, Tcp { seq: 7, ack: 9, window: 256, flags: flags::PSH | flags::ACK });
        assert_eq!((packet.wire_len, packet.l3_len, packet.l4_len, packet.payload), (60, 23, 3, &b"GET"[..]));
        assert_eq!((packet.ts_ns, packet.vlan, packet.tunnel), (1, None, None));
    });
}

#[test]
fn skips_options_of_ipv4_and_tcp() {
    let segment = tcp(1, 2, &[1; 12], b"data");
    with_packet(&frame_of(LinkType::RawIp, &ipv4_with(&[1; 40], 0, 6, &segment)), |packet| {
        assert_eq!((packet.l3_len, packet.l4_len, packet.payload), (36, 4, &b"data"[..]));
    });
}

#[test]
fn lengths_survive_a_snap_length() {
    let whole = ipv4(6, &tcp(1, 2, &[], &[b'x'; 1000]));
    let mut frame = frame_of(LinkType::RawIp, &whole[..100]);
    for wire_len in [whole.len() as u32, 100] {
        frame.wire_len = wire_len;
        with_packet(&frame, |packet| {
            assert_eq!((packet.l3_len, packet.l4_len, packet.payload.len()), (1020, 1000, 60));
        });
    }
    let options_cut = ipv4(6, &tcp(1, 2, &[1; 40], b"data"));
    with_packet(&frame_of(LinkType::RawIp, &options_cut[..50]), |packet| {
        assert_eq!((packet.l4_len, packet.payload), (4, &b""[..]));
    });
}

#[test]
fn a_total_length_of_zero_reaches_to_the_end_of_the_frame() {
    let mut v4 = ipv4(6, &tcp(1, 2, &[], b"offloaded"));
    v4[2..4].fill(0);
    let mut v6 = ipv6(6, &tcp(1, 2, &[], b"offloaded"));
    v6[4..6].fill(0);
    for data in [v4, v6] {
        with_packet(&frame_of(LinkType::RawIp, &data), |packet| assert_eq!(packet.payload, b"offloaded"));
    }
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    let changed = |at: usize, value: u8| {
        let mut data = ethernet(0x0800, &ipv4(6, &tcp(1, 2, &[], b"data")));
        data[at] = value;
        data
    };
    let version = changed(14, 0x65);
    let header_len = changed(14, 0x44);
    let total_len = changed(17, 19);
    let data_offset = changed(14 + 20 + 12, 0x40);
    let data_offset_beyond = changed(14 + 20 + 12, 0x70);
    for data in [version, header_len, total_len, data_offset, data_offset_beyond] {
        assert_eq!(drop_reason(&data), DropReason::Malformed);
    }
    assert_eq!(drop_reason(&ethernet(0x86dd, &[0x45; 60])), DropReason::Malformed);
    let mut short_udp = ethernet(0x0800, &sample());
    short_udp[14 + 20 + 5] = 7;
    assert_eq!(drop_reason(&short_udp), DropReason::Malformed);
}

#[test]
fn a_udp_length_is_bounded_by_the_ip_packet() {
    let with_len = |len: u8| {
        let mut data = sample();
        data[20 + 5] = len;
        with_packet(&frame_of(LinkType::RawIp, &data), |packet| (packet.l4_len, packet.payload.to_vec()))
    };
    assert_eq!(with_len(10), (2, b"sa".to_vec()));
    assert_eq!(with_len(0), (6, b"sample".to_vec()));
    assert_eq!(with_len(200), (6, b"sample".to_vec()));
}

#[test]
fn gives_ports_and_types_of_other_protocols() {
    let told = |data: &[u8]| {
        with_packet(&frame_of(LinkType::RawIp, data), |p| {
            (p.l4, p.src_port, p.dst_port, p.icmp_type, p.l4_len as usize - p.payload.len(), p.payload.len())
        })
    };
    let echo = |icmp_type: u8| layers(&[&[icmp_type, 0, 0, 0, 0x12, 0x34, 0, 1], b"ping"]);
    let sctp = layers(&[&[0, 80, 0, 81], &[0; 8], b"chunk"]);
    let udp_lite = layers(&[&[0, 80, 0, 81], &[0; 4], b"chunk"]);
    assert_eq!(told(&ipv4(1, &echo(8))), (L4Protocol::Icmp, 0x1234, 0x1234, 8, 0, 4));
    assert_eq!(told(&ipv4(1, &echo(3))), (L4Protocol::Icmp, 0, 0, 3, 0, 4));
    assert_eq!(told(&ipv6(58, &echo(129))), (L4Protocol::Icmpv6, 0x1234, 0x1234, 129, 0, 4));
    assert_eq!(told(&ipv4(132, &sctp)), (L4Protocol::Sctp, 80, 81, 0, 0, 5));
    assert_eq!(told(&ipv4(136, &udp_lite)), (L4Protocol::Other(136), 80, 81, 0, 0, 5));
    assert_eq!(told(&ipv4(50, b"encrypted")), (L4Protocol::Other(50), 0, 0, 0, 0, 9));
    assert_eq!(told(&ipv6(59, b"")), (L4Protocol::Other(59), 0, 0, 0, 0, 0));
}

#[test]
fn follows_ipv6_extension_headers() {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let authentication =
        |next: u8| [next, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let atomic_fragment = |next: u8| [next, 0, 0, 0, 0, 0, 0, 1];
    let chain = layers(&[
        &options(43),
        &options(60),
        &options(135),
        &options(139),
        &options(140),
        &options(51),
        &authentication(44),
        &atomic_fragment(17),
        &udp(1000, 2000, b"sample"),
    ]);
    assert_sample(LinkType::RawIp, &ipv6(0, &chain));
    with_packet(&frame_of(LinkType::RawIp, &ipv6(0, &chain)), |packet| {
        assert_eq!(packet.addresses, Addresses { src: V6.0, dst: V6.1, v6: true });
        assert_eq!((packet.l3_len, packet.l4_len), (14, 6));
    });
    let over_ipv4 = layers(&[&authentication(17), &udp(1000, 2000, b"sample")]);
    assert_sample(LinkType::RawIp, &ipv4(51, &over_ipv4));
}

#[test]
fn bounds_the_chain_of_extension_headers() {
    let endless = ipv6(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(100));
    assert_eq!(drop_reason(&ethernet(0x86dd, &endless)), DropReason::TooManyExtensions);
    let beyond = ipv6(60, &[17, 200, 1, 4, 0, 0, 0, 0]);
    assert_eq!(drop_reason(&ethernet(0x86dd, &beyond)), DropReason::Truncated);
}

#[test]
fn a_jumbo_payload_option_sets_the_length() {
    let payload = vec![b'x'; 70_000];
    let options = |len: u32| layers(&[&[17, 0, 0xc2, 4], &len.to_be_bytes()]);
    let mut datagram = udp(1000, 2000, b"");
    datagram[4..6].fill(0);
    let len = (8 + datagram.len() + payload.len()) as u32;
    let mut data = ipv6(0, &layers(&[&options(len), &datagram, &payload, b"padding"]));
    data[4..6].fill(0);
    with_packet(&frame_of(LinkType::RawIp, &data), |packet| {
        assert_eq!((packet.l4_len, packet.payload), (70_000, &payload[..]));
    });
}

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use wirespan_frame::{Hints, LinkType};

use super::*;

const SEED: u64 = 7;

fn hash_of(link: LinkType, data: &[u8]) -> InnerHash {
    let wire_len = data.len() as u32;
    inner_hash(&Frame { data, wire_len, ts_ns: 0, link, port: 0, hints: Hints::default() }, SEED)
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype.to_be_bytes(), payload].concat()
}

fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, protocol, 0, 0, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = (payload.len() as u16).to_be_bytes();
            [&[0x60, 0, 0, 0, len[0], len[1], protocol, 64][..], &src.octets(), &dst.octets(), payload]
                .concat()
        }
        _ => panic!("one family"),
    }
}

/// `fragment` is the flags and the offset.
fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let (len, id, fragment) =
        ((payload.len() as u16 + 20).to_be_bytes(), id.to_be_bytes(), fragment.to_be_bytes());
    let head = [0x45, 0, len[0], len[1], id[0], id[1], fragment[0], fragment[1], 64, protocol, 0, 0];
    [&head[..], &src.octets(), &dst.octets(), payload].concat()
}

fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16 + 8).to_be_bytes();
    [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &len, &[0, 0], payload].concat()
}

fn tcp(src_port: u16, dst_port: u16) -> Vec<u8> {
    [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), &[0; 8], &[0x50, 0x10, 0, 0, 0, 0, 0, 0]].concat()
}

fn ethertype_of(ip: &[u8]) -> u16 {
    if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

/// The packet in every kind of wrapping.
fn wrapped(ip_packet: &[u8]) -> Vec<Vec<u8>> {
    let ethertype = ethertype_of(ip_packet);
    let frame = ethernet(ethertype, ip_packet);
    let outer = |protocol, payload: &[u8]| {
        let [src, dst] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        ethernet(0x0800, &ipv4(src, dst, protocol, 0, 0, payload))
    };
    let [high, low] = ethertype.to_be_bytes();
    let len = (ip_packet.len() as u16).to_be_bytes();
    vec![
        ethernet(0x8100, &[&[0x20, 5, high, low][..], ip_packet].concat()),
        ethernet(0x88a8, &[&[0, 5, 0x81, 0, 0, 6, high, low][..], ip_packet].concat()),
        ethernet(0x8847, &[&[0, 1, 0x01, 64][..], ip_packet].concat()),
        outer(17, &udp(999, 4789, &[&[8, 0, 0, 0, 0, 0, 42, 0][..], &frame].concat())),
        outer(17, &udp(999, 6081, &[&[1, 0, 0x65, 0x58, 0, 0, 42, 0, 1, 2, 3, 0][..], &frame].concat())),
        outer(17, &udp(999, 2152, &[&[0x30, 255, len[0], len[1], 0, 0, 0, 9][..], ip_packet].concat())),
        outer(47, &[&[0x20, 0, high, low, 0, 0, 0, 7][..], ip_packet].concat()),
        outer(47, &[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 3, 0, 0, 0, 0][..], &frame].concat()),
        outer(if ethertype == 0x0800 { 4 } else { 41 }, ip_packet),
    ]
}

fn address() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| (Ipv4Addr::from_bits(a).into(), Ipv4Addr::from_bits(b).into())),
        any::<(u128, u128)>()
            .prop_map(|(a, b)| (Ipv6Addr::from_bits(a).into(), Ipv6Addr::from_bits(b).into())),
    ]
}

proptest! {
    #[test]
    fn both_directions_bare_or_tunnelled_have_the_hash_of_the_xdp_program(
        (src, dst) in address(), src_port: u16, dst_port in 10_000u16..60_000, is_tcp: bool,
    ) {
        let protocol = if is_tcp { 6 } else { 17 };
        let l4 = |from, to| if is_tcp { tcp(from, to) } else { udp(from, to, b"hello") };
        let expected = wirespan_bpf::flow_hash(SEED, (src, src_port), (dst, dst_port), protocol).get();
        let there = ip(src, dst, protocol, &l4(src_port, dst_port));
        prop_assert_eq!(hash_of(LinkType::RawIp, &there).hash, expected);
        prop_assume!(![2152, 4789, 4790, 6081, 6784, 8472].contains(&src_port));
        let back = ip(dst, src, protocol, &l4(dst_port, src_port));
        for packet in [there, back] {
            prop_assert_eq!(hash_of(LinkType::Ethernet, &ethernet(ethertype_of(&packet), &packet)).hash, expected);
            for (index, frame) in wrapped(&packet).iter().enumerate() {
                let found = hash_of(LinkType::Ethernet, frame);
                let is_tagged_only = index < 2;
                prop_assert_eq!((found.hash, found.is_bare), (expected, is_tagged_only), "{:02x?}", frame);
                prop_assert_eq!(is_plainly_bare(LinkType::Ethernet, frame), is_tagged_only);
            }
        }
    }

    /// Whole frames, and the same with any byte changed or cut anywhere.
    #[test]
    fn the_short_way_leads_where_the_walk_does(
        (src, dst) in address(), src_port: u16, port in 10_000u16..60_000, to_tunnel: bool, is_tcp: bool,
        change in any::<Option<(prop::sample::Index, u8)>>(), cut in any::<Option<prop::sample::Index>>(),
    ) {
        let dst_port = if to_tunnel { 4789 } else { port };
        let l4 = if is_tcp { tcp(src_port, dst_port) } else { udp(src_port, dst_port, b"hello") };
        let packet = ip(src, dst, if is_tcp { 6 } else { 17 }, &l4);
        let mut data = ethernet(ethertype_of(&packet), &packet);
        let is_plain = src.is_ipv4() && dst_port != 4789 && change.is_none() && cut.is_none();
        if let Some((at, byte)) = change {
            data[at.index(64.min(packet.len()))] = byte;
        }
        if let Some(at) = cut {
            data.truncate(at.index(data.len() + 1));
        }
        let wire_len = data.len() as u32;
        let (link, hints) = (LinkType::Ethernet, Hints::default());
        let walked = walk(&Frame { data: &data, wire_len, ts_ns: 0, link, port: 0, hints }, SEED);
        let short = plain_hash(link, &data, SEED);
        prop_assert!(short.is_some() || !is_plain);
        let bare = is_plainly_bare(link, &data);
        prop_assert!(!bare || (walked.is_bare && walked.fragment.is_none()), "{:02x?}", data);
        prop_assert!(bare || to_tunnel || change.is_some() || cut.is_some());
        prop_assert!(short.is_none_or(|hash| walked == InnerHash::plain(hash)), "{:02x?}", data);
    }

    #[test]
    fn random_bytes_have_an_end(mut data: Vec<u8>, link in 0usize..6, protocol in 0usize..6) {
        use LinkType::{Ethernet, LinuxSll, LinuxSll2, Loop, Null, RawIp};
        if data.len() > 23 {
            data[12..15].copy_from_slice(&[8, 0, 0x45]);
            data[23] = [4, 6, 17, 41, 47, 51][protocol];
        }
        hash_of([Ethernet, LinuxSll, LinuxSll2, Loop, Null, RawIp][link], &data);
    }
}

#[test]
fn fragments_name_their_datagram() {
    let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let of = |id, fragment, payload: &[u8]| hash_of(LinkType::RawIp, &ipv4(a, b, 17, id, fragment, payload));
    let whole = of(0, 0, &udp(1000, 53, b"whole"));
    let first = of(77, 0x2000, &udp(1000, 53, b"12345678"));
    let last = of(77, 2, b"rest");
    let follows = |hash: InnerHash| hash.fragment.unwrap().follows;
    assert_eq!((first.hash, whole.fragment), (whole.hash, None));
    assert_eq!(first.fragment, Some(Fragment { follows: None, leads: [follows(last), None] }));
    assert!(follows(last).is_some() && last.hash != first.hash);
    assert_ne!(follows(of(78, 2, b"rest")), follows(last));
    let (back, other) = (ipv4(b, a, 17, 77, 2, b"rest"), ipv4(a, b, 6, 77, 2, b"rest"));
    for not_the_same in [back, other] {
        assert_ne!(follows(hash_of(LinkType::RawIp, &not_the_same)), follows(last));
    }
}

#[test]
fn what_cannot_be_decoded_inside_a_tunnel_belongs_to_the_tunnel() {
    let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    let vxlan = |inside: &[u8]| {
        let payload = [&[8, 0, 0, 0, 0, 0, 42, 0][..], inside].concat();
        hash_of(LinkType::RawIp, &ipv4(a, b, 17, 0, 0, &udp(999, 4789, &payload)))
    };
    let outer = wirespan_bpf::flow_hash(SEED, (a.into(), 999), (b.into(), 4789), 17).get();
    assert_eq!(vxlan(&[1, 2, 3]).hash, outer);
    assert_eq!(vxlan(&ethernet(0x0800, &[0x45; 8])).hash, outer);
    assert!(!vxlan(&ethernet(0x0806, &[0; 28])).is_flow);
    let frame = ethernet(0x0800, &ipv4(a, b, 17, 0, 0, &udp(999, 4789, &[1, 2, 3])));
    assert!(hash_of(LinkType::Ethernet, &frame).is_bare);
}

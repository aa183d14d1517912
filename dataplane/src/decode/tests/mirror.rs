//! Which tap a frame came from, and what came twice.

use super::*;
use crate::tap::Taps;

const MS: u64 = 1_000_000;

/// A decoder with these taps and interface `eth0`, and what it returned.
struct Mirrored {
    decoder: Decoder,
    now_ns: u64,
}

impl Mirrored {
    fn new(taps: &str) -> Self {
        let mirror =
            MirrorConfig { taps: Taps::parse(taps).unwrap(), interfaces: vec!["eth0".into(), "eth1".into()] };
        Self {
            decoder: Decoder::new(DecodeConfig { mirror, ..DecodeConfig::default() }),
            now_ns: 1_000_000 * MS,
        }
    }

    /// The tap and payload of an Ethernet frame that comes a millisecond later.
    fn at(&mut self, port: u16, data: &[u8]) -> Result<(u16, Vec<u8>), DropReason> {
        self.now_ns += MS;
        let frame = Frame { ts_ns: self.now_ns, port, ..frame_of(LinkType::Ethernet, data) };
        self.decoder.decode(&frame).map(|packet| (packet.tap, packet.payload.to_vec()))
    }

    fn tap(&mut self, data: &[u8]) -> u16 {
        self.at(0, data).unwrap().0
    }
}

fn vxlan(vni: u8, inside: &[u8]) -> Vec<u8> {
    ipv4(17, &udp(50_000, 4789, &layers(&[&[8, 0, 0, 0, 0, 0, vni, 0], inside])))
}

/// GRE with key 7.
fn gre(ethertype: [u8; 2], inside: &[u8]) -> Vec<u8> {
    ipv4(47, &layers(&[&[0x20, 0], &ethertype, &[0, 0, 0, 7], inside]))
}

fn tagged(vlan: u8, ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    ethernet(0x8100, &layers(&[&[0, vlan], &ethertype, payload]))
}

#[test]
fn every_condition_picks_its_frames() {
    let inside = ethernet(0x0800, &sample());
    let erspan = layers(&[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], &[0x10, 1, 0, 42, 0, 0, 0, 0], &inside]);
    let mut mirrored = Mirrored::new(
        "taps:
         - {name: vlan, kind: nic, match: {vlan: 100-110}}
         - {name: session, kind: physical-port, match: {erspan_session: 42}}
         - {name: vni, kind: vpc-mirror, match: {vxlan: 5}}
         - {name: key, kind: nic, match: {gre_key: 7}}
         - {name: source, kind: hypervisor, match: {outer_source: 10.0.0.0/24}}
         - {name: mac, kind: nic, match: {source_mac: 02:00:00:00:00:01, destination_mac: 02:00:00:00:00:02}}",
    );
    assert_eq!(mirrored.tap(&tagged(105, [8, 0], &sample())), 1);
    assert_eq!(mirrored.tap(&ethernet(0x0800, &ipv4(47, &erspan))), 2);
    assert_eq!(mirrored.tap(&ethernet(0x0800, &vxlan(5, &inside))), 3);
    assert_eq!(mirrored.tap(&ethernet(0x0800, &gre([8, 0], &sample()))), 4);
    assert_eq!(mirrored.tap(&ethernet(0x0800, &vxlan(6, &inside))), 5);
    assert_eq!(mirrored.tap(&ethernet(0x0800, &sample())), 6);
    let mut other = ethernet(0x0800, &sample());
    other[5] = 9;
    assert_eq!(mirrored.tap(&other), 0);
}

#[test]
fn the_outermost_tunnel_and_tag_count() {
    let mut mirrored = Mirrored::new(
        "taps:
         - {name: outer, kind: nic, match: {vxlan: 1, vlan: 9}}
         - {name: inner, kind: nic, match: {vxlan: 2}}
         - {name: tag, kind: nic, match: {vlan: 7}}",
    );
    let nested = vxlan(1, &ethernet(0x0800, &vxlan(2, &tagged(7, [8, 0], &sample()))));
    assert_eq!(mirrored.tap(&tagged(9, [8, 0], &nested)), 1);
    assert_eq!(mirrored.tap(&ethernet(0x0800, &nested)), 3, "the first tag there is");
    let undecodable = vxlan(2, &ethernet(0x1234, b"?"));
    assert_eq!(
        mirrored.tap(&ethernet(0x0800, &undecodable)),
        0,
        "a packet of the outer flow is in no tunnel"
    );
}

#[test]
fn interfaces_are_told_by_their_number() {
    let mut mirrored = Mirrored::new("taps:\n- {name: a, kind: nic, match: {interface: eth1}}");
    let frame = ethernet(0x0800, &sample());
    assert_eq!([0, 1, 2].map(|port| mirrored.at(port, &frame).unwrap().0), [0, 1, 0]);
}

#[test]
fn a_second_copy_is_dropped_whatever_lies_outside() {
    let mut mirrored = Mirrored::new("dedup: true\ntaps: []");
    let mut routed = sample();
    routed[8] = 63;
    assert!(mirrored.at(0, &ethernet(0x0800, &sample())).is_ok());
    for copy in [
        ethernet(0x0800, &sample()),
        tagged(7, [8, 0], &routed),
        ethernet(0x0800, &vxlan(5, &ethernet(0x0800, &sample()))),
    ] {
        assert_eq!(mirrored.at(0, &copy), Err(DropReason::Duplicate));
    }
    mirrored.now_ns += 10 * MS;
    assert!(mirrored.at(0, &ethernet(0x0800, &sample())).is_ok());
}

#[test]
fn two_taps_are_two_observations_and_dedup_is_the_taps() {
    let mut mirrored = Mirrored::new(
        "taps:
         - {name: a, kind: nic, dedup: true, match: {vxlan: 1}}
         - {name: b, kind: nic, dedup: true, match: {vxlan: 2}}
         - {name: c, kind: nic, match: {vxlan: 3}}",
    );
    let of = |vni| ethernet(0x0800, &vxlan(vni, &ethernet(0x0800, &sample())));
    let taps: Vec<_> =
        [1, 2, 3, 1, 2, 3, 4, 4].map(|vni| mirrored.at(0, &of(vni)).map(|(tap, _)| tap)).into();
    let twice = Err(DropReason::Duplicate);
    assert_eq!(taps, [Ok(1), Ok(2), Ok(3), twice, twice, Ok(3), Ok(0), Ok(0)]);
}

/// The datagram's fragments in IPv4 and IPv6, and inside a tunnel and around one.
#[test]
fn copies_of_fragments_never_meet_the_first() {
    let datagram = udp(1000, 2000, b"0123456789abcdef0123456789ABCDEF");
    let (first, second) = datagram.split_at(24);
    let v4 = |offset, more, part: &[u8]| ethernet(0x0800, &ipv4_fragment(offset, more, 17, part));
    let v6 = |offset, more, part: &[u8]| ethernet(0x86dd, &ipv6_fragment(5, offset, more, 17, part));
    let inside = |vni, offset, more, part: &[u8]| {
        ethernet(0x0800, &vxlan(vni, &ethernet(0x0800, &ipv4_fragment(offset, more, 17, part))))
    };
    let tunnel =
        udp(50_000, 4789, &layers(&[&[8, 0, 0, 0, 0, 0, 1, 0], &ethernet(0x0800, &ipv4(17, &datagram))]));
    let around = |offset, more, part: &[u8]| ethernet(0x0800, &ipv4_fragment(offset, more, 17, part));
    let sequences = [
        [v4(0, true, first), v4(24, false, second)],
        [v6(0, true, first), v6(24, false, second)],
        [inside(1, 0, true, first), inside(1, 24, false, second)],
        [around(0, true, &tunnel[..48]), around(48, false, &tunnel[48..])],
    ];
    let taps = "dedup: true\ntaps:\n- {name: a, kind: nic, dedup: true, match: {vxlan: 1}}\n- {name: b, kind: nic, match: {vxlan: 2}}";
    for [one, two] in &sequences {
        for order in [[one, one, two, two], [one, two, one, two], [two, two, one, one]] {
            let mut mirrored = Mirrored::new(taps);
            let results: Vec<_> = order.map(|frame| mirrored.at(0, frame)).into();
            let packets: Vec<_> = results.iter().flatten().collect();
            assert_eq!(packets.len(), 1, "{results:?}");
            assert_eq!(packets[0].1, datagram[8..]);
            let duplicates = results.iter().filter(|r| **r == Err(DropReason::Duplicate)).count();
            assert_eq!(duplicates, 2, "{results:?}");
            mirrored.decoder.finish();
            assert_eq!(mirrored.decoder.lost_fragments(), 0);
        }
    }
}

#[test]
fn fragments_of_two_taps_are_put_together_apart() {
    let datagram = udp(1000, 2000, b"0123456789abcdef");
    let (first, second) = datagram.split_at(16);
    let mut mirrored = Mirrored::new("taps:\n- {name: a, kind: nic, match: {interface: eth0}}");
    let fragment = |offset, more, part: &[u8]| ethernet(0x0800, &ipv4_fragment(offset, more, 17, part));
    let (one, two) = (fragment(0, true, first), fragment(16, false, second));
    let results: Vec<_> = [(0, &one), (1, &one), (0, &two), (1, &two)]
        .map(|(port, frame)| mirrored.at(port, frame).map(|(tap, _)| tap))
        .into();
    let waits = Err(DropReason::Fragment);
    assert_eq!(results, [waits, waits, Ok(1), Ok(0)]);
}

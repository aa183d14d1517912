//! The program in the kernel, on frames of ours and on a veth pair.

mod cost;
mod kernel;
mod live;
mod packets;

use std::collections::BTreeSet;
use std::net::IpAddr;

use wirespan_frame::{Shunt, ShuntKey, ShuntMode};

use super::shunt::hash;
use super::{Filter, Stamp, XdpOptions};
use crate::fanout::FanoutProgram;
use kernel::{Kernel, Verdict, may_load, test_run};
use packets::*;
use wirespan_frame::{Network, Rules};

const SEED: u64 = 0x1234_5678_9abc_def0;

fn hashing() -> XdpOptions {
    XdpOptions { seed: SEED, flow_hash: true, ..XdpOptions::default() }
}

fn v4() -> Way {
    Way::new("10.0.0.1", 40000, "10.1.0.1", 443)
}

fn v6() -> Way {
    Way::new("fd00::1", 40000, "fd00:1::1", 443)
}

/// Every way in which a packet may be wrapped.
fn wrapped(ip: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let inner = frame(ip);
    let mut all = vec![
        ("plain", inner.clone()),
        ("VLAN", tagged(inner.clone(), 0x8100, 7)),
        ("QinQ", tagged(tagged(inner.clone(), 0x8100, 7), 0x88a8, 8)),
        ("MPLS", mpls(ip)),
        ("VXLAN", vxlan(77, &inner)),
        ("VXLAN, VLAN inside", vxlan(77, &tagged(inner.clone(), 0x8100, 7))),
        ("VXLAN in VXLAN", vxlan(1, &vxlan(2, &inner))),
        ("GENEVE", geneve(5, &inner)),
        ("GRE", gre(9, &inner)),
        ("GRE with IP", gre_ip(ip)),
        ("ERSPAN I", erspan_i(&inner)),
        ("ERSPAN II", erspan_ii(3, &inner)),
        ("ERSPAN III", erspan_iii(3, &inner)),
        ("IP in IP", ipip(ip)),
        ("GTP-U", gtpu(6, ip)),
        ("SNAP", snap(ip)),
        ("VXLAN, SNAP inside", vxlan(77, &snap(ip))),
        ("ERSPAN of VXLAN", erspan_ii(3, &vxlan(77, &inner))),
    ];
    if ip[0] >> 4 == 4 {
        all.push(("PPPoE", pppoe(ip)));
    }
    all
}

#[test]
fn frames_are_hashed_alike_in_all_tunnels_and_in_both_directions() {
    if !may_load() {
        return;
    }
    let kernel = Kernel::new(&hashing());
    for way in [v4(), v6()] {
        for way in [way, way.back()] {
            for (name, frame) in wrapped(&way.tcp(ACK, 1, 1, 10)) {
                let verdict = kernel.run(&frame);
                let stamp = verdict.stamp();
                assert_eq!((stamp.magic, stamp.flags), (Stamp::MAGIC, Stamp::FLOW_HASH), "{name}");
                assert_eq!(stamp.flow_hash, way.hash(SEED, 6), "{name}");
                assert!(stamp.boot_ns != 0);
                assert_eq!(verdict, Verdict::Delivered(stamp, frame));
            }
        }
    }
}

#[test]
fn a_fanout_group_is_spread_by_the_same_hash() {
    if !may_load() {
        return;
    }
    let program = FanoutProgram::load(SEED, &XdpOptions::default().tunnel_ports).unwrap();
    for way in [v4(), v4().back(), v6(), v6().back()] {
        for (name, frame) in wrapped(&way.tcp(ACK, 1, 1, 10)) {
            assert_eq!(test_run(&program, &frame, 1).0, way.hash(SEED, 6), "{name}");
        }
    }
    assert_eq!(test_run(&program, &ethernet(0x0806, &[0; 28]), 1).0, 0);
}

#[test]
fn fragments_carry_no_hash() {
    if !may_load() {
        return;
    }
    let kernel = Kernel::new(&hashing());
    let header = [17, 0, 0, 9, 0, 0, 0, 1];
    let v6_fragment = v6().ip(44, &[header.as_slice(), &[1; 16]].concat());
    for ip in [v4().fragment(0, true), v4().fragment(9, true), v4().back().fragment(9, false), v6_fragment] {
        let stamp = kernel.run(&frame(&ip)).stamp();
        assert!(stamp.flow_hash == 0 && !stamp.has(Stamp::FLOW_HASH));
    }
}

#[test]
fn extension_headers_are_walked_and_bad_headers_fall_back_to_the_tunnel() {
    if !may_load() {
        return;
    }
    let kernel = Kernel::new(&hashing());
    let tcp = v6().tcp(ACK, 1, 1, 0)[40..].to_vec();
    let headers = [
        &[60, 0, 1, 4, 0, 0, 0, 0],
        [51, 0, 1, 4, 0, 0, 0, 0].as_slice(),
        &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let extended = v6().ip(0, &[headers.concat(), tcp].concat());
    assert_eq!(kernel.run(&frame(&extended)).stamp().flow_hash, v6().hash(SEED, 6));

    let mut way = Way::new("192.0.2.1", 50000, "192.0.2.2", 4789);
    let no_vxlan = frame(&way.udp(&[0xff; 40]));
    assert_eq!(kernel.run(&no_vxlan).stamp().flow_hash, way.hash(SEED, 17));
    way.dst.1 = 2152;
    let cut_inside =
        frame(&way.udp(&[&[0x30, 255, 0, 20, 0, 0, 0, 1], v4().tcp(0, 0, 0, 0)[..20].as_ref()].concat()));
    assert_eq!(kernel.run(&cut_inside).stamp().flow_hash, way.hash(SEED, 17));
    // No packet, no hash.
    for frame in [
        ethernet(0x0806, &[0; 28]),
        ethernet(0x88cc, &[0; 46]),
        ethernet(0x0026, &[0x42; 46]),
        frame(&[0x45; 14]),
    ] {
        assert_eq!(kernel.run(&frame).stamp().flags, 0);
    }
}

fn set<T: Ord, const N: usize>(members: [T; N]) -> BTreeSet<T> {
    BTreeSet::from(members)
}

fn networks<const N: usize>(texts: [&str; N]) -> BTreeSet<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn each_rule_rejects_what_it_says_and_is_counted() {
    if !may_load() {
        return;
    }
    let kernel = Kernel::new(&XdpOptions { filter: Some(Filter::default()), ..XdpOptions::default() });
    let mut filter = kernel.filter();
    let (tcp4, tcp6) = (frame(&v4().tcp(ACK, 1, 1, 0)), frame(&v6().tcp(ACK, 1, 1, 0)));
    let arp = ethernet(0x0806, &[0; 28]);
    let mut check = |rules: Filter, cases: &[(&Vec<u8>, bool)]| {
        filter.set(&rules).unwrap();
        for (frame, wanted) in cases {
            assert_eq!(kernel.run(frame).delivered(), *wanted, "{rules:?} {frame:02x?}");
        }
    };
    let allow = |allow| Filter { allow, deny: Rules::default() };
    let deny = |deny| Filter { allow: Rules::default(), deny };
    check(Filter::default(), &[(&tcp4, true), (&tcp6, true), (&arp, true)]);

    let of = |protocols| Rules { protocols, ..Rules::default() };
    check(deny(of(set([6]))), &[(&tcp4, false), (&frame(&v4().udp(&[])), true), (&arp, true)]);
    check(allow(of(set([6]))), &[(&tcp4, true), (&frame(&v4().udp(&[])), false), (&arp, false)]);

    let of = |networks| Rules { networks, ..Rules::default() };
    check(deny(of(networks(["10.1.0.0/16"]))), &[(&tcp4, false), (&tcp6, true)]);
    check(allow(of(networks(["fd00:1::/32"]))), &[(&tcp4, false), (&tcp6, true), (&arp, false)]);
    let longest =
        Filter { allow: of(networks(["10.0.0.0/8"])), deny: of(networks(["10.1.0.0/24", "10.2.0.0/16"])) };
    let other = Way::new("10.3.0.1", 1, "10.4.0.1", 2);
    check(longest, &[(&tcp4, false), (&frame(&other.udp(&[])), true)]);

    let of = |ports| Rules { ports, ..Rules::default() };
    let fragment = frame(&v4().fragment(9, true));
    check(deny(of(set([443]))), &[(&tcp4, false), (&tcp6, false), (&fragment, true), (&arp, true)]);
    check(allow(of(set([80]))), &[(&tcp4, false), (&fragment, true), (&frame(&v4().ip(1, &[8; 8])), false)]);

    let of = |vlans| Rules { vlans, ..Rules::default() };
    let vlan7 = tagged(tcp4.clone(), 0x8100, 7);
    check(deny(of(set([7]))), &[(&vlan7, false), (&tcp4, true), (&vxlan(1, &vlan7), false)]);
    check(allow(of(set([0]))), &[(&vlan7, false), (&tcp4, true), (&arp, true)]);

    let of = |tunnel_ids| Rules { tunnel_ids, ..Rules::default() };
    check(deny(of(set([77]))), &[(&vxlan(77, &tcp4), false), (&vxlan(78, &tcp4), true), (&tcp4, true)]);
    check(allow(of(set([77]))), &[(&geneve(77, &tcp4), true), (&vxlan(78, &tcp4), false), (&tcp4, false)]);
    // What was removed is gone.
    check(Filter::default(), &[(&vxlan(77, &tcp4), true), (&tcp4, true), (&vlan7, true)]);

    let counters = kernel.counters();
    let by_reason = [
        counters.filtered_protocol,
        counters.filtered_network,
        counters.filtered_port,
        counters.filtered_vlan,
        counters.filtered_tunnel_id,
    ];
    assert_eq!(by_reason, [3, 4, 4, 3, 3]);
    assert_eq!(counters.received, counters.handled());
}

#[test]
fn a_sample_takes_flows_whole_and_as_many_as_it_says() {
    if !may_load() {
        return;
    }
    let kernel = Kernel::new(&XdpOptions { seed: SEED, sample: Some(0.25), ..XdpOptions::default() });
    const FLOWS: u16 = 4000;
    let mut kept = 0;
    for port in 0..FLOWS {
        let way = Way::new("10.0.0.1", 1024 + port, "10.1.0.1", 443);
        let taken = kernel.run(&frame(&way.tcp(SYN, 1, 0, 0))).delivered();
        assert_eq!(kernel.run(&vxlan(1, &frame(&way.back().tcp(ACK, 1, 0, 100)))).delivered(), taken);
        kept += u32::from(taken);
    }
    assert!((850..1150).contains(&kept), "{kept}");
    for port in 0..20 {
        let way = Way::new("10.0.0.1", 1024 + port, "10.1.0.1", 443);
        assert!(
            kernel.run(&frame(&way.fragment(0, true))).delivered(),
            "which flow it is of tells the datagram"
        );
    }
    let counters = kernel.counters();
    assert_eq!(counters.sampled_out, 2 * (u64::from(FLOWS) - u64::from(kept)));
    assert_eq!(counters.received, counters.handled());
}

/// The flow of `v4`, in VXLAN 77.
fn key() -> ShuntKey {
    let mut a = [0; 16];
    a[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1]);
    let mut b = a;
    b[13] = 1;
    ShuntKey { a, b, a_port: 40000, b_port: 443, protocol: 6, tunnel_kind: 1, vlan: 0, tunnel_id: 77 }
}

fn shunting(flows: u32) -> Kernel {
    Kernel::new(&XdpOptions { shunt_flows: flows, ..XdpOptions::default() })
}

#[test]
fn a_shunted_flow_is_counted_by_direction_until_it_is_woken() {
    if !may_load() {
        return;
    }
    let kernel = shunting(8);
    let mut shunt = kernel.shunt();
    let out = |flags, seq, payload| vxlan(77, &frame(&v4().tcp(flags, seq, 500, payload)));
    let back = |flags, seq, payload| vxlan(77, &frame(&v4().back().tcp(flags, seq, 900, payload)));
    assert!(kernel.run(&out(ACK, 100, 10)).delivered());
    assert_eq!(shunt.read(&key()), None);
    assert!(shunt.shunt(&key(), ShuntMode::Count));
    for frame in [out(ACK, 100, 10), out(ACK | 8, 130, 20), out(ACK, 110, 20), back(ACK, 7, 0)] {
        assert_eq!(kernel.run(&frame), Verdict::Dropped);
    }
    // The same packets in no tunnel are another flow.
    assert!(kernel.run(&frame(&v4().tcp(ACK, 1, 1, 0))).delivered());
    let [a, b] = shunt.read(&key()).unwrap();
    let outer = 14 + 20 + 8 + 8;
    assert_eq!((a.packets, a.bytes, a.l3_bytes, a.l4_bytes), (3, 3 * (outer + 54) + 50, 3 * 20 + 50, 50));
    assert_eq!((a.first_seq, a.next_seq, a.last_ack, a.tcp_flags, a.zero_windows), (100, 150, 500, 24, 0));
    assert_eq!((b.packets, b.bytes, b.l3_bytes, b.l4_bytes), (1, outer + 54, 20, 0));
    assert_eq!((b.first_seq, b.next_seq, b.last_ack), (7, 7, 900));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(a.first_ns <= a.last_ns && a.last_ns <= b.first_ns && now.abs_diff(b.last_ns) < 60_000_000_000);

    for flags in [SYN, FIN | ACK, RST] {
        assert!(kernel.run(&back(flags, 7, 0)).delivered());
        assert!(kernel.run(&out(ACK, 150, 10)).delivered(), "the flow is awake");
        let read = shunt.read(&key()).unwrap();
        assert_eq!(read.map(|direction| direction.bytes), [a.bytes, b.bytes]);
        assert!(shunt.shunt(&key(), ShuntMode::Count), "asleep again");
    }
    assert_eq!(kernel.run(&out(ACK, 150, 10)), Verdict::Dropped);
    assert_eq!(shunt.end(&key()).unwrap()[0].packets, 4);
    assert_eq!(shunt.end(&key()), None);
    assert!(kernel.run(&out(ACK, 160, 10)).delivered());
    let counters = kernel.counters();
    assert_eq!((counters.shunted, counters.shunted_bytes), (5, a.bytes + b.bytes + outer + 64));
    assert_eq!(counters.received, counters.handled());
}

#[test]
fn headers_of_a_shunted_flow_are_delivered_with_the_length_there_was() {
    if !may_load() {
        return;
    }
    let kernel = shunting(8);
    assert!(kernel.shunt().shunt(&key(), ShuntMode::Headers));
    let whole = vxlan(77, &frame(&v4().tcp(ACK, 100, 500, 300)));
    let Verdict::Delivered(stamp, cut) = kernel.run(&whole) else { panic!("not delivered") };
    assert_eq!(cut, whole[..whole.len() - 300]);
    assert_eq!(stamp.cut_from(), Some(whole.len() as u32));
    assert_eq!(kernel.shunt().read(&key()).unwrap()[0].packets, 0);
}

#[test]
fn of_two_flows_with_one_hash_the_second_is_delivered() {
    if !may_load() {
        return;
    }
    let kernel = shunting(8);
    let mut shunt = kernel.shunt();
    let ways = [("2001:db8::1", "ff00::1"), ("2d0a:bb5f:959d:176d::1", "ff00:0:0:7::1")]
        .map(|(a, b)| Way::new(a, 1, b, 2));
    let [one, other] = ways.map(|way| {
        let [a, b] = [way.src.0, way.dst.0].map(|address| match address {
            IpAddr::V6(v6) => v6.octets(),
            IpAddr::V4(_) => panic!("not of this version"),
        });
        ShuntKey { a, b, a_port: 1, b_port: 2, protocol: 6, tunnel_kind: 0, vlan: 0, tunnel_id: 0 }
    });
    assert_eq!(hash(&one), hash(&other));
    assert!(shunt.shunt(&one, ShuntMode::Count));
    assert!(!shunt.shunt(&other, ShuntMode::Count));
    assert_eq!((shunt.read(&other), shunt.end(&other)), (None, None));
    let [one_frame, other_frame] = ways.map(|way| frame(&way.tcp(ACK, 1, 1, 10)));
    assert_eq!(kernel.run(&one_frame), Verdict::Dropped);
    assert!(kernel.run(&other_frame).delivered());
    assert_eq!(shunt.end(&one).unwrap()[0].packets, 1);
    assert!(shunt.shunt(&other, ShuntMode::Count), "room was made");
    assert_eq!(kernel.run(&other_frame), Verdict::Dropped);
}

#[test]
fn flows_beyond_the_room_are_refused_and_fragments_delivered() {
    if !may_load() {
        return;
    }
    let kernel = shunting(4);
    // Handles of two workers share the room.
    let (mut shunt, mut other) = (kernel.shunt(), kernel.shunt());
    let keys: Vec<_> = (0..5)
        .map(|port| ShuntKey { protocol: 17, tunnel_kind: 0, tunnel_id: 0, a_port: port, ..key() })
        .collect();
    assert!(other.shunt(&keys[0], ShuntMode::Count));
    let taken: Vec<_> = keys.iter().map(|key| shunt.shunt(key, ShuntMode::Count)).collect();
    assert_eq!(taken, [true, true, true, true, false]);
    let way = Way::new("10.0.0.1", 3, "10.1.0.1", 443);
    assert_eq!(kernel.run(&frame(&way.udp(&[0; 30]))), Verdict::Dropped);
    assert!(kernel.run(&frame(&way.fragment(0, true))).delivered());
    assert!(kernel.run(&frame(&way.fragment(9, false))).delivered());
    assert!(other.end(&keys[0]).is_some());
    assert!(shunt.shunt(&keys[4], ShuntMode::Count), "room was made");
    assert_eq!(shunt.end(&keys[3]).unwrap().map(|direction| direction.l4_bytes), [30, 0]);
}

//! AF_PACKET on real interfaces: what is sent through a veth pair is seen at its other end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use support::{
    POLL_TIMEOUT, Sender, as_nobody, in_namespace, ip, number, numbered, sees_what_is_sent, take_rest,
};
use wirespan_capture::af_packet::{AfPacket, Fanout, Options};
use wirespan_capture::{CaptureError, LinkType, Loss, PacketSource};

fn options() -> Options {
    Options { block_bytes: 64 * 1024, blocks: 16, poll_timeout: POLL_TIMEOUT, ..Options::default() }
}

#[test]
fn every_frame_is_seen_once() {
    in_namespace(|| {
        let mut source = AfPacket::open("right", options()).unwrap();
        sees_what_is_sent(&mut source, 20_000);
    });
}

#[test]
fn a_full_ring_drops_and_counts() {
    in_namespace(|| {
        let mut source = AfPacket::open("right", options()).unwrap();
        let sender = Sender::new("left");
        let sent = 5_000;
        (0..sent).for_each(|number| sender.send(&numbered(number)));
        let mut seen = 0;
        take_rest(&mut source, |frame| seen += u64::from(number(frame).is_some()));
        let stats = source.stats();
        assert!(stats.kernel_drops > 0 && stats.ring_full > 0, "{stats:?}");
        assert!(seen + stats.kernel_drops >= u64::from(sent), "{seen} and {stats:?}");
        sees_what_is_sent(&mut source, 1_000);
    });
}

#[test]
fn every_frame_is_lent_or_a_named_drop() {
    in_namespace(|| {
        support::silence();
        let mut source = AfPacket::open("right", options()).unwrap();
        let sender = Sender::new("left");
        (0..5_000).for_each(|number| sender.send(&numbered(number)));
        assert!(source.backlog() > 0.9, "{}", source.backlog());
        take_rest(&mut source, |_| ());
        let stats = source.stats();
        assert!(matches!(stats.drops[..], [(Loss::RingFull, 1..)]), "{stats:?}");
        support::accounts_for(&stats, 5_000);
        assert_eq!(source.backlog(), 0.0);
    });
}

#[test]
fn frames_can_be_lent_for_longer_than_a_batch() {
    in_namespace(|| {
        let mut source = AfPacket::open("right", options()).unwrap();
        (0..20).for_each(|_| support::lends_for_longer(&mut source));
        assert_eq!(source.stats().kernel_drops, 0);
        sees_what_is_sent(&mut source, 1_000);
    });
}

#[test]
fn frames_are_cut_at_the_snap_length() {
    in_namespace(|| {
        let mut source = AfPacket::open("right", Options { snap_len: 64, port: 3, ..options() }).unwrap();
        Sender::new("left").send(&numbered(1));
        let mut seen = Vec::new();
        take_rest(&mut source, |frame| {
            if number(frame).is_some() {
                seen.push((frame.data.len(), frame.wire_len as usize, frame.port, frame.link));
            }
        });
        assert_eq!(seen, [(64, numbered(1).len(), 3, LinkType::Ethernet)]);
        assert!(source.stats().cut > 0, "{:?}", source.stats());
    });
}

#[test]
fn a_stripped_vlan_tag_is_a_hint() {
    in_namespace(|| {
        let mut source = AfPacket::open("right", options()).unwrap();
        let untagged = numbered(1);
        let tagged = [&untagged[..12], &[0x81, 0x00, 0x60, 0x2a], &untagged[12..]].concat();
        let sender = Sender::new("left");
        sender.send(&tagged);
        sender.send(&untagged);
        let mut hints = Vec::new();
        take_rest(&mut source, |frame| {
            if number(frame).is_some() {
                assert_eq!(frame.data, untagged);
                hints.push(frame.hints.vlan_tci);
            }
        });
        assert_eq!(hints, [Some(0x602a), None]);
    });
}

#[test]
fn loopback_shows_each_frame_once() {
    in_namespace(|| {
        let mut source = AfPacket::open("lo", options()).unwrap();
        let sender = Sender::new("lo");
        (0..100).for_each(|number| sender.send(&numbered(number)));
        let mut seen = Vec::new();
        take_rest(&mut source, |frame| seen.extend(number(frame)));
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn what_the_interface_sends_is_seen_too() {
    in_namespace(|| {
        let mut source = AfPacket::open("left", options()).unwrap();
        Sender::new("left").send(&numbered(5));
        let mut seen = Vec::new();
        take_rest(&mut source, |frame| seen.extend(number(frame)));
        assert_eq!(seen, [5]);
    });
}

/// UDP over IPv4 from one address to the other; flow `n` uses port 1000 + n at one side.
fn udp(flow: u16, back: bool) -> Vec<u8> {
    let mut frame = numbered(0);
    frame.truncate(60);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let (a, b, port_a, port_b) = ([10, 0, 0, 1], [10, 0, 0, 2], 1000 + flow, 53);
    let (from, to, port_from, port_to) = if back { (b, a, port_b, port_a) } else { (a, b, port_a, port_b) };
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&from);
    frame[30..34].copy_from_slice(&to);
    frame[34..36].copy_from_slice(&port_from.to_be_bytes());
    frame[36..38].copy_from_slice(&port_to.to_be_bytes());
    frame
}

/// Two sources of one group share 64 flows, and each flow comes to one of them; its ports are at this place of the frames.
fn shares_flows_but_splits_none(group: u16, frame: impl Fn(u16, bool) -> Vec<u8>, ports: usize) {
    let grouped = Options { fanout: Some(Fanout { group, seed: group.into() }), ..options() };
    let mut sources = [0, 1].map(|_| AfPacket::open("right", grouped.clone()).unwrap());
    let sender = Sender::new("left");
    for flow in 0..64 {
        sender.send(&frame(flow, false));
        sender.send(&frame(flow, true));
    }
    let mut seen_by = BTreeMap::<u16, Vec<usize>>::new();
    for (index, source) in sources.iter_mut().enumerate() {
        take_rest(source, |frame| {
            if frame.data.get(12..14) == Some(&[0x08, 0x00]) {
                let ports =
                    [ports, ports + 2].map(|at| u16::from_be_bytes(*frame.data[at..].first_chunk().unwrap()));
                seen_by.entry(ports[0].max(ports[1])).or_default().push(index);
            }
        });
    }
    assert_eq!(seen_by.len(), 64);
    assert!(seen_by.values().all(|by| by.len() == 2 && by[0] == by[1]), "{seen_by:?}");
    assert_eq!(seen_by.values().flatten().collect::<BTreeSet<_>>().len(), 2, "one source got all");
}

#[test]
fn a_fanout_group_shares_flows_but_splits_none() {
    in_namespace(|| shares_flows_but_splits_none(7, udp, 34));
}

/// A frame in VXLAN (RFC 7348) between two hosts, whose outer ports are the same for all flows and differ by direction.
fn in_vxlan(inner: &[u8], back: bool) -> Vec<u8> {
    let mut frame = udp(0, back).to_vec();
    frame.truncate(42);
    let len = (inner.len() + 8) as u16;
    frame[16..18].copy_from_slice(&(len + 28).to_be_bytes());
    frame[34..36].copy_from_slice(&(if back { 50_001u16 } else { 50_000 }).to_be_bytes());
    frame[36..38].copy_from_slice(&4789u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(len + 8).to_be_bytes());
    frame.extend([8, 0, 0, 0, 0, 0, 42, 0]);
    frame.extend(inner);
    frame
}

#[test]
fn a_fanout_group_looks_into_tunnels() {
    in_namespace(|| shares_flows_but_splits_none(8, |flow, back| in_vxlan(&udp(flow, back), back), 84));
}

/// As drivers leave it that copy little or nothing to where a packet begins. So does a packet socket with frames of more than a page.
#[test]
fn a_fanout_group_looks_into_the_fragments_of_a_packet() {
    in_namespace(|| {
        ["left", "right"].iter().for_each(|end| ip(&format!("link set {end} mtu 9000")));
        // What comes from the client is long, what comes back is short.
        let long = |flow, back| {
            let mut frame = udp(flow, back);
            frame.resize(if back { 60 } else { 6000 }, 0);
            frame
        };
        shares_flows_but_splits_none(9, long, 34);
        shares_flows_but_splits_none(10, |flow, back| in_vxlan(&long(flow, back), back), 84);
    });
}

#[test]
fn a_tunnel_interface_gives_raw_ip() {
    in_namespace(|| {
        let mut tunnel = support::tunnel("tunnel");
        ip("link set tunnel up");
        let mut source = AfPacket::open("tunnel", options()).unwrap();
        let packet = &udp(1, false)[14..];
        tunnel.write_all(packet).unwrap();
        let mut seen = Vec::new();
        take_rest(&mut source, |frame| seen.push((frame.link, frame.data.to_vec())));
        seen.retain(|(_, data)| data.first() == Some(&0x45));
        assert_eq!(seen, [(LinkType::RawIp, packet.to_vec())]);
    });
}

#[test]
fn errors_say_what_to_do() {
    in_namespace(|| {
        let error = |name: &str| AfPacket::open(name, options()).err().unwrap().to_string();
        insta::assert_snapshot!(error("eth7"), @"there is no interface named eth7; choose one of: lo, right, left");
        let refused = as_nobody(|| error("right"));
        insta::assert_snapshot!(refused, @"no permission to open a packet socket on right; run as root, or run `setcap cap_net_raw+ep` on the program once");
        ip("link set left down");
        insta::assert_snapshot!(error("left"), @"interface left is down; bring it up with `ip link set left up`");
    });
}

#[test]
fn a_removed_interface_ends_the_capture() {
    in_namespace(|| {
        let mut source = AfPacket::open("right", options()).unwrap();
        ip("link delete left");
        let error = (0..10).find_map(|_| source.next_batch().err());
        assert!(matches!(error, Some(CaptureError::InterfaceGone { .. })), "{error:?}");
    });
}

//! The recorded shop as mirrors would deliver it: in tunnels, from several taps, twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use wirespan_capture::PacketSource;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_dataplane::{Taps, Worker, WorkerConfig, WorkerStats};
use wirespan_frame::{Batch, Descriptor, Hints, LinkType};
use wirespan_records::{DropReason, FlowMetrics, Records};

/// A frame, when it came, and from which interface.
type Mirrored = (Vec<u8>, u64, u16);

fn shop() -> Vec<Mirrored> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shop.pcap");
    let mut source = PcapFile::open(file).unwrap();
    let mut frames = Vec::new();
    while let Some(batch) = source.next_batch().unwrap() {
        for frame in batch.frames() {
            assert_eq!((frame.link, frame.data.len()), (LinkType::Ethernet, frame.wire_len as usize));
            frames.push((frame.data.to_vec(), frame.ts_ns, 0));
        }
    }
    frames
}

fn analyse(taps: &str, frames: &[Mirrored]) -> (Records, WorkerStats) {
    let mut config = WorkerConfig::default();
    config.decode.mirror.taps = Taps::parse(taps).unwrap();
    config.decode.mirror.interfaces = vec!["eth0".into(), "eth1".into()];
    config.flow.ticks = true;
    let (mut worker, mut records) = (Worker::new(config), Records::default());
    for (data, ts_ns, port) in frames {
        let len = data.len() as u32;
        let (link, hints) = (LinkType::Ethernet, Hints::default());
        let descriptor =
            Descriptor { offset: 0, len, wire_len: len, ts_ns: *ts_ns, link, port: *port, hints };
        worker.batch(Batch::new(data, &[descriptor]), &mut records);
    }
    worker.finish(&mut records);
    let stats = worker.stats();
    assert_eq!(stats.frames, stats.packets + stats.drops.total());
    (records, stats)
}

/// Records with what tells observations apart taken out: ids, tap, tunnel, and what depends on the frames' length.
fn told(records: &Records, tap: u16) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for span in records.spans.iter().filter(|span| span.tap == tap) {
        let span = wirespan_records::Span { flow_id: 0, tap: 0, tunnel: None, ..span.clone() };
        lines.push(format!("{span:?}"));
    }
    for flow in records.flows.iter().filter(|flow| flow.tap == tap) {
        let metrics = FlowMetrics { bytes: Default::default(), ..flow.metrics };
        let flow = wirespan_records::Flow { flow_id: 0, tap: 0, tunnel: None, metrics, ..flow.clone() };
        lines.push(format!("{flow:?}"));
    }
    lines.sort();
    lines
}

/// Outer headers of a tunnel around a frame.
fn around(protocol: u8, header: &[u8], frame: &[u8]) -> Vec<u8> {
    let len = 20 + header.len() + frame.len();
    let mut outer = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, (len >> 8) as u8, len as u8];
    outer.extend([0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    outer.extend(header);
    outer.extend(frame);
    outer
}

fn over_udp(port: u16, header: &[u8], frame: &[u8]) -> Vec<u8> {
    let len = (8 + header.len() + frame.len()) as u16;
    let udp = [&[0xc0, 0][..], &port.to_be_bytes(), &len.to_be_bytes(), &[0, 0], header].concat();
    around(17, &udp, frame)
}

fn vxlan(frame: &[u8]) -> Vec<u8> {
    over_udp(4789, &[8, 0, 0, 0, 0, 0, 5, 0], frame)
}

fn geneve(frame: &[u8]) -> Vec<u8> {
    over_udp(6081, &[0, 0, 0x65, 0x58, 0, 0, 6, 0], frame)
}

fn gre(frame: &[u8]) -> Vec<u8> {
    around(47, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 7], frame)
}

fn erspan(frame: &[u8]) -> Vec<u8> {
    around(47, &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 1, 0, 8, 0, 0, 0, 0], frame)
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 9], &frame[12..]].concat()
}

/// Puts a frame into a tunnel.
type Wrap = fn(&[u8]) -> Vec<u8>;

const TAPS: &str = "
taps:
  - {name: vpc, kind: vpc-mirror, match: {vxlan: 5, outer_source: 192.0.2.0/24}}
  - {name: hypervisor, kind: hypervisor, match: {geneve: 6}}
  - {name: gateway, kind: nfv-gateway, match: {gre_key: 7}}
  - {name: switch, kind: physical-port, match: {erspan_session: 8}}
  - {name: port, kind: nic, match: {vlan: 9}}
  - {name: rest, id: 99, kind: nic, match: {interface: eth1}}
";

#[test]
fn the_shop_says_the_same_through_every_mirror() {
    let frames = shop();
    let plain = told(&analyse("taps: []", &frames).0, 0);
    assert!(plain.len() > 100, "{}", plain.len());
    let wraps: [Wrap; 4] = [vxlan, geneve, gre, erspan];
    for (tap, wrap) in (1..).zip(wraps) {
        let mirrored: Vec<Mirrored> =
            frames.iter().map(|(data, ts, port)| (wrap(data), *ts, *port)).collect();
        let (records, _) = analyse(TAPS, &mirrored);
        assert_eq!(told(&records, tap), plain, "tap {tap}");
        assert!(records.ticks.iter().all(|tick| tick.tap == tap));
    }
    let mirrored: Vec<Mirrored> = frames.iter().map(|(data, ts, port)| (tagged(data), *ts, *port)).collect();
    let (records, _) = analyse(TAPS, &mirrored);
    assert!(records.flows.iter().all(|flow| (flow.tap, flow.vlan) == (5, Some(9))));
}

#[test]
fn two_taps_are_two_observations_of_everything() {
    let frames = shop();
    let plain = told(&analyse("taps: []", &frames).0, 0);
    let both = |(data, ts, _): &Mirrored| [(vxlan(data), *ts, 0), (data.clone(), *ts, 1)];
    let mirrored: Vec<Mirrored> = frames.iter().flat_map(both).collect();
    let (records, stats) = analyse(&format!("dedup: true{TAPS}"), &mirrored);
    assert_eq!((told(&records, 1), told(&records, 99)), (plain.clone(), plain));
    assert_eq!(stats.drops.get(DropReason::Duplicate), 0);
}

#[test]
fn a_capture_with_every_packet_twice_says_what_the_single_one_says() {
    let frames = shop();
    let (single, single_stats) = analyse("taps: []", &frames);
    let mut twice = Vec::new();
    for (data, ts_ns, _) in &frames {
        let mut hop = data.clone();
        hop[..12].copy_from_slice(&[4; 12]);
        // One hop further, in IPv4.
        if hop[12..14] == [8, 0] {
            hop[22] -= 1;
        }
        twice.push((data.clone(), *ts_ns, 0));
        twice.push((tagged(&hop), *ts_ns + 20_000, 0));
    }
    twice.sort_by_key(|&(_, ts_ns, _)| ts_ns);
    let (records, stats) = analyse("dedup: 5ms\ntaps: []", &twice);
    assert_eq!(told(&records, 0), told(&single, 0));
    assert_eq!((stats.packets, stats.dedup_forgotten), (single_stats.packets, 0));
    assert_eq!(stats.drops.get(DropReason::Duplicate), single_stats.packets);
}

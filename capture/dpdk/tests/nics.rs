//! DPDK's drivers on NICs that are bound to vfio-pci, each with a wire to an interface of the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run this")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use support::{Sender, in_own_process_for, is_own_process};
use wirespan_capture::PacketSource;
use wirespan_dpdk::{Dpdk, DpdkSource, EalOptions, PortOptions};

/// NICs with the interface at the other end of the wire: `0000:02:00.0=eth1,0000:04:00.0=eth3`. Nothing else may be on the wires.
const NICS: &str = "WIRESPAN_TEST_DPDK_NICS";

/// Drivers whose NICs put every frame into the first queue when qemu emulates them.
const QEMU_SPREADS_NOTHING: &str = "net_vmxnet3";
/// ... take no frame of several buffers, and count those as damaged.
const QEMU_SCATTERS_NOTHING: &str = "net_vmxnet3";
/// ... do not count what a full queue does not take.
const QEMU_COUNTS_NO_MISSED: &str = "net_e1000_igb";

const FLOWS: u8 = 32;
/// How often an empty batch comes until nothing more is expected.
const QUIET_BATCHES: usize = 5;

/// Runs a test in a process of its own for each NIC.
fn with_nics(name: &str, test: impl Fn(&str, &Sender)) {
    let run = |nic: &str| {
        let (device, peer) = nic.split_once('=').unwrap();
        test(device, &Sender::new(peer));
    };
    if is_own_process() {
        return in_own_process_for(name, "", run);
    }
    let nics = std::env::var(NICS).unwrap();
    nics.split(',').for_each(|nic| in_own_process_for(name, nic, run));
}

fn open(device: &str, options: PortOptions) -> Vec<DpdkSource> {
    let eal = EalOptions { further: vec![format!("--allow={device}")], ..EalOptions::default() };
    let sources =
        Dpdk::start(&eal, &PortOptions { poll_timeout: Duration::from_millis(50), ..options }).unwrap();
    println!("{}", sources[0].info());
    sources
}

fn is(sources: &[DpdkSource], driver: &str) -> bool {
    sources[0].info().driver == driver
}

/// A numbered UDP packet of a flow, in one of its directions, tagged where its number is odd, to an address that is not the NIC's.
fn datagram(number: u32, len: usize) -> Vec<u8> {
    let flow = (number / 2 % u32::from(FLOWS)) as u8;
    let ends = [(1u8, flow), (2, 200)];
    let [(src, from), (dst, to)] = if number.is_multiple_of(2) { ends } else { [ends[1], ends[0]] };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if number % 4 >= 2 {
        frame.extend([0x81, 0, 0, 42]);
    }
    frame.extend([8, 0]);
    let ip = frame.len();
    let ip_len = (len - ip) as u16;
    frame.extend([0x45, 0]);
    frame.extend(ip_len.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    frame.extend([9, from, 9, to]);
    frame.extend((ip_len - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(number.to_be_bytes());
    let sum: u32 =
        frame[ip..ip + 20].chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[ip + 10..ip + 12].copy_from_slice(&(!folded as u16).to_be_bytes());
    frame.resize(len, number as u8);
    frame
}

fn number(data: &[u8]) -> u32 {
    let payload = if data[12..14] == [0x81, 0] { 46 } else { 42 };
    u32::from_be_bytes(data[payload..payload + 4].try_into().unwrap())
}

/// What came, by number: the queue and the bytes.
type Seen = BTreeMap<u32, (u16, Vec<u8>)>;

fn take_once(sources: &mut [DpdkSource], seen: &mut Seen) -> usize {
    let mut got = 0;
    for source in sources {
        let queue = source.queue();
        for frame in source.next_batch().unwrap().unwrap().frames() {
            got += 1;
            assert_eq!(frame.wire_len as usize, frame.data.len());
            let before = seen.insert(number(frame.data), (queue, frame.data.to_vec()));
            assert!(before.is_none(), "a frame comes once, not again to queue {queue}: {:?}", frame.data);
        }
    }
    got
}

fn take_rest(sources: &mut [DpdkSource], seen: &mut Seen) {
    let mut quiet = 0;
    while quiet < QUIET_BATCHES {
        quiet = if take_once(sources, seen) == 0 { quiet + 1 } else { 0 };
    }
}

/// Frames sent = frames lent + the named drops.
fn accounts_for(sources: &mut [DpdkSource], sent: u64) {
    let (mut received, mut drops) = (0, Vec::new());
    for source in &mut *sources {
        let stats = source.stats();
        received += stats.received;
        drops.extend(stats.drops);
    }
    println!("{received} received, dropped {drops:?}");
    let dropped: u64 = drops.iter().map(|(_, frames)| frames).sum();
    assert_eq!(received + dropped, sent);
}

#[test]
#[ignore = "needs NICs that are bound to vfio-pci: deploy/dpdk.md"]
fn frames_come_whole_and_both_directions_of_a_flow_to_one_queue() {
    with_nics("frames_come_whole_and_both_directions_of_a_flow_to_one_queue", |device, peer| {
        let options = PortOptions { queues: 2, in_order: true, ..PortOptions::new(device) };
        let sources = &mut open(device, options)[..];
        let mut seen = Seen::new();
        for number in 0..600 {
            peer.send(&datagram(number, 64 + number as usize % 1_440));
            if number % 16 == 0 {
                take_once(sources, &mut seen);
            }
        }
        take_rest(sources, &mut seen);
        accounts_for(sources, 600);
        let mut queues = BTreeMap::<_, BTreeSet<u16>>::new();
        for (number, (queue, data)) in &seen {
            assert!(*data == datagram(*number, 64 + *number as usize % 1_440), "{number}: {data:?}");
            queues.entry(number / 2 % u32::from(FLOWS)).or_default().insert(*queue);
        }
        assert_eq!(seen.len(), 600);
        assert!(queues.values().all(|queues| queues.len() == 1), "{queues:?}");
        let used: BTreeSet<_> = queues.values().flatten().collect();
        assert!(used.len() == sources.len() || is(sources, QEMU_SPREADS_NOTHING), "each queue is used");
    });
}

#[test]
#[ignore = "needs NICs that are bound to vfio-pci: deploy/dpdk.md"]
fn what_a_full_queue_does_not_take_is_counted() {
    with_nics("what_a_full_queue_does_not_take_is_counted", |device, peer| {
        let sources = &mut open(device, PortOptions { descriptors: 256, ..PortOptions::new(device) })[..];
        for number in 0..1_000 {
            peer.send(&datagram(number, 100));
        }
        let mut seen = Seen::new();
        take_rest(sources, &mut seen);
        // It goes on behind it.
        for number in 1_000..1_100 {
            peer.send(&datagram(number, 100));
        }
        take_rest(sources, &mut seen);
        if !is(sources, QEMU_COUNTS_NO_MISSED) {
            accounts_for(sources, 1_100);
        }
        assert!(seen.contains_key(&1_099));
    });
}

#[test]
#[ignore = "needs NICs that are bound to vfio-pci: deploy/dpdk.md"]
fn long_frames_come_whole() {
    with_nics("long_frames_come_whole", |device, peer| {
        let sources = &mut open(device, PortOptions { mtu: Some(9_000), ..PortOptions::new(device) })[..];
        let mut seen = Seen::new();
        let len = |number: u32| 64 + number as usize * 37 % 8_900;
        for number in 0..200 {
            peer.send(&datagram(number, len(number)));
            if number % 8 == 0 {
                take_once(sources, &mut seen);
            }
        }
        take_rest(sources, &mut seen);
        accounts_for(sources, 200);
        for (number, (_, data)) in &seen {
            assert!(*data == datagram(*number, len(*number)), "{number}: {}", data.len());
        }
        assert!(seen.len() == 200 || is(sources, QEMU_SCATTERS_NOTHING), "{}", seen.len());
    });
}

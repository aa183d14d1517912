//! DPDK on virtual devices, without root and without huge pages.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run this")]

mod support;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use support::{eal, in_own_process, port, take};
use wirespan_capture::pcap_file::{PcapFile, Resolution, Writer};
use wirespan_capture::spread::{self, Sharing};
use wirespan_capture::{Bell, Descriptor, LendingSource, LinkType, PacketSource, SourceStats};
use wirespan_dpdk::port::Timestamps;
use wirespan_dpdk::transmit::open_to_send;
use wirespan_dpdk::{Dpdk, DpdkError, DpdkSource, Eal, EalOptions, PortOptions};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dataplane/tests/fixtures/shop.pcap");

/// What must be the same from whichever source: time in microseconds and bytes.
type Seen = Vec<(u64, Vec<u8>)>;

fn read_all(source: &mut dyn PacketSource) -> Seen {
    let mut seen = Vec::new();
    while let Some(batch) = source.next_batch().unwrap().filter(|batch| !batch.is_empty()) {
        assert!(batch.frames().all(|frame| frame.wire_len as usize == frame.data.len()));
        seen.extend(batch.frames().map(|frame| (frame.ts_ns / 1_000, frame.data.to_vec())));
    }
    seen
}

fn pcap_device(file: &Path) -> Vec<DpdkSource> {
    let device = format!("net_pcap0,rx_pcap={}", file.display());
    Dpdk::start(&eal(&[&device]), &port("net_pcap0")).unwrap()
}

#[test]
fn a_capture_is_read_as_our_own_reader_reads_it() {
    in_own_process("a_capture_is_read_as_our_own_reader_reads_it", || {
        let expected = read_all(&mut PcapFile::open(SHOP).unwrap());
        let [source] = &mut pcap_device(Path::new(SHOP))[..] else { panic!("one queue") };
        assert_eq!(source.info().timestamps, Timestamps::CaptureFile);
        let seen = read_all(source);
        assert!(seen.len() > 100);
        assert!(seen == expected, "{} frames of {}", seen.len(), expected.len());
        let count = seen.len() as u64;
        let stats = source.stats();
        assert_eq!(stats, SourceStats { received: count, ..SourceStats::default() });
        assert_eq!(source.port_stats().packets, count);
        assert!(source.extended_stats().contains(&("rx_good_packets".to_owned(), count)));
        let long = expected.iter().filter(|(_, data)| data.len() > 2048).count();
        assert_eq!(source.copied(), long as u64, "only what one buffer does not hold is copied");
    });
}

#[test]
fn a_command_line_starts_it_too() {
    in_own_process("a_command_line_starts_it_too", || {
        let words = format!("--no-huge  --no-pci --vdev=net_pcap0,rx_pcap={SHOP}");
        let [source] =
            &mut Dpdk::start(&EalOptions::of_command_line(&words), &port("net_pcap0")).unwrap()[..]
        else {
            panic!("one queue")
        };
        assert!(read_all(source).len() > 100);
    });
}

/// A capture file: longer frames than the spare memory holds at a time, among short ones.
fn long_frames() -> (NamedTempFile, Seen) {
    let file = NamedTempFile::new().unwrap();
    let mut writer =
        Writer::new(file.reopen().unwrap(), LinkType::Ethernet, Resolution::Microseconds).unwrap();
    let frames = (0..200usize).map(|number| {
        let len = if number % 2 == 0 { 60 + number } else { 9_000 + number * 37 };
        (number as u64, (0..len).map(|at| (at * 31 + number) as u8).collect::<Vec<_>>())
    });
    let frames: Seen = frames.collect();
    for (number, data) in &frames {
        writer.write(number * 1_000, data.len() as u32, data).unwrap();
    }
    writer.finish().unwrap();
    (file, frames)
}

#[test]
fn frames_of_several_buffers_are_copied_whole() {
    in_own_process("frames_of_several_buffers_are_copied_whole", || {
        let (file, frames) = long_frames();
        let [source] = &mut pcap_device(file.path())[..] else { panic!("one queue") };
        assert!(read_all(source) == frames);
        assert_eq!(source.copied(), 100);
        assert_eq!(source.stats().received, 200);
    });
}

/// A frame that says who it is.
fn numbered(number: u32) -> Vec<u8> {
    let mut frame = vec![0xee; 60];
    frame.splice(14..18, number.to_be_bytes());
    frame
}

fn number(data: &[u8]) -> u32 {
    u32::from_be_bytes(data[14..18].try_into().unwrap())
}

#[test]
fn what_is_injected_into_a_ring_is_lent_once_without_copying() {
    in_own_process("what_is_injected_into_a_ring_is_lent_once_without_copying", || {
        let eal = Eal::start(&eal(&["net_ring0"])).unwrap();
        let options = PortOptions { queues: 2, port: 9, ..port("net_ring0") };
        let (mut sources, mut transmitters) = open_to_send(eal, &options).unwrap();
        assert_eq!((sources.len(), transmitters.len()), (2, 2));
        let mut next = 0;
        // Far more than the pool has buffers: all must come back.
        for round in 0..1_000 {
            let queue = round % 2;
            let frames: Vec<_> = (next..next + 50).map(numbered).collect();
            let slices: Vec<_> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            assert_eq!(transmitters[queue].send(&slices), 50);
            assert!(sources[queue].backlog() >= 0.0);
            let batch = sources[queue].next_batch().unwrap().unwrap();
            let seen: Vec<_> =
                batch.frames().map(|frame| (number(frame.data), frame.data.len(), frame.port)).collect();
            assert_eq!(seen, (next..next + 50).map(|number| (number, 60, 9)).collect::<Vec<_>>());
            next += 50;
        }
        for source in &mut sources {
            assert_eq!((source.stats().received, source.copied()), (25_000, 0));
        }
        assert_eq!(sources[0].port_stats().packets, 50_000);
    });
}

#[test]
fn frames_can_be_lent_for_longer_than_a_batch() {
    in_own_process("frames_can_be_lent_for_longer_than_a_batch", || {
        let eal = Eal::start(&eal(&["net_ring0"])).unwrap();
        let (mut sources, mut transmitters) =
            open_to_send(eal, &PortOptions { lent: 2_000, ..port("net_ring0") }).unwrap();
        let source = &mut sources[0];
        let region = source.region();
        // Far more than the pool has buffers: all must come back.
        for round in 0..100 {
            let frames: Vec<_> = (0..900).map(|index| numbered(round * 900 + index)).collect();
            let slices: Vec<_> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            assert_eq!(transmitters[0].send(&slices), 900);
            let mut lent = Vec::new();
            for most in [100, 300, 1_000] {
                source.wait(Duration::from_secs(1), None).unwrap();
                source.take(most, &mut lent).unwrap();
            }
            // SAFETY: all were taken, and are given back below.
            let batch = unsafe { region.batch(&lent) };
            let seen: Vec<_> = batch.frames().map(|frame| number(frame.data)).collect();
            assert_eq!(seen, (round * 900..(round + 1) * 900).collect::<Vec<_>>());
            let (one, other) = lent.split_at(450);
            let offsets =
                |part: &[Descriptor]| part.iter().map(|frame| frame.offset).rev().collect::<Vec<_>>();
            source.give_back(&offsets(other));
            source.give_back(&offsets(one));
        }
        assert_eq!((source.stats().received, source.copied()), (90_000, 0));
    });
}

#[test]
fn frames_of_several_buffers_can_be_lent_for_longer_too() {
    in_own_process("frames_of_several_buffers_can_be_lent_for_longer_too", || {
        let (file, frames) = long_frames();
        let [source] = &mut pcap_device(file.path())[..] else { panic!("one queue") };
        let (region, mut seen, mut lent) = (source.region(), Seen::new(), Vec::new());
        while seen.len() < frames.len() {
            source.take(32, &mut lent).unwrap();
            assert!(!lent.is_empty());
            // SAFETY: all were taken, and are given back below.
            let batch = unsafe { region.batch(&lent) };
            seen.extend(batch.frames().map(|frame| (frame.ts_ns / 1_000, frame.data.to_vec())));
            source.give_back(&lent.drain(..).map(|frame| frame.offset).collect::<Vec<_>>());
        }
        assert!(seen == frames);
        assert_eq!((source.copied(), source.stats().received), (100, 200));
    });
}

#[test]
fn a_wait_ends_with_a_ring_of_the_bell() {
    in_own_process("a_wait_ends_with_a_ring_of_the_bell", || {
        let (bell, start) = (Bell::new().unwrap(), Instant::now());
        let mut sources = Dpdk::start(&eal(&["net_ring0"]), &port("net_ring0")).unwrap();
        let listening = bell.listen();
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            sources[0].wait(Duration::from_secs(60), Some(&listening)).unwrap();
        });
        assert!(start.elapsed() < Duration::from_secs(60) && listening.has_rung());
    });
}

/// What comes to either queue is shared among the workers, as the rings have no hash of their own.
#[test]
fn workers_share_the_queues_by_flow() {
    in_own_process("workers_share_the_queues_by_flow", || {
        let eal = Eal::start(&eal(&["net_ring0"])).unwrap();
        let options = PortOptions { queues: 2, lent: 4_096, ..port("net_ring0") };
        let (sources, mut transmitters) = open_to_send(eal, &options).unwrap();
        let queues = sources.into_iter().map(|queue| Box::new(queue) as Box<dyn LendingSource>).collect();
        let sharing =
            Sharing { workers: 2, seed: 7, poll_timeout: Duration::from_millis(1), symmetric: false };
        let mut ends = spread::live(queues, &sharing).unwrap();
        let mut seen = [[0; 2]; 64];
        for round in 0..500 {
            let frames: Vec<_> = (0..64).map(|flow| datagram(flow, round % 2 == 1)).collect();
            let slices: Vec<_> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            assert_eq!(transmitters[round % 2].send(&slices), 64);
            let mut got = 0;
            while got < 64 {
                for (worker, end) in ends.iter_mut().enumerate() {
                    for frame in end.next_batch().unwrap().unwrap().frames() {
                        seen[usize::from(frame.data[35].min(frame.data[37]))][worker] += 1;
                        got += 1;
                    }
                }
            }
        }
        assert!(seen.iter().all(|workers| workers.contains(&500) && workers.contains(&0)), "{seen:?}");
        assert!((0..2).all(|worker| seen.iter().filter(|workers| workers[worker] > 0).count() > 10));
        let received: u64 = ends.iter_mut().map(|end| end.stats().received).sum();
        assert_eq!(received, 500 * 64);
    });
}

/// A UDP packet of a flow, in one of its directions.
fn datagram(flow: u8, back: bool) -> Vec<u8> {
    let ends = [(1u8, flow), (2, 200)];
    let [(src, from), (dst, to)] = if back { [ends[1], ends[0]] } else { ends };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    frame.extend([9, from, 9, to, 0, 26, 0, 0]);
    frame.extend([0; 18]);
    frame
}

#[test]
fn a_full_ring_takes_no_more_and_loses_nothing() {
    in_own_process("a_full_ring_takes_no_more_and_loses_nothing", || {
        let eal = Eal::start(&eal(&["net_ring0"])).unwrap();
        let (mut sources, mut transmitters) = open_to_send(eal, &port("net_ring0")).unwrap();
        let frames: Vec<_> = (0..5_000).map(numbered).collect();
        let slices: Vec<_> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let sent = transmitters[0].send(&slices);
        assert!(sent > 0 && sent < frames.len(), "{sent}");
        let too_long = vec![0; 4_000];
        let seen: Vec<_> = take(&mut sources[0], usize::MAX).iter().map(|data| number(data)).collect();
        assert_eq!(seen, (0..sent as u32).collect::<Vec<_>>());
        assert_eq!(transmitters[0].send(&[IoSlice::new(&frames[0]), IoSlice::new(&too_long)]), 1);
    });
}

#[test]
fn sources_of_several_queues_run_on_threads_of_their_own() {
    in_own_process("sources_of_several_queues_run_on_threads_of_their_own", || {
        let options = PortOptions { queues: 3, ..port("net_null0") };
        let sources = Dpdk::start(&eal(&["net_null0,size=64"]), &options).unwrap();
        assert_eq!(sources.iter().map(DpdkSource::queue).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1, 2]));
        assert!(sources[0].info().symmetric_rss, "{}", sources[0].info());
        std::thread::scope(|scope| {
            for mut source in sources {
                scope.spawn(move || {
                    // Each goes through its pool many times.
                    let frames = take(&mut source, 100_000);
                    assert!(frames.iter().all(|data| data.len() == 64));
                    assert_eq!(source.stats().received, frames.len() as u64);
                });
            }
        });
    });
}

#[test]
fn a_device_has_no_more_queues_than_it_has() {
    in_own_process("a_device_has_no_more_queues_than_it_has", || {
        let options = PortOptions { queues: 64, ..port("net_ring0") };
        let sources = Dpdk::start(&eal(&["net_ring0"]), &options).unwrap();
        assert_eq!(sources.len(), 16);
        assert_eq!(sources[0].info().queues, 16);
    });
}

#[test]
fn a_device_that_cannot_keep_connections_together_has_one_queue_where_order_matters() {
    in_own_process(
        "a_device_that_cannot_keep_connections_together_has_one_queue_where_order_matters",
        || {
            let of = |name| PortOptions { queues: 4, in_order: true, ..port(name) };
            let eal = eal(&["net_ring0", "net_null0"]);
            assert_eq!(Dpdk::start(&eal, &of("net_ring0")).unwrap().len(), 1);
            assert_eq!(Dpdk::start(&eal, &of("net_null0")).unwrap().len(), 4);
        },
    );
}

#[test]
fn an_empty_queue_gives_an_empty_batch_also_when_the_source_may_sleep() {
    in_own_process("an_empty_queue_gives_an_empty_batch_also_when_the_source_may_sleep", || {
        let sleepy = PortOptions { idle_sleep: Some(Duration::from_micros(50)), ..port("net_ring0") };
        let sources = Dpdk::start(&eal(&["net_ring0", "net_ring1"]), &sleepy).unwrap();
        let more = Dpdk::start(&eal(&["net_ring0", "net_ring1"]), &port("net_ring1")).unwrap();
        for mut source in sources.into_iter().chain(more) {
            assert!(source.next_batch().unwrap().unwrap().is_empty());
            assert_eq!(source.stats(), SourceStats::default());
        }
    });
}

#[test]
fn virtual_devices_refuse_to_keep_flows_back() {
    in_own_process("virtual_devices_refuse_to_keep_flows_back", || {
        let file = format!("net_pcap0,rx_pcap={SHOP}");
        let eal = eal(&["net_null0", "net_ring0", &file]);
        for name in ["net_null0", "net_ring0", "net_pcap0"] {
            let [source] = &mut Dpdk::start(&eal, &port(name)).unwrap()[..] else { panic!("one queue") };
            assert_eq!(
                source.check_shunt().unwrap_err().to_string(),
                format!(
                    "cannot keep flows back in the DPDK port {name}: the driver refuses a rule with a counter of its \
                     own: Function not implemented (os error 38); they are delivered"
                )
            );
            assert!(source.shunt().is_none());
        }
    });
}

#[test]
fn a_long_mtu_is_set_where_the_device_takes_it() {
    in_own_process("a_long_mtu_is_set_where_the_device_takes_it", || {
        let eal = eal(&["net_null0,size=9000"]);
        let long = PortOptions { mtu: Some(9_000), descriptors: 64, ..port("net_null0") };
        let mut sources = Dpdk::start(&eal, &long).unwrap();
        assert_eq!(sources[0].info().mtu, 9_000);
        let frames = take(&mut sources[0], 1_000);
        assert!(frames.iter().all(|data| data.len() == 9_000));
        assert_eq!(sources[0].copied(), 0, "buffers are as long as the frames");
    });
}

#[test]
fn a_port_is_open_once() {
    in_own_process("a_port_is_open_once", || {
        let eal = eal(&["net_null0"]);
        let sources = Dpdk::start(&eal, &port("net_null0")).unwrap();
        let again = Dpdk::start(&eal, &port("net_null0")).err().unwrap();
        assert_eq!(again, DpdkError::PortInUse { name: "net_null0".to_owned() });
        drop(sources);
    });
}

//! AF_XDP and `--offload auto` on NICs with drivers of their own, as those that `make nics` emulates.

#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use support::{PATIENCE, POLL_TIMEOUT, Sender, ip, number, numbered_of, take_rest, wait_until_up};
use wirespan_capture::af_xdp::{AfXdp, Mode, Options};
use wirespan_capture::{Frame, PacketSource, SourceStats};
use wirespan_offload::{Nic, Plan, restore_leftovers};

/// Pairs with a wire between them, and the best mode of the first, such as `eth0:eth1:zero-copy,eth2:eth3:generic`. Nothing else
/// may be on the wires.
const NICS: &str = "WIRESPAN_TEST_NICS";

/// The NIC that receives, and the one that sends.
struct Pair {
    nic: String,
    peer: String,
    best: Mode,
}

/// Runs `test` on each pair, with its interfaces up and silent.
fn with_nics(mtu: usize, test: impl Fn(&Pair)) {
    let pairs = std::env::var(NICS).unwrap();
    for pair in pairs.split(',') {
        let mut words = pair.split(':').map(str::to_owned);
        let mut word = || words.next().unwrap();
        let (nic, peer) = (word(), word());
        let best = match word().as_str() {
            "zero-copy" => Mode::ZeroCopy,
            "copy" => Mode::Copy,
            "generic" => Mode::Generic,
            other => panic!("{other} is no mode"),
        };
        for interface in [&nic, &peer] {
            ip(&format!("link set {interface} down"));
            ip(&format!("link set {interface} addrgenmode none mtu {mtu}"));
            ip(&format!("link set {interface} arp off multicast off up"));
        }
        wait_until_up(&[&nic, &peer]);
        println!("{nic}");
        test(&Pair { nic, peer, best });
    }
}

fn options() -> Options {
    Options { frames_per_queue: 1024, poll_timeout: POLL_TIMEOUT, huge_pages: false, ..Options::default() }
}

/// All queues of a NIC, with the link up again, which drivers take down for an XDP program.
fn open(pair: &Pair, options: Options) -> Vec<AfXdp> {
    let sources = AfXdp::open(&pair.nic, options).unwrap();
    wait_until_up(&[&pair.nic, &pair.peer]);
    sources
}

/// A TCP segment of 14 + 20 + 20 bytes of headers, with its number behind them, in one direction of one of 50 connections.
fn segment(number: u32, len: usize, vlan: bool) -> Vec<u8> {
    let client = (number / 2 % 50) as u8;
    let mut ends = [([10, 0, 0, client], [0x9c, client.wrapping_mul(7)]), ([10, 0, 1, 1], [0, 80])];
    if number % 2 == 1 {
        ends.reverse();
    }
    let [from, to] = ends;
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if vlan {
        frame.extend([0x81, 0, 0, 100]);
    }
    frame.extend([8, 0]);
    let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    header[12..16].copy_from_slice(&from.0);
    header[16..20].copy_from_slice(&to.0);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(header);
    frame.extend([from.1, to.1].concat());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.extend((58..len).map(|at| (at / 251 + at + number as usize) as u8));
    frame
}

/// The number of a frame that [`segment`] made.
fn segment_number(frame: &Frame<'_>) -> Option<u32> {
    let ip = match frame.data.get(12..14)? {
        [8, 0] => 14,
        [0x81, 0] => 18,
        _ => return None,
    };
    Some(u32::from_be_bytes(*frame.data.get(ip + 40..)?.first_chunk()?))
}

/// Sends frames, never more than 64 ahead of those that were looked at, and gives the queues in which each came.
fn send_and_see(
    pair: &Pair,
    sources: &mut [AfXdp],
    frames: u32,
    make: impl Fn(u32) -> Vec<u8>,
) -> BTreeMap<u32, u32> {
    let sender = Sender::new(&pair.peer);
    let mut seen = BTreeMap::new();
    let mut sent = 0;
    let start = Instant::now();
    while seen.len() < frames as usize {
        assert!(start.elapsed() < PATIENCE, "saw {} of {sent} frames: {:?}", seen.len(), stats(sources));
        while sent < frames && sent < seen.len() as u32 + 64 {
            sender.send(&make(sent));
            sent += 1;
        }
        for source in &mut *sources {
            let queue = source.queue();
            for frame in source.next_batch().unwrap().unwrap().frames() {
                let number = segment_number(&frame).or_else(|| number(&frame)).unwrap();
                let whole = make(number);
                assert!(frame.data == whole, "frame {number} is not what was sent");
                assert_eq!(frame.wire_len as usize, whole.len());
                assert_eq!(seen.insert(number, queue), None, "frame {number} came twice");
            }
        }
    }
    for source in sources {
        take_rest(source, |_| panic!("more than was sent"));
    }
    seen
}

fn stats(sources: &mut [AfXdp]) -> Vec<SourceStats> {
    sources.iter_mut().map(PacketSource::stats).collect()
}

/// Quick enough to go round many queues.
fn quick() -> Options {
    Options { poll_timeout: std::time::Duration::from_millis(1), ..options() }
}

#[test]
#[ignore = "needs pairs of NICs: `make nics`"]
fn every_frame_is_seen_once_in_each_mode() {
    with_nics(1500, |pair| {
        for mode in [Mode::ZeroCopy, Mode::Copy, Mode::Generic] {
            let mut sources = open(pair, Options { first_mode: mode, ..quick() });
            println!("{}: {} queues, {}", pair.nic, sources.len(), sources[0].mode());
            assert_eq!(sources[0].mode(), mode.max(pair.best));
            let length = |number: u32| 60 + (number as usize * 7919) % (1514 - 60 + 1);
            let seen =
                send_and_see(pair, &mut sources, 1_000, |number| segment(number, length(number), false));
            println!("{}: {} queues received", pair.nic, seen.values().collect::<BTreeSet<_>>().len());
            // What has no addresses, too.
            send_and_see(pair, &mut sources, 200, |number| numbered_of(number, length(number)));
            for source in stats(&mut sources) {
                assert_eq!((source.drops, source.kept_back), (vec![], vec![]));
            }
        }
    });
}

#[test]
#[ignore = "needs pairs of NICs: `make nics`"]
fn jumbo_frames_come_in_one_piece() {
    with_nics(9000, |pair| {
        let mut sources = open(pair, quick());
        let notes: Vec<String> = sources[0].notes().iter().map(ToString::to_string).collect();
        println!("{}: {}, {notes:?}", pair.nic, sources[0].mode());
        let length = |number: u32| 60 + (number as usize * 7919) % (9014 - 60 + 1);
        send_and_see(pair, &mut sources, 400, |number| segment(number, length(number), false));
    });
}

#[test]
#[ignore = "needs pairs of NICs: `make nics`"]
fn auto_keeps_connections_together_and_is_put_back() {
    with_nics(1500, |pair| {
        let state = tempfile::tempdir().unwrap();
        let before = told(&pair.nic);
        // Fewer queues than there are, and more, where the NIC has them.
        for (workers, vlan) in [(2, false), (8, true)] {
            let applied = Nic::open(&pair.nic).unwrap().apply(&auto(), workers, state.path()).unwrap();
            println!("{}: {:?}, refused: {:?}", pair.nic, applied.changes(), applied.refused());
            let symmetric = Nic::open(&pair.nic).unwrap().is_symmetric();
            let mut sources = open(pair, quick());
            let length = |number: u32| 60 + (number as usize * 7919) % (1514 - 60 + 1);
            let seen =
                send_and_see(pair, &mut sources, 1_000, |number| segment(number, length(number), vlan));
            println!(
                "{}: symmetric: {symmetric}, in {} queues",
                pair.nic,
                seen.values().collect::<BTreeSet<_>>().len()
            );
            let apart = seen.iter().filter(|&(number, queue)| seen[&(number - number % 2)] != *queue).count();
            assert!(!symmetric || apart == 0, "{apart} answers came in another queue than their requests");
            for source in stats(&mut sources) {
                assert_eq!((source.drops, source.kept_back), (vec![], vec![]));
            }
            drop(sources);
            assert_eq!(applied.restore(), [""; 0]);
            wait_until_up(&[&pair.nic]);
            assert_eq!(told(&pair.nic), before);
        }
    });
}

fn auto() -> Plan {
    Plan::parse("auto").unwrap()
}

/// Everything that the driver tells.
fn told(nic: &str) -> String {
    format!("{:#?}", Nic::open(nic).unwrap().report())
}

const CHILD: &str = "WIRESPAN_TEST_NIC_AND_STATE";

#[test]
#[ignore = "runs in the process that another test kills"]
fn set_up_and_capture_until_killed() {
    let both = std::env::var(CHILD).unwrap();
    let (nic, state) = both.split_once(' ').unwrap();
    let _applied = Nic::open(nic).unwrap().apply(&auto(), 8, Path::new(state)).unwrap();
    let _sources = AfXdp::open(nic, options()).unwrap();
    println!("capturing");
    std::thread::sleep(PATIENCE);
}

#[test]
#[ignore = "needs pairs of NICs: `make nics`"]
fn what_a_killed_process_set_up_is_put_back() {
    with_nics(1500, |pair| {
        let state = tempfile::tempdir().unwrap();
        let before = told(&pair.nic);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "set_up_and_capture_until_killed", "--nocapture"])
            .env(CHILD, format!("{} {}", pair.nic, state.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("capturing")));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = format!("{}: restored what a killed process had changed", pair.nic);
        assert_eq!(restore_leftovers(state.path()).unwrap(), [said]);
        wait_until_up(&[&pair.nic, &pair.peer]);
        assert_eq!(told(&pair.nic), before);
        let mut sources = open(pair, quick());
        assert_eq!(sources[0].mode(), pair.best);
        send_and_see(pair, &mut sources, 200, |number| segment(number, 100, false));
    });
}

/// Frames that still come to any queue, until none comes.
fn rest(sources: &mut [AfXdp]) -> u64 {
    let mut seen = 0;
    loop {
        let before = seen;
        sources.iter_mut().for_each(|source| take_rest(source, |_| seen += 1));
        if seen == before {
            return seen;
        }
    }
}

#[test]
#[ignore = "needs pairs of NICs: `make nics`"]
fn what_the_kernel_has_no_room_for_is_a_named_drop() {
    with_nics(1500, |pair| {
        for mode in [Mode::Copy, Mode::Generic] {
            let mut sources = open(pair, Options { first_mode: mode, frames_per_queue: 128, ..options() });
            let sender = Sender::new(&pair.peer);
            let sent = 2_000;
            let start = Instant::now();
            // Without reading, never more than 64 ahead of what the program saw, so that the NIC itself drops none.
            let mut number = 0;
            loop {
                let saw = sources[0].program_counters().unwrap().received;
                assert!(start.elapsed() < PATIENCE, "the program saw {saw} of {number} frames");
                if saw == sent {
                    break;
                }
                if number < sent && number < saw + 64 {
                    sender.send(&segment(number as u32, 100, false));
                    number += 1;
                }
            }
            let seen = rest(&mut sources);
            let stats = stats(&mut sources);
            let dropped: u64 = stats.iter().flat_map(|stats| &stats.drops).map(|(_, frames)| frames).sum();
            println!("{}: {}, saw {seen}, {dropped} drops", pair.nic, sources[0].mode());
            assert!(dropped > 0);
            assert_eq!(seen + dropped, sent, "{stats:?}");
            let seen = send_and_see(pair, &mut sources, 300, |number| segment(number, 100, false));
            assert_eq!(seen.len(), 300);
        }
    });
}

#[test]
#[ignore = "needs pairs of NICs: `make nics`"]
fn zero_copy_goes_on_after_all_memory_was_full() {
    with_nics(1500, |pair| {
        let state = tempfile::tempdir().unwrap();
        // Where frames go to a queue that is full, qemu's virtio holds up those for others too.
        let plan = Plan::parse("channels=1").unwrap();
        let _applied = Nic::open(&pair.nic).unwrap().apply(&plan, 1, state.path()).unwrap();
        let mut sources = open(pair, Options { frames_per_queue: 128, ..options() });
        if sources[0].mode() != Mode::ZeroCopy {
            return println!("{} has no zero-copy", pair.nic);
        }
        let sender = Sender::new(&pair.peer);
        (0..2_000).for_each(|number| sender.send(&segment(number, 100, false)));
        let seen = rest(&mut sources);
        println!("{}: saw {seen} of 2000", pair.nic);
        assert!(stats(&mut sources).iter().any(|stats| stats.ring_full > 0));
        let seen = send_and_see(pair, &mut sources, 300, |number| segment(number, 100, false));
        assert_eq!(seen.len(), 300);
    });
}

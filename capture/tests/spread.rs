//! Several queues and several workers: on a veth pair with as many queues.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use support::{POLL_TIMEOUT, Sender, in_namespace, ip, wait_until_up};
use wirespan_capture::af_xdp::{AfXdp, Options};
use wirespan_capture::spread::{self, Sharing};
use wirespan_capture::{Frame, LendingSource, PacketSource};

const FLOWS: u16 = 40;
const ROUNDS: usize = 25;
const SEED: u64 = 7;
/// Behind the outer headers of [`tunnelled`].
const INSIDE: usize = 14 + 20 + 8 + 8;

/// A UDP packet of a flow, in one of its directions.
fn bare(flow: u16, back: bool) -> Vec<u8> {
    let ends = [(1u8, 1000 + flow), (2, 20_000)];
    let [(src, src_port), (dst, dst_port)] = if back { [ends[1], ends[0]] } else { ends };
    let [[s0, s1], [d0, d1]] = [src_port, dst_port].map(u16::to_be_bytes);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    frame.extend([s0, s1, d0, d1, 0, 26, 0, 0]);
    frame.extend([0xaa; 18]);
    frame
}

/// The same in VXLAN, whose outer source port differs from packet to packet.
fn tunnelled(flow: u16, back: bool, round: usize) -> Vec<u8> {
    let inside = bare(flow, back);
    let [p0, p1] = (30_000 + flow * 100 + round as u16).to_be_bytes();
    let ([l0, l1], [t0, t1]) =
        ((inside.len() as u16 + 16).to_be_bytes(), (inside.len() as u16 + 36).to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 4, 8, 0];
    frame.extend([0x45, 0, t0, t1, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend([p0, p1, 0x12, 0xb5, l0, l1, 0, 0, 8, 0, 0, 0, 0, 0, 42, 0]);
    [frame, inside].concat()
}

/// The flow of a frame that one of the two made, and whether it came in a tunnel.
fn flow(frame: &Frame<'_>) -> Option<(u16, bool)> {
    let is_ip = |data: &[u8]| data.get(12..14) == Some(&[8, 0]) && data.get(23) == Some(&17);
    let is_tunnelled = is_ip(frame.data) && frame.data.get(36..38) == Some(&[0x12, 0xb5]);
    let data = if is_tunnelled { frame.data.get(INSIDE..)? } else { frame.data };
    let ports = data.get(34..38).filter(|_| is_ip(data) && data[26] == 10)?;
    let [a, b] = [&ports[..2], &ports[2..]].map(|port| u16::from_be_bytes([port[0], port[1]]));
    Some((a.min(b) - 1000, is_tunnelled))
}

/// Runs `test` where frames that are sent from `other` come to `queues` queues of `many`.
fn with_queues(queues: u32, test: impl FnOnce() + Send) {
    in_namespace(|| {
        let each = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!("link add many {each} type veth peer name other {each}"));
        ip("link set many up");
        ip("link set other up");
        wait_until_up(&["many", "other"]);
        test();
    });
}

fn open() -> Vec<AfXdp> {
    let mut options = Options { poll_timeout: POLL_TIMEOUT, ..Options::default() };
    options.program.seed = SEED;
    AfXdp::open("many", options).unwrap()
}

/// How often each worker saw each flow, bare and in a tunnel, when `frames` came to all queues.
fn shared(symmetric: bool, workers: usize, frames: &[Vec<u8>]) -> BTreeMap<(u16, bool), Vec<usize>> {
    let queues = open().into_iter().map(|queue| Box::new(queue) as Box<dyn LendingSource>).collect();
    let sharing = Sharing { workers, seed: SEED, poll_timeout: POLL_TIMEOUT, symmetric };
    let ends = spread::live(queues, &sharing).unwrap();
    let workers = ends.len();
    let (seen, count) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (worker, mut end) in ends.into_iter().enumerate() {
            let (seen, count) = (&seen, &count);
            scope.spawn(move || {
                while count.load(Ordering::Relaxed) < frames.len() && start.elapsed().as_secs() < 30 {
                    for flow in end.next_batch().unwrap().unwrap().frames().filter_map(|frame| flow(&frame)) {
                        seen.lock().unwrap().entry(flow).or_insert_with(|| vec![0; workers])[worker] += 1;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let sender = Sender::new("other");
        frames.iter().for_each(|frame| sender.send(frame));
    });
    assert_eq!(count.into_inner(), frames.len());
    seen.into_inner().unwrap()
}

fn all(one: impl Fn(u16, bool, usize) -> Vec<u8>) -> Vec<Vec<u8>> {
    let one = &one;
    let flows = |round| (0..FLOWS).flat_map(move |flow| [false, true].map(|back| one(flow, back, round)));
    (0..ROUNDS).flat_map(flows).collect()
}

/// The workers of these flows; each has one, and every worker has some.
fn owners<'a>(
    seen: impl Iterator<Item = (&'a (u16, bool), &'a Vec<usize>)>,
    workers: usize,
) -> BTreeMap<u16, usize> {
    let owner = |(&(flow, _), counts): (&'a (u16, bool), &'a Vec<usize>)| {
        let owner = counts.iter().position(|&count| count == 2 * ROUNDS);
        (flow, owner.unwrap_or_else(|| panic!("flow {flow} was seen {counts:?} times")))
    };
    let owners: BTreeMap<_, _> = seen.map(owner).collect();
    assert_eq!(owners.len(), usize::from(FLOWS));
    assert_eq!(owners.values().collect::<BTreeSet<_>>().len(), workers);
    owners
}

#[test]
fn all_workers_share_what_comes_to_any_queue_by_inner_flow() {
    for (queues, workers) in [(2, 2), (2, 3), (4, 2)] {
        with_queues(queues, || {
            let frames = [all(tunnelled), all(|flow, back, _| bare(flow, back))].concat();
            let seen = shared(false, workers, &frames);
            let workers = workers.max(queues as usize);
            let [bare, tunnelled] =
                [false, true].map(|way| owners(seen.iter().filter(|((_, kind), _)| *kind == way), workers));
            assert_eq!(bare, tunnelled);
        });
    }
}

/// What a queue's flows are is told by its source alone, before.
#[test]
fn queues_of_a_symmetric_nic_keep_all_but_tunnels() {
    with_queues(2, || {
        // One direction: veth's choice of a queue is not symmetric.
        let there = |flow, _, _| bare(flow, false);
        let mut chosen = BTreeMap::new();
        let mut queues = open();
        let sender = Sender::new("other");
        (0..FLOWS).for_each(|flow| sender.send(&there(flow, false, 0)));
        for (queue, source) in queues.iter_mut().enumerate() {
            support::take_rest(source, |frame| chosen.extend(flow(frame).map(|(flow, _)| (flow, queue))));
        }
        drop(queues);
        let seen = shared(true, 2, &[all(there), all(tunnelled)].concat());
        assert_eq!(owners(seen.iter().filter(|((_, tunnelled), _)| !tunnelled), 2), chosen);
        owners(seen.iter().filter(|((_, tunnelled), _)| *tunnelled), 2);
    });
}

#[test]
fn who_reads_for_another_is_told_that_nothing_came_for_it() {
    with_queues(1, || {
        let queues = open().into_iter().map(|queue| Box::new(queue) as Box<dyn LendingSource>).collect();
        let sharing = Sharing { workers: 2, seed: SEED, poll_timeout: POLL_TIMEOUT, symmetric: false };
        let (told, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for mut end in spread::live(queues, &sharing).unwrap() {
                let (told, stop) = (&told, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if end.next_batch().unwrap().unwrap().is_empty() {
                            told.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let (sender, frame) = (Sender::new("other"), bare(1, false));
            sender.send(&frame);
            let before = told.load(Ordering::Relaxed);
            while told.load(Ordering::Relaxed) == before && start.elapsed().as_secs() < 30 {
                sender.send(&frame);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(start.elapsed().as_secs() < 30);
    });
}

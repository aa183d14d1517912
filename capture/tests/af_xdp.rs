//! AF_XDP on a real veth pair: what is sent at one end is seen at the other, and the stack is left alone afterwards.

#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::{
    POLL_TIMEOUT, Sender, as_nobody, in_namespace, ip, now_ns, number, numbered, sees_what_is_sent, take_rest,
};
use wirespan_capture::af_packet::{self, AfPacket};
use wirespan_capture::af_xdp::{AfXdp, Options};
use wirespan_capture::{CaptureError, LendingSource, LinkType, Loss, PacketSource};

fn options() -> Options {
    Options { frames_per_queue: 256, poll_timeout: POLL_TIMEOUT, huge_pages: false, ..Options::default() }
}

fn open_one(interface: &str, options: Options) -> AfXdp {
    let mut sources = AfXdp::open(interface, options).unwrap();
    assert_eq!(sources.len(), 1, "one queue, one source");
    sources.pop().unwrap()
}

#[test]
fn every_frame_is_seen_once() {
    in_namespace(|| {
        let mut source = open_one("right", options());
        insta::assert_snapshot!(source.mode(), @"native XDP, copy");
        sees_what_is_sent(&mut source, 20_000);
        let stats = source.stats();
        let counters = source.program_counters().unwrap();
        assert!(counters.delivered >= stats.received + stats.kernel_drops, "{counters:?} {stats:?}");
    });
}

#[test]
fn generic_mode_serves_interfaces_without_native_xdp() {
    in_namespace(|| {
        let mut source = open_one("lo", options());
        insta::assert_snapshot!(source.mode(), @"generic XDP, copy");
        let sender = Sender::new("lo");
        (0..100).for_each(|number| sender.send(&numbered(number)));
        let mut seen = Vec::new();
        take_rest(&mut source, |frame| {
            if let Some(number) = number(frame) {
                assert_eq!(frame.data, numbered(number));
                seen.push(number);
            }
        });
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn without_free_frames_the_kernel_drops_and_counts() {
    in_namespace(|| {
        let mut source = open_one("right", options());
        let sender = Sender::new("left");
        let sent = 2_000;
        (0..sent).for_each(|number| sender.send(&numbered(number)));
        let mut seen = 0;
        take_rest(&mut source, |frame| seen += u64::from(number(frame).is_some()));
        let stats = source.stats();
        assert!(stats.kernel_drops > 0 && stats.ring_full > 0, "{stats:?}");
        assert!(seen + stats.kernel_drops >= sent.into(), "{seen} and {stats:?}");
        sees_what_is_sent(&mut source, 200);
    });
}

#[test]
fn every_frame_is_lent_or_a_named_drop() {
    in_namespace(|| {
        support::silence();
        let mut source = open_one("right", options());
        let sender = Sender::new("left");
        (0..2_000).for_each(|number| sender.send(&numbered(number)));
        assert_eq!(source.backlog(), 1.0);
        take_rest(&mut source, |_| ());
        let stats = source.stats();
        assert_eq!(stats.drops, [(Loss::NoFreeFrame, 2_000 - 256)]);
        support::accounts_for(&stats, 2_000);
        assert_eq!(source.backlog(), 0.0);
    });
}

#[test]
fn frames_can_be_lent_for_longer_than_a_batch() {
    in_namespace(|| {
        support::silence();
        let mut source = open_one("right", options());
        (0..20).for_each(|_| support::lends_for_longer(&mut source));
        assert_eq!(source.stats().kernel_drops, 0);
        sees_what_is_sent(&mut source, 1_000);
    });
}

#[test]
fn frames_that_are_kept_are_missing_to_the_kernel() {
    in_namespace(|| {
        support::silence();
        let mut source = open_one("right", options());
        let sender = Sender::new("left");
        (0..300).for_each(|number| sender.send(&numbered(number)));
        let mut lent = Vec::new();
        source.take(1_000, &mut lent).unwrap();
        assert_eq!(lent.len(), 256);
        (0..10).for_each(|number| sender.send(&numbered(number)));
        source.take(1_000, &mut lent).unwrap();
        assert_eq!(lent.len(), 256);
        assert_eq!(source.stats().drops, [(Loss::NoFreeFrame, 54)]);
        source.give_back(&lent.iter().map(|frame| frame.offset).collect::<Vec<_>>());
        sees_what_is_sent(&mut source, 1_000);
    });
}

#[test]
fn each_queue_has_a_source() {
    in_namespace(|| {
        ip("link add many numrxqueues 4 type veth peer name other numtxqueues 4");
        ip("link set many up");
        ip("link set other up");
        support::wait_until_up(&["many", "other"]);
        let mut sources = AfXdp::open("many", Options { port: 9, ..options() }).unwrap();
        assert_eq!(sources.iter().map(AfXdp::queue).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let sender = Sender::new("other");
        (0..200).for_each(|number| sender.send(&numbered(number)));
        let mut seen = BTreeSet::new();
        for source in &mut sources {
            take_rest(source, |frame| {
                assert_eq!((frame.port, frame.link), (9, LinkType::Ethernet));
                seen.extend(number(frame));
            });
        }
        assert_eq!(seen, (0..200).collect());
    });
}

#[test]
fn the_frames_are_the_systems_again_after_the_last_source() {
    in_namespace(|| {
        let mut stack =
            AfPacket::open("right", af_packet::Options { poll_timeout: POLL_TIMEOUT, ..Default::default() })
                .unwrap();
        let sender = Sender::new("left");
        let mut reaches_stack = || {
            sender.send(&numbered(1));
            let mut seen = 0;
            take_rest(&mut stack, |frame| seen += u32::from(number(frame).is_some()));
            seen
        };
        assert_eq!(reaches_stack(), 1);
        let sources = AfXdp::open("right", options()).unwrap();
        assert_eq!(reaches_stack(), 0);
        drop(sources);
        assert_eq!(reaches_stack(), 1);
    });
}

#[test]
fn a_frame_has_the_time_at_which_the_program_saw_it() {
    in_namespace(|| {
        for (from, to) in [("left", "right"), ("lo", "lo")] {
            let mut source = open_one(to, options());
            let sender = Sender::new(from);
            // A frame that is already there when we ask must be older than the question.
            let seen_before_asked = (0..1_000).any(|_| {
                let sent_ns = now_ns();
                sender.send(&numbered(1));
                std::thread::sleep(Duration::from_millis(1));
                let asked_ns = now_ns();
                let mut times = Vec::new();
                take_rest(&mut source, |frame| times.extend(number(frame).map(|_| frame.ts_ns)));
                assert!(matches!(times[..], [time] if time >= sent_ns), "{times:?}");
                times[0] < asked_ns
            });
            assert!(seen_before_asked, "no frame of {to} was stamped by the program");
        }
    });
}

#[test]
fn a_removed_interface_ends_the_capture() {
    in_namespace(|| {
        let mut source = open_one("right", options());
        ip("link delete left");
        let error = (0..10).find_map(|_| source.next_batch().err());
        assert!(matches!(error, Some(CaptureError::InterfaceGone { .. })), "{error:?}");
    });
}

#[test]
fn errors_say_what_to_do() {
    in_namespace(|| {
        let error = |name: &str| AfXdp::open(name, options()).err().unwrap().to_string();
        insta::assert_snapshot!(error("eth7"), @"there is no interface named eth7; choose one of: lo, right, left");
        // aya finds out what the kernel can do once in a process: with privileges first, or it believes that nothing works.
        let _first = open_one("right", options());
        let refused = as_nobody(|| error("right"));
        insta::assert_snapshot!(refused, @"no permission to load eBPF programs; run as root, or run `setcap cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw,cap_ipc_lock,cap_sys_ptrace,cap_sys_nice+ep` on the program once");
        insta::assert_snapshot!(error("right"), @"interface right has an XDP program already; stop what uses it (`bpftool net` names it)");
        let _tunnel = support::tunnel("tunnel");
        ip("link set tunnel up");
        insta::assert_snapshot!(error("tunnel"), @"interface tunnel carries no Ethernet frames, as AF_XDP needs; capture with AF_PACKET instead");
    });
}

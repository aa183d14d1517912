//! AF_XDP where a driver or a machine can do less or more than usual: modes, jumbo frames, huge pages, busy polling, queues that
//! are taken, and processes that were killed.

#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{POLL_TIMEOUT, Sender, in_namespace, ip, number, numbered_of, sees_what_is_sent, take_rest};
use wirespan_capture::af_xdp::{AfXdp, Mode, Options};
use wirespan_capture::{Note, PacketSource};

fn options() -> Options {
    Options { frames_per_queue: 256, poll_timeout: POLL_TIMEOUT, huge_pages: false, ..Options::default() }
}

fn open_one(interface: &str, options: Options) -> AfXdp {
    let mut sources = AfXdp::open(interface, options).unwrap();
    assert_eq!(sources.len(), 1, "one queue, one source");
    sources.pop().unwrap()
}

/// Each with its name in counters.
fn notes(source: &mut AfXdp) -> String {
    let said = |note: &Note| format!("{}: {note}", note.kind());
    source.notes().iter().map(said).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_mode_is_tried_in_turn_and_what_was_refused_is_told() {
    in_namespace(|| {
        let mut source = open_one("right", options());
        assert_eq!(source.mode(), Mode::Copy);
        insta::assert_snapshot!(notes(&mut source), @"no_zero_copy: right has no zero-copy AF_XDP (Operation not supported (os error 95)): the kernel copies each frame");
        assert_eq!(notes(&mut source), "", "told once");
        drop(source);
        let mut source = open_one("lo", options());
        assert_eq!(source.mode(), Mode::Generic);
        insta::assert_snapshot!(notes(&mut source), @"generic_xdp: the driver of lo takes no XDP program (Operation not supported (os error 95))");
        drop(source);
        for (mode, text) in [(Mode::Copy, "native XDP, copy"), (Mode::Generic, "generic XDP, copy")] {
            let mut source = open_one("right", Options { first_mode: mode, ..options() });
            assert_eq!((source.mode(), source.mode().to_string().as_str()), (mode, text));
            assert_eq!(notes(&mut source), "");
            sees_what_is_sent(&mut source, 2_000);
        }
    });
}

/// Sends frames of many lengths and checks that each comes in one piece.
fn sees_frames_up_to(source: &mut AfXdp, from: &str, longest: usize) {
    let sender = Sender::new(from);
    let length = |number: u32| 60 + (number as usize * 7919) % (longest - 60 + 1);
    let mut seen = Vec::new();
    for round in 0..40 {
        (round * 8..round * 8 + 8).for_each(|number| sender.send(&numbered_of(number, length(number))));
        let batch = source.next_batch().unwrap().unwrap();
        let mut check = |frame: &wirespan_capture::Frame<'_>| {
            if let Some(number) = number(frame) {
                assert_eq!(frame.data.len(), length(number), "frame {number}");
                assert!(
                    frame.data == numbered_of(number, length(number)),
                    "frame {number} is not what was sent"
                );
                assert_eq!(frame.wire_len as usize, frame.data.len());
                seen.push(number);
            }
        };
        batch.frames().for_each(|frame| check(&frame));
        if round % 8 == 7 {
            take_rest(source, check);
        }
    }
    assert_eq!(seen, (0..320).collect::<Vec<_>>());
    assert_eq!(source.stats().drops, []);
}

#[test]
fn jumbo_frames_come_in_one_piece() {
    in_namespace(|| {
        ip("link set left mtu 9000");
        ip("link set right mtu 9000");
        for mode in [Mode::Copy, Mode::Generic] {
            let mut source = open_one("right", Options { first_mode: mode, ..options() });
            assert_eq!(source.mode(), mode);
            sees_frames_up_to(&mut source, "left", 9014);
            assert!((100..320).contains(&source.joined()), "{}", source.joined());
        }
    });
}

#[test]
fn the_longest_frames_come_in_one_piece() {
    in_namespace(|| {
        let mut source = open_one("lo", options());
        sees_frames_up_to(&mut source, "lo", 65_000);
    });
}

#[test]
fn jumbo_frames_without_room_are_a_named_drop() {
    in_namespace(|| {
        support::silence();
        ip("link set left mtu 9000");
        ip("link set right mtu 9000");
        let mut source = open_one("right", options());
        let sender = Sender::new("left");
        (0..500)
            .for_each(|number| sender.send(&numbered_of(number, if number % 3 == 0 { 9_000 } else { 100 })));
        let mut seen = 0;
        take_rest(&mut source, |_| seen += 1);
        let stats = source.stats();
        assert_eq!(stats.received, seen);
        assert!(stats.kernel_drops > 0, "{stats:?}");
        support::accounts_for(&stats, 500);
        sees_frames_up_to_again(&mut source);
    });
}

/// As all are before Linux 6.6.
#[test]
fn frames_that_are_too_long_for_the_kernel_are_a_named_drop() {
    in_namespace(|| {
        support::silence();
        ip("link set left mtu 9000");
        ip("link set right mtu 9000");
        let mut source = open_one("right", options());
        let notes = notes(&mut source);
        if !notes.contains("right cannot receive frames in parts") {
            return eprintln!("skipped: this kernel gives jumbo frames to AF_XDP");
        }
        let sender = Sender::new("left");
        let mut seen = 0;
        for round in 0..30 {
            (0..10)
                .for_each(|number| sender.send(&numbered_of(number, if number < 3 { 9_000 } else { 100 })));
            take_rest_quickly(&mut source, 7, &mut seen);
            assert_eq!(seen, (round + 1) * 7);
        }
        take_rest(&mut source, |_| panic!("too many"));
        let stats = source.stats();
        assert_eq!((stats.received, stats.kernel_drops), (210, 90), "{stats:?}");
        support::accounts_for(&stats, 300);
    });
}

/// All memory is free again.
fn sees_frames_up_to_again(source: &mut AfXdp) {
    let drops = source.stats().kernel_drops;
    let sender = Sender::new("left");
    let mut seen = 0;
    for _ in 0..50 {
        (0..10).for_each(|number| sender.send(&numbered_of(number, 9_000)));
        take_rest_quickly(source, 10, &mut seen);
    }
    assert_eq!(seen, 500);
    assert_eq!(source.stats().kernel_drops, drops);
}

fn take_rest_quickly(source: &mut AfXdp, frames: usize, seen: &mut usize) {
    let end = *seen + frames;
    while *seen < end {
        let came = source.next_batch().unwrap().unwrap().len();
        assert!(came > 0, "saw {seen} of {end}");
        *seen += came;
    }
}

/// Huge pages that the machine has; set back on drop.
struct HugePages(u64);

impl HugePages {
    const PATH: &str = "/proc/sys/vm/nr_hugepages";

    fn more(pages: u64) -> Self {
        let before: u64 = fs::read_to_string(Self::PATH).unwrap().trim().parse().unwrap();
        fs::write(Self::PATH, (before + pages).to_string()).unwrap();
        Self(before)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, self.0.to_string());
    }
}

#[test]
fn frames_lie_in_huge_pages_where_there_are_enough() {
    in_namespace(|| {
        let huge = Options { huge_pages: true, first_mode: Mode::Copy, ..options() };
        {
            let _pages = HugePages::more(8);
            let mut source = open_one("right", huge.clone());
            assert_eq!(notes(&mut source), "");
            sees_what_is_sent(&mut source, 500);
        }
        // More than any machine has: 4 GiB that nobody touches, since it is refused.
        let mut source = open_one("right", Options { frames_per_queue: 1 << 12, ..huge });
        let notes = source.notes();
        let [Note::FewHugePages { needed, free, total, .. }] = notes[..] else { panic!("{notes:?}") };
        assert!(needed == 11 && free < needed && total >= needed - free, "{notes:?}");
        let text = notes[0].to_string();
        assert!(text.starts_with("too few huge pages: 11 are needed and "), "{text}");
        sees_what_is_sent(&mut source, 500);
    });
}

#[test]
fn busy_polling_loses_nothing() {
    in_namespace(|| {
        let polled = Options { busy_poll: true, first_mode: Mode::Copy, ..options() };
        let mut source = open_one("right", polled);
        assert_eq!(notes(&mut source), "");
        sees_what_is_sent(&mut source, 30_000);
    });
}

#[test]
fn busy_polling_without_effect_is_noticed() {
    in_namespace(|| {
        // The loopback interface has no receive path that could be polled.
        let mut source = open_one("lo", Options { busy_poll: true, first_mode: Mode::Generic, ..options() });
        source.notes();
        let sender = Sender::new("lo");
        let mut seen = 0;
        for _ in 0..250 {
            (0..100).for_each(|number| sender.send(&numbered_of(number, 60)));
            take_rest_quickly(&mut source, 100, &mut seen);
        }
        insta::assert_snapshot!(notes(&mut source), @"busy_poll_without_effect: busy polling of lo has no effect (the driver does not tell which of its queues they come from): switch it off, it costs CPU time only");
        sender.send(&numbered_of(1, 60));
        take_rest_quickly(&mut source, 1, &mut seen);
    });
}

#[test]
fn a_queue_that_another_socket_has_is_named() {
    in_namespace(|| {
        let other = support::occupy_queue("right");
        let error = AfXdp::open("right", options()).err().unwrap();
        insta::assert_snapshot!(error, @"queue 0 of right is taken by another AF_XDP socket; stop the program that uses it (`ss --xdp -p` names it)");
        drop(other);
        sees_what_is_sent(&mut open_one("right", options()), 100);
    });
}

#[test]
#[ignore = "runs in the process that another test kills"]
fn capture_until_killed() {
    let _source = open_one("right", options());
    println!("capturing");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    in_namespace(|| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "capture_until_killed", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("capturing")));
        let link = || {
            let output = Command::new("ip").args(["-d", "link", "show", "right"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(link().contains("xdp") && link().contains("promiscuity 1"), "{}", link());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!link().contains("xdp") && link().contains("promiscuity 0"), "{}", link());
        sees_what_is_sent(&mut open_one("right", options()), 1_000);
    });
}

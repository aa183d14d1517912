//! Processes, threads, turns, wake-ups.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::{Barrier, mpsc};

use wirespan_event::Kind;

use super::super::TracerOptions;
use super::tcp::pair;
use super::watch::{this_process, watch};

fn tid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() as u32 }
}

#[test]
fn a_process_begins_executes_and_ends() {
    let Some(mut watch) = watch(&TracerOptions { left_out: None, ..TracerOptions::default() }) else {
        return;
    };
    // The shell first forks, so that a process is made by one that is not this.
    let output = Command::new("bash").args(["-c", "/bin/true; echo $$"]).output().unwrap();
    let shell: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let fork = watch.wait_for(1, |seen| seen.kind() == Kind::Fork && seen.header.other_tgid == shell);
    assert_eq!((fork[0].header.tgid, fork[0].header.tid), (std::process::id(), tid()));
    let fork = watch.wait_for(1, |seen| seen.kind() == Kind::Fork && seen.header.tgid == shell);
    let child = fork[0].header.other_tgid;
    let exec = watch.wait_for(1, |seen| seen.kind() == Kind::Exec && seen.header.tgid == child);
    assert_eq!(String::from_utf8_lossy(&exec[0].payload), "/bin/true");
    for pid in [child, shell] {
        let exit = watch.wait_for(1, |seen| seen.kind() == Kind::Exit && seen.header.tgid == pid);
        assert_eq!((exit.len(), exit[0].header.tid), (1, pid));
    }
    let started = exec[0].header.process_start_ns;
    assert!(started <= exec[0].header.enter_ns && started >= fork[0].header.process_start_ns);
    // The same number as in /proc/PID/stat, which has it in hundredths of a second.
    assert_ne!(exec[0].header.cgroup, 0);
}

#[test]
fn a_thread_begins_and_ends_without_its_process() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let thread = std::thread::spawn(tid).join().unwrap();
    let fork = watch.wait_for(1, |seen| seen.kind() == Kind::Fork && seen.header.other_tid == thread);
    assert_eq!((fork[0].header.other_tgid, fork[0].header.tid), (std::process::id(), tid()));
    let exit = watch.wait_for(1, |seen| seen.kind() == Kind::Exit && seen.header.tid == thread);
    assert_eq!(exit[0].header.tgid, std::process::id());
    assert!(exit[0].header.tid != exit[0].header.tgid);
}

#[test]
fn waits_of_a_thread_are_its_turns() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    // SAFETY: the descriptor is new, and the structures live as long as the calls.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    let mut poll = libc::pollfd { fd: server.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut waits: [Box<dyn FnMut() -> i32>; 4] = [
        Box::new(|| 0),
        // SAFETY: there is room for one event.
        Box::new(|| unsafe { libc::epoll_wait(epoll, &mut event, 1, 0) }),
        // SAFETY: one descriptor is told of.
        Box::new(|| unsafe { libc::poll(&mut poll, 1, 0) }),
        Box::new(|| {
            let none = std::ptr::null_mut();
            let mut time = libc::timeval { tv_sec: 0, tv_usec: 0 };
            // SAFETY: no descriptors, and a time that lives.
            unsafe { libc::select(0, none, none, none, &mut time) }
        }),
    ];
    for wait in &mut waits {
        assert!(wait() >= 0);
        client.write_all(b"turn").unwrap();
    }
    drop(waits);
    // SAFETY: the descriptor is this test's own.
    unsafe { libc::close(epoll) };
    server.read_exact(&mut [0; 16]).unwrap();
    let data = watch.wait_for(4, |seen| seen.kind() == Kind::Data && seen.header.remote_port == port);
    let turns: Vec<_> = data.iter().map(|seen| seen.header.turn - data[0].header.turn).collect();
    assert_eq!(turns, [0, 1, 2, 3]);
    assert!(data.windows(2).all(|two| two[1].header.thread_event > two[0].header.thread_event));
}

#[test]
fn a_thread_that_hands_work_to_another_wakes_it() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let (hand, work) = mpsc::channel::<Vec<u8>>();
    let worker = std::thread::spawn(move || {
        let request = work.recv().unwrap();
        (tid(), request)
    });
    // The worker has to sleep before there is work for it.
    let worker_tid =
        watch.wait_for(1, |seen| seen.kind() == Kind::Fork && seen.header.tid == tid())[0].header.other_tid;
    let state = || std::fs::read_to_string(format!("/proc/self/task/{worker_tid}/stat")).unwrap_or_default();
    while !state().contains(") S ") {
        std::thread::yield_now();
    }
    client.write_all(b"work").unwrap();
    let mut request = vec![0; 4];
    server.read_exact(&mut request).unwrap();
    hand.send(request).unwrap();
    let (worker, request) = worker.join().unwrap();
    assert_eq!((worker, &request[..]), (worker_tid, &b"work"[..]));
    let read = watch.wait_for(1, |seen| seen.kind() == Kind::Data && seen.header.local_port == port);
    let wake = watch.wait_for(1, |seen| seen.kind() == Kind::Wake && seen.header.other_tid == worker);
    assert_eq!((wake[0].header.tid, wake[0].header.other_tgid), (tid(), std::process::id()));
    assert!(wake[0].header.enter_ns >= read[0].header.exit_ns);
    assert!(wake[0].header.thread_event > read[0].header.thread_event);
}

#[test]
fn threads_whose_ids_collide_are_told_apart_and_forgotten() {
    const WRITERS: usize = 40;
    let Some(mut watch) = watch(&TracerOptions { threads: 32, ..this_process() }) else { return };
    // More than there is room for, if it were not given back.
    for _ in 0..5 {
        let together = Barrier::new(WRITERS);
        let threads: Vec<_> = std::thread::scope(|scope| {
            let write = || {
                let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
                client.write_all(b"x").unwrap();
                // All of them are there at once, in the middle of what they do.
                together.wait();
                server.read_exact(&mut [0]).unwrap();
                (tid(), port)
            };
            let threads: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (tid, port) in threads {
            let data = watch.of_port(2, Kind::Data, port);
            assert_eq!(data.iter().map(|seen| seen.header.tid).collect::<Vec<_>>(), [tid; 2]);
            assert!(data[0].header.thread_event < data[1].header.thread_event);
        }
    }
    assert_eq!(watch.tracer.stats().unwrap().threads_full, 0);
}

//! What is left out on purpose, and what is lost: both are counted.

use std::io::{Read, Write};
use std::net::TcpStream;

use wirespan_event::{Flags, Kind};

use super::super::{Groups, Snap, TracerOptions};
use super::tcp::pair;
use super::watch::{Seen, this_process, watch};
use crate::BpfError;

fn exchange(from: &mut TcpStream, to: &mut TcpStream, len: usize) {
    from.write_all(&vec![b'x'; len]).unwrap();
    to.read_exact(&mut vec![0; len]).unwrap();
}

fn captured(seen: &[Seen]) -> Vec<usize> {
    seen.iter().map(|seen| seen.payload.len()).collect()
}

#[test]
fn payload_is_copied_up_to_a_bound_of_the_event_and_one_of_the_message() {
    let options = TracerOptions { snap: Snap::new(512, 4096), ..this_process() };
    let Some(mut watch) = watch(&options) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    for _ in 0..10 {
        client.write_all(&[b'x'; 700]).unwrap();
    }
    server.read_exact(&mut [0; 7_000]).unwrap();
    server.write_all(b"back").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    client.write_all(&[b'x'; 700]).unwrap();
    let sent = watch.wait_for(11, |seen| {
        seen.kind() == Kind::Data && seen.header.remote_port == port && !seen.has(Flags::INGRESS)
    });
    assert_eq!(captured(&sent), [512, 512, 512, 512, 512, 512, 512, 512, 0, 0, 512]);
    assert!(sent.iter().all(|seen| seen.has(Flags::TRUNCATED) && seen.header.length == 700));
    let left_out: Vec<_> = sent.iter().map(|seen| seen.has(Flags::NO_DATA)).collect();
    assert_eq!(left_out, [[false; 8].as_slice(), &[true, true, false]].concat());
    let first: Vec<_> = sent.iter().map(|seen| seen.has(Flags::FIRST_IN_DIRECTION)).collect();
    assert_eq!(first, [[false; 10].as_slice(), &[true]].concat());
}

#[test]
fn short_calls_are_copied_beyond_the_bound_of_a_message() {
    let options = TracerOptions { snap: Snap::new(128, 1024), ..this_process() };
    let Some(mut watch) = watch(&options) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    for len in [1000, 300, 300, 300, 300, 300, 300, 300, 300, 300, 257, 256, 40, 40] {
        client.write_all(&vec![b'x'; len]).unwrap();
    }
    server.read_exact(&mut [0; 4_293]).unwrap();
    let sent = watch.wait_for(14, |seen| {
        seen.kind() == Kind::Data && seen.header.remote_port == port && !seen.has(Flags::INGRESS)
    });
    assert_eq!(captured(&sent), [128, 128, 128, 128, 128, 128, 128, 128, 0, 0, 0, 128, 40, 40]);
}

#[test]
fn more_is_copied_of_connections_that_begin_as_http2() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    for _ in 0..3 {
        let frames: Vec<_> =
            (0..200).map(|_| std::io::IoSlice::new(b"0123456789012345678901234567890123456789")).collect();
        assert_eq!(client.write_vectored(&frames).unwrap(), 8_000);
    }
    server.read_exact(&mut [0; 24_024]).unwrap();
    let sent = watch.wait_for(4, |seen| {
        seen.kind() == Kind::Data && seen.header.remote_port == port && !seen.has(Flags::INGRESS)
    });
    assert_eq!(captured(&sent), [24, 8_000, 8_000, 8_000]);
}

#[test]
fn what_one_call_moves_of_http2_comes_in_several_events_up_to_the_budget() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let head: [u8; 9] = [0, 0, 40, 1, 5, 0, 0, 0, 5];
    let bytes: Vec<u8> = head.into_iter().chain((9..100_000u32).map(|n| n as u8)).collect();
    let parts: Vec<_> =
        [&bytes[..9], &bytes[9..9_000], &bytes[9_000..20_000]].map(std::io::IoSlice::new).into();
    assert_eq!(client.write_vectored(&parts).unwrap(), 20_000);
    server.read_exact(&mut [0; 20_000]).unwrap();
    server.write_all(b"back").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    client.write_all(&bytes).unwrap();
    server.read_exact(&mut [0; 100_000]).unwrap();
    let sent = watch.wait_for(11, |seen| {
        seen.kind() == Kind::Data && seen.header.remote_port == port && !seen.has(Flags::INGRESS)
    });
    let (first, second) = sent.split_at(3);
    assert_eq!(captured(first), [8_192, 8_192, 3_616]);
    assert_eq!(first.iter().flat_map(|seen| seen.payload.clone()).collect::<Vec<_>>(), bytes[..20_000]);
    assert!(first.iter().all(|seen| !seen.has(Flags::TRUNCATED)));
    let numbers = sent.windows(2).map(|two| two[1].header.tcp_seq.wrapping_sub(two[0].header.tcp_seq));
    assert!(numbers.eq(sent.iter().map(|seen| seen.header.length).take(sent.len() - 1)));
    assert_eq!(second.iter().flat_map(|seen| seen.payload.clone()).collect::<Vec<_>>(), bytes[..64 << 10]);
    let told: u32 = second.iter().map(|seen| seen.header.length).sum();
    assert_eq!(told, 100_000);
}

#[test]
fn more_is_copied_of_connections_whose_beginning_as_http2_was_not_seen() {
    let Some(mut watch) = watch(&this_process()) else { return };
    // HEADERS of stream 5, WINDOW_UPDATE of stream 0; what is neither: a longer frame, an even stream, other flags, text.
    let frames: [(&[u8; 9], usize); 6] = [
        (&[0, 0, 40, 1, 5, 0, 0, 0, 5], 6_000),
        (&[0, 0, 4, 8, 0, 0, 0, 0, 0], 6_000),
        (&[0, 0x50, 0, 1, 5, 0, 0, 0, 5], 2_048),
        (&[0, 0, 40, 1, 5, 0, 0, 0, 4], 2_048),
        (&[0, 0, 40, 1, 0x80, 0, 0, 0, 5], 2_048),
        (b"GET / HTT", 2_048),
    ];
    for (head, expected) in frames {
        let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
        let rest = [b'x'; 5_991];
        let parts = [std::io::IoSlice::new(head), std::io::IoSlice::new(&rest)];
        assert_eq!(client.write_vectored(&parts).unwrap(), 6_000);
        server.read_exact(&mut [0; 6_000]).unwrap();
        let sent = watch.wait_for(1, |seen| {
            seen.kind() == Kind::Data && seen.header.remote_port == port && !seen.has(Flags::INGRESS)
        });
        assert_eq!(captured(&sent), [expected], "{head:?}");
    }
}

#[test]
fn how_much_payload_comes_can_be_changed() {
    let options = TracerOptions { snap: Snap::new(512, 4096), ..this_process() };
    let Some(mut watch) = watch(&options) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let own = client.local_addr().unwrap().port();
    let mut lens = |watch: &mut super::watch::Watch, expected: usize| {
        watch.seen.clear();
        exchange(&mut client, &mut server, 6_000);
        exchange(&mut server, &mut client, 1);
        watch.drain();
        let seen = watch.of_port(expected, Kind::Data, port);
        captured(
            &seen
                .into_iter()
                .filter(|seen| seen.header.local_port == own && seen.header.length > 1)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(lens(&mut watch, 4), [512]);
    for (snap, expected) in [(Snap::new(5, 5), 5), (Snap::new(8_192, 100_000), 6_000)] {
        watch.tracer.set_default(snap, 1).unwrap();
        assert_eq!(lens(&mut watch, 4), [expected]);
    }
}

#[test]
fn events_that_a_full_ring_has_no_room_for_are_counted() {
    const EXCHANGES: usize = 500;
    let groups = Groups { wakes: false, lengths: false, processes: false, ..Groups::default() };
    let options = TracerOptions { ring_bytes: 16 << 10, groups, ..this_process() };
    let Some(mut watch) = watch(&options) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let before = watch.tracer.stats().unwrap().ring_full;
    for _ in 0..EXCHANGES {
        exchange(&mut client, &mut server, 100);
    }
    watch.drain();
    let told = watch.of_port(0, Kind::Data, port);
    let lost = watch.tracer.stats().unwrap().ring_full - before;
    // Other tests of this process may lose events as well.
    assert!(told.len() as u64 + lost >= 2 * EXCHANGES as u64, "{} told, {lost} lost", told.len());
    assert!(!told.is_empty() && lost > 0);
    // As soon as there is room, all goes on; what is missing shows in the numbers.
    watch.seen.clear();
    exchange(&mut client, &mut server, 100);
    let data = watch.of_port(2, Kind::Data, port);
    assert_eq!(data[0].header.tcp_seq, data[1].header.tcp_seq);
    assert_eq!(data[0].header.conn_event as usize, EXCHANGES);
}

#[test]
fn the_tracers_own_process_is_left_out() {
    let Some(mut watch) = watch(&TracerOptions::default()) else { return };
    let (mut client, mut server, _) = pair("127.0.0.1", "127.0.0.1");
    exchange(&mut client, &mut server, 100);
    assert!(std::process::Command::new("true").status().unwrap().success());
    watch.wait_for(1, |seen| seen.kind() == Kind::Exit);
    assert!(watch.seen.iter().all(|seen| seen.header.tgid != std::process::id()));
}

#[test]
fn a_group_that_is_off_says_so_and_tells_nothing() {
    let groups = Groups::NONE;
    let Some(watch) = watch(&TracerOptions { groups, ..this_process() }) else { return };
    assert!(watch.tracer.features().iter().all(|feature| feature.off.as_deref() == Some("switched off")));
}

#[test]
fn the_options_of_a_host_agent_are_taken_by_the_kernel() {
    let Some(watch) = watch(&TracerOptions::default()) else { return };
    assert!(
        watch.tracer.features().iter().all(|feature| feature.off.is_none()),
        "{:?}",
        watch.tracer.features()
    );
}

#[test]
fn a_kernel_without_type_information_is_one_sentence() {
    let options = TracerOptions { btf: Some("/nowhere/vmlinux".into()), ..TracerOptions::default() };
    let Err(error) = super::super::Tracer::start(&options) else { panic!("started") };
    assert!(matches!(error, BpfError::NoBtf { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with(
            "system calls cannot be traced: no type information of the kernel in /nowhere/vmlinux"
        )
    );
    assert_eq!(text.lines().count(), 1);
}

//! Servers of HTTP/2 that ask others for each of their requests, played at random, whose events are lost or hold a part of their bytes
//! only: what is linked is right.

use crate::common::*;
use crate::loss::shuffle;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashMap;
use wirespan_event::Flags;
use wirespan_records::{ObservationPoint, Span, Text};

const SERVER: u32 = 200;
const HERE: [u8; 4] = [10, 0, 0, 2];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame with END_HEADERS and END_STREAM.
fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u32).to_be_bytes();
    [&length[1..], &[1, 5], &stream.to_be_bytes(), block].concat()
}

/// GET of a path, which comes as a literal; most of the rest is in the static table.
fn request(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, &[&[0x82, 0x86, 0x04, path.len() as u8], path.as_bytes()].concat())
}

/// 200.
fn response(stream: u32) -> Vec<u8> {
    headers(stream, &[0x88])
}

/// What a request of the server is at.
enum At {
    /// It asks on this connection when that is open, or when it gets to it.
    Opened(Socket),
    Asked(Socket),
}

struct Work {
    conn: usize,
    stream: u32,
    path: String,
    at: At,
    thread: usize,
}

/// How the server works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// One thread, which waits for whatever comes and asks when a connection is open.
    Loop,
    /// The same, with connections that are open already.
    Pooled,
    /// One thread reads, others ask and answer.
    Workers,
}

#[derive(Clone, Debug)]
struct Play {
    style: Style,
    dice: Vec<u8>,
    /// Bytes that are kept of a call.
    captured: usize,
    lost: Vec<bool>,
    places: Vec<usize>,
}

/// So many workers are there.
const WORKERS: usize = 4;

fn play() -> impl Strategy<Value = Play> {
    (
        prop_oneof![Just(Style::Loop), Just(Style::Pooled), Just(Style::Workers)],
        prop::collection::vec(any::<u8>(), 0..300),
        prop_oneof![Just(usize::MAX), 30..200usize],
        prop_oneof![Just(0.0), Just(0.02), Just(0.1)]
            .prop_flat_map(|lost| prop::collection::vec(prop::bool::weighted(lost), 1..200)),
        prop::collection::vec(0..10usize, 1..50),
    )
        .prop_map(|(style, dice, captured, lost, places)| Play { style, dice, captured, lost, places })
}

fn events(play: &Play) -> Log {
    let mut dice = play.dice.iter().map(|number| usize::from(*number));
    let (mut script, mut next_conn, mut works) = (Script::default(), 1000, Vec::<Work>::new());
    let mut threads: Vec<Thread> = (0..=WORKERS as u32).map(|n| Thread::new(SERVER, SERVER + n)).collect();
    let mut idle: Vec<Socket> = Vec::new();
    let mut conns: Vec<(Socket, u32)> = (0..3u8)
        .map(|n| {
            let client = ([10, 0, 0, 1], 40_000 + u16::from(n));
            (Socket::tcp(10 + u64::from(n), Flags::SERVER, (HERE, 80), client), 1)
        })
        .collect();
    for (socket, _) in &mut conns {
        script.open(&mut threads[0], socket);
        script.receive(&mut threads[0], socket, PREFACE);
    }
    while let (Some(what), Some(which), Some(wait)) = (dice.next(), dice.next(), dice.next()) {
        if wait % 4 != 0 {
            threads[0].turn += 1;
        }
        if what % 3 == 0 || works.is_empty() {
            let conn = which % 3;
            let (socket, stream) = &mut conns[conn];
            let paths: Vec<(u32, String)> = (0..1 + which as u32 / 3 % 6)
                .map(|n| (*stream + 2 * n, format!("/{conn}/{}/{}", *stream + 2 * n, "x".repeat(20))))
                .collect();
            *stream += 2 * paths.len() as u32;
            let bytes: Vec<u8> = paths.iter().flat_map(|(stream, path)| request(*stream, path)).collect();
            script.cut(&mut threads[0], socket, &bytes, true, play.captured);
            for (stream, path) in paths {
                let at = match idle.pop().filter(|_| play.style == Style::Pooled) {
                    Some(mut socket) => {
                        let bytes = get(&format!("{path}/call"));
                        script.cut(&mut threads[0], &mut socket, &bytes, false, play.captured);
                        At::Asked(socket)
                    }
                    None => {
                        next_conn += 1;
                        let there = ([10, 0, 0, 3], 8000);
                        let socket = Socket::tcp(next_conn, Flags::CLIENT, (HERE, next_conn as u16), there);
                        if play.style != Style::Workers {
                            script.open(&mut threads[0], &socket);
                        }
                        At::Opened(socket)
                    }
                };
                let thread = if play.style == Style::Workers { 1 + stream as usize / 2 % WORKERS } else { 0 };
                works.push(Work { conn, stream, path, at, thread });
            }
            continue;
        }
        let index = which % works.len();
        let work = works.swap_remove(index);
        let thread = &mut threads[work.thread];
        match work.at {
            At::Opened(mut socket) => {
                if play.style == Style::Workers && socket.events == 0 {
                    script.open(thread, &socket);
                }
                script.cut(thread, &mut socket, &get(&format!("{}/call", work.path)), false, play.captured);
                works.push(Work { at: At::Asked(socket), ..work });
            }
            At::Asked(mut socket) => {
                script.cut(thread, &mut socket, &ok("answer"), true, play.captured);
                script.cut(thread, &mut conns[work.conn].0, &response(work.stream), false, play.captured);
                idle.push(socket);
            }
        }
    }
    for (header, _) in &mut script.log {
        // It waits without an end.
        header.other_tgid = 1;
    }
    script.log
}

/// Links, and how many of them are not with the request that the call's path begins with.
fn links(spans: &[Span]) -> (usize, Vec<String>) {
    let at = |span: &Span, point| span.observation_point == point;
    let path = |span: &Span| span.request_resource.clone().unwrap_or_default();
    let servers: HashMap<u64, Text> = spans
        .iter()
        .filter(|span| at(span, ObservationPoint::ServerProcess))
        .map(|span| (span.id, path(span)))
        .collect();
    let linked: Vec<(Text, Text, String)> = spans
        .iter()
        .filter(|span| at(span, ObservationPoint::ClientProcess))
        .filter_map(|span| {
            let parent = span.parent.as_ref()?;
            Some((
                path(span),
                servers.get(&parent.span)?.clone(),
                format!("{:?} {}", parent.rule, parent.confidence),
            ))
        })
        .collect();
    let wrong = linked
        .iter()
        .filter(|(call, request, _)| {
            !call.is_empty() && !request.is_empty() && !call.starts_with(request.as_str())
        })
        .map(|(call, request, why)| format!("{call} with {request}: {why}"))
        .collect();
    (linked.len(), wrong)
}

#[test]
fn where_nothing_is_lost_most_are_linked() {
    for (style, of) in [(Style::Loop, 2), (Style::Pooled, 2), (Style::Workers, 4)] {
        let mut runner = TestRunner::deterministic();
        let (mut linked, mut calls) = (0, 0);
        for _ in 0..100 {
            let play =
                Play { style, captured: usize::MAX, ..play().new_tree(&mut runner).unwrap().current() };
            let spans = run(&events(&play));
            let (links, wrong) = links(&spans);
            assert!(wrong.is_empty(), "{style:?}: {wrong:#?}");
            linked += links;
            calls +=
                spans.iter().filter(|span| span.observation_point == ObservationPoint::ClientProcess).count();
        }
        assert!(linked * of > calls, "{style:?}: {linked} of {calls}");
    }
}

proptest! {
    #[test]
    fn whatever_is_lost_no_call_is_linked_with_another_request(play in play()) {
        let log = events(&play);
        let kept: Log =
            log.iter().zip(play.lost.iter().cycle()).filter(|(_, lost)| !**lost).map(|(event, _)| event.clone()).collect();
        let (_, wrong) = links(&run(&shuffle(&kept, &play.places)));
        prop_assert!(wrong.is_empty(), "{:#?}", wrong);
    }
}

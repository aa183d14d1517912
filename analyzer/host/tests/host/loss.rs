//! Events that come out of order, and events that do not come: spans may be missing, but none may join what does not belong
//! together.

use crate::common::*;
use proptest::prelude::*;
use std::collections::HashMap;
use wirespan_event::Flags;
use wirespan_records::{ObservationPoint, Session};

/// Connections to one server, each with requests that name themselves and have an answer that names them.
#[derive(Clone, Debug)]
struct Traffic {
    /// For each connection, how many requests are sent at once, one after the other.
    rounds: Vec<Vec<usize>>,
    /// The openings of the connections are told of.
    opened: bool,
    /// Calls that move a message.
    pieces: usize,
    /// Bytes that are kept of a call.
    captured: usize,
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let rounds = prop::collection::vec(prop::collection::vec(1..4usize, 1..6), 1..4);
    (rounds, any::<bool>(), 1..4usize, prop_oneof![Just(usize::MAX), 40..80usize])
        .prop_map(|(rounds, opened, pieces, captured)| Traffic { rounds, opened, pieces, captured })
}

/// The events, and which response belongs to which request: their sequence numbers, by the path of the request.
fn events(traffic: &Traffic) -> (Log, HashMap<String, (u32, u32)>) {
    let (mut script, mut truth) = (Script::default(), HashMap::new());
    let mut client_thread = Thread::new(100, 100);
    for (n, rounds) in traffic.rounds.iter().enumerate() {
        let mut server_thread = Thread::new(200, 200 + n as u32);
        let [mut client, mut server] = Socket::pair(10 * (1 + n as u64));
        if traffic.opened {
            script.open(&mut client_thread, &client);
            script.open(&mut server_thread, &server);
        }
        for (round, &at_once) in rounds.iter().enumerate() {
            let names: Vec<_> = (0..at_once).map(|i| format!("/{n}/{round}/{i}")).collect();
            let (mut requests, mut responses) = (Vec::new(), Vec::new());
            for name in &names {
                let [request, response] = [(&requests, client.seq[0]), (&responses, server.seq[0])]
                    .map(|(bytes, seq): (&Vec<u8>, u32)| seq.wrapping_add(bytes.len() as u32));
                truth.insert(name.clone(), (request, response));
                requests.extend(get(name));
                responses.extend(ok(&format!("of {name} {}", "x".repeat(100))));
            }
            let mut go = |from: (&mut Thread, &mut Socket), to: (&mut Thread, &mut Socket), bytes: &[u8]| {
                let pieces: Vec<_> = bytes.chunks(bytes.len().div_ceil(traffic.pieces)).collect();
                for piece in &pieces {
                    script.cut(from.0, from.1, piece, false, traffic.captured);
                }
                for piece in &pieces {
                    script.cut(to.0, to.1, piece, true, traffic.captured);
                }
            };
            go((&mut client_thread, &mut client), (&mut server_thread, &mut server), &requests);
            go((&mut server_thread, &mut server), (&mut client_thread, &mut client), &responses);
        }
        script.close(&client);
        script.close(&server);
    }
    (script.log, truth)
}

/// Moves events back by a few places: the rings of several CPUs are read in turn.
pub fn shuffle(log: &Log, places: &[usize]) -> Log {
    let mut keyed: Vec<_> =
        log.iter().enumerate().map(|(i, event)| (i + places[i % places.len()], event.clone())).collect();
    keyed.sort_by_key(|(place, _)| *place);
    keyed.into_iter().map(|(_, event)| event).collect()
}

proptest! {
    #[test]
    fn any_order_within_the_watermark_gives_the_same_spans(
        traffic in traffic(),
        places in prop::collection::vec(0..60usize, 1..50),
    ) {
        let (log, truth) = events(&traffic);
        // 60 places are 600 microseconds.
        let (spans, host) = run_with(config(), &shuffle(&log, &places));
        prop_assert_eq!(host.stats().late_events, 0);
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        prop_assert_eq!(sorted(shown(&spans)), sorted(shown(&run(&log))));
        if traffic.captured == usize::MAX && traffic.opened {
            prop_assert_eq!(spans.len(), 2 * truth.len());
        }
    }

    #[test]
    fn whatever_is_lost_nothing_is_joined_that_does_not_belong_together(
        traffic in traffic(),
        lost in prop::collection::vec(prop::bool::weighted(0.15), 1..60),
        places in prop::collection::vec(0..10usize, 1..50),
    ) {
        let (log, truth) = events(&traffic);
        let kept: Log =
            log.iter().zip(lost.iter().cycle()).filter(|(_, lost)| !**lost).map(|(event, _)| event.clone()).collect();
        let (spans, _) = run_with(config(), &shuffle(&kept, &places));
        let mut seen = HashMap::new();
        for span in spans.iter().filter(|span| span.session == Session::Complete) {
            let Some(name) = &span.request_resource else { continue };
            let Some(expected) = truth.get(name.as_str()) else { continue };
            prop_assert_eq!((span.req_tcp_seq, span.resp_tcp_seq), (Some(expected.0), Some(expected.1)), "{}", name);
            let times = seen.entry((name.clone(), span.observation_point)).or_insert(0);
            *times += 1;
            prop_assert_eq!(*times, 1);
            let pid = if span.observation_point == ObservationPoint::ClientProcess { 100 } else { 200 };
            prop_assert_eq!(span.process.as_ref().map(|process| process.pid), Some(pid));
        }
    }

    #[test]
    fn any_events_are_survived(
        seed in prop::collection::vec(
            (0..12u8, 0..6u8, any::<u16>(), 0..5u64, (any::<u8>(), 0..3u64), (0..4u8, any::<bool>()), prop::collection::vec(any::<u8>(), 0..30)),
            0..80,
        ),
    ) {
        let mut log = Log::new();
        for (kind, source, flags, conn, (seq, tls), (shape, big), payload) in seed {
            let header = wirespan_event::Header {
                kind,
                source,
                flags: wirespan_event::Flags(flags),
                conn,
                tls,
                tcp_seq: u32::from(seq),
                opposite_seq: u32::from(seq ^ 0x55),
                length: if big { 1 << 31 } else { payload.len() as u32 + u32::from(seq & 3) },
                enter_ns: u64::from(seq) * 1_000_000,
                exit_ns: u64::from(seq) * 1_500_000,
                tid: u32::from(shape),
                family: [1, 2, 2, 10][usize::from(shape)],
                protocol: [0, 6, 17, 6][usize::from(shape)],
                ..wirespan_event::Header::default()
            };
            log.push((header, payload));
        }
        let (_, host) = run_with(config(), &log);
        prop_assert_eq!(host.stats().events, log.len() as u64);
    }
}

#[test]
fn numbers_of_events_begin_anew_also_where_one_is_lost() {
    let mut script = Script::default();
    let mut thread = Thread::new(100, 100);
    let mut client = unix(30, Flags::CLIENT, [7, 8]);
    for path in ["/lost", "/kept"] {
        script.send(&mut thread, &mut client, &get(path));
        script.receive(&mut thread, &mut client, &ok(""));
    }
    for (header, _) in &mut script.log {
        header.conn_event = header.conn_event.wrapping_sub(2);
    }
    script.log.remove(1);
    let spans = run(&script.log);
    let heard: Vec<_> = spans.iter().filter_map(|span| span.request_resource.as_deref()).collect();
    assert_eq!(heard, ["/lost", "/kept"]);
}

//! More threads and sockets than are remembered: what is told of the others stays right, what is not told is counted, and what
//! begins when there is room again is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;

use wirespan_event::{Flags, Kind};

use super::super::{Groups, TracerOptions};
use super::tcp::pair;
use super::watch::{Watch, this_process, watch};

/// So many bytes there and back.
const MESSAGE: [u8; 5] = *b"hello";

fn exchange((client, server): &(TcpStream, TcpStream)) {
    for (mut from, mut to) in [(client, server), (server, client)] {
        from.write_all(&MESSAGE).unwrap();
        to.read_exact(&mut [0; MESSAGE.len()]).unwrap();
    }
}

/// Small tables; without what other threads do, as far as that goes.
fn small(threads: u32, sockets: u32) -> Option<Watch> {
    let groups = Groups { wakes: false, lengths: false, processes: false, ..Groups::default() };
    watch(&TracerOptions { threads, sockets, groups, ..this_process() })
}

#[test]
fn threads_that_there_is_no_room_for_are_counted_and_those_that_begin_later_are_told() {
    const THREADS: usize = 24;
    const EXCHANGES: usize = 10;
    const CALLS: usize = 4 * EXCHANGES;
    // By their ids, and as many again of those that have the same.
    const REMEMBERED: u32 = 4;
    let Some(mut watch) = small(REMEMBERED, 1024) else { return };
    let work = || {
        let (client, server, port) = pair("127.0.0.1", "127.0.0.1");
        let ends = (client, server);
        (0..EXCHANGES).for_each(|_| exchange(&ends));
        port
    };
    let all_are_done = Barrier::new(THREADS);
    let ports: Vec<u16> = std::thread::scope(|scope| {
        let work = || {
            let port = work();
            all_are_done.wait();
            port
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    watch.drain();
    let calls_of = |watch: &Watch, port: u16| {
        let is_data = |seen: &&super::watch::Seen| seen.kind() == Kind::Data;
        let of_port =
            |seen: &&super::watch::Seen| [seen.header.local_port, seen.header.remote_port].contains(&port);
        watch.seen.iter().filter(is_data).filter(of_port).count()
    };
    let told: Vec<usize> = ports.iter().map(|port| calls_of(&watch, *port)).collect();
    // One that is told is told wholly.
    assert!(told.iter().all(|calls| [0, CALLS].contains(calls)), "{told:?}");
    let whole = told.iter().filter(|calls| **calls > 0).count();
    assert!(whole <= 2 * REMEMBERED as usize, "{told:?}");
    let stats = watch.tracer.stats().unwrap();
    assert!(stats.threads_full >= ((THREADS - whole) * CALLS) as u64, "{stats:?}");
    assert_eq!(stats.ring_full, 0);

    let port = std::thread::spawn(work).join().unwrap();
    assert_eq!(watch.of_port(CALLS, Kind::Data, port).len(), CALLS);
}

#[test]
fn sockets_that_were_forgotten_are_met_anew_and_their_bytes_are_right() {
    const CONNECTIONS: usize = 300;
    const ROUNDS: u32 = 3;
    let Some(mut watch) = small(1024, 64) else { return };
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (client, server, _) = pair("127.0.0.1", "127.0.0.1");
            (client, server)
        })
        .collect();
    for _ in 0..ROUNDS {
        connections.iter().for_each(exchange);
        watch.drain();
    }
    // Events of each direction of each connection, by its ends.
    let mut directions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    let port = |end: &TcpStream| end.local_addr().unwrap().port();
    let ports = connections.iter().map(|(client, server)| (port(client), port(server)));
    let own: BTreeSet<_> = ports.flat_map(|(client, server)| [(client, server), (server, client)]).collect();
    // Other tests of this process may be told of too.
    for seen in watch.seen.iter().filter(|seen| seen.kind() == Kind::Data) {
        let ends = (seen.header.local_port, seen.header.remote_port);
        if !own.contains(&ends) {
            continue;
        }
        numbers.insert(seen.header.conn);
        directions.entry((ends, seen.has(Flags::INGRESS))).or_default().push(seen.clone());
    }
    let stats = watch.tracer.stats().unwrap();
    let told: usize = directions.values().map(Vec::len).sum();
    let calls = (CONNECTIONS * ROUNDS as usize * 4) as u64;
    let told = told as u64;
    assert!(told <= calls && told + stats.sockets_full >= calls, "{told} of {calls}; {stats:?}");
    for (ends, seen) in &directions {
        assert!(seen.iter().all(|seen| seen.payload == MESSAGE), "{ends:?}");
        let first = seen[0].header.tcp_seq;
        let distance = |seen: &super::watch::Seen| seen.header.tcp_seq.wrapping_sub(first);
        assert!(seen.iter().all(|seen| distance(seen) % MESSAGE.len() as u32 == 0), "{ends:?}");
    }
    // Each of the two ends has a new number when it was forgotten, which is counted.
    assert!(numbers.len() > 2 * CONNECTIONS, "{} numbers", numbers.len());
    let forgotten = numbers.len() - 2 * CONNECTIONS;
    assert!(stats.sockets_met as usize >= forgotten, "{forgotten} of {stats:?}");

    drop(connections);
    watch.drain();
    // Its port may be one of theirs.
    watch.seen.clear();
    let (client, server, port) = pair("127.0.0.1", "127.0.0.1");
    let ends = (client, server);
    (0..50).for_each(|_| exchange(&ends));
    let data = watch.of_port(200, Kind::Data, port);
    let numbers: BTreeSet<u64> = data.iter().map(|seen| seen.header.conn).collect();
    assert_eq!((data.len(), numbers.len()), (200, 2));
}

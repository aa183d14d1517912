//! The tracer told to do less, while it runs.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use wirespan_event::Kind;

use super::super::Snap;
use super::watch::{Watch, this_process, watch};

/// So many connections, each with five bytes from the client; the server's port.
fn connections(count: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..count {
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
    }
    address.port()
}

#[test]
fn payload_and_most_connections_can_be_left_out_and_come_back() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let data = |watch: &mut Watch, count, port| watch.of_port(count, Kind::Data, port);
    let port = connections(1);
    assert!(data(&mut watch, 2, port).iter().all(|seen| seen.payload == b"hello"));

    watch.tracer.set_default(Snap::new(0, 0), 1).unwrap();
    let port = connections(1);
    let seen = data(&mut watch, 2, port);
    assert!(seen.iter().all(|seen| seen.payload.is_empty() && seen.header.length == 5), "{seen:?}");

    // One in eight of 400 ends is expected; none, or more than half, never happens.
    watch.tracer.set_default(Snap::new(0, 0), 8).unwrap();
    let port = connections(200);
    let seen = data(&mut watch, 1, port);
    let ends: HashSet<u64> = seen.iter().map(|seen| seen.header.conn).collect();
    assert!((1..200).contains(&ends.len()), "{} of 400", ends.len());
    assert!(watch.tracer.stats().unwrap().muted > 0);

    watch.tracer.set_default(Snap::DEFAULT, 1).unwrap();
    let port = connections(1);
    assert!(data(&mut watch, 2, port).iter().all(|seen| seen.payload == b"hello"));
}

#[test]
fn the_kernel_counts_while_it_is_asked_to() {
    let Some(watch) = watch(&this_process()) else { return };
    let run_ns = || -> u64 {
        let programs = watch.tracer.stats().unwrap().programs;
        programs.iter().map(|program| program.run_ns).sum()
    };
    let before = run_ns();
    let counting = watch.tracer.count_cost().unwrap();
    connections(50);
    drop(counting);
    assert!(run_ns() > before);
}

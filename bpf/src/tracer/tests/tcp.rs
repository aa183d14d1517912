//! TCP: what both ends do is told with the same sequence numbers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use wirespan_event::{Call, Flags, Kind, Source};

use super::super::object::Kernel;
use super::watch::{Seen, Watch, this_process, watch, watch_on};

/// Both ends of a connection, and the server's port.
pub fn pair(address: &str, connect_to: &str) -> (TcpStream, TcpStream, u16) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((connect_to, port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server, port)
}

fn told_by_both_ends(watch: Option<Watch>, address: &str, connect_to: &str) {
    let Some(mut watch) = watch else { return };
    let (mut client, mut server, port) = pair(address, connect_to);
    let mut buffer = [0; 100];
    for round in 0..3 {
        client.write_all(format!("request {round}").as_bytes()).unwrap();
        assert_eq!(server.read(&mut buffer).unwrap(), 9);
        server.write_all(format!("a response {round}").as_bytes()).unwrap();
        assert_eq!(client.read(&mut buffer).unwrap(), 12);
    }
    let ends = (client.local_addr().unwrap(), server.local_addr().unwrap());
    drop((client, server));

    let opened = watch.of_port(2, Kind::Open, port);
    let [connect, accept] = &opened[..] else { panic!("{opened:#?}") };
    assert_eq!((connect.header.call(), accept.header.call()), (Call::Connect, Call::Accept));
    assert!(connect.has(Flags::CLIENT) && accept.has(Flags::SERVER));
    assert_ne!(connect.header.conn, accept.header.conn);

    let data = watch.of_port(12, Kind::Data, port);
    assert_eq!(data.len(), 12);
    for (n, exchange) in data.chunks(4).enumerate() {
        let [request, taken, response, answer] = exchange else { unreachable!() };
        let same = |sent: &Seen, received: &Seen, text: &str| {
            assert_eq!(sent.payload, text.as_bytes());
            assert_eq!(received.payload, text.as_bytes());
            assert_eq!(sent.header.tcp_seq, received.header.tcp_seq);
            assert_eq!((sent.header.length, received.header.length), (text.len() as u32, text.len() as u32));
            assert!(!sent.has(Flags::INGRESS) && received.has(Flags::INGRESS));
            assert!(!sent.has(Flags::SEQ_AMBIGUOUS) && !received.has(Flags::SEQ_AMBIGUOUS));
            assert!(!sent.has(Flags::TRUNCATED) && !received.has(Flags::NO_DATA));
            assert_eq!(sent.header.source(), Some(Source::Syscall));
            assert!(sent.header.time_ns() <= received.header.time_ns());
            assert_eq!(
                (sent.header.local(), sent.header.remote()),
                (received.header.remote(), received.header.local())
            );
        };
        same(request, taken, &format!("request {n}"));
        same(response, answer, &format!("a response {n}"));
        // What was consumed when the response was written: up to the end of the request.
        assert_eq!(response.header.opposite_seq, request.header.tcp_seq.wrapping_add(9));
        assert_eq!(taken.header.opposite_seq, response.header.tcp_seq);
        assert!(request.has(Flags::CLIENT) && taken.has(Flags::SERVER));
        assert_eq!((request.header.conn, taken.header.conn), (connect.header.conn, accept.header.conn));
        assert_eq!(request.header.conn_event, 2 * n as u32);
        for (seen, end) in [(request, ends.0), (taken, ends.1)] {
            let local = seen.header.local();
            assert_eq!((local.ip, local.port), (end.ip().to_canonical(), end.port()));
        }
        assert_eq!(request.header.netns, netns());
        assert_eq!((request.header.tgid, request.header.protocol), (std::process::id(), 6));
    }
    let sent: Vec<_> =
        data.iter().filter(|seen| !seen.has(Flags::INGRESS) && seen.has(Flags::CLIENT)).collect();
    assert!(
        sent.windows(2).all(|two| two[1].header.tcp_seq == two[0].header.tcp_seq.wrapping_add(9)),
        "contiguous"
    );
    let closed = watch.of_port(2, Kind::Close, port);
    assert!(
        closed.iter().all(|seen| [connect, accept].iter().any(|open| open.header.conn == seen.header.conn))
    );
    assert_ne!(closed[0].header.conn, closed[1].header.conn);
}

/// Inode of this thread's network namespace.
fn netns() -> u32 {
    use std::os::linux::fs::MetadataExt;
    std::fs::metadata("/proc/thread-self/ns/net").unwrap().st_ino() as u32
}

#[test]
fn ipv4() {
    told_by_both_ends(watch(&this_process()), "127.0.0.1", "127.0.0.1");
}

#[test]
fn ipv6() {
    told_by_both_ends(watch(&this_process()), "::1", "::1");
}

#[test]
fn v4_mapped_addresses_are_told_as_ipv4() {
    told_by_both_ends(watch(&this_process()), "::ffff:127.0.0.1", "::ffff:127.0.0.1");
}

#[test]
fn older_and_newer_kernels_tell_the_same() {
    let without_casts = Kernel { casts: false, ..Kernel::RUNNING };
    let preempting = Kernel { preempts: true, ..Kernel::RUNNING };
    for kernel in [without_casts, preempting] {
        let Some(watch) = watch_on(kernel, &this_process()) else { return };
        let features = watch.tracer.features();
        assert!(features.iter().all(|feature| feature.off.is_none()), "{features:?}");
        told_by_both_ends(Some(watch), "::ffff:127.0.0.1", "::ffff:127.0.0.1");
    }
}

#[test]
fn another_thread_that_finds_nothing_to_read_is_told() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    client.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let mut look = |client: &mut TcpStream| client.read(&mut byte).unwrap_err().kind();
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    std::thread::scope(|scope| scope.spawn(|| look(&mut client)).join().unwrap());
    server.write_all(b"!").unwrap();
    while (&client).read(&mut [0]).is_err() {}
    assert_eq!(look(&mut client), std::io::ErrorKind::WouldBlock);
    std::thread::scope(|scope| scope.spawn(|| look(&mut client)).join().unwrap());
    drop((client, server));

    watch.of_port(2, Kind::Close, port);
    let looked = watch.of_port(1, Kind::Look, port);
    let [looked] = &looked[..] else { panic!("{looked:#?}") };
    assert!(looked.has(Flags::CLIENT));
    assert_ne!(looked.header.tid, looked.header.tgid);
}

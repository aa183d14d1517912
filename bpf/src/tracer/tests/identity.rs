//! Which connection it is: by the socket, not by the descriptor.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;

use wirespan_event::{Flags, Kind};

use super::super::TracerOptions;
use super::tcp::pair;
use super::watch::{this_process, watch};

#[test]
fn a_copy_of_a_descriptor_is_the_same_connection() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let mut copy = client.try_clone().unwrap();
    client.write_all(b"one").unwrap();
    drop(client);
    copy.write_all(b"two").unwrap();
    let sent = watch.wait_for(2, |seen| seen.kind() == Kind::Data && seen.header.remote_port == port);
    assert_eq!(sent[0].header.conn, sent[1].header.conn);
    assert_ne!(sent[0].header.fd, sent[1].header.fd);
    server.read_exact(&mut [0; 6]).unwrap();
    watch.drain();
    assert!(watch.of_port(0, Kind::Close, port).is_empty(), "closed while a descriptor is open");
    drop(copy);
    let closed = watch.of_port(1, Kind::Close, port);
    assert_eq!(closed[0].header.conn, sent[0].header.conn);
}

#[test]
fn a_descriptor_that_was_passed_on_is_the_same_connection() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, server, port) = pair("127.0.0.1", "127.0.0.1");
    client.write_all(b"one").unwrap();
    let (from, to) = UnixStream::pair().unwrap();
    pass(&from, client.as_raw_fd());
    let mut passed = take(&to);
    drop(client);
    passed.write_all(b"two").unwrap();
    let sent = watch.wait_for(2, |seen| seen.kind() == Kind::Data && seen.header.remote_port == port);
    assert_eq!(sent[0].header.conn, sent[1].header.conn);
    drop(server);
}

#[test]
fn connections_from_before_are_told_from_their_first_event_on() {
    const CONNECTIONS: usize = 2_000;
    // SAFETY: a structure that lives as long as the call.
    unsafe {
        let limit = libc::rlimit { rlim_cur: 8_192, rlim_max: 8_192 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0, "needs 8192 descriptors");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut pairs: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            (client, listener.accept().unwrap().0)
        })
        .collect();
    let Some(mut watch) = watch(&this_process()) else { return };
    for (client, server) in &mut pairs {
        client.write_all(b"go on").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
    }
    let data = watch.of_port(2 * CONNECTIONS, Kind::Data, port);
    let mut conns: Vec<_> = data.iter().map(|seen| seen.header.conn).collect();
    conns.sort_unstable();
    conns.dedup();
    assert_eq!(conns.len(), 2 * CONNECTIONS);
    for two in data.chunks(2) {
        assert_eq!(two[0].header.tcp_seq, two[1].header.tcp_seq);
        // Who accepted is known from the socket; who connected is not, so nothing is claimed.
        assert!(!two[0].has(Flags::SERVER) && two[1].has(Flags::SERVER));
    }
    drop(pairs);
    let closed = watch.of_port(2 * CONNECTIONS, Kind::Close, port);
    assert_eq!(closed.len(), 2 * CONNECTIONS);
    assert_eq!(watch.tracer.stats().unwrap().lost(), 0);
}

#[test]
fn connections_whose_addresses_collide_are_told_apart_and_forgotten() {
    const CONNECTIONS: usize = 200;
    // Places for half of their ends, and those of one round are at the addresses of the round before.
    let Some(mut watch) = watch(&TracerOptions { sockets: 1_024, ..this_process() }) else { return };
    let mut conns = std::collections::HashSet::new();
    for _ in 0..3 {
        let mut pairs: Vec<_> = (0..CONNECTIONS).map(|_| pair("127.0.0.1", "127.0.0.1")).collect();
        for _ in 0..2 {
            for (client, server, _) in &mut pairs {
                client.write_all(b"x").unwrap();
                server.read_exact(&mut [0]).unwrap();
            }
        }
        for (client, server, port) in pairs {
            let data = watch.of_port(4, Kind::Data, port);
            for (end, remote_port) in [(&client, port), (&server, client.local_addr().unwrap().port())] {
                let fd = end.as_raw_fd();
                let of_end: Vec<_> = data
                    .iter()
                    .filter(|seen| (seen.header.remote_port, seen.header.fd) == (remote_port, fd))
                    .collect();
                assert_eq!(of_end.iter().map(|seen| seen.header.conn_event).collect::<Vec<_>>(), [0, 1]);
                assert_eq!(of_end[0].header.conn, of_end[1].header.conn);
                assert!(conns.insert(of_end[0].header.conn), "the number of another connection");
            }
            drop((client, server));
            watch.of_port(2, Kind::Close, port);
            watch.seen.retain(|seen| seen.header.local_port != port && seen.header.remote_port != port);
        }
    }
    assert_eq!(watch.tracer.stats().unwrap().lost(), 0);
}

#[test]
fn what_ends_with_its_process_is_closed() {
    let Some(mut watch) = watch(&TracerOptions { left_out: None, ..TracerOptions::default() }) else {
        return;
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The shell opens, writes, and ends without a call of close.
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; kill -9 $$");
    let mut child = std::process::Command::new("bash").args(["-c", &script]).spawn().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0; 6]).unwrap();
    child.wait().unwrap();
    drop(server);
    let pid = child.id();
    let sent = watch.wait_for(1, |seen| {
        seen.kind() == Kind::Data && seen.header.tgid == pid && seen.header.remote_port == port
    });
    let closed = watch.wait_for(1, |seen| seen.kind() == Kind::Close && seen.header.remote_port == port);
    assert_eq!(closed[0].header.conn, sent[0].header.conn);
    assert_eq!(
        (closed[0].header.tgid, closed[0].header.process_start_ns),
        (pid, sent[0].header.process_start_ns)
    );
}

const CONTROL: usize = 24;

/// Room for one descriptor, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; CONTROL]);

fn with_control<T>(bytes: &mut [u8], control: &mut Control, each: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut parts = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }];
    let mut header = super::calls::message(&mut parts);
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    each(&mut header)
}

fn pass(socket: &UnixStream, fd: i32) {
    with_control(&mut [0], &mut Control([0; CONTROL]), |header| {
        // SAFETY: the control buffer has room for a header and one descriptor.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(header);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(control).cast::<i32>().write_unaligned(fd);
            assert_eq!(libc::sendmsg(socket.as_raw_fd(), header, 0), 1);
        }
    });
}

fn take(socket: &UnixStream) -> TcpStream {
    with_control(&mut [0], &mut Control([0; CONTROL]), |header| {
        // SAFETY: the kernel fills in a header and one descriptor, which is new.
        unsafe {
            assert_eq!(libc::recvmsg(socket.as_raw_fd(), header, 0), 1);
            let control = libc::CMSG_FIRSTHDR(header);
            TcpStream::from_raw_fd(libc::CMSG_DATA(control).cast::<i32>().read_unaligned())
        }
    })
}

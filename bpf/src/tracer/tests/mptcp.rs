//! MPTCP: its sockets are none of TCP's, and carry its bytes over as many connections of TCP as it likes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use wirespan_event::{Flags, Kind};

use super::watch::{this_process, watch};

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = checked(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) })?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
        sin_zero: [0; 8],
    }
}

type ToAddress = unsafe extern "C" fn(RawFd, *const libc::sockaddr, libc::socklen_t) -> i32;

fn to_address(call: ToAddress, socket: &OwnedFd, port: u16) -> io::Result<i32> {
    let address = loopback(port);
    // SAFETY: the address lives as long as the call, and has this size.
    checked(unsafe { call(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) })
}

/// An error when the kernel has no such sockets.
fn listener() -> io::Result<TcpListener> {
    let listener = socket()?;
    to_address(libc::bind, &listener, 0)?;
    // SAFETY: takes numbers.
    checked(unsafe { libc::listen(listener.as_raw_fd(), 1) })?;
    Ok(listener.into())
}

/// That of this kernel; `None` after saying so where it has none.
fn listener_if_any() -> Option<TcpListener> {
    listener().inspect_err(|error| eprintln!("skipped: this kernel has no MPTCP: {error}")).ok()
}

#[test]
fn its_bytes_are_told_without_sequence_numbers() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let Some(listener) = listener_if_any() else { return };
    let port = listener.local_addr().unwrap().port();
    let client = socket().unwrap();
    to_address(libc::connect, &client, port).unwrap();
    let (mut client, mut server) = (TcpStream::from(client), listener.accept().unwrap().0);
    let mut buffer = [0; 100];
    client.write_all(b"a request").unwrap();
    assert_eq!(server.read(&mut buffer).unwrap(), 9);
    server.write_all(b"its response").unwrap();
    assert_eq!(client.read(&mut buffer).unwrap(), 12);
    let ends = [client.local_addr().unwrap(), server.local_addr().unwrap()];
    drop((client, server));

    let opened = watch.of_port(2, Kind::Open, port);
    let data = watch.of_port(4, Kind::Data, port);
    let closed = watch.of_port(2, Kind::Close, port);
    assert_eq!((opened.len(), data.len(), closed.len()), (2, 4, 2));
    let said: Vec<&[u8]> = data.iter().map(|seen| &seen.payload[..]).collect();
    assert_eq!(said, [&b"a request"[..], b"a request", b"its response", b"its response"]);
    for seen in opened.iter().chain(&data).chain(&closed) {
        let header = &seen.header;
        let [client, server] = ends;
        let (local, remote) = if seen.has(Flags::CLIENT) { (client, server) } else { (server, client) };
        assert!(seen.has(Flags::CLIENT) != seen.has(Flags::SERVER), "{seen:#?}");
        assert_eq!((header.local().ip, header.local().port), (local.ip(), local.port()));
        assert_eq!((header.remote().ip, header.remote().port), (remote.ip(), remote.port()));
        assert_eq!(header.protocol, 6);
        let of_tcp = (header.tcp_seq, header.opposite_seq, header.tcp_state, header.srtt_us, header.retrans);
        assert_eq!(of_tcp, (0, 0, 0, 0, 0), "{seen:#?}");
    }
}

/// As to servers of Go, which listen so from its release 1.24 on.
#[test]
fn who_speaks_tcp_to_it_is_told_with_sequence_numbers() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let Some(listener) = listener_if_any() else { return };
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"a request").unwrap();
    server.read_exact(&mut [0; 9]).unwrap();

    let data = watch.of_port(2, Kind::Data, port);
    let [sent, received] = &data[..] else { panic!("{data:#?}") };
    assert!(received.has(Flags::SERVER) && !received.has(Flags::SEQ_AMBIGUOUS));
    assert_ne!(sent.header.tcp_seq, 0);
    assert_eq!(sent.header.tcp_seq, received.header.tcp_seq);
    assert_eq!(sent.header.remote(), received.header.local());
}

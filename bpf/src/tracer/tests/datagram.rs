//! UDP and UNIX sockets.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};

use wirespan_event::{Call, Flags, Kind};

use super::calls::message;
use super::watch::{Seen, Watch, this_process, watch};

/// What is sent to a peer that the call names comes with that peer, at both ends.
fn named_peers(bind: &str, to: &str) {
    let Some(mut watch) = watch(&this_process()) else { return };
    let server = UdpSocket::bind((bind, 0)).unwrap();
    let client = UdpSocket::bind((bind, 0)).unwrap();
    let (port, own) = (server.local_addr().unwrap().port(), client.local_addr().unwrap().port());
    let mut room = [0; 64];
    client.send_to(b"question", (to, port)).unwrap();
    let (len, from) = server.recv_from(&mut room).unwrap();
    server.send_to(b"answer", from).unwrap();
    client.recv_from(&mut room[len..]).unwrap();
    let data = watch.of_port(4, Kind::Data, port);
    let ends: Vec<_> = data.iter().map(|seen| (seen.header.local_port, seen.header.remote_port)).collect();
    assert_eq!(ends, [(own, port), (port, own), (port, own), (own, port)]);
    let peer = to.parse::<std::net::IpAddr>().unwrap().to_canonical();
    for (seen, payload) in data.iter().zip([&b"question"[..], b"question", b"answer", b"answer"]) {
        assert_eq!(seen.payload, payload);
        assert_eq!(seen.header.remote().ip, peer);
        assert_eq!((seen.header.protocol, seen.header.tcp_seq), (17, 0));
        assert_eq!(seen.header.family == wirespan_event::header::AF_INET, peer.is_ipv4());
    }
    assert_eq!(data[0].header.conn, data[3].header.conn);
    assert_ne!(data[0].header.conn, data[1].header.conn);
}

#[test]
fn udp_over_ipv4() {
    named_peers("127.0.0.1", "127.0.0.1");
}

#[test]
fn udp_over_ipv6() {
    named_peers("::1", "::1");
}

#[test]
fn udp_over_v4_mapped_addresses_is_told_as_ipv4() {
    named_peers("::", "::ffff:127.0.0.1");
}

#[test]
fn udp_with_a_fixed_peer() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client.send(b"hello").unwrap();
    let data = watch.of_port(1, Kind::Data, port);
    assert_eq!(data[0].header.remote().ip, std::net::Ipv4Addr::LOCALHOST);
    let open = watch.of_port(1, Kind::Open, port);
    assert!(open[0].has(Flags::CLIENT));
    assert_eq!(open[0].header.conn, data[0].header.conn);
    drop(client);
    let close = watch.of_port(1, Kind::Close, port);
    assert_eq!(close[0].header.conn, data[0].header.conn);
}

#[test]
fn the_interface_that_a_socket_is_bound_to_is_told() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: the name lives, and its length is right.
    let bound = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, c"lo".as_ptr().cast(), 3) };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    socket.send_to(b"bound", ("127.0.0.1", port)).unwrap();
    let data = watch.of_port(1, Kind::Data, port);
    assert_eq!(data[0].header.ifindex, crate::sys::interface_index("lo").unwrap());
}

#[test]
fn every_message_of_a_call_is_told_up_to_a_bound() {
    const MESSAGES: usize = 20;
    const TOLD: usize = 16;
    let Some(mut watch) = watch(&this_process()) else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    let mut bytes: Vec<_> = (0..MESSAGES).map(|n| vec![n as u8; n + 1]).collect();
    let fds = (client.as_raw_fd(), server.as_raw_fd());
    let before = watch.tracer.stats().unwrap().messages_over;
    for receive in [false, true] {
        let mut parts: Vec<_> = bytes
            .iter_mut()
            .map(|bytes| [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }])
            .collect();
        let mut messages: Vec<_> =
            parts.iter_mut().map(|parts| libc::mmsghdr { msg_hdr: message(parts), msg_len: 0 }).collect();
        // SAFETY: as many headers as there are, of buffers that live.
        let moved = unsafe {
            match receive {
                false => libc::sendmmsg(fds.0, messages.as_mut_ptr(), MESSAGES as u32, 0),
                true => {
                    libc::recvmmsg(fds.1, messages.as_mut_ptr(), MESSAGES as u32, 0, std::ptr::null_mut())
                }
            }
        };
        assert_eq!(moved, MESSAGES as i32);
    }
    let data = watch.of_port(2 * TOLD, Kind::Data, port);
    assert_eq!(data.len(), 2 * TOLD);
    for (call, told) in [Call::SendMmsg, Call::RecvMmsg].into_iter().zip(data.chunks(TOLD)) {
        for (n, seen) in told.iter().enumerate() {
            assert_eq!((seen.header.call(), seen.header.length), (call, n as u32 + 1));
            assert_eq!(seen.payload, vec![n as u8; n + 1]);
        }
    }
    assert!(watch.tracer.stats().unwrap().messages_over >= before + 2 * (MESSAGES - TOLD) as u64);
}

/// Inode of an open socket.
fn inode(socket: &UnixStream) -> u64 {
    std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().st_ino()
}

fn inode_of(bytes: &[u8; 16]) -> u64 {
    u64::from_ne_bytes(*bytes.first_chunk().unwrap())
}

#[test]
fn unix_sockets_are_told_by_the_inodes_of_both_ends() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    let mut client = UnixStream::connect(directory.path().join("socket")).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"over unix").unwrap();
    server.read_exact(&mut [0; 9]).unwrap();
    let (near, far) = (inode(&client), inode(&server));
    let data = watch
        .wait_for(2, |seen| seen.kind() == Kind::Data && [near, far].contains(&inode_of(&seen.header.local)));
    let [sent, received] = &data[..] else { panic!("{data:#?}") };
    for (seen, ends) in [(sent, (near, far)), (received, (far, near))] {
        assert_eq!((inode_of(&seen.header.local), inode_of(&seen.header.remote)), ends);
        assert_eq!((seen.header.family, seen.header.protocol), (wirespan_event::header::AF_UNIX, 0));
        assert_eq!(seen.payload, b"over unix");
    }
    assert!(sent.has(Flags::CLIENT) && received.has(Flags::SERVER));
    // By name too, once at each end.
    let path = directory.path().join("socket");
    names(&mut watch, [(near, &path_bytes(&path), true), (far, &path_bytes(&path), false)]);
}

/// A path as it is bound to: with a zero byte at the end.
fn path_bytes(path: &std::path::Path) -> Vec<u8> {
    [path.as_os_str().as_encoded_bytes(), b"\0"].concat()
}

/// The sockets with these inodes were told of by these names once: of the other end, or of their own.
fn names(watch: &mut Watch, expected: [(u64, &[u8], bool); 2]) {
    let inodes = expected.map(|(inode, ..)| inode);
    let is_one = |seen: &Seen| seen.kind() == Kind::Name && inodes.contains(&inode_of(&seen.header.local));
    let mut told = watch.wait_for(2, is_one);
    told.sort_by_key(|seen| inodes.iter().position(|inode| *inode == inode_of(&seen.header.local)));
    let told: Vec<_> = told
        .iter()
        .map(|seen| (inode_of(&seen.header.local), &seen.payload[..], seen.has(Flags::INGRESS)))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn unix_sockets_that_were_open_before_are_named() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("wirespan-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let Some(mut watch) = watch(&this_process()) else { return };
    for _ in 0..2 {
        one.write_all(b"no name").unwrap();
        other.read_exact(&mut [0; 7]).unwrap();
        client.write_all(b"over unix").unwrap();
        server.read_exact(&mut [0; 9]).unwrap();
    }
    let bytes = [b"\0", name.as_bytes()].concat();
    names(&mut watch, [(inode(&client), &bytes, true), (inode(&server), &bytes, false)]);
    let unnamed = inode(&one);
    assert!(
        watch.seen.iter().all(|seen| seen.kind() != Kind::Name || inode_of(&seen.header.local) != unnamed)
    );
}

//! Every call that moves bytes, by itself.

use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use wirespan_event::{Call, Flags, Kind};

use super::tcp::pair;
use super::watch::{this_process, watch};

type Move = fn(RawFd, &mut [u8]) -> isize;

/// `count` iovecs that share a buffer in equal parts.
fn parts(bytes: &mut [u8], count: usize) -> Vec<libc::iovec> {
    let size = bytes.len().div_ceil(count);
    bytes
        .chunks_mut(size)
        .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
        .collect()
}

/// A header for a message of these iovecs.
pub fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: zero is a valid header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len() as _;
    header
}

fn messages(parts: &mut [libc::iovec]) -> [libc::mmsghdr; 1] {
    [libc::mmsghdr { msg_hdr: message(parts), msg_len: 0 }]
}

// SAFETY: of all these calls, the pointers and lengths are of buffers that live as long as the call.
const SENDS: [(Call, Move); 7] = [
    (Call::Write, |fd, bytes| unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }),
    (Call::Writev, |fd, bytes| unsafe { libc::writev(fd, parts(bytes, 3).as_ptr(), 3) }),
    (Call::Writev, |fd, bytes| unsafe { libc::pwritev2(fd, parts(bytes, 3).as_ptr(), 3, -1, 0) }),
    (Call::SendTo, |fd, bytes| unsafe {
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
    }),
    (Call::SendMsg, |fd, bytes| unsafe { libc::sendmsg(fd, &message(&mut parts(bytes, 2)), 0) }),
    (Call::SendMmsg, |fd, bytes| unsafe {
        let mut parts = parts(bytes, 2);
        let mut messages = messages(&mut parts);
        assert_eq!(libc::sendmmsg(fd, messages.as_mut_ptr(), 1, 0), 1);
        messages[0].msg_len as isize
    }),
    (Call::SendFile, |fd, bytes| unsafe {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        libc::sendfile(fd, file.as_raw_fd(), std::ptr::null_mut(), bytes.len())
    }),
];

// SAFETY: as above.
const RECEIVES: [(Call, Move); 7] = [
    (Call::Read, |fd, bytes| unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) }),
    (Call::Readv, |fd, bytes| unsafe { libc::readv(fd, parts(bytes, 3).as_ptr(), 3) }),
    (Call::Readv, |fd, bytes| unsafe { libc::preadv2(fd, parts(bytes, 3).as_ptr(), 3, -1, 0) }),
    (Call::RecvFrom, |fd, bytes| unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) }),
    (Call::RecvMsg, |fd, bytes| unsafe { libc::recvmsg(fd, &mut message(&mut parts(bytes, 2)), 0) }),
    (Call::RecvMmsg, |fd, bytes| unsafe {
        let mut parts = parts(bytes, 2);
        let mut messages = messages(&mut parts);
        assert_eq!(libc::recvmmsg(fd, messages.as_mut_ptr(), 1, 0, std::ptr::null_mut()), 1);
        messages[0].msg_len as isize
    }),
    (Call::Splice, |fd, bytes| unsafe {
        let mut pipe = [0; 2];
        assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
        let [out, into] = pipe.map(|fd| OwnedFd::from_raw_fd(fd));
        let none = std::ptr::null_mut();
        let moved = libc::splice(fd, none, into.as_raw_fd(), none, bytes.len(), 0);
        assert_eq!(libc::read(out.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()), moved);
        moved
    }),
];

#[test]
fn every_call_is_told_with_its_bytes_and_where_they_are_on_the_stream() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (client, server, port) = pair("127.0.0.1", "127.0.0.1");
    const LEN: usize = 90;
    for (n, ((_, send), (_, receive))) in SENDS.iter().zip(RECEIVES).enumerate() {
        let mut bytes = [b'a' + n as u8; LEN];
        assert_eq!(send(client.as_raw_fd(), &mut bytes), LEN as isize);
        let mut room = [0; LEN];
        assert_eq!(receive(server.as_raw_fd(), &mut room), LEN as isize);
        assert_eq!(room, bytes);
    }
    let data = watch.of_port(2 * SENDS.len(), Kind::Data, port);
    let first = data[0].header.tcp_seq;
    for (n, two) in data.chunks(2).enumerate() {
        let [sent, received] = two else { unreachable!() };
        assert_eq!((sent.header.call(), received.header.call()), (SENDS[n].0, RECEIVES[n].0));
        let seq = first.wrapping_add((n * LEN) as u32);
        assert_eq!((sent.header.tcp_seq, received.header.tcp_seq), (seq, seq), "{:?}", sent.header.call());
        for (seen, without_buffer) in [(sent, Call::SendFile), (received, Call::Splice)] {
            assert_eq!(seen.header.length as usize, LEN);
            assert!(!seen.has(Flags::SEQ_AMBIGUOUS));
            if seen.header.call() == without_buffer {
                assert!(seen.payload.is_empty() && seen.has(Flags::NO_DATA) && seen.has(Flags::TRUNCATED));
            } else {
                assert_eq!(seen.payload, [b'a' + n as u8; LEN]);
            }
        }
    }
    let lost = watch.tracer.stats().unwrap().lost();
    assert_eq!(lost, 0);
}

#[test]
fn the_bytes_of_64_buffers_are_put_together() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let mut bytes: Vec<_> = (0..64 * 7).map(|n| n as u8).collect();
    let whole = bytes.clone();
    // SAFETY: the iovecs are of a buffer that lives.
    let sent = unsafe { libc::writev(client.as_raw_fd(), parts(&mut bytes, 64).as_ptr(), 64) };
    assert_eq!(sent, whole.len() as isize);
    server.read_exact(&mut bytes).unwrap();
    let data = watch.of_port(2, Kind::Data, port);
    assert_eq!((data[0].header.iov_count, &data[0].payload), (64, &whole));
    assert_eq!((data[1].header.iov_count, &data[1].payload), (1, &whole));
}

#[test]
fn bytes_that_stay_in_the_socket_are_told_once() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (mut client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    let peek = |socket: &TcpStream| {
        let mut room = [0; 8];
        assert_eq!(socket.peek(&mut room).unwrap(), 4);
    };
    let before = watch.tracer.stats().unwrap().peeked;
    client.write_all(b"look").unwrap();
    peek(&server);
    peek(&server);
    server.read_exact(&mut [0; 4]).unwrap();
    client.write_all(b"last").unwrap();
    let data = watch.of_port(3, Kind::Data, port);
    assert_eq!(data.iter().filter(|seen| seen.has(Flags::INGRESS)).count(), 1);
    assert!(watch.tracer.stats().unwrap().peeked >= before + 2);
    assert!(watch.of_port(0, Kind::Socket, port).is_empty());
}

#[test]
fn what_two_threads_write_at_once_never_claims_the_same_bytes_for_sure() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (client, mut server, port) = pair("127.0.0.1", "127.0.0.1");
    const WRITES: usize = 300;
    const LEN: usize = 40;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..WRITES).for_each(|_| (&client).write_all(&[b'w'; LEN]).unwrap()));
        }
        server.read_exact(&mut [0; 2 * WRITES * LEN]).unwrap();
    });
    let sent = |seen: &super::watch::Seen| seen.has(Flags::CLIENT) && !seen.has(Flags::INGRESS);
    let data = watch.wait_for(2 * WRITES, |seen| {
        seen.kind() == Kind::Data && seen.header.remote_port == port && sent(seen)
    });
    let base = data
        .iter()
        .map(|seen| seen.header.tcp_seq)
        .reduce(|a, b| if (b.wrapping_sub(a) as i32) < 0 { b } else { a });
    let mut sure: Vec<_> = data
        .iter()
        .filter(|seen| !seen.has(Flags::SEQ_AMBIGUOUS))
        .map(|seen| seen.header.tcp_seq.wrapping_sub(base.unwrap()))
        .collect();
    sure.sort_unstable();
    assert!(!sure.is_empty());
    assert!(sure.windows(2).all(|two| two[1] - two[0] >= LEN as u32), "{sure:?}");
}

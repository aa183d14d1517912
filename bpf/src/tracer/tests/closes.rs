//! Sockets that end without `close`.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use wirespan_event::{Flags, Kind};

use super::watch::{Watch, this_process, watch};

/// A socket that has sent a datagram, so that it was told of.
fn used() -> (RawFd, UdpSocket, u16) {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(("127.0.0.1", port)).unwrap();
    sender.send(b"used").unwrap();
    (sender.into_raw_fd(), receiver, port)
}

/// How often the end of the sender was told.
fn ends(watch: &mut Watch, port: u16) -> usize {
    let sent = watch.wait_for(1, |seen| {
        seen.kind() == Kind::Data && seen.header.remote_port == port && !seen.has(Flags::INGRESS)
    });
    let conn = sent[0].header.conn;
    watch.drain();
    watch.seen.iter().filter(|seen| seen.kind() == Kind::Close && seen.header.conn == conn).count()
}

fn close_range(first: RawFd, last: RawFd, flags: u32) {
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }, 0);
}

#[test]
fn close_range_ends_the_sockets_in_it() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (fd, _receiver, port) = used();
    close_range(fd, fd, libc::CLOSE_RANGE_CLOEXEC);
    assert_eq!(ends(&mut watch, port), 0);
    close_range(fd, fd, 0);
    assert_eq!(ends(&mut watch, port), 1);
}

#[test]
fn a_descriptor_that_becomes_another_one_ends_its_socket() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let file = tempfile::tempfile().unwrap();
    let onto: [fn(RawFd, RawFd) -> RawFd; 2] = [
        // SAFETY: takes numbers.
        |old, new| unsafe { libc::dup2(old, new) },
        // SAFETY: takes numbers.
        |old, new| unsafe { libc::dup3(old, new, libc::O_CLOEXEC) },
    ];
    for dup in onto {
        let (fd, _receiver, port) = used();
        // Onto itself, and of none: both leave it open.
        dup(fd, fd);
        assert_eq!(dup(-1, fd), -1);
        assert_eq!(ends(&mut watch, port), 0);
        assert_eq!(dup(file.as_raw_fd(), fd), fd);
        assert_eq!(ends(&mut watch, port), 1);
        close_range(fd, fd, 0);
    }
}

#[test]
fn a_socket_with_another_descriptor_lives_on() {
    let Some(mut watch) = watch(&this_process()) else { return };
    let (fd, _receiver, port) = used();
    // SAFETY: takes a number.
    let other = unsafe { libc::dup(fd) };
    close_range(fd, fd, 0);
    assert_eq!(ends(&mut watch, port), 0);
    close_range(other, other, 0);
    assert_eq!(ends(&mut watch, port), 1);
}

//! A UDP socket that mirrored traffic comes to.

use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::message::{Address, from_socket_address};
use crate::sys::{self, Plain};
use crate::{CaptureError, Note};

/// What the kernel may keep until it is read.
const RECEIVE_BUFFER_BYTES: libc::c_int = 64 << 20;
/// Counters of a socket (linux/sock_diag.h): so many, and the place of the dropped datagrams.
const MEMINFO_VARS: usize = 9;
const MEMINFO_DROPS: usize = 8;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct MemInfo([u32; MEMINFO_VARS]);

// SAFETY: an array of integers.
unsafe impl Plain for MemInfo {}

pub(super) struct Socket {
    fd: OwnedFd,
    /// Where it listens.
    pub address: SocketAddr,
    /// The destination port that tells decoding what tunnel it is.
    pub tunnel_port: u16,
    drops_seen: u32,
    drops: u64,
}

impl Socket {
    pub fn open(address: SocketAddr, tunnel_port: u16) -> Result<Self, CaptureError> {
        let failed = |action| move |source| CaptureError::system(action, &address.to_string(), source);
        let domain = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
        let fd = sys::socket(domain, kind).map_err(failed("open a UDP socket"))?;
        let set = |level, name, value: libc::c_int| sys::set_option(fd.as_fd(), level, name, &value);
        set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).map_err(failed("have datagrams stamped"))?;
        if address.is_ipv6() {
            set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)
                .and_then(|()| set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1))
        } else {
            set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
        }
        .map_err(failed("learn where datagrams go"))?;
        // Beyond the administrator's limit only with CAP_NET_ADMIN.
        set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            .or_else(|_| set(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES))
            .map_err(failed("set the receive buffer"))?;
        match from_socket_address(address) {
            Address::V4(v4) => sys::bind(fd.as_fd(), &v4),
            Address::V6(v6) => sys::bind(fd.as_fd(), &v6),
        }
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => CaptureError::AddressBusy { address },
            Some(libc::EADDRNOTAVAIL) => CaptureError::NotOurAddress { address },
            // A port below `net.ipv4.ip_unprivileged_port_start`.
            Some(libc::EACCES) => CaptureError::NoPrivilege {
                action: "listen",
                interface: address.to_string(),
                capabilities: "cap_net_bind_service",
            },
            _ => CaptureError::system("listen", &address.to_string(), source),
        })?;
        Ok(Self { fd, address, tunnel_port, drops_seen: 0, drops: 0 })
    }

    pub fn fd(&self) -> libc::c_int {
        self.fd.as_raw_fd()
    }

    /// Datagrams that the kernel had no room for, or that were damaged, since the socket was opened.
    pub fn drops(&mut self) -> u64 {
        if let Ok(MemInfo(info)) =
            sys::get_option::<MemInfo>(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO)
            && let Some(&now) = info.get(MEMINFO_DROPS)
        {
            self.drops += u64::from(now.wrapping_sub(self.drops_seen));
            self.drops_seen = now;
        }
        self.drops
    }

    /// Says when the kernel keeps less than is wanted.
    pub fn note(&self) -> Option<Note> {
        let option =
            sys::get_option::<libc::c_int>(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF).ok()?;
        // The kernel doubles what it is told, for its own bookkeeping.
        let got = option / 2;
        (got < RECEIVE_BUFFER_BYTES).then_some(Note::SmallReceiveBuffer {
            address: self.address,
            bytes: got as usize,
            wanted: RECEIVE_BUFFER_BYTES as usize,
        })
    }
}

const _: () = assert!(size_of::<MemInfo>() == 36);

//! Receiving many datagrams in one system call (recvmmsg(2)).

use std::io;
use std::mem::{self, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use crate::sys::{self, Plain};

/// Room for a time stamp and a destination address.
const CONTROL_BYTES: usize = 128;

// SAFETY: structures of integers.
unsafe impl Plain for libc::timespec {}
// SAFETY: as above.
unsafe impl Plain for libc::in_pktinfo {}
// SAFETY: as above.
unsafe impl Plain for libc::in6_pktinfo {}
// SAFETY: as above.
unsafe impl Plain for libc::cmsghdr {}
// SAFETY: as above.
unsafe impl Plain for libc::sockaddr_in {}
// SAFETY: as above.
unsafe impl Plain for libc::sockaddr_in6 {}
// SAFETY: as above.
unsafe impl Plain for libc::sockaddr_storage {}

/// Control messages must be aligned as their headers are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// What the kernel fills beside the payloads.
pub(super) struct Messages {
    headers: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
}

// SAFETY: the pointers in the headers lead into the value's own vectors or are set anew before each use.
unsafe impl Send for Messages {}

/// One datagram as received; its payload is where it was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes of the whole datagram, also when less was received.
    pub bytes: usize,
    pub from: SocketAddr,
    /// Its destination address, if the kernel told it.
    pub to: Option<IpAddr>,
    /// When, ns since the epoch, if the kernel told it.
    pub ts_ns: Option<u64>,
}

impl Messages {
    pub fn new(most: usize) -> Self {
        // SAFETY: null pointers and zero lengths are valid in these structures.
        let (header, part) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self {
            headers: vec![header; most],
            parts: vec![part; most],
            names: vec![sys::zeroed(); most],
            controls: vec![Control([0; CONTROL_BYTES]); most],
        }
    }

    /// Receives datagrams that are ready, one into each of `places`, and returns how many.
    ///
    /// # Safety
    /// `bytes` bytes at each place are the caller's to write to, and nobody reads them meanwhile.
    pub unsafe fn receive(
        &mut self,
        socket: libc::c_int,
        places: impl Iterator<Item = *mut u8>,
        bytes: usize,
    ) -> io::Result<usize> {
        let mut most = 0;
        let slots = self.headers.iter_mut().zip(&mut self.parts).zip(&mut self.names).zip(&mut self.controls);
        for ((((header, part), name), control), place) in slots.zip(places) {
            *part = libc::iovec { iov_base: place.cast(), iov_len: bytes };
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            most += 1;
        }
        // MSG_TRUNC: the whole length also of a datagram that does not fit.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: `most` headers were just made to point at live memory that the caller and this value own.
        let received =
            unsafe { libc::recvmmsg(socket, self.headers.as_mut_ptr(), most, flags, ptr::null_mut()) };
        match sys::check(received) {
            Ok(received) => Ok(received as usize),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// What is known of the datagram at this place of the last call.
    pub fn get(&self, index: usize) -> Option<Received> {
        let header = self.headers.get(index)?;
        let from = to_socket_address(self.names.get(index)?)?;
        let control = self.controls.get(index)?.0.get(..header.msg_hdr.msg_controllen.min(CONTROL_BYTES))?;
        let mut received = Received { bytes: header.msg_len as usize, from, to: None, ts_ns: None };
        read_control(control, &mut received);
        Some(received)
    }
}

/// Reads control messages (cmsg(3)): a header with the length of both, and data, each aligned to a word.
fn read_control(mut control: &[u8], received: &mut Received) {
    const ALIGNMENT: usize = size_of::<usize>();
    let header_bytes = size_of::<libc::cmsghdr>().next_multiple_of(ALIGNMENT);
    while let Some(header) = sys::read_plain::<libc::cmsghdr>(control) {
        let len = header.cmsg_len;
        let Some(data) = control.get(header_bytes..len) else { return };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                received.ts_ns = sys::read_plain::<libc::timespec>(data).map(nanoseconds);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let address = sys::read_plain::<libc::in_pktinfo>(data).map(|info| info.ipi_addr.s_addr);
                received.to = address.map(|address| Ipv4Addr::from(address.to_ne_bytes()).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = sys::read_plain::<libc::in6_pktinfo>(data).map(|info| info.ipi6_addr.s6_addr);
                received.to = address.map(|address| Ipv6Addr::from(address).into());
            }
            _ => {}
        }
        control = control.get(len.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
}

fn nanoseconds(time: libc::timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// A socket address as the kernel wants it.
pub(super) enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

pub(super) fn from_socket_address(address: SocketAddr) -> Address {
    match address {
        SocketAddr::V4(v4) => Address::V4(libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: v4.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
            sin_zero: [0; 8],
        }),
        SocketAddr::V6(v6) => Address::V6(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: v6.port().to_be(),
            sin6_flowinfo: v6.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
            sin6_scope_id: v6.scope_id(),
        }),
    }
}

fn to_socket_address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: a storage is as long as any address, and every pattern of its bytes is valid in a byte slice.
    let bytes = unsafe {
        std::slice::from_raw_parts(ptr::from_ref(name).cast::<u8>(), size_of::<libc::sockaddr_storage>())
    };
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            let v4 = sys::read_plain::<libc::sockaddr_in>(bytes)?;
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            let v6 = sys::read_plain::<libc::sockaddr_in6>(bytes)?;
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, 0).into())
        }
        _ => None,
    }
}

//! Frames out of an interface, for the tests of every backend.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sends whole frames out of an interface.
pub struct Sender {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Sender {
    pub fn new(interface: &str) -> Self {
        let name = CString::new(interface).unwrap();
        // SAFETY: a string that ends in zero; the descriptor is new; zero is a valid address.
        let (socket, mut address) = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            (OwnedFd::from_raw_fd(fd), std::mem::zeroed::<libc::sockaddr_ll>())
        };
        address.sll_family = libc::AF_PACKET as u16;
        // SAFETY: as above.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        Self { socket, address }
    }

    /// Sends a frame, again and again while the other end's queue is full.
    pub fn send(&self, frame: &[u8]) {
        loop {
            // SAFETY: both buffers live, and their lengths are right.
            let sent = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const self.address).cast(),
                    size_of::<libc::sockaddr_ll>() as u32,
                )
            };
            if sent == frame.len() as isize {
                return;
            }
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            std::thread::yield_now();
        }
    }
}

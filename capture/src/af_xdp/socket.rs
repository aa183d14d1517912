//! One AF_XDP socket with its memory and its rings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::interface::Interface;
use crate::sys::{self, Mapping};
use crate::{CaptureError, af_xdp::FRAME_BYTES};

use super::ring::Ring;

/// A socket that was bound to one queue of an interface.
pub(super) struct Socket {
    pub umem: Mapping,
    pub fill: Ring<u64>,
    pub rx: Ring<libc::xdp_desc>,
    pub zero_copy: bool,
    fd: OwnedFd,
}

impl Socket {
    /// Sets a socket up with `frames` frames (a power of two), all of them the kernel's to fill.
    pub fn open(
        interface: &Interface,
        queue: u32,
        frames: u32,
        try_zero_copy: bool,
    ) -> Result<Self, CaptureError> {
        let error = |action| move |source| CaptureError::system(action, &interface.name, source);
        let fd = sys::socket(libc::AF_XDP, libc::SOCK_RAW).map_err(|source| match source.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => CaptureError::NoAfXdp,
            _ => error("open an AF_XDP socket")(source),
        })?;
        let socket = fd.as_fd();
        let umem = register_umem(socket, frames)
            .map_err(error("register memory for frames (needs cap_ipc_lock or a larger `ulimit -l`)"))?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            sys::set_option(socket, libc::SOL_XDP, ring, &frames).map_err(error("make the rings"))?;
        }
        let offsets: libc::xdp_mmap_offsets = sys::get_option(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)
            .map_err(error("find the rings"))?;
        let fill_offset = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
        let mut fill = Ring::map(socket, fill_offset, offsets.fr, frames).map_err(error("map the rings"))?;
        let rx =
            Ring::map(socket, libc::XDP_PGOFF_RX_RING, offsets.rx, frames).map_err(error("map the rings"))?;
        fill.give((0..u64::from(frames)).map(|frame| frame * FRAME_BYTES as u64));
        let zero_copy = try_zero_copy && bind(socket, interface, queue, libc::XDP_ZEROCOPY).is_ok();
        if !zero_copy {
            bind(socket, interface, queue, libc::XDP_COPY)
                .map_err(error("bind to the queue (is another AF_XDP program running?)"))?;
        }
        Ok(Self { umem, fill, rx, zero_copy, fd })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits for frames; also wakes a driver that waits for free ones.
    pub fn wait(&self, timeout: Duration) -> std::io::Result<()> {
        sys::wait_readable(self.fd(), timeout)?;
        sys::take_error(self.fd())
    }

    pub fn statistics(&self) -> std::io::Result<libc::xdp_statistics> {
        sys::get_option(self.fd(), libc::SOL_XDP, libc::XDP_STATISTICS)
    }
}

fn register_umem(socket: BorrowedFd<'_>, frames: u32) -> std::io::Result<Mapping> {
    let umem = Mapping::anonymous(frames as usize * FRAME_BYTES)?;
    let mut registration: libc::xdp_umem_reg = sys::zeroed();
    registration.addr = umem.address() as u64;
    registration.len = umem.len() as u64;
    registration.chunk_size = FRAME_BYTES as u32;
    sys::set_option(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)?;
    Ok(umem)
}

fn bind(socket: BorrowedFd<'_>, interface: &Interface, queue: u32, mode: u16) -> std::io::Result<()> {
    let mut address: libc::sockaddr_xdp = sys::zeroed();
    address.sxdp_family = libc::AF_XDP as u16;
    address.sxdp_flags = mode | libc::XDP_USE_NEED_WAKEUP;
    address.sxdp_ifindex = interface.index;
    address.sxdp_queue_id = queue;
    sys::bind(socket, &address)
}

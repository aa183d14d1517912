//! One AF_XDP socket with its memory and its rings.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::interface::Interface;
use crate::sys::{self, Mapping, Pages};
use crate::{CaptureError, placement};

use super::ring::Ring;
use super::spare::SPARE_AREA_BYTES;
use super::{FRAME_BYTES, FRAME_CAPACITY, HEADROOM, Options};

/// A queue that is taken for longer is in use.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// A socket that was bound to one queue of an interface.
pub(super) struct Socket {
    /// The frames, and behind them the spare buffers that the kernel does not know.
    pub memory: Arc<Mapping>,
    pub pages: Pages,
    pub frames: u32,
    pub fill: Ring<u64>,
    pub rx: Ring<libc::xdp_desc>,
    pub bound: Bound,
    fd: OwnedFd,
}

/// A socket with its memory and its rings, before it is bound.
pub(super) struct Unbound {
    pub fd: OwnedFd,
    pub memory: Mapping,
    pub pages: Pages,
    pub offsets: libc::xdp_mmap_offsets,
}

impl Unbound {
    /// `ring` is the one of the direction: XDP_RX_RING or XDP_TX_RING. Those of the memory go with either.
    pub fn new(
        interface: &Interface,
        frames: u32,
        huge_pages: bool,
        ring: libc::c_int,
    ) -> Result<Self, CaptureError> {
        let error = |action| move |source| CaptureError::system(action, &interface.name, source);
        let fd = sys::socket(libc::AF_XDP, libc::SOCK_RAW).map_err(|source| match source.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => CaptureError::NoAfXdp,
            _ => error("open an AF_XDP socket")(source),
        })?;
        let socket = fd.as_fd();
        let (memory, pages) = allocate(interface, frames, huge_pages)
            .map_err(error("get memory for the frames (fewer frames may fit)"))?;
        register(socket, &memory, frames).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOBUFS) => CaptureError::FewLockedPages {
                interface: interface.name.clone(),
                kib: umem_bytes(frames).div_ceil(1024),
            },
            _ => error("register memory for frames")(source),
        })?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, ring] {
            sys::set_option(socket, libc::SOL_XDP, ring, &frames).map_err(error("make the rings"))?;
        }
        let offsets = sys::get_option(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)
            .map_err(error("find the rings"))?;
        Ok(Self { fd, memory, pages, offsets })
    }
}

/// What the driver agreed to.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub zero_copy: bool,
    /// Why not, where it was asked for.
    pub zero_copy_refused: Option<String>,
    /// A frame may span several buffers.
    pub multi_buffer: bool,
}

impl Socket {
    /// Sets a socket up with all its frames the kernel's to fill.
    pub fn open(
        interface: &Interface,
        queue: u32,
        options: &Options,
        try_zero_copy: bool,
    ) -> Result<Self, CaptureError> {
        let error = |action| move |source| CaptureError::system(action, &interface.name, source);
        let frames = options.frames();
        let Unbound { fd, memory, pages, offsets } =
            Unbound::new(interface, frames, options.huge_pages, libc::XDP_RX_RING)?;
        let socket = fd.as_fd();
        let fill_offset = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
        let mut fill = Ring::map(socket, fill_offset, offsets.fr, frames).map_err(error("map the rings"))?;
        let rx =
            Ring::map(socket, libc::XDP_PGOFF_RX_RING, offsets.rx, frames).map_err(error("map the rings"))?;
        fill.give((0..u64::from(frames)).map(|frame| frame * FRAME_BYTES as u64));
        let bound = bind(socket, interface, queue, try_zero_copy)?;
        Ok(Self { memory: Arc::new(memory), pages, frames, fill, rx, bound, fd })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        sys::get_option(self.fd(), libc::SOL_XDP, libc::XDP_STATISTICS)
    }
}

/// Bytes of the memory that the kernel fills.
pub(super) fn umem_bytes(frames: u32) -> usize {
    frames as usize * FRAME_BYTES
}

fn allocate(interface: &Interface, frames: u32, huge: bool) -> io::Result<(Mapping, Pages)> {
    Mapping::anonymous(umem_bytes(frames) + SPARE_AREA_BYTES, huge, placement::numa_node(&interface.name))
}

fn register(socket: BorrowedFd<'_>, memory: &Mapping, frames: u32) -> io::Result<()> {
    let mut registration: libc::xdp_umem_reg = sys::zeroed();
    registration.addr = memory.address() as u64;
    registration.len = umem_bytes(frames) as u64;
    registration.chunk_size = FRAME_BYTES as u32;
    registration.headroom = HEADROOM;
    sys::set_option(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// Binds the best way that the driver takes.
pub(super) fn bind(
    socket: BorrowedFd<'_>,
    interface: &Interface,
    queue: u32,
    try_zero_copy: bool,
) -> Result<Bound, CaptureError> {
    let mut ways = vec![(true, true), (true, false), (false, true), (false, false)];
    if interface.longest_frame() > FRAME_CAPACITY {
        // Frames that are copied are better than frames that do not fit.
        ways.swap(1, 2);
    }
    ways.retain(|&(zero_copy, _)| try_zero_copy || !zero_copy);
    let mut zero_copy_refused = None;
    let mut last_error = None;
    for (zero_copy, multi_buffer) in ways {
        match bind_patiently(|| bind_so(socket, interface, queue, zero_copy, multi_buffer)) {
            Ok(()) if zero_copy => return Ok(Bound { zero_copy, zero_copy_refused: None, multi_buffer }),
            Ok(()) => return Ok(Bound { zero_copy, zero_copy_refused, multi_buffer }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(CaptureError::QueueBusy { interface: interface.name.clone(), queue });
            }
            Err(error) => {
                if zero_copy {
                    zero_copy_refused = Some(error.to_string());
                }
                last_error = Some(error);
            }
        }
    }
    let source = last_error.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    Err(CaptureError::system("bind an AF_XDP socket to a queue", &interface.name, source))
}

/// Whether sockets of this kernel can have frames that lie in several buffers (Linux 6.6). It is asked for an interface that is not
/// there: flags that the kernel does not know are refused before it looks for that (`xsk_bind` in net/xdp/xsk.c).
pub(super) fn knows_multi_buffer() -> bool {
    let mut address: libc::sockaddr_xdp = sys::zeroed();
    address.sxdp_family = libc::AF_XDP as u16;
    address.sxdp_flags = libc::XDP_USE_SG;
    address.sxdp_ifindex = i32::MAX as u32;
    let bound = sys::socket(libc::AF_XDP, libc::SOCK_RAW).and_then(|fd| sys::bind(fd.as_fd(), &address));
    bound.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}

/// The kernel frees a queue some time after the socket that had it was closed, as by a process that was killed.
fn bind_patiently(bind: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < BUSY_FOR => {
                std::thread::sleep(BUSY_FOR / 50);
            }
            result => return result,
        }
    }
}

fn bind_so(
    socket: BorrowedFd<'_>,
    interface: &Interface,
    queue: u32,
    zero_copy: bool,
    multi_buffer: bool,
) -> io::Result<()> {
    let mut address: libc::sockaddr_xdp = sys::zeroed();
    address.sxdp_family = libc::AF_XDP as u16;
    address.sxdp_flags = libc::XDP_USE_NEED_WAKEUP
        | if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY }
        | if multi_buffer { libc::XDP_USE_SG } else { 0 };
    address.sxdp_ifindex = interface.index;
    address.sxdp_queue_id = queue;
    sys::bind(socket, &address)
}

#[cfg(test)]
mod tests {
    /// Opening the socket needs a privilege, and that is the first thing that is refused.
    #[test]
    fn kernels_from_6_6_on_know_frames_of_several_buffers() {
        if std::env::var_os("CI").is_none() && super::sys::socket(libc::AF_XDP, libc::SOCK_RAW).is_err() {
            return eprintln!("skipped: no permission to open an AF_XDP socket; run it as root");
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap_or(0));
        let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert_eq!(super::knows_multi_buffer(), version >= (6, 6), "{release}");
    }
}

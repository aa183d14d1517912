//! The system calls that live backends need, each in one small wrapper.

mod bell;
mod memory;

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

pub use bell::{Bell, Listening};
pub(crate) use memory::{HUGE_PAGE_BYTES, Mapping, Pages, huge_pages};

/// A C structure or integer without pointers.
///
/// # Safety
/// Every bit pattern is a valid value, zero among them.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($kind:ty),* $(,)?) => {
        // SAFETY: structures of integers only.
        $(unsafe impl Plain for $kind {})*
    };
}

plain!(
    libc::c_int,
    libc::c_uint,
    libc::packet_mreq,
    libc::sockaddr_ll,
    libc::sockaddr_xdp,
    libc::tpacket3_hdr,
    libc::tpacket_req3,
    libc::tpacket_stats_v3,
    libc::xdp_desc,
    libc::xdp_mmap_offsets,
    libc::xdp_statistics,
    libc::xdp_umem_reg,
    u64,
);

/// All bits zero.
pub(crate) fn zeroed<T: Plain>() -> T {
    // SAFETY: zero is a valid value of a plain type.
    unsafe { mem::zeroed() }
}

/// Reads a plain value from the start of `bytes`, if they hold one.
pub(crate) fn read_plain<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: as many bytes as the value has, and each pattern of them is valid.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// The result of a system call that is negative when it fails.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new socket that child processes do not inherit.
pub(crate) fn socket(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a live value.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

/// Sets a classic BPF program that decides how much of a frame is captured.
pub(crate) fn attach_filter(fd: BorrowedFd<'_>, filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let instructions = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: instructions, filter: filter.as_mut_ptr() };
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel copies the instructions before it returns.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            ptr::from_ref(&program).cast(),
            len,
        )
    })?;
    Ok(())
}

pub(crate) fn get_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<T> {
    let mut value: T = zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into a plain value.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, ptr::from_mut(&mut value).cast(), &mut len)
    })?;
    Ok(value)
}

pub(crate) fn bind<T: Plain>(fd: BorrowedFd<'_>, address: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a live value.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(address).cast(), len) })?;
    Ok(())
}

/// Waits until there is something to read, an error to fetch, a ring of the bell, or the timeout is over.
pub(crate) fn wait_readable(
    fd: BorrowedFd<'_>,
    bell: Option<&Listening<'_>>,
    timeout: Duration,
) -> io::Result<()> {
    // A negative descriptor is left out.
    let fds = [fd.as_raw_fd(), bell.map_or(-1, |bell| bell.fd().as_raw_fd())];
    poll(&mut fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN | libc::POLLERR, revents: 0 }), timeout)
}

/// Waits until something happens to one of these, or the timeout is over.
pub(crate) fn poll(polled: &mut [libc::pollfd], timeout: Duration) -> io::Result<()> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let count = polled.len() as libc::nfds_t;
    // SAFETY: as many live pollfds as the kernel is told, and a live timeout.
    match check(unsafe { libc::ppoll(polled.as_mut_ptr(), count, &timeout, ptr::null()) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Lets the kernel run the receive path of a busy-polled socket, and wakes a driver that waits for free frames.
/// Whether the interface is still there is told by polling.
pub(crate) fn drive_receive(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let result = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    driven(result)
}

/// Lets the kernel send what was given to the socket's ring; in copy mode some of it, up to a limit of the kernel's own.
pub(crate) fn drive_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let result = unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    driven(result)
}

/// What only says that the kernel could not do all, or that polling will tell, is no error.
fn driven(result: isize) -> io::Result<()> {
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR | libc::ENETDOWN | libc::ENXIO) => {
            Ok(())
        }
        _ => Err(error),
    }
}

/// Fetches and clears a socket's pending error.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    match get_option::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// A clock's time in nanoseconds.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel writes one timespec; zero, should it fail, is one too.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Lets the calling thread run on one CPU only.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::default();
    let word = cpus.0.get_mut(cpu / 64).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (cpu % 64);
    // SAFETY: the kernel reads a set of the length that it is told.
    check(unsafe { libc::sched_setaffinity(0, size_of::<CpuSet>(), (&raw const cpus).cast()) })?;
    Ok(())
}

/// The CPUs that the calling thread may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mut cpus = CpuSet::default();
    // SAFETY: the kernel writes at most the length that it is told; the set stays empty when it fails.
    unsafe { libc::sched_getaffinity(0, size_of::<CpuSet>(), (&raw mut cpus).cast()) };
    let bit = |cpu: &usize| cpus.0.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 != 0);
    (0..cpus.0.len() * 64).filter(bit).collect()
}

/// Room for 8192 CPUs, as many as Linux can have.
struct CpuSet([u64; 128]);

impl Default for CpuSet {
    fn default() -> Self {
        Self([0; 128])
    }
}

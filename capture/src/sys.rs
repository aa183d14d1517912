//! The system calls that live backends need, each in one small wrapper.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

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
    wirespan_bpf::xdp_redirect::Stamp,
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

/// Waits until there is something to read, an error to fetch, or the timeout is over.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN | libc::POLLERR, revents: 0 };
    let timeout_ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one live pollfd.
    match check(unsafe { libc::poll(&mut poll, 1, timeout_ms) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
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

/// Memory shared with the kernel; unmapped on drop.
pub(crate) struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value, and nothing in it is bound to a thread.
unsafe impl Send for Mapping {}

// SAFETY: what is read through a shared reference is either atomic or vouched for by the caller.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a ring of `fd` that begins at `offset`.
    pub fn shared(fd: BorrowedFd<'_>, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// Zeroed memory of our own.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1, 0)
    }

    fn map(bytes: usize, flags: libc::c_int, fd: libc::c_int, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, bytes })
    }

    pub fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Where a `T` lies; `None` when it would not lie wholly in the mapping or not be aligned.
    pub fn pointer<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.bytes || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the offset is within the mapping, which is aligned to a page.
        Some(unsafe { self.address.byte_add(offset).cast() })
    }

    /// A part of the mapping; empty when it does not lie in it.
    ///
    /// # Safety
    /// The kernel must not write to what the caller reads in it while the slice lives.
    pub unsafe fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return &[];
        }
        // SAFETY: within the mapping; the caller vouches for the kernel.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().add(offset), bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `map` mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

//! Memory that the kernel and we both use.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use crate::Memory;

/// A huge page of x86-64 and of arm64 with 4 KiB pages, which is where wirespan runs.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What memory consists of: fewer and larger pages need fewer entries in the CPU's translation cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Reserved by the administrator (hugetlbfs).
    Huge,
    /// Made by the kernel where it finds room (transparent huge pages).
    Transparent,
    Normal,
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

// SAFETY: it is mapped until it is dropped, at one place.
unsafe impl Memory for Mapping {
    fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.address, self.bytes)
    }
}

impl Mapping {
    /// Maps a ring of `fd` that begins at `offset`.
    pub fn shared(fd: BorrowedFd<'_>, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// Zeroed memory of our own: near the NUMA node `node`, and of huge pages, where both can be had.
    pub fn anonymous(bytes: usize, huge: bool, node: Option<u32>) -> io::Result<(Self, Pages)> {
        let (mapping, pages) = if huge { Self::huge(bytes)? } else { (Self::private(bytes)?, Pages::Normal) };
        if let Some(node) = node {
            mapping.prefer_node(node);
        }
        Ok((mapping, pages))
    }

    fn huge(bytes: usize) -> io::Result<(Self, Pages)> {
        let whole_pages = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        if let Ok(mapping) = Self::map(whole_pages, flags, -1, 0) {
            return Ok((mapping, Pages::Huge));
        }
        let mapping = Self::private(whole_pages + HUGE_PAGE_BYTES)?.aligned(whole_pages);
        // SAFETY: advice about our own mapping.
        let advised =
            unsafe { libc::madvise(mapping.address.as_ptr().cast(), mapping.bytes, libc::MADV_HUGEPAGE) };
        let pages = if advised == 0 && transparent_enabled() { Pages::Transparent } else { Pages::Normal };
        Ok((mapping, pages))
    }

    fn private(bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// The part that begins at a huge page; what lies around it is unmapped.
    fn aligned(self, bytes: usize) -> Self {
        let before = self.address.as_ptr().align_offset(HUGE_PAGE_BYTES);
        if before.saturating_add(bytes) > self.bytes {
            return self;
        }
        let whole = std::mem::ManuallyDrop::new(self);
        // SAFETY: three neighbouring parts of one mapping, of which one is kept and belongs to the new value.
        unsafe {
            let address = whole.address.add(before);
            let after = address.add(bytes);
            unmap(whole.address, before);
            unmap(after, whole.bytes - before - bytes);
            Self { address, bytes }
        }
    }

    /// Asks for memory of a NUMA node. A machine that cannot give it gives other memory.
    fn prefer_node(&self, node: u32) {
        let mut mask = [0u64; 16];
        let Some(word) = mask.get_mut(node as usize / 64) else { return };
        *word = 1 << (node % 64);
        // SAFETY: our own mapping, and a mask as long as it is said to be; no page is there yet that would have to move.
        unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.address.as_ptr(),
                self.bytes,
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                mask.len() * 64,
                0,
            );
        }
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
        self.pointers(offset, 1)
    }

    /// Where `count` neighbouring `T`s lie; `None` when they would not lie wholly in the mapping or not be aligned.
    pub fn pointers<T>(&self, offset: usize, count: usize) -> Option<NonNull<T>> {
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        if end > self.bytes || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the offset lies in the mapping.
        Some(unsafe { self.address.add(offset) }.cast())
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
        unsafe { unmap(self.address, self.bytes) };
    }
}

/// # Safety
/// The range is mapped, belongs to the caller and is not used any more.
unsafe fn unmap(address: NonNull<u8>, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller vouches for it.
        unsafe { libc::munmap(address.as_ptr().cast(), bytes) };
    }
}

fn transparent_enabled() -> bool {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|text| !text.contains("[never]"))
}

/// Huge pages that the administrator reserved, and those of them that are free.
pub(crate) fn huge_pages() -> (u64, u64) {
    let read = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/{name}", HUGE_PAGE_BYTES / 1024);
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    (read("nr_hugepages"), read("free_hugepages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_at_least_as_long_as_asked_for() {
        for huge in [false, true] {
            let (mapping, pages) = Mapping::anonymous(3 << 20, huge, Some(0)).unwrap();
            assert!(mapping.len() >= 3 << 20);
            assert_eq!(pages == Pages::Normal && huge, huge && !transparent_enabled());
            // SAFETY: nobody writes.
            assert!(unsafe { mapping.slice(0, mapping.len()) }.iter().all(|&byte| byte == 0));
            if huge {
                assert!(mapping.address().is_multiple_of(HUGE_PAGE_BYTES));
            }
        }
    }

    #[test]
    fn pointers_stay_in_the_mapping() {
        let (mapping, _) = Mapping::anonymous(4096, false, None).unwrap();
        assert!(mapping.pointers::<u64>(0, 512).is_some());
        assert!(mapping.pointers::<u64>(8, 512).is_none());
        assert!(mapping.pointers::<u64>(4, 1).is_none());
        assert!(mapping.pointers::<u64>(0, usize::MAX).is_none());
    }
}

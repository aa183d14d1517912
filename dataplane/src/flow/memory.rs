//! What is worth huge pages: a hint to the kernel, which changes how fast a program is, not what it does.

use std::mem::MaybeUninit;

/// Asks the kernel to back memory that is not in use yet with huge pages: a table that is visited at random otherwise
/// misses the TLB with every visit. A kernel without them goes on with small ones.
pub(crate) fn prefer_huge_pages<T>(spare: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE_BYTES: usize = 4096;
        let range = spare.as_mut_ptr_range();
        let (start, end) = ((range.start as usize).next_multiple_of(PAGE_BYTES), range.end as usize);
        let len = end.saturating_sub(start) & !(PAGE_BYTES - 1);
        if len > 0 {
            // SAFETY: MADV_HUGEPAGE leaves the content of the pages alone, and they all lie in `spare`.
            unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = spare;
}

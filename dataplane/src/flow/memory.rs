//! Hints to the memory system: what is needed soon, and what is worth huge pages. They change how fast a program is, not
//! what it does.

use std::mem::MaybeUninit;

/// Asks for the cache line at `place` before it is needed.
#[inline(always)]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that a program can see, and does not fault, whatever the address.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}

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

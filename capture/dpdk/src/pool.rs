//! The memory of a queue's frames: DPDK's packet buffers (mbufs) and spare memory behind them, in one region.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::slice;

use crate::sys;

/// Buffers that a thread keeps at hand: DPDK moves them to and from the pool in bulk.
const CACHE_MBUFS: u32 = 256;
/// Bytes for frames that do not lie in one buffer.
const SPARE_BYTES: u64 = 1 << 20;

/// What a pool holds.
pub(crate) struct Need {
    pub mbufs: u32,
    /// Bytes of a frame that one buffer takes.
    pub frame_bytes: u32,
    /// NUMA node, or -1 for any.
    pub socket: i32,
}

impl Need {
    /// About how much memory that is: a buffer has a header and a headroom.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.mbufs) * (u64::from(self.frame_bytes) + 256) + SPARE_BYTES
    }
}

/// A pool of packet buffers.
pub(crate) struct Pool(sys::Pool);

// SAFETY: DPDK's pools are for all threads, and the rest only says where they lie.
unsafe impl Send for Pool {}
// SAFETY: as above; frames are read through a source, which has the exclusive use of those it lends.
unsafe impl Sync for Pool {}

impl Pool {
    /// A pool for one queue, or a negative errno.
    pub(crate) fn new(port: u16, queue: u16, need: &Need) -> Result<Self, i32> {
        let name = CString::new(format!("wirespan_{port}_{queue}")).unwrap_or_default();
        let mut pool = MaybeUninit::uninit();
        // SAFETY: the name is a string, and the pool is written also when it cannot be made.
        let result = unsafe {
            let (mbufs, frame_bytes) = (need.mbufs, need.frame_bytes);
            sys::ws_pool_create(
                name.as_ptr(),
                mbufs,
                CACHE_MBUFS,
                frame_bytes,
                SPARE_BYTES,
                need.socket,
                pool.as_mut_ptr(),
            )
        };
        if result < 0 {
            return Err(result);
        }
        // SAFETY: the pool was made.
        Ok(Self(unsafe { pool.assume_init() }))
    }

    pub(crate) fn raw(&self) -> &sys::Pool {
        &self.0
    }

    /// The pool's memory, mbufs and spare memory.
    ///
    /// # Safety
    /// Only bytes of frames that the caller holds may be read.
    pub(crate) unsafe fn region(&self) -> &[u8] {
        // SAFETY: the memory is mapped as long as the pool lives.
        unsafe { slice::from_raw_parts(self.0.base, self.0.len as usize) }
    }

    /// Offset of the spare memory in the region.
    pub(crate) fn spare_offset(&self) -> usize {
        self.0.spare as usize
    }

    /// Bytes of spare memory.
    pub(crate) fn spare_bytes(&self) -> usize {
        (self.0.len - self.0.spare) as usize
    }

    /// Copies a frame to this place in the spare memory, as far as there is room. Says how much was copied.
    ///
    /// # Safety
    /// The mbuf is held by the caller, and nobody reads or writes the spare memory from there on.
    pub(crate) unsafe fn copy(&self, mbuf: *const sys::Mbuf, at: usize) -> u32 {
        let room = self.spare_bytes().saturating_sub(at);
        // SAFETY: there is as much room behind `at` in the spare memory.
        unsafe { sys::ws_copy(mbuf, self.0.base.add(self.spare_offset() + at), room as u32) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pool was made, and its port was closed before.
        unsafe { sys::ws_pool_free(&mut self.0) };
    }
}

//! What a port counts.

use crate::sys;

/// Counters of a port, all queues together, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames that came into a queue.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that the NIC dropped because the queue was full: the workers are too slow.
    pub missed: u64,
    /// Frames that came damaged.
    pub errors: u64,
    /// Times that the pool had no buffer for a frame.
    pub no_mbuf: u64,
}

impl PortStats {
    pub(crate) fn read(port: u16) -> Self {
        let mut stats = sys::Stats::default();
        // SAFETY: the structure is written when it works, and zero else.
        unsafe { sys::ws_port_stats(port, &mut stats) };
        let sys::Stats { packets, bytes, missed, errors, no_mbuf } = stats;
        Self { packets, bytes, missed, errors, no_mbuf }
    }
}

/// The driver's own counters by name.
pub(crate) fn extended(port: u16) -> Vec<(String, u64)> {
    // SAFETY: a null pointer asks for the number of counters.
    let count = unsafe { sys::ws_port_xstats(port, std::ptr::null_mut(), 0) };
    let mut stats =
        vec![sys::Xstat { name: [0; sys::TEXT_BYTES], value: 0 }; usize::try_from(count).unwrap_or(0)];
    // SAFETY: as much room as is stated.
    let count = unsafe { sys::ws_port_xstats(port, stats.as_mut_ptr(), stats.len() as u32) };
    stats.truncate(usize::try_from(count).unwrap_or(0));
    stats.iter().map(|stat| (sys::text(&stat.name), stat.value)).collect()
}

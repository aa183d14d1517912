//! What was lost or left out, by reason.

use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;
use aya::maps::{MapData, PerCpuArray};

use super::object::Result;
use crate::{BpfError, sys};

/// Since the start. What is not an event and could have been one is in exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that the programs made: those handed on, those that wait in the ring, `ring_full` and `malformed`.
    pub made: u64,
    /// Events that were handed on.
    pub events: u64,
    /// Bytes of them in the ring.
    pub bytes: u64,
    /// Events that were lost because the ring was full.
    pub ring_full: u64,
    /// Calls of threads that there was no room for.
    pub threads_full: u64,
    /// Calls on sockets that there was no room for.
    pub sockets_full: u64,
    /// Calls on connections that are sampled out.
    pub muted: u64,
    /// Events without payload, or messages without event, because the process's memory was not there.
    pub unreadable: u64,
    /// Messages of one `recvmmsg` or `sendmmsg` beyond the 16th.
    pub messages_over: u64,
    /// Receives that left the bytes in the socket (MSG_PEEK), or read no stream bytes (error queue, urgent data).
    pub peeked: u64,
    /// System calls of 32-bit programs, which are not traced.
    pub compat: u64,
    /// Calls of `close_range` that closed descriptors beyond the 1024th: sockets among them, but for TCP's, have no end.
    pub closes_over: u64,
    /// TCP connections of which no beginning was seen or is remembered: older than the tracer, or forgotten since more are in use than
    /// [`TracerOptions::sockets`](super::TracerOptions::sockets).
    pub sockets_met: u64,
    /// Records of the ring that made no sense.
    pub malformed: u64,
    /// Runs that the kernel skipped since the CPU was in the same program already.
    pub recursion_misses: u64,
    /// The programs, with what they cost where the kernel counts it (`kernel.bpf_stats_enabled`).
    pub programs: Vec<ProgramStats>,
}

impl Stats {
    /// Events that should have been and are not: a reader must not go by what is next to each other.
    pub fn lost(&self) -> u64 {
        [
            self.ring_full,
            self.threads_full,
            self.sockets_full,
            self.messages_over,
            self.malformed,
            self.recursion_misses,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// One program in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Its name.
    pub name: String,
    /// How often it ran; 0 unless the kernel counts.
    pub runs: u64,
    /// Nanoseconds that it ran; 0 unless the kernel counts.
    pub run_ns: u64,
    /// Skipped runs.
    pub recursion_misses: u64,
    /// Instructions that the kernel followed to check it; 0 before Linux 5.16.
    pub verified: u32,
}

impl ProgramStats {
    pub(super) fn of(name: &str, program: BorrowedFd<'_>) -> Result<Self> {
        let info = sys::program_info(program.as_raw_fd()).map_err(|error| BpfError::map(&error))?;
        Ok(Self {
            name: name.to_owned(),
            runs: info.run_cnt,
            run_ns: info.run_time_ns,
            recursion_misses: info.recursion_misses,
            verified: info.verified_insns,
        })
    }
}

/// `struct counters` of `programs/tracer_maps.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub made: u64,
    pub ring_full: u64,
    pub threads_full: u64,
    pub conns_full: u64,
    pub muted: u64,
    pub unreadable: u64,
    pub messages_over: u64,
    pub peeked: u64,
    pub compat: u64,
    pub closes_over: u64,
    pub conns_met: u64,
}

// SAFETY: integers without padding.
unsafe impl Pod for Counters {}

impl Counters {
    /// Of all CPUs together.
    pub fn sum(map: &PerCpuArray<MapData, Self>) -> Result<Self> {
        let values = map.get(&0, 0).map_err(|error| BpfError::map(&error))?;
        Ok(values.iter().fold(Self::default(), |sum, one| Self {
            made: sum.made.wrapping_add(one.made),
            ring_full: sum.ring_full.wrapping_add(one.ring_full),
            threads_full: sum.threads_full.wrapping_add(one.threads_full),
            conns_full: sum.conns_full.wrapping_add(one.conns_full),
            muted: sum.muted.wrapping_add(one.muted),
            unreadable: sum.unreadable.wrapping_add(one.unreadable),
            messages_over: sum.messages_over.wrapping_add(one.messages_over),
            peeked: sum.peeked.wrapping_add(one.peeked),
            compat: sum.compat.wrapping_add(one.compat),
            closes_over: sum.closes_over.wrapping_add(one.closes_over),
            conns_met: sum.conns_met.wrapping_add(one.conns_met),
        }))
    }
}

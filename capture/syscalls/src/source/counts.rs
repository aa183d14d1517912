//! What of the events was lost or left out, over restarts of the tracer.

use wirespan_bpf::tracer::Stats;

/// Since the source was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that the programs in the kernel made: those that came out of the ring or are still in it, and those that were lost
    /// as `ring_full` and `malformed`.
    pub made: u64,
    /// Events that came out of the ring.
    pub events: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Events of wirespan's own connections, which are not handed on.
    pub own: u64,
    /// TCP connections of which no beginning was seen or is remembered.
    pub sockets_met: u64,
    lost: [u64; Self::LOST.len()],
    left_out: [u64; Self::LEFT_OUT.len()],
}

impl Counts {
    const LOST: [&str; 6] =
        ["ring_full", "threads_full", "sockets_full", "messages_over", "malformed", "recursion"];
    const LEFT_OUT: [&str; 5] = ["muted", "unreadable", "peeked", "compat", "closes_over"];

    pub(super) fn of(stats: &Stats) -> Self {
        Self {
            made: stats.made,
            events: stats.events,
            bytes: stats.bytes,
            own: 0,
            sockets_met: stats.sockets_met,
            lost: [
                stats.ring_full,
                stats.threads_full,
                stats.sockets_full,
                stats.messages_over,
                stats.malformed,
                stats.recursion_misses,
            ],
            left_out: [stats.muted, stats.unreadable, stats.peeked, stats.compat, stats.closes_over],
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let mut sum = self;
        sum.made += other.made;
        sum.events += other.events;
        sum.bytes += other.bytes;
        sum.own += other.own;
        sum.sockets_met += other.sockets_met;
        sum.lost.iter_mut().zip(other.lost).for_each(|(sum, other)| *sum += other);
        sum.left_out.iter_mut().zip(other.left_out).for_each(|(sum, other)| *sum += other);
        sum
    }

    /// Events that should have been and are not, by reason.
    pub fn lost(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::LOST.into_iter().zip(self.lost)
    }

    /// Calls that made no event, or one without payload, as was asked for or could not be otherwise; by reason.
    pub fn left_out(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::LEFT_OUT.into_iter().zip(self.left_out)
    }
}

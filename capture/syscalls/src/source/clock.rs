//! How the clock of events lies to the time of day, and when that was changed.

use wirespan_event::Clock;

/// Differences below come from measuring.
const JITTER_NS: u64 = 50_000;
/// A greater change was not made by slewing: somebody set the clock.
const STEP_NS: u64 = 20_000_000;
const SAMPLES: usize = 5;

/// Nanoseconds of CLOCK_BOOTTIME, the clock of events.
pub fn boot_ns() -> u64 {
    time_ns(libc::CLOCK_BOOTTIME)
}

fn time_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to `time`, which lives.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Follows the time of day.
pub struct ClockWatch {
    now: Clock,
}

/// The clock was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it is from now on.
    pub clock: Clock,
    /// By how much it was set, ns; `None` when it only drifted.
    pub step_ns: Option<i64>,
}

impl ClockWatch {
    pub fn new() -> Self {
        Self { now: sample() }
    }

    pub fn now(&self) -> Clock {
        self.now
    }

    /// Looks again.
    pub fn look(&mut self) -> Option<Change> {
        self.compare(sample())
    }

    fn compare(&mut self, clock: Clock) -> Option<Change> {
        let change = clock.boot_ns.wrapping_sub(self.now.boot_ns) as i64;
        if change.unsigned_abs() < JITTER_NS {
            return None;
        }
        self.now = clock;
        Some(Change { clock, step_ns: (change.unsigned_abs() >= STEP_NS).then_some(change) })
    }
}

/// Of several tries, the one in which reading both clocks took least.
fn sample() -> Clock {
    let try_once = || {
        let before = boot_ns();
        let epoch_ns = time_ns(libc::CLOCK_REALTIME);
        let took = boot_ns().saturating_sub(before);
        (took, epoch_ns.wrapping_sub(before + took / 2))
    };
    let best = (0..SAMPLES).map(|_| try_once()).min().unwrap_or_default();
    Clock { boot_ns: best.1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn times_of_events_are_times_of_day() {
        let watch = ClockWatch::new();
        let before = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let event = watch.now().epoch_ns(boot_ns());
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!((before - JITTER_NS..=after + JITTER_NS).contains(&event), "{before} {event} {after}");
    }

    #[test]
    fn steps_are_told_from_drift() {
        let mut watch = ClockWatch { now: Clock { boot_ns: 10_000_000_000 } };
        assert_eq!(watch.compare(Clock { boot_ns: 10_000_020_000 }), None);
        let drifted = Clock { boot_ns: 10_000_100_000 };
        assert_eq!(watch.compare(drifted), Some(Change { clock: drifted, step_ns: None }));
        let set = Clock { boot_ns: 9_000_100_000 };
        assert_eq!(watch.compare(set), Some(Change { clock: set, step_ns: Some(-1_000_000_000) }));
        assert_eq!(watch.now(), set);
    }
}

//! From the timestamps that frames come with to the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys;

/// How long the device's clock is watched at first to learn its rate.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// How often its drift is measured anew.
const LOOK_EVERY_NS: u64 = 1_000_000_000;

/// What a timestamp of a frame means.
pub(crate) enum Clock {
    /// The time at which the batch was taken is all that is known.
    Software,
    /// Microseconds since the epoch, from the capture file (driver `net_pcap`).
    CaptureFile,
    /// Ticks of the device.
    Device(DeviceClock),
}

impl Clock {
    /// The clock of a device that stamps frames, when it can be read; else the software's.
    pub(crate) fn of_device(port: u16) -> Self {
        DeviceClock::watch(port).map_or(Self::Software, Self::Device)
    }

    /// To be told the time now and then, so that the device's clock is followed.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        if let Self::Device(clock) = self {
            clock.tick(now_ns);
        }
    }

    /// Nanoseconds since the epoch of a timestamp; `None` when it means nothing.
    pub(crate) fn real_ns(&self, stamp: u64) -> Option<u64> {
        match self {
            Self::Software => None,
            Self::CaptureFile => stamp.checked_mul(1_000),
            Self::Device(clock) => Some(clock.scale.real_ns(stamp)),
        }
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of a device beside the time of day.
pub(crate) struct DeviceClock {
    port: u16,
    scale: Scale,
}

impl DeviceClock {
    fn watch(port: u16) -> Option<Self> {
        let first = (read(port)?, now_ns());
        std::thread::sleep(FIRST_LOOK);
        let scale = Scale::between(first, (read(port)?, now_ns()))?;
        Some(Self { port, scale })
    }

    fn tick(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.scale.at_ns) >= LOOK_EVERY_NS
            && let Some(scale) = read(self.port)
                .and_then(|ticks| Scale::between((self.scale.at_ticks, self.scale.at_ns), (ticks, now_ns)))
        {
            self.scale = scale;
        }
    }
}

fn read(port: u16) -> Option<u64> {
    let mut ticks = 0;
    // SAFETY: the number is written when it works.
    (unsafe { sys::ws_port_clock(port, &mut ticks) } >= 0).then_some(ticks)
}

/// A line through two readings of (ticks, ns since the epoch).
#[derive(Clone, Copy, Debug)]
struct Scale {
    at_ticks: u64,
    at_ns: u64,
    ns_per_tick: f64,
}

impl Scale {
    fn between(first: (u64, u64), last: (u64, u64)) -> Option<Self> {
        let ticks = last.0.checked_sub(first.0).filter(|&ticks| ticks > 0)?;
        let ns = last.1.checked_sub(first.1)?;
        Some(Self { at_ticks: last.0, at_ns: last.1, ns_per_tick: ns as f64 / ticks as f64 })
    }

    fn real_ns(&self, ticks: u64) -> u64 {
        let ticks_since = ticks.wrapping_sub(self.at_ticks).cast_signed();
        self.at_ns.saturating_add_signed((ticks_since as f64 * self.ns_per_tick) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_before_and_after_the_reading_have_their_time() {
        let scale = Scale::between((1_000, 10_000_000), (2_000, 10_004_000)).unwrap();
        assert_eq!(scale.real_ns(2_000), 10_004_000);
        assert_eq!(scale.real_ns(2_500), 10_006_000);
        assert_eq!(scale.real_ns(1_500), 10_002_000);
    }

    #[test]
    fn a_clock_that_stands_or_goes_backwards_gives_no_scale() {
        assert!(Scale::between((5, 1), (5, 2)).is_none());
        assert!(Scale::between((5, 1), (4, 2)).is_none());
        assert!(Scale::between((5, 2), (6, 1)).is_none());
    }

    #[test]
    fn a_capture_file_stamps_in_microseconds() {
        assert_eq!(Clock::CaptureFile.real_ns(1_700_000_000_123_456), Some(1_700_000_000_123_456_000));
        assert_eq!(Clock::CaptureFile.real_ns(u64::MAX), None);
        assert_eq!(Clock::Software.real_ns(1), None);
    }
}

//! From the clock of the XDP program to the time of day.

use crate::sys::clock_ns;

/// How often the distance between the clocks is measured.
const MEASURE_EVERY_NS: u64 = 1_000_000_000;
/// A smaller change is the noise of measuring, and would make time go back.
const STEP_NS: u64 = 10_000;

/// Both clocks run at the same speed; their distance changes when somebody sets the time of day.
pub(super) struct Clock {
    real_minus_boot_ns: u64,
    measured_at_boot_ns: u64,
}

impl Clock {
    pub fn new() -> Self {
        let (real_minus_boot_ns, measured_at_boot_ns) = measure();
        Self { real_minus_boot_ns, measured_at_boot_ns }
    }

    /// Looks now and then whether the time of day was set. Gives the time of day in nanoseconds.
    pub fn tick(&mut self) -> u64 {
        let boot_ns = clock_ns(libc::CLOCK_BOOTTIME);
        if boot_ns.wrapping_sub(self.measured_at_boot_ns) > MEASURE_EVERY_NS {
            let (distance, at) = measure();
            self.measured_at_boot_ns = at;
            if distance.abs_diff(self.real_minus_boot_ns) > STEP_NS {
                self.real_minus_boot_ns = distance;
            }
        }
        self.real_ns(boot_ns)
    }

    /// The time of day at a time on CLOCK_BOOTTIME.
    pub fn real_ns(&self, boot_ns: u64) -> u64 {
        boot_ns.wrapping_add(self.real_minus_boot_ns)
    }
}

/// From the NIC's clock to the time of day. NICs count from anything, and are not always set by PTP, so the distance is learnt
/// from the frames: none can have been seen by the XDP program before it was received, and the quickest was seen at once.
#[derive(Default)]
pub(super) struct NicClock {
    distance_ns: i64,
    /// The smallest distance in the current span, and where the span ends on the NIC's clock.
    smallest_ns: i64,
    span_end_ns: u64,
}

impl NicClock {
    /// The time of day at which the NIC received a frame that the XDP program saw at `seen_ns`.
    pub fn real_ns(&mut self, nic_ns: u64, seen_ns: u64) -> u64 {
        let distance_ns = seen_ns.wrapping_sub(nic_ns) as i64;
        if nic_ns.wrapping_sub(self.span_end_ns) < 1 << 63 {
            let learnt = self.span_end_ns != 0 && self.smallest_ns.abs_diff(distance_ns) < MEASURE_EVERY_NS;
            self.distance_ns = if learnt { self.smallest_ns } else { distance_ns };
            self.smallest_ns = distance_ns;
            self.span_end_ns = nic_ns.wrapping_add(MEASURE_EVERY_NS);
        }
        self.smallest_ns = self.smallest_ns.min(distance_ns);
        self.distance_ns = self.distance_ns.min(self.smallest_ns);
        nic_ns.wrapping_add_signed(self.distance_ns)
    }
}

fn measure() -> (u64, u64) {
    let before = clock_ns(libc::CLOCK_BOOTTIME);
    let real = clock_ns(libc::CLOCK_REALTIME);
    let after = clock_ns(libc::CLOCK_BOOTTIME);
    (real.wrapping_sub(before.midpoint(after)), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_frames_tell_how_far_the_nics_clock_is_away() {
        const DAY: u64 = 1_764_000_000_000_000_000;
        let mut clock = NicClock::default();
        // Every eighth frame is seen after 2 us, the others later; the NIC counts from its start.
        let delay_ns = |frame: u64| 2_000 + frame % 8 * 1_000;
        let mut distances = (0..40_000u64).map(|frame| {
            let nic_ns = 5_000 + frame * 100_000;
            clock.real_ns(nic_ns, DAY + nic_ns + delay_ns(frame)) - (DAY + nic_ns)
        });
        assert_eq!(distances.next(), Some(2_000));
        assert!(distances.all(|distance| distance == 2_000));
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        const DAY: u64 = 1_764_000_000_000_000_000;
        let mut clock = NicClock::default();
        assert_eq!(clock.real_ns(1_000, DAY), DAY);
        let later = 1_000 + 2 * MEASURE_EVERY_NS;
        let hour = 3_600_000_000_000;
        assert_eq!(clock.real_ns(later, DAY + hour), DAY + hour);
    }
}

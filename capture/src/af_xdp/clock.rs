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

fn measure() -> (u64, u64) {
    let before = clock_ns(libc::CLOCK_BOOTTIME);
    let real = clock_ns(libc::CLOCK_REALTIME);
    let after = clock_ns(libc::CLOCK_BOOTTIME);
    (real.wrapping_sub(before.midpoint(after)), after)
}

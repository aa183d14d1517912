//! Time for time-outs. Packet time can jump (joined captures, clock steps); time-outs must not.

/// A jump forward beyond this counts as this much: longer than every time-out.
const MAX_STEP_NS: u64 = 600_000_000_000;
/// Packets of several queues may be this much out of order without the clock being set back.
const REORDER_NS: u64 = 1_000_000_000;

const MS_NS: u64 = 1_000_000;

/// Turns packet time into time that never goes back.
#[derive(Default)]
pub(crate) struct Clock {
    last_ns: u64,
    elapsed_ns: u64,
    /// Of `elapsed_ns`, so that few packets need a division.
    elapsed_ms: u64,
}

impl Clock {
    /// Takes note of a packet's time.
    #[inline]
    pub(crate) fn observe(&mut self, ts_ns: u64) {
        if ts_ns >= self.last_ns {
            if self.last_ns != 0 {
                self.elapsed_ns += (ts_ns - self.last_ns).min(MAX_STEP_NS);
                if self.elapsed_ns - self.elapsed_ms * MS_NS >= MS_NS {
                    self.elapsed_ms = self.elapsed_ns / MS_NS;
                }
            }
            self.last_ns = ts_ns;
        } else if self.last_ns - ts_ns > REORDER_NS {
            self.last_ns = ts_ns;
        }
    }

    /// Milliseconds that have passed since the first packet.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.elapsed_ms
    }

    /// The newest packet time.
    pub(crate) fn packet_ns(&self) -> u64 {
        self.last_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_through_jumps_in_both_directions() {
        let second = 1_000_000_000;
        let mut clock = Clock::default();
        for (ts_ns, expected_ms) in [
            (1_000 * second, 0),
            (1_001 * second, 1_000),
            (1_001 * second - 5, 1_000),
            (5 * second, 1_000),
            (6 * second, 2_000),
            (9_000_000 * second, 602_000),
        ] {
            clock.observe(ts_ns);
            assert_eq!(clock.now_ms(), expected_ms);
        }
    }
}

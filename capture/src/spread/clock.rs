//! Packet time that all workers share.

/// Time is told so often. Time-outs of the flow tables are multiples of it, so that a flow ends at the same packet however
/// many workers there are.
const SLOT_NS: u64 = 50_000_000;
/// A jump forward beyond this counts as this much, as in the flow tables.
const MAX_STEP_NS: u64 = 600_000_000_000;
/// Packets may be this much out of order without the clock being set back.
const REORDER_NS: u64 = 1_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Tells which packets' times all workers have to hear of, for their clocks to agree.
#[derive(Default)]
pub(super) struct Clock {
    last_ns: u64,
    elapsed_ns: u64,
    /// Times before this one need not be told.
    due_ns: u64,
}

/// Times to be told, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// The newest before a jump.
    pub before: Option<u64>,
    /// That of the packet.
    pub now: u64,
}

impl Clock {
    #[inline]
    pub fn observe(&mut self, ts_ns: u64) -> Option<Times> {
        let before = self.last_ns;
        if ts_ns >= before && ts_ns < self.due_ns {
            self.last_ns = ts_ns;
            self.elapsed_ns += ts_ns - before;
            return None;
        }
        let times = self.told(before, ts_ns);
        if times.is_some() {
            let slot_ns = SLOT_NS - self.elapsed_ns % SLOT_NS;
            let second_ns = SECOND_NS - ts_ns % SECOND_NS;
            self.due_ns = ts_ns.saturating_add(slot_ns.min(second_ns));
        }
        times
    }

    fn told(&mut self, before: u64, ts_ns: u64) -> Option<Times> {
        if ts_ns >= before {
            self.last_ns = ts_ns;
            if before == 0 {
                return Some(Times { before: None, now: ts_ns });
            }
            let step = ts_ns - before;
            let elapsed = self.elapsed_ns;
            self.elapsed_ns = elapsed.saturating_add(step.min(MAX_STEP_NS));
            let is_due =
                elapsed / SLOT_NS != self.elapsed_ns / SLOT_NS || before / SECOND_NS != ts_ns / SECOND_NS;
            is_due.then_some(Times { before: Some(before).filter(|_| step > REORDER_NS), now: ts_ns })
        } else if before - ts_ns > REORDER_NS {
            self.last_ns = ts_ns;
            Some(Times { before: Some(before), now: ts_ns })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_every_slot_every_second_and_both_sides_of_a_jump() {
        let second = SECOND_NS;
        let mut clock = Clock::default();
        for (ts_ns, told) in [
            (1_000 * second, Some((None, 1_000 * second))),
            (1_000 * second + 1, None),
            (1_000 * second + 60_000_000, Some((None, 1_000 * second + 60_000_000))),
            (1_000 * second + 70_000_000, None),
            (1_000 * second + 30_000_000, None),
            (1_001 * second, Some((None, 1_001 * second))),
            (9_000 * second, Some((Some(1_001 * second), 9_000 * second))),
            (5 * second, Some((Some(9_000 * second), 5 * second))),
        ] {
            let expected = told.map(|(before, now)| Times { before, now });
            assert_eq!(clock.observe(ts_ns), expected, "{ts_ns}");
        }
    }
}

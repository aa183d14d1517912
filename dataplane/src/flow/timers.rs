//! A lazy timer wheel: a flow is queued once and looked at when its slot comes up, not touched per packet.

/// Length of one slot in milliseconds.
const SLOT_MS: u64 = 250;
/// Slots of the wheel: 512 s ahead, more than the longest time-out; what is later still is queued again on its way.
const SLOTS: usize = 2048;

/// Queues numbers (flows) by deadline.
pub(crate) struct TimerWheel {
    slots: Vec<Vec<u32>>,
    /// Number of the next slot to be looked at, since the beginning.
    next: u64,
}

impl TimerWheel {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Vec::new(); SLOTS], next: 0 }
    }

    /// Queues `flow` for `deadline_ms` and gives the ticket to compare with when it comes up.
    #[inline]
    pub(crate) fn schedule(&mut self, flow: u32, deadline_ms: u64) -> u64 {
        let slot = (deadline_ms / SLOT_MS + 1).clamp(self.next, self.next + SLOTS as u64 - 1);
        self.slots[slot as usize % SLOTS].push(flow);
        slot
    }

    /// Takes the next slot that is due at `now_ms`: its ticket and the flows queued for it, to be given back to
    /// [`Self::recycle`].
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<(u64, Vec<u32>)> {
        while self.next <= now_ms / SLOT_MS {
            let ticket = self.next;
            self.next += 1;
            let flows = std::mem::take(&mut self.slots[ticket as usize % SLOTS]);
            if !flows.is_empty() {
                return Some((ticket, flows));
            }
        }
        None
    }

    /// Keeps the memory of a slot that was worked off.
    pub(crate) fn recycle(&mut self, ticket: u64, mut flows: Vec<u32>) {
        let slot = &mut self.slots[ticket as usize % SLOTS];
        if slot.is_empty() && flows.capacity() <= 4096 {
            flows.clear();
            *slot = flows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(wheel: &mut TimerWheel, now_ms: u64) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some((ticket, flows)) = wheel.due(now_ms) {
            all.extend_from_slice(&flows);
            wheel.recycle(ticket, flows);
        }
        all
    }

    proptest! {
        #[test]
        fn nothing_is_early_and_nothing_is_lost(deadlines in proptest::collection::vec(0u64..500_000, 1..50)) {
            let mut wheel = TimerWheel::new();
            for (flow, &deadline) in deadlines.iter().enumerate() {
                wheel.schedule(flow as u32, deadline);
            }
            let mut seen = 0;
            for now in (0..=501_000).step_by(500) {
                for flow in drain(&mut wheel, now) {
                    prop_assert!(deadlines[flow as usize] <= now);
                    prop_assert!(now - deadlines[flow as usize] <= 1_000);
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, deadlines.len());
        }
    }

    #[test]
    fn a_deadline_beyond_the_wheel_comes_up_at_its_end() {
        let mut wheel = TimerWheel::new();
        wheel.schedule(7, u64::MAX / 2);
        assert!(drain(&mut wheel, 500_000).is_empty());
        assert_eq!(drain(&mut wheel, 513_000), [7]);
    }
}

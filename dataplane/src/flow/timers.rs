//! A lazy timer wheel: a flow is queued once and looked at when its slot comes up, not touched per packet.
//!
//! Each slot is a ring-less double list whose links lie in the flows, so that the wheel's memory is the same however many
//! flows there are.

use super::slab::NONE;

/// Length of one slot in milliseconds.
const SLOT_MS: u64 = 250;
/// Slots of the wheel: 512 s ahead, more than the longest time-out; what is later still is queued again on its way.
const SLOTS: usize = 2048;
/// In no slot.
const UNQUEUED: u16 = u16::MAX;

/// A flow's place in the wheel.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub(crate) struct Link {
    previous: u32,
    next: u32,
    slot: u16,
}

impl Default for Link {
    fn default() -> Self {
        Self { previous: NONE, next: NONE, slot: UNQUEUED }
    }
}

/// Where the links lie.
pub(crate) trait Links {
    /// The link of a flow.
    fn link(&mut self, flow: u32) -> &mut Link;
}

/// Queues numbers (flows) by deadline.
pub(crate) struct TimerWheel {
    /// The first flow of each slot.
    slots: Vec<u32>,
    /// One bit for each slot that may have flows, so that time passes over the others quickly.
    used: [u64; SLOTS / 64],
    /// Number of the slot that is looked at next, since the beginning.
    next: u64,
}

impl TimerWheel {
    pub(crate) fn new() -> Self {
        Self { slots: vec![NONE; SLOTS], used: [0; SLOTS / 64], next: 0 }
    }

    /// Memory in use.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u32>()
    }

    /// Queues `flow` for `deadline_ms`, and no longer for what it was queued for before.
    #[inline]
    pub(crate) fn schedule(&mut self, flow: u32, deadline_ms: u64, flows: &mut impl Links) {
        self.cancel(flow, flows);
        let slot =
            (deadline_ms / SLOT_MS + 1).clamp(self.next, self.next + SLOTS as u64 - 1) as usize % SLOTS;
        let next = std::mem::replace(&mut self.slots[slot], flow);
        self.used[slot / 64] |= 1 << (slot % 64);
        *flows.link(flow) = Link { previous: NONE, next, slot: slot as u16 };
        if next != NONE {
            flows.link(next).previous = flow;
        }
    }

    /// Takes `flow` out of the wheel.
    #[inline]
    pub(crate) fn cancel(&mut self, flow: u32, flows: &mut impl Links) {
        let Link { previous, next, slot } = std::mem::take(flows.link(flow));
        if slot == UNQUEUED {
            return;
        }
        if previous == NONE {
            self.slots[slot as usize] = next;
        } else {
            flows.link(previous).next = next;
        }
        if next != NONE {
            flows.link(next).previous = previous;
        }
    }

    /// Before this time nothing is due.
    #[inline(always)]
    pub(crate) fn turns_at_ms(&self) -> u64 {
        self.next * SLOT_MS
    }

    /// Takes a flow that is due at `now_ms` out of the wheel.
    #[inline]
    pub(crate) fn due(&mut self, now_ms: u64, flows: &mut impl Links) -> Option<u32> {
        let now = now_ms / SLOT_MS;
        while self.next <= now {
            let slot = self.next as usize % SLOTS;
            let rest = self.used[slot / 64] >> (slot % 64);
            if rest & 1 == 0 {
                // On to the next that is used among the 64 of this word, or to the next word.
                let unused = if rest == 0 { 64 - slot % 64 } else { rest.trailing_zeros() as usize };
                self.next = (self.next + unused as u64).min(now + 1);
                continue;
            }
            let first = self.slots[slot];
            if first != NONE {
                self.cancel(first, flows);
                return Some(first);
            }
            self.used[slot / 64] &= !(1 << (slot % 64));
            self.next += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Links for Vec<Link> {
        fn link(&mut self, flow: u32) -> &mut Link {
            &mut self[flow as usize]
        }
    }

    proptest! {
        /// Flows that are queued, queued anew or taken out: nothing is early, nothing late, nothing lost.
        #[test]
        fn flows_come_up_when_they_are_due(
            steps in proptest::collection::vec((0u32..20, proptest::option::of(0u64..500_000), 0u64..5_000), 1..80),
        ) {
            let (mut wheel, mut links) = (TimerWheel::new(), vec![Link::default(); 20]);
            let mut deadlines = [None; 20];
            let mut now = 0;
            for (flow, after, pause) in steps.into_iter().chain([(0, None, 501_000)]) {
                match after {
                    Some(after) => wheel.schedule(flow, now + after, &mut links),
                    None => wheel.cancel(flow, &mut links),
                }
                deadlines[flow as usize] = after.map(|after| now + after);
                now += pause;
                while let Some(flow) = wheel.due(now, &mut links) {
                    let deadline = deadlines[flow as usize].take();
                    prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                }
                prop_assert!(deadlines.iter().flatten().all(|&deadline| now < deadline + 2 * SLOT_MS));
            }
            prop_assert!(deadlines.iter().all(Option::is_none));
        }
    }

    #[test]
    fn a_deadline_beyond_the_wheel_comes_up_at_its_end() {
        let (mut wheel, mut links) = (TimerWheel::new(), vec![Link::default(); 8]);
        wheel.schedule(7, u64::MAX / 2, &mut links);
        assert_eq!(wheel.due(500_000, &mut links), None);
        assert_eq!(wheel.due(513_000, &mut links), Some(7));
    }
}

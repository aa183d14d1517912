//! Who leaves when the table is full.

use super::entry::Entry;
use super::slab::Slab;
use std::cmp::Reverse;

/// Flows that are compared at a time.
const COMPARED: usize = 64;
/// Of the flows compared, one in so many leaves, each when its place is needed.
const LEAVES: usize = 8;
/// Places that are looked at for flows to compare.
const LOOKED_AT: u32 = 1024;

/// A flow that may leave, unless a packet of it comes first.
struct Victim {
    number: u32,
    flow_id: u64,
    established: bool,
    quiet_ms: u64,
    chosen_ms: u64,
}

impl Victim {
    /// Would be missed least: what never got established, then what is quiet for longest.
    fn rank(&self) -> impl Ord + use<> {
        (self.established, Reverse(self.quiet_ms))
    }
}

/// Goes round the table.
#[derive(Default)]
pub(super) struct Eviction {
    hand: u32,
    /// The one to leave next is the last.
    victims: Vec<Victim>,
}

impl Eviction {
    /// A flow that would be missed little.
    pub(super) fn choose(&mut self, flows: &Slab<Entry>, now_ms: u64) -> Option<u32> {
        let unchanged = |victim: &Victim| {
            let entry = &flows[victim.number];
            entry.flow_id == victim.flow_id
                && entry.quiet_ms(now_ms) == victim.quiet_ms + (now_ms - victim.chosen_ms)
        };
        while let Some(victim) = self.victims.pop() {
            if unchanged(&victim) {
                return Some(victim.number);
            }
        }
        self.compare(flows, now_ms);
        self.victims.pop().map(|victim| victim.number)
    }

    fn compare(&mut self, flows: &Slab<Entry>, now_ms: u64) {
        let places = flows.places();
        // In a table that has become much emptier than it was, there may be no flow within the first places.
        let looked_at = if flows.len() * 4 > places as usize { LOOKED_AT } else { u32::MAX };
        for _ in 0..places.min(looked_at) {
            self.hand = (self.hand + 1) % places;
            let entry = &flows[self.hand];
            if entry.is_live() {
                self.victims.push(Victim {
                    number: self.hand,
                    flow_id: entry.flow_id,
                    established: entry.is_established(),
                    quiet_ms: entry.quiet_ms(now_ms),
                    chosen_ms: now_ms,
                });
            }
            if self.victims.len() == COMPARED {
                break;
            }
        }
        self.victims.sort_unstable_by_key(Victim::rank);
        self.victims.truncate(self.victims.len().div_ceil(LEAVES));
        self.victims.reverse();
    }
}

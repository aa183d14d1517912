//! The numbers that events have within their thread: one that did not come is that of an event which was lost.

use smallvec::SmallVec;
use std::ops::Range;

/// Threads that are remembered.
const MAX_THREADS: usize = 65_536;
/// The first events of a thread come behind later ones by not more than this.
const MAX_LATE: u32 = 64;

/// What came of all threads.
#[derive(Default)]
pub(crate) struct Numbers {
    threads: hashbrown::HashMap<u32, Thread, foldhash::fast::RandomState>,
    /// Threads of which something is missing.
    missing: usize,
}

struct Thread {
    /// The lowest that came.
    first: u32,
    /// One more than the highest that came.
    next: u32,
    /// Of those below, what did not come.
    missing: SmallVec<[Range<u32>; 1]>,
}

impl Numbers {
    /// An event of a thread came, if not in the order of its numbers. 0 is the first, and that of events without a number.
    pub(crate) fn came(&mut self, tid: u32, number: u32) {
        if number == 0 {
            return;
        }
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&tid) {
            self.threads.clear();
            self.missing = 0;
        }
        let thread = self.threads.entry(tid).or_insert(Thread::new(number));
        if number >= thread.next {
            if number > thread.next {
                self.missing += usize::from(thread.missing.is_empty());
                thread.missing.push(thread.next..number);
            }
            thread.next = number.wrapping_add(1);
        } else if number < thread.first && thread.first - number <= MAX_LATE {
            if number + 1 < thread.first {
                self.missing += usize::from(thread.missing.is_empty());
                thread.missing.push(number + 1..thread.first);
            }
            thread.first = number;
        } else if let Some(at) = thread.missing.iter().position(|missing| missing.contains(&number)) {
            let Range { start, end } = thread.missing.remove(at);
            thread
                .missing
                .extend([start..number, number + 1..end].into_iter().filter(|part| !part.is_empty()));
            self.missing -= usize::from(thread.missing.is_empty());
        } else {
            // Another thread with the same id, or one that was forgotten.
            self.missing -= usize::from(!thread.missing.is_empty());
            *thread = Thread { next: number + 1, ..Thread::new(number) };
        }
    }

    /// All events that are before this one of a thread came, unless they were lost: says whether that is so of any.
    pub(crate) fn lost_before(&mut self, tid: u32, number: u32) -> bool {
        if self.missing == 0 || number == 0 {
            return false;
        }
        let Some(thread) = self.threads.get_mut(&tid).filter(|thread| !thread.missing.is_empty()) else {
            return false;
        };
        let is_lost = thread.missing.iter().any(|missing| missing.start < number);
        // What came may be among them when the thread began anew in between; what lies behind this event may be lost too.
        thread
            .missing
            .iter_mut()
            .for_each(|missing| missing.start = missing.start.max(number.saturating_add(1)));
        thread.missing.retain(|missing| missing.start < missing.end);
        self.missing -= usize::from(thread.missing.is_empty());
        is_lost
    }
}

impl Thread {
    /// The first event that comes of it has this number.
    fn new(number: u32) -> Self {
        Self { first: number, next: number, missing: SmallVec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_lost_and_what_comes_late_is_not() {
        let mut numbers = Numbers::default();
        [5, 6, 9, 8, 12].iter().for_each(|number| numbers.came(1, *number));
        assert!(!numbers.lost_before(1, 6));
        assert!(numbers.lost_before(1, 8), "7 is lost");
        assert!(!numbers.lost_before(1, 9));
        [11, 10].iter().for_each(|number| numbers.came(1, *number));
        assert!(!numbers.lost_before(1, 12));
        assert!(!numbers.lost_before(2, 12));
        assert_eq!(numbers.missing, 0);
    }

    #[test]
    fn what_is_lost_among_the_first_events_is_known_however_these_come() {
        for order in [[6, 8, 2, 3, 4, 9], [8, 6, 4, 9, 3, 2], [2, 3, 4, 6, 8, 9], [9, 8, 6, 4, 3, 2]] {
            let mut numbers = Numbers::default();
            order.iter().for_each(|number| numbers.came(1, *number));
            let lost = [2, 3, 4, 6, 8, 9].map(|number| numbers.lost_before(1, number));
            assert_eq!(lost, [false, false, false, true, true, false], "{order:?}");
            assert_eq!(numbers.missing, 0);
        }
    }

    #[test]
    fn a_thread_with_the_id_of_another_begins_anew() {
        let mut numbers = Numbers::default();
        [5, 9, 0, 1, 2].iter().for_each(|number| numbers.came(1, *number));
        assert!(!numbers.lost_before(1, 2));
        numbers.came(1, 4);
        assert!(numbers.lost_before(1, 4));
    }
}

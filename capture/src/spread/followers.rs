//! Where the later fragments of a datagram go: after the first.

use std::collections::{HashMap, VecDeque};

/// Datagrams that are remembered: many times those that are incomplete at the same time.
const DATAGRAMS_MAX: usize = 8192;
/// Identifications are used again; a datagram that is not complete by then is given up by decoding too.
pub(super) const TIMEOUT_NS: u64 = 30_000_000_000;

/// The workers of the last datagrams whose first fragment came by.
#[derive(Default)]
pub(super) struct Followers {
    workers: HashMap<u64, (usize, u64)>,
    /// Datagrams in the order they were first seen.
    ages: VecDeque<u64>,
}

impl Followers {
    pub fn insert(&mut self, datagram: u64, worker: usize, ts_ns: u64) {
        if self.workers.insert(datagram, (worker, ts_ns)).is_some() {
            return;
        }
        self.ages.push_back(datagram);
        if self.ages.len() > DATAGRAMS_MAX
            && let Some(oldest) = self.ages.pop_front()
        {
            self.workers.remove(&oldest);
        }
    }

    pub fn get(&self, datagram: u64, ts_ns: u64) -> Option<usize> {
        let &(worker, since_ns) = self.workers.get(&datagram)?;
        (ts_ns.abs_diff(since_ns) <= TIMEOUT_NS).then_some(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_newest_for_a_while() {
        let mut followers = Followers::default();
        for datagram in 0..2 * DATAGRAMS_MAX as u64 {
            followers.insert(datagram, datagram as usize % 3, 1_000);
        }
        assert_eq!(followers.workers.len(), DATAGRAMS_MAX);
        let newest = 2 * DATAGRAMS_MAX as u64 - 1;
        assert_eq!(followers.get(newest, 1_000 + TIMEOUT_NS), Some(newest as usize % 3));
        assert_eq!(followers.get(newest, 1_001 + TIMEOUT_NS), None);
        assert_eq!(followers.get(0, 1_000), None);
        followers.insert(newest, 1, 2_000);
        assert_eq!(followers.get(newest, 2_000), Some(1));
    }
}

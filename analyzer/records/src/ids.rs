//! Ids of records.
//!
//! One sequence for the whole process, whoever gives the ids: they are unique in a store and increase with time, so that
//! rows with neighbouring ids lie together.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

/// The next id of this process, never 0.
///
/// The second of the first call above, a random start of the count below: two processes that begin in the same second
/// differ, and one that begins later goes on above.
pub fn next_id() -> u64 {
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        let random = RandomState::new().hash_one(now) as u32;
        AtomicU64::new((now.as_secs().max(1) << 32) | u64::from(random))
    });
    next.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_and_are_unique_among_threads() {
        let mut all: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).map(|_| next_id()).collect::<Vec<_>>())).collect();
            threads
                .into_iter()
                .flat_map(|t| {
                    let ids = t.join().unwrap();
                    assert!(ids.is_sorted());
                    ids
                })
                .collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4000);
        assert!(all[0] >> 32 > 1_700_000_000);
    }
}

//! A map that forgets what was not asked for lately.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::hash::Hash;

/// Keeps what was used last: at least `half`, at most `2 * half` entries. Two maps take turns: when the young one is full, the
/// old one is forgotten; what is found in the old one becomes young again.
pub struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    half: usize,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub fn new(half: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), half: half.max(1) }
    }

    pub fn get(&mut self, key: K) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub fn remove(&mut self, key: K) {
        self.young.remove(&key);
        self.old.remove(&key);
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_latest_are_kept_and_memory_is_bounded(keys in prop::collection::vec(0u8..40, 0..300)) {
            let mut recent = Recent::new(8);
            let mut used = Vec::new();
            for key in keys {
                if recent.get(key).is_none() {
                    recent.insert(key, u32::from(key));
                }
                used.retain(|other| *other != key);
                used.push(key);
                prop_assert!(recent.len() <= 16);
                let latest: Vec<u8> = used.iter().rev().take(8).copied().collect();
                for key in latest {
                    let kept = recent.young.get(&key).or(recent.old.get(&key));
                    prop_assert_eq!(kept, Some(&u32::from(key)));
                }
            }
        }
    }

    #[test]
    fn what_is_removed_is_gone() {
        let mut recent = Recent::new(1);
        recent.insert(1, 'a');
        recent.insert(2, 'b');
        recent.remove(1);
        assert_eq!((recent.get(1).copied(), recent.get(2).copied(), recent.len()), (None, Some('b'), 1));
    }
}

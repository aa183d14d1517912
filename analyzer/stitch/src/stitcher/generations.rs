//! A map that forgets: what was not used for one to two generations is gone, and so is what came before too many others.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::hash::Hash;

/// Two maps: the young one takes everything that is used, the old one is dropped when the young one is full or of age.
pub struct Generations<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    max: usize,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    /// At most `max` entries in each of the two.
    pub fn new(max: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), max: max.max(1) }
    }

    /// The value of a key. It stays for another generation.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self.young.entry(key) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                let value = self.old.remove(entry.key())?;
                Some(entry.insert(value))
            }
        }
    }

    /// Sets the value of a key. Returns how many were forgotten to make room.
    pub fn insert(&mut self, key: K, value: V) -> usize {
        let forgotten = if self.young.len() >= self.max { self.turn() } else { 0 };
        self.young.insert(key, value);
        forgotten
    }

    /// Begins a generation; returns how many entries were forgotten.
    pub fn turn(&mut self) -> usize {
        let forgotten = self.old.len();
        self.old.clear();
        std::mem::swap(&mut self.young, &mut self.old);
        forgotten
    }

    /// Entries of both generations.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut map = Generations::new(100);
        map.insert(1, 'a');
        map.insert(2, 'b');
        assert_eq!(map.turn(), 0);
        assert_eq!(map.get_mut(1).copied(), Some('a'));
        assert_eq!((map.turn(), map.get_mut(2)), (1, None));
        assert_eq!(map.get_mut(1).copied(), Some('a'));
    }

    #[test]
    fn it_is_bounded() {
        let mut map = Generations::new(10);
        let forgotten: usize = (0..1000).map(|n| map.insert(n, n)).sum();
        assert!(map.len() <= 20);
        assert_eq!(map.len() + forgotten, 1000);
        assert_eq!(map.get_mut(999).copied(), Some(999));
    }
}

//! Spans that belong together, as disjoint sets. The oldest are forgotten when there are too many.
//!
//! Numbers of sets increase. A set that is joined to another points to the newer one, and one that is used in the older half of
//! the queue moves to the newer end: so no pointer leads to what was forgotten.

use std::collections::VecDeque;

/// A set, or what became of one.
#[derive(Clone, Copy, Debug, Default)]
struct Set {
    /// The set it was joined to; its own number when it was not.
    parent: u64,
    state: State,
}

/// What is known of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Spans in it.
    pub spans: u32,
    /// The key under which rows were written; 0 when none was.
    pub written: u64,
    /// The key that a trace id in a header gives; 0 when there is none.
    pub wire: u64,
}

impl State {
    /// The key that the next row would get, 0 when there is none yet.
    pub fn key(&self) -> u64 {
        if self.wire != 0 { self.wire } else { self.written }
    }
}

/// All sets.
pub struct Components {
    sets: VecDeque<Set>,
    /// Number of the first in `sets`.
    base: u64,
    max: usize,
}

impl Components {
    /// Keeps at most `max`.
    pub fn new(max: usize) -> Self {
        Self { sets: VecDeque::new(), base: 1, max: max.max(4) }
    }

    fn at(&self, number: u64) -> Option<&Set> {
        self.sets.get(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    fn at_mut(&mut self, number: u64) -> Option<&mut Set> {
        self.sets.get_mut(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    /// Makes a set.
    pub fn push(&mut self, state: State) -> u64 {
        if self.sets.len() >= self.max {
            self.sets.pop_front();
            self.base += 1;
        }
        let number = self.base + self.sets.len() as u64;
        self.sets.push_back(Set { parent: number, state });
        number
    }

    /// The set that this one is part of now; `None` when it was forgotten.
    pub fn find(&mut self, number: u64) -> Option<u64> {
        let mut root = self.at(number)?.parent;
        loop {
            let next = self.at(root)?.parent;
            if next == root {
                break;
            }
            root = next;
        }
        let mut at = number;
        while at != root {
            let set = self.at_mut(at)?;
            at = std::mem::replace(&mut set.parent, root);
        }
        Some(root)
    }

    /// As [`Self::find`], and it stays for a while.
    pub fn use_set(&mut self, number: u64) -> Option<u64> {
        let root = self.find(number)?;
        let full = self.sets.len() >= self.max;
        if !full || root - self.base >= self.max as u64 / 2 {
            return Some(root);
        }
        let state = self.at(root)?.state;
        let renewed = self.push(state);
        // It may just have been the one that was forgotten.
        if let Some(set) = self.at_mut(root) {
            set.parent = renewed;
        }
        Some(renewed)
    }

    /// What is known of a set that [`Self::find`] found.
    pub fn state(&self, root: u64) -> State {
        self.at(root).map(|set| set.state).unwrap_or_default()
    }

    /// Changes what is known of it.
    pub fn set_state(&mut self, root: u64, state: State) {
        if let Some(set) = self.at_mut(root) {
            set.state = state;
        }
    }

    /// Makes one of two that [`Self::find`] found; returns the number of both.
    pub fn join(&mut self, a: u64, b: u64, state: State) -> u64 {
        let (older, newer) = (a.min(b), a.max(b));
        if let Some(set) = self.at_mut(older) {
            set.parent = newer;
        }
        self.set_state(newer, state);
        newer
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut sets = Components::new(8);
        let (first, second) = (sets.push(State::default()), sets.push(State::default()));
        sets.join(first, second, State { spans: 2, ..State::default() });
        assert_eq!((sets.find(first), sets.state(second).spans), (Some(second), 2));
        for _ in 0..7 {
            sets.push(State::default());
        }
        assert_eq!((sets.find(first), sets.find(second), sets.len()), (None, Some(second), 8));
        sets.push(State::default());
        assert_eq!(sets.find(second), None);
    }

    #[test]
    fn a_set_that_is_asked_for_by_its_newest_number_is_never_forgotten() {
        let mut sets = Components::new(8);
        let mut number = sets.push(State { spans: 7, ..State::default() });
        for _ in 0..100 {
            sets.push(State::default());
            number = sets.use_set(number).unwrap();
            assert_eq!(sets.state(number).spans, 7);
        }
    }
}

//! What a thread or coroutine was made go on for.

use super::evidence::Nodes;
use smallvec::SmallVec;

/// Wake-ups that are remembered for a thread that did nothing since.
const MAX_WOKEN: usize = 4;
/// Futexes that are closer than this belong to one condition variable, or to those of one thread's parking place.
pub(crate) const SAME_WAIT: u64 = 128;

/// How a thread or coroutine was made go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waking {
    /// By a coroutine that lets this one work for it.
    Coroutine,
    /// It was made.
    Made,
    /// It would have waited for a limited time only, as the threads of a pool do that end when there is no more work.
    Limited,
    /// It waited for as long as it takes, for work or in the middle of it.
    Endless,
    /// The same, and the other one was itself at what it was made go on for: threads of a pool that wait for each other's locks.
    Among,
}

/// One of them.
#[derive(Clone, Debug)]
struct Woken {
    nodes: Nodes,
    futex: u64,
    how: Waking,
    /// The thread has done something since.
    used: bool,
    /// It went through a thread that waits for whatever comes, which has more to do than what it was woken for.
    vague: bool,
    /// The go statements that made it, or the one that made it go on, for these; 0 for none.
    made_at: u32,
}

/// Wake-ups that count, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct WakeUps(SmallVec<[Woken; 2]>);

impl WakeUps {
    /// Another makes it go on for `nodes`, or for something unknown. False when that is in the middle of the work that it was woken for.
    pub(crate) fn add(&mut self, nodes: Nodes, futex: u64, how: Waking, vague: bool, made_at: u32) -> bool {
        let within = |woken: &Woken| match (woken.how, how) {
            _ if woken.used || woken.vague || woken.nodes.is_empty() => false,
            (Waking::Limited, Waking::Endless | Waking::Among) | (Waking::Made, Waking::Among) => true,
            _ => false,
        };
        if self.0.iter().any(within) {
            return false;
        }
        // Who waits for the same thing again is done with what it was woken for before.
        self.0.retain(|woken| !woken.used && woken.futex.abs_diff(futex) >= SAME_WAIT);
        if self.0.len() == MAX_WOKEN {
            self.0.remove(0);
        }
        self.0.push(Woken { nodes, futex, how, used: false, vague, made_at });
        true
    }

    /// The thread does something.
    pub(crate) fn used(&mut self) {
        self.0.iter_mut().for_each(|woken| woken.used = true);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// By coroutines only, if at all.
    pub(crate) fn is_by_coroutines(&self) -> bool {
        self.0.iter().all(|woken| woken.how == Waking::Coroutine)
    }

    /// By one that knew what for.
    pub(crate) fn is_sure(&self) -> bool {
        self.0.iter().any(|woken| !woken.vague && !woken.nodes.is_empty())
    }

    /// The futex that it waited for when it was last made go on for something; 0 for none.
    pub(crate) fn futex(&self) -> u64 {
        self.0.iter().rev().find(|woken| !woken.nodes.is_empty()).map_or(0, |woken| woken.futex)
    }

    /// The go statements that the last of them rests on; 0 for none.
    pub(crate) fn made_at(&self) -> u32 {
        self.0.last().map_or(0, |woken| woken.made_at)
    }

    /// What it may have been made go on for.
    pub(crate) fn nodes(&self) -> Nodes {
        let mut nodes = Nodes::new();
        let sure = self.is_sure();
        for node in self.0.iter().filter(|woken| !(sure && woken.vague)).flat_map(|woken| &woken.nodes) {
            if !nodes.contains(node) {
                nodes.push(*node);
            }
        }
        nodes
    }
}

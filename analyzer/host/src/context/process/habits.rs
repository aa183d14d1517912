//! What a process often does, so that some evidence proves little.

use crate::context::evidence::{Evidence, Node};
use smallvec::SmallVec;

/// Things that came before it counts what followed them.
const ENOUGH: u32 = 4;

/// Wrong ones would have been seen so often before it counts that there were none.
const OFTEN: f32 = 20.0;
/// One of so many may be wrong.
const RARELY: f32 = 50.0;
/// Older ones lose weight beyond this.
const MEMORY: f32 = 2000.0;
/// Requests that may be looked at each time that something could be counted.
const LOOKS: usize = 256;

/// How often something was done in the turn of what it was done for, and how often with nothing before it in its turn.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Starts {
    after_bytes: u32,
    by_itself: u32,
    /// How often it was so by itself while no timer was due, where it was not: on connections that were open, and on those that were
    /// opened or taken for it.
    unprompted: [Tally; 2],
    /// Several went out with one event: they are collected, so that the moment of sending tells nothing.
    pub(super) together: bool,
}

impl Starts {
    pub(super) fn count(&mut self, by_itself: bool) {
        let times = if by_itself { &mut self.by_itself } else { &mut self.after_bytes };
        *times = times.saturating_add(1);
    }

    /// No timer was due before it.
    pub(super) fn count_untimed(&mut self, by_itself: bool, fresh: bool) {
        self.unprompted[usize::from(fresh)].count(by_itself);
    }

    pub(in super::super) fn collected(self) -> bool {
        self.together
    }

    /// What begins it is not seen, as where loops send in a later turn, or go on with what other threads did: what came before it in
    /// the same turn proves little, whether timers were due or not.
    pub(in super::super) fn often_unprompted(self, fresh: bool) -> bool {
        self.unprompted[usize::from(fresh)].is_often()
    }

    /// Timers or other tasks begin it: bytes that came in before it in the same turn prove little.
    pub(in super::super) fn often_by_itself(self) -> bool {
        self.by_itself > 2 && u64::from(self.by_itself) * 50 > u64::from(self.after_bytes)
    }
}

/// How many requests were made for one thing that came, before the next thing came in the same turn: no timer runs between. If there
/// were none at all, then up to the end of the turn.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Follows {
    /// Requests that came, responses that came; for each, how often that was seen, and the most that were made.
    seen: [(u32, u32); 2],
}

impl Follows {
    pub(super) fn count(&mut self, node: Node, made: u32) {
        let (times, most) = &mut self.seen[usize::from(matches!(node, Node::Client(_)))];
        *times = times.saturating_add(1);
        *most = made.max(*most);
    }

    /// More were made than ever for each of what came, at the end of a turn: timers run then.
    pub(in super::super) fn exceeded(&self, piece: &Evidence) -> bool {
        piece.nodes.first().is_some_and(|node| {
            let (times, most) = self.seen[usize::from(matches!(node, Node::Client(_)))];
            times >= ENOUGH && piece.position as usize >= most as usize * piece.nodes.len()
        })
    }
}

/// Whether what threads are woken for is what they do: how often that was impossible, or as good as, beside how often it would have
/// been if they did it for any of the requests that were open.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Handovers {
    wrong: f32,
    by_chance: f32,
    /// Requests that may be looked at now.
    looks: usize,
}

impl Handovers {
    /// Whether to count, which takes a look at `len` requests: more rarely where these are thousands, each of which may end so.
    pub(super) fn is_due(&mut self, len: usize) -> bool {
        self.looks += LOOKS;
        let is_due = self.looks >= len;
        if is_due {
            self.looks = 0;
        }
        is_due
    }

    /// Of `open` requests, `wrong` could not be the one.
    pub(super) fn count(&mut self, is_wrong: bool, wrong: usize, open: usize) {
        if is_wrong {
            self.wrong += 1.0;
        }
        self.by_chance += wrong as f32 / open.max(1) as f32;
        if self.by_chance > MEMORY {
            (self.wrong, self.by_chance) = (self.wrong / 2.0, self.by_chance / 2.0);
        }
    }

    /// They take work from each other.
    pub(in super::super) fn mixed(self) -> bool {
        self.wrong > 1.0 && self.wrong * RARELY > self.by_chance
    }

    /// Each does what it was woken for.
    pub(in super::super) fn direct(self) -> bool {
        self.by_chance >= OFTEN && self.wrong * RARELY <= self.by_chance
    }
}

/// How often the thread that opened a connection and the one that answered were woken for the same request, while several were open.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Agreement {
    same: f32,
    other: f32,
}

impl Agreement {
    pub(super) fn count(&mut self, is_same: bool) {
        *(if is_same { &mut self.same } else { &mut self.other }) += 1.0;
        if self.same > MEMORY {
            (self.same, self.other) = (self.same / 2.0, self.other / 2.0);
        }
    }

    /// Neither is by chance.
    pub(in super::super) fn proven(self) -> bool {
        self.same >= OFTEN && self.other * RARELY <= self.same
    }
}

/// How often something was so, and how often it was otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Tally {
    so: u32,
    otherwise: u32,
}

impl Tally {
    pub(super) fn count(&mut self, so: bool) {
        let times = if so { &mut self.so } else { &mut self.otherwise };
        *times = times.saturating_add(1);
    }

    /// More than one time beside 50 that it was otherwise.
    pub(in super::super) fn is_common(self) -> bool {
        u64::from(self.so) * 50 > u64::from(self.otherwise)
    }

    /// The same, and not by chance.
    pub(in super::super) fn is_often(self) -> bool {
        self.so > 2 && self.is_common()
    }
}

/// How often requests were answered by the thread that heard them, and how often by another that hears requests too.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Moves(Tally);

impl Moves {
    pub(super) fn count(&mut self, moved: bool) {
        self.0.count(moved);
    }

    /// Tasks go from thread to thread, as goroutines do: what a thread did before says little of what it does.
    pub(in super::super) fn often(self) -> bool {
        self.0.is_often()
    }
}

/// Whether loops read all that came before they do anything for it: how often several requests were answered after one response
/// that others came before, and how often one.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Deferrals(Tally);

impl Deferrals {
    pub(super) fn count(&mut self, several: bool) {
        self.0.count(several);
    }

    /// What came last is not all that may be gone on from.
    pub(in super::super) fn often(self) -> bool {
        self.0.is_common()
    }
}

/// What was done for requests or responses that came with one event.
#[derive(Debug, Default)]
pub(in super::super) struct Made {
    /// How many came.
    pub came: usize,
    /// More may have been made than was seen.
    pub unsure: bool,
    /// How many requests were made then.
    pub requests: usize,
    /// Server requests that were answered then.
    pub answered: SmallVec<[u64; 2]>,
}

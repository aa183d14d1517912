//! What speaks for two requests having been made for the same cause, and how far each kind is to be trusted.

use smallvec::SmallVec;
use wirespan_records::Rule;

/// A request of the process, by its span's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Node {
    /// One that it answers.
    Server(u64),
    /// One that it makes.
    Client(u64),
}

impl Node {
    /// One that was not seen; no span has this id.
    pub(crate) const UNKNOWN: Self = Self::Client(0);
}

/// Requests that became current with the same event.
pub(crate) type Nodes = SmallVec<[Node; 2]>;

/// How two requests are connected, most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// The same coroutine went on from one to the other.
    Coroutine,
    /// The thread handed over what came for the one when it began the other, as the process told.
    Stream,
    /// A thread that answers nothing itself took work from a queue that was put there for the other.
    Task,
    /// The only request that a thread has ever had open at a time.
    Blocking,
    /// The first of the requests that one connection brought to a thread which does one after the other.
    FirstOpen,
    /// A thread that answers requests went on from one to the other without a wait, no timer was due, and nothing else came in.
    LoneTurn,
    /// A thread that answers requests went on from one to the other without a wait, and no timer was due.
    Turn,
    /// The same, but a timer may have been due.
    LateTurn,
    /// The response was sent in the turn in which the other's response came, and no timer was due.
    Answer,
    /// The same, but a timer may have been due.
    LateAnswer,
    /// The thread that made the one, and waits for each response, answered the other next.
    AnswersNext,
    /// The reader of the response made the only thread go on that waited with a request open.
    WakesWaiting,
    /// The only request that was open on a thread which often has several.
    OnlyOpen,
    /// A thread that was made go on for one opened a connection, or took one from a pool, before all else, and the other went out there.
    WokenOpens,
    /// A thread that was made go on for one made the other.
    Woken,
    /// The response was sent by a thread that was made go on for the other.
    WokenAnswer,
    /// One of several requests that came with one event, in their order.
    Order,
    /// It went out with others, the same number for each request that had come in.
    Share,
    /// A thread that answers nothing itself went on from one to the other: another task may have begun between.
    Pool,
}

impl Class {
    pub(crate) const COUNT: usize = Self::Pool as usize + 1;

    /// From 0 to 1, before anything is learned.
    fn prior(self) -> f32 {
        match self {
            Self::Coroutine => 0.95,
            Self::Stream
            | Self::Task
            | Self::Blocking
            | Self::FirstOpen
            | Self::LoneTurn
            | Self::Turn
            | Self::Answer => 0.9,
            Self::LateTurn | Self::LateAnswer | Self::AnswersNext | Self::WakesWaiting => 0.8,
            Self::Order | Self::Share => 0.6,
            Self::WokenOpens | Self::WokenAnswer | Self::Woken | Self::OnlyOpen | Self::Pool => WEAK,
        }
    }
}

/// One connection between a client request and others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Evidence {
    /// With what; with one of them, if there are several.
    pub nodes: Nodes,
    pub class: Class,
    /// What is said of it in records.
    pub rule: Rule,
    /// Which of the requests that were made for `nodes` this is, counted from 0.
    pub position: u32,
    /// Names the event that made `nodes` current.
    pub group: u64,
    /// The futex behind it; 0 for none.
    pub futex: u64,
    /// The go statements that it rests on; 0 for none.
    pub made_at: u32,
    /// What came right before in the same turn, if nothing was done for that yet: it may be for this as well where loops read all
    /// that came before they do anything.
    pub unserved: Nodes,
}

impl Evidence {
    /// Evidence of this class, of which nothing else matters.
    pub(crate) fn new(nodes: Nodes, class: Class, rule: Rule) -> Self {
        Self { nodes, class, rule, position: 0, group: 0, futex: 0, made_at: 0, unserved: Nodes::new() }
    }
}

/// Less than this is no proof by itself.
pub(crate) const PROOF: f32 = 0.5;
/// Counts with other evidence only, or when that has agreed often enough.
pub(crate) const WEAK: f32 = 0.4;

/// Judgements about a class before what was learned counts.
const ENOUGH: u32 = 20;
/// Older judgements lose weight beyond this.
const MEMORY: u32 = 2000;

/// How often each class was right in one process, where better evidence told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    judged: [(u32, u32); Class::COUNT],
}

impl Trust {
    /// Better evidence agreed with one of this class, or did not.
    pub(crate) fn judge(&mut self, class: Class, right: bool) {
        if let Some((agreed, total)) = self.judged.get_mut(class as usize) {
            *agreed += u32::from(right);
            *total += 1;
            if *total > MEMORY {
                (*agreed, *total) = (*agreed / 2, *total / 2);
            }
        }
    }

    /// How far a class is to be trusted in this process, from 0 to 1.
    pub(crate) fn of(&self, class: Class) -> f32 {
        let (agreed, total) = self.judged.get(class as usize).copied().unwrap_or_default();
        let wrong = total - agreed;
        if wrong * 100 > total && wrong > 1 {
            // Once in a hundred is too often for a fact.
            return class.prior().min(PROOF / 2.0);
        }
        let weak = matches!(class, Class::Woken | Class::OnlyOpen | Class::Pool);
        if total >= ENOUGH && weak { 0.6 } else { class.prior() }
    }
}

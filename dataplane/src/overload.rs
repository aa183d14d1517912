//! What a worker leaves out when it cannot keep up, told by how full its source is. Each level waits until the one before
//! did not help, some batches long. It is left again after a second of calm. Whether that was too early shows only then: a
//! level that comes back soon is left after twice the time, up to 16 s, so that under a steady load it stays.

use crate::flow::{ShedPayload, Shedding};
use std::time::{Duration, Instant};

/// Backlogs are parts of the source's ring or queue, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct OverloadConfig {
    /// A level is entered above this.
    pub enter: f32,
    /// There is calm below this.
    pub calm: f32,
    /// Times in a row that the backlog was so high before a level is entered.
    pub patience: u32,
    /// A level is left after so much calm.
    pub hold_min: Duration,
    /// And after so much at most, where it keeps coming back.
    pub hold_max: Duration,
    /// Of new flows one in so many is taken in at the highest level.
    pub new_flows_one_in: u32,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            enter: 0.5,
            calm: 0.25,
            patience: 16,
            hold_min: Duration::from_secs(1),
            hold_max: Duration::from_secs(16),
            new_flows_one_in: 8,
        }
    }
}

/// How much is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    All,
    /// Payload of flows of which it is not known what they speak.
    ShedUnknownPayload,
    /// All payload.
    ShedPayload,
    /// All payload, and most new flows.
    SampleFlows,
}

impl Level {
    const ALL: [Self; 4] = [Self::All, Self::ShedUnknownPayload, Self::ShedPayload, Self::SampleFlows];

    fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    fn before(self) -> Option<Self> {
        Self::ALL.get((self as usize).checked_sub(1)?).copied()
    }
}

/// What became of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverloadStats {
    /// The level now.
    pub level: Level,
    /// Times that more was left out.
    pub raised: u64,
    /// Times that less was left out.
    pub lowered: u64,
}

/// How long a level is held.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// So much calm is needed to leave it.
    calm: Duration,
    left: Option<Instant>,
}

/// A level that was away for less than so many times its hold was left too early. More than one, as those below it, which
/// are left next, may be too low as well.
const SOON_HOLDS: u32 = 4;

/// Follows the backlog.
#[derive(Debug)]
pub(crate) struct Overload {
    config: OverloadConfig,
    stats: OverloadStats,
    /// Times in a row that the backlog was high.
    high: u32,
    /// Since when the backlog is low, or since when this level is the one with a low one.
    calm_since: Option<Instant>,
    /// Of each level.
    holds: [Hold; Level::ALL.len()],
}

impl Overload {
    pub(crate) fn new(config: OverloadConfig) -> Self {
        let hold = Hold { calm: config.hold_min, left: None };
        let holds = [hold; Level::ALL.len()];
        Self { config, stats: OverloadStats::default(), high: 0, calm_since: None, holds }
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> OverloadStats {
        self.stats
    }

    /// Takes note of the backlog. Gives what is to be left out from now on, when that changes.
    pub(crate) fn observe(&mut self, backlog: f32, now: Instant) -> Option<Shedding> {
        self.high = if backlog > self.config.enter { self.high + 1 } else { 0 };
        let calm_since = (backlog < self.config.calm).then(|| self.calm_since.unwrap_or(now));
        self.calm_since = calm_since;
        if self.high >= self.config.patience {
            self.raise(now)
        } else {
            self.lower(now.duration_since(calm_since?), now)
        }
    }

    /// Goes to the next level, which is held longer when it was left not long ago.
    fn raise(&mut self, now: Instant) -> Option<Shedding> {
        let level = self.stats.level.next()?;
        let OverloadConfig { hold_min, hold_max, .. } = self.config;
        let hold = self.holds.get_mut(level as usize)?;
        let is_soon = hold.left.is_some_and(|left| now.duration_since(left) < hold.calm * SOON_HOLDS);
        hold.calm = if is_soon { (hold.calm * 2).min(hold_max) } else { hold_min };
        self.stats.raised += 1;
        Some(self.enter(level, None))
    }

    /// Goes back to the level before when there was calm for long enough.
    fn lower(&mut self, calm: Duration, now: Instant) -> Option<Shedding> {
        let level = self.stats.level.before()?;
        let hold = self.holds.get_mut(self.stats.level as usize)?;
        if calm < hold.calm {
            return None;
        }
        hold.left = Some(now);
        self.stats.lowered += 1;
        Some(self.enter(level, Some(now)))
    }

    fn enter(&mut self, level: Level, calm_since: Option<Instant>) -> Shedding {
        (self.high, self.calm_since) = (0, calm_since);
        self.stats.level = level;
        self.shedding()
    }

    fn shedding(&self) -> Shedding {
        let payload = match self.stats.level {
            Level::All => ShedPayload::None,
            Level::ShedUnknownPayload => ShedPayload::Unknown,
            Level::ShedPayload | Level::SampleFlows => ShedPayload::All,
        };
        let samples = self.stats.level == Level::SampleFlows;
        Shedding { payload, new_flows_one_in: samples.then_some(self.config.new_flows_one_in) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An `Overload`, and a clock that goes on by 10 ms with each backlog.
    struct Worker {
        overload: Overload,
        now: Instant,
    }

    const STEP: Duration = Duration::from_millis(10);

    impl Worker {
        fn new() -> Self {
            let config = OverloadConfig { patience: 3, ..OverloadConfig::default() };
            Self { overload: Overload::new(config), now: Instant::now() }
        }

        fn level(&self) -> Level {
            self.overload.stats().level
        }

        fn sees(&mut self, backlog: f32) -> Option<Shedding> {
            self.now += STEP;
            self.overload.observe(backlog, self.now)
        }

        /// How long this backlog lasts until the level is this one.
        fn time_to(&mut self, level: Level, backlog: f32) -> Duration {
            let start = self.now;
            while self.level() != level {
                self.sees(backlog);
                assert!(self.now - start < Duration::from_secs(100), "it stays at {:?}", self.level());
            }
            self.now - start
        }

        /// A backlog as of a load that this level is just enough for.
        fn sees_load_for(&mut self, level: Level) {
            self.sees(if self.level() < level { 0.9 } else { 0.0 });
        }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn leaves_out_more_step_by_step_at_once_and_less_after_a_second_of_calm_each() {
        let mut worker = Worker::new();
        assert_eq!(worker.time_to(Level::SampleFlows, 0.9), 9 * STEP);
        // Neither full nor empty: no reason to change.
        for backlog in [0.3, 0.05, 0.3].repeat(1000) {
            assert_eq!(worker.sees(backlog), None);
        }
        worker.sees(0.0);
        for level in [Level::ShedPayload, Level::ShedUnknownPayload, Level::All] {
            assert_eq!(worker.time_to(level, 0.0), seconds(1));
        }
        assert_eq!((worker.overload.stats().raised, worker.overload.stats().lowered), (3, 3));
        assert_eq!(worker.overload.shedding(), Shedding::default());
    }

    #[test]
    fn under_a_steady_load_a_level_is_left_ever_more_seldom() {
        let mut worker = Worker::new();
        let mut falls = Vec::new();
        for _ in 0..12_000 {
            let before = worker.overload.stats().lowered;
            worker.sees_load_for(Level::ShedPayload);
            if worker.overload.stats().lowered > before {
                falls.push(worker.now);
            }
        }
        let pauses: Vec<u64> = falls.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 16, 16, 16, 16, 16]);
        worker.sees(0.0);
        // Only the level that came back is held for longer.
        assert!(worker.time_to(Level::ShedUnknownPayload, 0.0) <= seconds(16));
        assert_eq!(worker.time_to(Level::All, 0.0), seconds(1));
    }

    #[test]
    fn an_overload_that_comes_back_late_is_as_good_as_a_first_one() {
        let mut worker = Worker::new();
        for calm in [seconds(6), seconds(6), seconds(60)] {
            worker.time_to(Level::ShedUnknownPayload, 0.9);
            worker.sees(0.0);
            assert_eq!(worker.time_to(Level::All, 0.0), seconds(1));
            for _ in 0..calm.as_millis() / STEP.as_millis() {
                worker.sees(0.0);
            }
        }
    }

    proptest! {
        #[test]
        fn never_less_than_the_backlog_asks_for_and_all_again_after_calm(
            backlogs in prop::collection::vec((0..4u32, 1..400usize), 0..60)
        ) {
            let mut worker = Worker::new();
            let OverloadConfig { enter, hold_min, hold_max, .. } = worker.overload.config;
            let mut not_calm_at = worker.now;
            for (backlog, times) in backlogs {
                let backlog = backlog as f32 / 4.0;
                for _ in 0..times {
                    let before = worker.level();
                    worker.sees(backlog);
                    if backlog > 0.0 {
                        not_calm_at = worker.now;
                        prop_assert!(worker.level() >= before);
                    }
                    if worker.level() < before {
                        prop_assert!(worker.now - not_calm_at >= hold_min);
                    }
                }
                if backlog > enter && times >= 9 {
                    prop_assert_eq!(worker.level(), Level::SampleFlows);
                }
            }
            worker.sees(0.0);
            prop_assert!(worker.time_to(Level::All, 0.0) <= 3 * hold_max);
        }
    }
}

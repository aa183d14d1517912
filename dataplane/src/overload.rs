//! What a worker leaves out when it cannot keep up, told by how full its source is. Each level waits until the one before
//! did not help, some batches long. Payload is looked at again after a moment of calm: a load that is little more than there is
//! time for so has most of its requests seen. Of a flood, flows are taken in again after a second. Whether that was too early
//! shows only then: when it comes back soon, after twice the time, up to 16 s, so that under a steady flood the level stays.

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
    /// Payload is looked at again after so much calm.
    pub hold_payload: Duration,
    /// New flows are taken in again after so much calm.
    pub hold_flows_min: Duration,
    /// And after so much at most, where the flood keeps coming back.
    pub hold_flows_max: Duration,
    /// Of new flows one in so many is taken in at the highest level.
    pub new_flows_one_in: u32,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            enter: 0.5,
            calm: 0.25,
            patience: 16,
            hold_payload: Duration::from_millis(10),
            hold_flows_min: Duration::from_secs(1),
            hold_flows_max: Duration::from_secs(16),
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

/// A flood that was away for less than so many times the hold was there all the time. More than one, as it comes back step by
/// step.
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
    /// So much calm is needed to take in new flows again.
    hold_flows: Duration,
    /// When that was so last.
    flows_since: Option<Instant>,
}

impl Overload {
    pub(crate) fn new(config: OverloadConfig) -> Self {
        let hold_flows = config.hold_flows_min;
        let stats = OverloadStats::default();
        Self { config, stats, high: 0, calm_since: None, hold_flows, flows_since: None }
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

    /// Goes to the next level.
    fn raise(&mut self, now: Instant) -> Option<Shedding> {
        let level = self.stats.level.next()?;
        if level == Level::SampleFlows {
            let OverloadConfig { hold_flows_min, hold_flows_max, .. } = self.config;
            let soon = self.hold_flows * SOON_HOLDS;
            let is_back = self.flows_since.is_some_and(|since| now.duration_since(since) < soon);
            self.hold_flows =
                if is_back { (self.hold_flows * 2).min(hold_flows_max) } else { hold_flows_min };
        }
        self.stats.raised += 1;
        Some(self.enter(level, None))
    }

    /// Goes back to the level before when there was calm for long enough.
    fn lower(&mut self, calm: Duration, now: Instant) -> Option<Shedding> {
        let level = self.stats.level.before()?;
        let is_flood = self.stats.level == Level::SampleFlows;
        if calm < if is_flood { self.hold_flows } else { self.config.hold_payload } {
            return None;
        }
        if is_flood {
            self.flows_since = Some(now);
        }
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
    fn leaves_out_more_step_by_step_at_once_and_less_after_calm() {
        let mut worker = Worker::new();
        assert_eq!(worker.time_to(Level::SampleFlows, 0.9), 9 * STEP);
        // Neither full nor empty: no reason to change.
        for backlog in [0.3, 0.05, 0.3].repeat(1000) {
            assert_eq!(worker.sees(backlog), None);
        }
        worker.sees(0.0);
        for (level, calm) in
            [(Level::ShedPayload, seconds(1)), (Level::ShedUnknownPayload, STEP), (Level::All, STEP)]
        {
            assert_eq!(worker.time_to(level, 0.0), calm);
        }
        assert_eq!((worker.overload.stats().raised, worker.overload.stats().lowered), (3, 3));
        assert_eq!(worker.overload.shedding(), Shedding::default());
    }

    #[test]
    fn under_a_steady_flood_new_flows_are_tried_ever_more_seldom() {
        let mut worker = Worker::new();
        let mut falls = Vec::new();
        for _ in 0..12_000 {
            let before = worker.level();
            worker.sees_load_for(Level::SampleFlows);
            if worker.level() < before {
                falls.push(worker.now);
            }
        }
        let pauses: Vec<u64> = falls.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 16, 16, 16, 16, 16]);
    }

    #[test]
    fn under_a_load_that_is_little_too_much_payload_is_tried_again_and_again() {
        let mut worker = Worker::new();
        let shed = (0..1_200).filter(|step| {
            // A ring that fills within 100 ms while payload is looked at, and is empty at once when it is not.
            let is_full = worker.level() == Level::All && step % 10 == 9;
            for _ in 0..3 * usize::from(is_full) {
                worker.sees(0.9);
            }
            worker.sees(0.0);
            worker.level() > Level::All
        });
        assert!(shed.count() < 200);
        assert!(worker.overload.stats().raised > 100);
    }

    #[test]
    fn a_flood_that_comes_back_late_is_as_good_as_a_first_one() {
        let mut worker = Worker::new();
        for calm in [seconds(6), seconds(6), seconds(60)] {
            worker.time_to(Level::SampleFlows, 0.9);
            worker.sees(0.0);
            assert_eq!(worker.time_to(Level::ShedPayload, 0.0), seconds(1));
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
            let OverloadConfig { enter, hold_flows_min, hold_flows_max, .. } = worker.overload.config;
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
                    if worker.level() < before && before == Level::SampleFlows {
                        prop_assert!(worker.now - not_calm_at >= hold_flows_min);
                    }
                }
                if backlog > enter && times >= 9 {
                    prop_assert_eq!(worker.level(), Level::SampleFlows);
                }
            }
            worker.sees(0.0);
            prop_assert!(worker.time_to(Level::All, 0.0) <= hold_flows_max + seconds(1));
        }
    }
}

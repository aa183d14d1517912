//! What a worker leaves out when it cannot keep up, told by how full its source is. Each level waits until the one before
//! did not help, and is left again only when the backlog is well below, so that it does not swing.

use crate::flow::{ShedPayload, Shedding};

/// Backlogs are parts of the source's ring or queue, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct OverloadConfig {
    /// A level is entered above this.
    pub enter: f32,
    /// A level is left below this.
    pub leave: f32,
    /// Times in a row that the backlog was so before the level changes.
    pub patience: u32,
    /// Of new flows one in so many is taken in at the highest level.
    pub new_flows_one_in: u32,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self { enter: 0.5, leave: 0.1, patience: 16, new_flows_one_in: 8 }
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

/// Follows the backlog.
#[derive(Debug)]
pub(crate) struct Overload {
    config: OverloadConfig,
    stats: OverloadStats,
    /// Times in a row that the backlog was high, and low.
    high: u32,
    low: u32,
}

impl Overload {
    pub(crate) fn new(config: OverloadConfig) -> Self {
        Self { config, stats: OverloadStats::default(), high: 0, low: 0 }
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> OverloadStats {
        self.stats
    }

    /// Takes note of the backlog. Gives what is to be left out from now on, when that changes.
    pub(crate) fn observe(&mut self, backlog: f32) -> Option<Shedding> {
        let OverloadConfig { enter, leave, patience, .. } = self.config;
        self.high = if backlog > enter { self.high + 1 } else { 0 };
        self.low = if backlog < leave { self.low + 1 } else { 0 };
        let level = self.stats.level as usize;
        let next = if self.high >= patience && level + 1 < Level::ALL.len() {
            self.stats.raised += 1;
            level + 1
        } else if self.low >= patience && level > 0 {
            self.stats.lowered += 1;
            level - 1
        } else {
            return None;
        };
        (self.high, self.low) = (0, 0);
        self.stats.level = Level::ALL[next];
        Some(self.shedding())
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

    #[test]
    fn leaves_out_more_step_by_step_and_does_not_swing() {
        let mut overload = Overload::new(OverloadConfig { patience: 3, ..OverloadConfig::default() });
        let mut levels = Vec::new();
        let backlogs = [[0.9; 12].as_slice(), &[0.3, 0.05, 0.3, 0.05, 0.3], &[0.0; 12]].concat();
        for backlog in backlogs {
            levels.extend(overload.observe(backlog).map(|_| overload.stats().level));
        }
        use Level::{All, SampleFlows, ShedPayload, ShedUnknownPayload};
        let expected = [ShedUnknownPayload, ShedPayload, SampleFlows, ShedPayload, ShedUnknownPayload, All];
        assert_eq!(levels, expected);
        assert_eq!((overload.stats().raised, overload.stats().lowered), (3, 3));
        assert_eq!(overload.shedding(), Shedding::default());
    }
}

//! Keeps the tracer from slowing the host: what it costs is measured, and beyond the limits it does less, in steps.
//!
//! Takes in a [`Load`] about once a second; hands on the [`Level`] that the tracer is to work at. No clock and no file is read
//! here: that is [`meter`]'s.
//!
//! A step down needs several samples beyond a limit, one when it is beyond twice the limit or memory. A step up needs a time of
//! calm, which doubles whenever the step before did not hold: under a load that is too much for a level, that level is tried ever
//! more rarely.

pub mod meter;

use std::fmt;
use std::time::Duration;

/// Samples beyond a limit that make a step down.
const PATIENCE: u32 = 3;
/// Calm is below this part of the limits.
const CALM: f64 = 0.6;
const CALM_MIN: Duration = Duration::from_secs(10);
const CALM_MAX: Duration = Duration::from_secs(640);
/// A step up that lasted so long has held.
const HELD: Duration = Duration::from_secs(120);
/// On a host without idle CPU, the tracer gets this part of its limit.
const BUSY_PART: f64 = 0.5;
/// Idle part of the CPUs under which a host is busy, if tasks wait for a CPU in [`WAITING_MIN`] of the time.
const IDLE_MIN: f64 = 0.05;
const WAITING_MIN: f64 = 0.1;

/// How much the tracer does. Each level does less than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Everything.
    Full = 0,
    /// Events without payload: who talks to whom, when and how much, but no requests.
    NoPayload = 1,
    /// Events without payload of every eighth connection.
    Sampled = 2,
    /// The programs are detached.
    Off = 3,
}

impl Level {
    /// From full to off.
    pub const ALL: [Self; 4] = [Self::Full, Self::NoPayload, Self::Sampled, Self::Off];

    fn at(self, offset: isize) -> Option<Self> {
        (self as usize).checked_add_signed(offset).and_then(|index| Self::ALL.get(index).copied())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "everything is traced",
            Self::NoPayload => "payload is left out",
            Self::Sampled => "payload and seven of eight connections are left out",
            Self::Off => "the tracer is off",
        })
    }
}

/// What the tracer may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Cores: the threads that read events and attach probes, and the programs in the kernel.
    pub cpu_cores: f64,
    /// Memory of the process, bytes.
    pub memory_bytes: u64,
}

impl Limits {
    /// A tenth of the machine, but from a quarter of a core to one core; and 512 MiB.
    pub fn of_machine(cpus: usize) -> Self {
        Self { cpu_cores: (cpus as f64 * 0.1).clamp(0.25, 1.0), memory_bytes: 512 << 20 }
    }
}

/// What was measured since the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// The time that was measured.
    pub elapsed: Duration,
    /// Of the threads that read events and, after the start, attach probes, cores.
    pub agent_cores: f64,
    /// Of the programs in the kernel, cores.
    pub program_cores: f64,
    /// Memory of the process, bytes.
    pub memory_bytes: u64,
    /// Idle part of all CPUs, 0 to 1; `None` where it is not known.
    pub idle: Option<f64>,
    /// Part of the last 10 s in which a task waited for a CPU, 0 to 1; `None` where the kernel does not tell.
    pub waiting: Option<f64>,
}

impl Load {
    /// What the tracer took, cores.
    pub fn cores(&self) -> f64 {
        self.agent_cores + self.program_cores
    }

    fn host_is_busy(&self) -> bool {
        self.idle.is_some_and(|idle| idle < IDLE_MIN)
            && self.waiting.is_none_or(|waiting| waiting > WAITING_MIN)
    }
}

/// Why the tracer does less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// It takes more CPU than it may.
    Cpu,
    /// The host has no idle CPU, and the tracer takes more than it then may.
    BusyHost,
    /// The process has more memory than it may.
    Memory,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::BusyHost, Self::Memory];

    /// The name of its counter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::BusyHost => "busy_host",
            Self::Memory => "memory",
        }
    }
}

/// One step of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The level from now on.
    pub level: Level,
    /// Why it is a step down; `None` for a step up.
    pub cause: Option<Cause>,
    /// The measurement that decided.
    pub load: Load,
    /// The limits that it was compared with.
    pub limits: Limits,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, cause, load, limits } = self;
        let (cores, limit) = (load.cores(), limits.cpu_cores);
        match cause {
            Some(Cause::Cpu) => {
                write!(f, "{level}: the tracer took {cores:.2} cores, and its limit is {limit:.2}")
            }
            Some(Cause::BusyHost) => write!(
                f,
                "{level}: the host has no idle CPU, and the tracer took {cores:.2} cores of the {:.2} that it then may take",
                limit * BUSY_PART
            ),
            Some(Cause::Memory) => write!(
                f,
                "{level}: the process has {} MiB of memory, and its limit is {}",
                load.memory_bytes >> 20,
                limits.memory_bytes >> 20
            ),
            None => write!(f, "{level}: the tracer took {cores:.2} cores of the {limit:.2} that it may take"),
        }
    }
}

/// Decides how much the tracer does.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    level: Level,
    beyond: u32,
    calm: Duration,
    calm_needed: Duration,
    since_up: Option<Duration>,
    downs: [u64; Cause::ALL.len()],
    ups: u64,
}

impl Guard {
    /// Begins with everything on.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            level: Level::Full,
            beyond: 0,
            calm: Duration::ZERO,
            calm_needed: CALM_MIN,
            since_up: None,
            downs: [0; Cause::ALL.len()],
            ups: 0,
        }
    }

    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Steps down so far, by cause.
    pub fn downs(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        Cause::ALL.into_iter().zip(self.downs)
    }

    /// Steps up so far.
    pub fn ups(&self) -> u64 {
        self.ups
    }

    /// Takes a measurement in; gives the step that it leads to.
    pub fn sample(&mut self, load: &Load) -> Option<Step> {
        if let Some(since) = &mut self.since_up {
            *since += load.elapsed;
            if *since >= HELD {
                self.since_up = None;
                self.calm_needed = CALM_MIN;
            }
        }
        match self.beyond_limits(load) {
            Some((cause, at_once)) => {
                self.calm = Duration::ZERO;
                self.beyond += 1;
                (at_once || self.beyond >= PATIENCE).then(|| self.down(cause, load)).flatten()
            }
            None => {
                self.beyond = 0;
                self.calm = if self.is_calm(load) { self.calm + load.elapsed } else { Duration::ZERO };
                (self.calm >= self.calm_needed).then(|| self.up(load)).flatten()
            }
        }
    }

    /// The step up that was made last could not be taken.
    pub fn take_back(&mut self) {
        if let Some(level) = self.level.at(1) {
            self.last_up_did_not_hold();
            self.level = level;
            self.ups = self.ups.saturating_sub(1);
        }
    }

    fn last_up_did_not_hold(&mut self) {
        if self.since_up.take().is_some() {
            self.calm_needed = (2 * self.calm_needed).min(CALM_MAX);
        }
    }

    /// The limit that is exceeded, and whether there is nothing to wait for.
    fn beyond_limits(&self, load: &Load) -> Option<(Cause, bool)> {
        let cores = load.cores();
        if load.memory_bytes > self.limits.memory_bytes {
            Some((Cause::Memory, true))
        } else if cores > self.limits.cpu_cores {
            Some((Cause::Cpu, cores > 2.0 * self.limits.cpu_cores))
        } else if load.host_is_busy() && cores > BUSY_PART * self.limits.cpu_cores {
            Some((Cause::BusyHost, false))
        } else {
            None
        }
    }

    fn is_calm(&self, load: &Load) -> bool {
        let cpu = if load.host_is_busy() { BUSY_PART } else { 1.0 } * self.limits.cpu_cores;
        let memory = self.limits.memory_bytes as f64;
        // Memory is given back late: what is below the limit at all is calm enough for the first step.
        load.cores() < CALM * cpu && (load.memory_bytes as f64) < 0.9 * memory
    }

    fn down(&mut self, cause: Cause, load: &Load) -> Option<Step> {
        let level = self.level.at(1)?;
        self.last_up_did_not_hold();
        self.level = level;
        self.beyond = 0;
        self.downs[cause as usize] += 1;
        Some(Step { level, cause: Some(cause), load: *load, limits: self.limits })
    }

    fn up(&mut self, load: &Load) -> Option<Step> {
        let level = self.level.at(-1)?;
        self.level = level;
        self.calm = Duration::ZERO;
        self.since_up = Some(Duration::ZERO);
        self.ups += 1;
        Some(Step { level, cause: None, load: *load, limits: self.limits })
    }
}

#[cfg(test)]
mod tests;

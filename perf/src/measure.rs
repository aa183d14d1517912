//! Measurements and how they are printed; clocks; the core they run on.

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;
use std::time::{Duration, Instant};

/// One number beside its limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// The suite, and its input where it has one.
    pub bench: String,
    /// What was measured.
    pub variant: String,
    /// The number, in `unit`.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The physical or raw limit measured in the same run on the same input, in the same unit; `null` where `value` is a
    /// limit itself.
    pub limit: Option<f64>,
    /// `value / limit`.
    pub ratio: Option<f64>,
}

impl Measurement {
    /// A number that is a limit itself.
    pub fn limit(bench: &str, variant: &str, value: f64, unit: &'static str) -> Self {
        Self { bench: bench.into(), variant: variant.into(), value, unit, limit: None, ratio: None }
    }

    /// A number beside its limit.
    pub fn new(bench: &str, variant: &str, value: f64, unit: &'static str, limit: f64) -> Self {
        let ratio = (limit != 0.0).then(|| value / limit);
        Self { limit: Some(limit), ratio, ..Self::limit(bench, variant, value, unit) }
    }

    /// The fields as a table shows them.
    pub fn cells(&self) -> [String; 6] {
        let ratio = self.ratio.map(|r| if r < 0.1 { format!("{r:.4}") } else { format!("{r:.2}") });
        [
            self.bench.clone(),
            self.variant.clone(),
            readable(self.value),
            self.unit.to_owned(),
            self.limit.map(readable).unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]
    }
}

/// Reads a duration in seconds or a rate, of which none or endless ones measure nothing.
pub fn above_zero(text: &str) -> Result<f64, String> {
    const MAX: f64 = 1e12;
    text.parse()
        .ok()
        .filter(|number| *number > 0.0 && *number <= MAX)
        .ok_or_else(|| "give a number above 0, such as 2 or 0.5".to_owned())
}

/// Prints measurements as they come, and keeps them.
pub struct Output {
    json: bool,
    measurements: Vec<Measurement>,
}

impl Output {
    /// JSON lines, or a table.
    pub fn new(json: bool) -> Self {
        Self { json, measurements: Vec::new() }
    }

    /// Prints one.
    pub fn push(&mut self, measurement: Measurement) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(&measurement)?);
        } else {
            if self.measurements.is_empty() {
                println!("{}", table_line(&["bench", "variant", "value", "unit", "limit", "ratio"]));
            }
            println!("{}", table_line(&measurement.cells().each_ref().map(String::as_str)));
        }
        self.measurements.push(measurement);
        Ok(())
    }

    /// All that were printed.
    pub fn measurements(&self) -> &[Measurement] {
        &self.measurements
    }
}

fn table_line([bench, variant, value, unit, limit, ratio]: &[&str; 6]) -> String {
    format!("{bench:<14} {variant:<36} {value:>14} {unit:<20} {limit:>14} {ratio:>8}").trim_end().to_owned()
}

/// Large numbers without decimals and in groups of three digits, small ones with two decimals.
pub fn readable(number: f64) -> String {
    if number.abs() < 100.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{:.0}", number);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digit != '-' && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Wall clock and CPU time (user and system) of something.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub wall_s: f64,
    pub cpu_s: f64,
}

impl Times {
    /// Longer than anything that is measured.
    pub const NONE: Self = Self { wall_s: f64::INFINITY, cpu_s: f64::INFINITY };

    /// The best of both clocks.
    pub fn best(self, other: Self) -> Self {
        Self { wall_s: self.wall_s.min(other.wall_s), cpu_s: self.cpu_s.min(other.cpu_s) }
    }
}

/// Whose CPU time a [`Clock`] takes.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// This process's.
    Own,
    /// This thread's.
    Thread,
    /// That of child processes that have ended.
    Children,
    /// That of a process that runs.
    Process(Pid),
}

/// Both clocks, running.
pub struct Clock {
    whose: Whose,
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    /// Begins to measure.
    pub fn start(whose: Whose) -> anyhow::Result<Self> {
        Ok(Self { whose, wall: Instant::now(), cpu: cpu_time(whose)? })
    }

    /// What has passed.
    pub fn stop(&self) -> anyhow::Result<Times> {
        let cpu = cpu_time(self.whose)?.saturating_sub(self.cpu);
        Ok(Times { wall_s: self.wall.elapsed().as_secs_f64(), cpu_s: cpu.as_secs_f64() })
    }
}

fn cpu_time(whose: Whose) -> anyhow::Result<Duration> {
    let who = match whose {
        Whose::Own => UsageWho::RUSAGE_SELF,
        Whose::Thread => {
            let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
            return Ok(used.context("cannot read the CPU time of a thread")?.into());
        }
        Whose::Children => UsageWho::RUSAGE_CHILDREN,
        Whose::Process(pid) => {
            let used = clock_getcpuclockid(pid).and_then(clock_gettime);
            return Ok(used.context("cannot read the CPU time of another process")?.into());
        }
    };
    let usage = getrusage(who).context("cannot read the CPU time used")?;
    let duration = |t: TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

/// Keeps this thread, and the threads and processes it starts, on one core until it is dropped.
pub struct OneCore {
    before: CpuSet,
}

impl OneCore {
    /// The last core that may be used: interrupts mostly go to the first.
    pub fn pin() -> anyhow::Result<Self> {
        Self::choose(|cores| cores.last())
    }

    /// The first core that may be used, for what makes the load.
    pub fn first() -> anyhow::Result<Self> {
        Self::choose(|cores| cores.first())
    }

    /// The core with this number among those that may be used, counted round.
    pub fn nth(number: usize) -> anyhow::Result<Self> {
        Self::choose(|cores| cores.get(number % cores.len().max(1)))
    }

    fn choose(which: impl FnOnce(&[usize]) -> Option<&usize>) -> anyhow::Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).context("cannot ask which cores may be used")?;
        let cores: Vec<_> = (0..CpuSet::count()).filter(|&core| before.is_set(core) == Ok(true)).collect();
        let mut one = CpuSet::new();
        one.set(which(&cores).copied().unwrap_or(0))
            .and_then(|()| sched_setaffinity(this, &one))
            .context("cannot choose a core")?;
        Ok(Self { before })
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        // The set was valid before; should it be refused now, the process stays on one core.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_one_object_of_six_fields() {
        let json = |m| serde_json::to_string(&m).unwrap();
        assert_eq!(
            json(Measurement::new("replay/shop", "decode", 3.0, "packets/s", 4.0)),
            r#"{"bench":"replay/shop","variant":"decode","value":3.0,"unit":"packets/s","limit":4.0,"ratio":0.75}"#
        );
        assert_eq!(
            json(Measurement::limit("limits", "memory copy", 3.0, "GB/s")),
            r#"{"bench":"limits","variant":"memory copy","value":3.0,"unit":"GB/s","limit":null,"ratio":null}"#
        );
        assert_eq!(Measurement::new("b", "v", 1.0, "u", 0.0).ratio, None);
    }

    #[test]
    fn numbers_to_read() {
        let texts = [0.0, 1.234, 99.99, 100.0, 1_234.5, 1_000_000.0].map(readable);
        assert_eq!(texts, ["0.00", "1.23", "99.99", "100", "1,234", "1,000,000"]);
    }

    #[test]
    fn one_core_and_back() {
        let cores = || std::thread::available_parallelism().unwrap().get();
        let before = cores();
        let one = OneCore::pin().unwrap();
        assert_eq!(cores(), 1);
        drop(one);
        assert_eq!(cores(), before);
    }

    #[test]
    fn cpu_time_goes_on_with_work() {
        let (clock, thread) = (Clock::start(Whose::Own).unwrap(), Clock::start(Whose::Thread).unwrap());
        let seen_from_outside = Clock::start(Whose::Process(Pid::this())).unwrap();
        while clock.stop().unwrap().cpu_s == 0.0 {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
        let Times { wall_s, cpu_s } = clock.stop().unwrap();
        assert!(wall_s > 0.0 && cpu_s > 0.0 && thread.stop().unwrap().cpu_s > 0.0);
        assert!(seen_from_outside.stop().unwrap().cpu_s > 0.0);
    }
}

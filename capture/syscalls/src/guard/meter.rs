//! Measures what the tracer and the host do, for the guard.

use super::{Limits, Load};
use std::path::Path;
use std::time::Instant;

/// Measures from one call to the next. Belongs to the thread that reads events: it measures that thread.
pub struct Meter {
    at: Instant,
    thread_ns: u64,
    helper_ns: Option<u64>,
    host: Option<HostTicks>,
}

impl Default for Meter {
    /// Begins to measure.
    fn default() -> Self {
        Self { at: Instant::now(), thread_ns: thread_ns(), helper_ns: None, host: HostTicks::read() }
    }
}

impl Meter {
    /// What there was since the last measurement, beside what the programs in the kernel took. `helper_ns` is the CPU time of the
    /// thread that helps this one, as soon as that counts.
    pub fn load(&mut self, program_cores: f64, helper_ns: Option<u64>) -> Load {
        let before = std::mem::replace(self, Self { helper_ns, ..Self::default() });
        let elapsed = self.at.duration_since(before.at);
        let helper_ns = helper_ns.zip(before.helper_ns).map_or(0, |(now, then)| now.saturating_sub(then));
        let thread_ns = self.thread_ns.saturating_sub(before.thread_ns) + helper_ns;
        Load {
            elapsed,
            agent_cores: thread_ns as f64 / elapsed.as_nanos().max(1) as f64,
            program_cores,
            memory_bytes: memory_bytes(),
            idle: self.host.zip(before.host).and_then(|(now, before)| now.idle_since(before)),
            waiting: waiting(),
        }
    }
}

/// CPU time of this thread.
fn thread_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to `time`, which lives.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// Resident memory of this process.
fn memory_bytes() -> u64 {
    let pages = read("/proc/self/statm").and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
    // SAFETY: sysconf(3) has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or_default() * u64::try_from(page).unwrap_or_default()
}

/// Ticks of all CPUs since boot.
#[derive(Clone, Copy, Debug, PartialEq)]
struct HostTicks {
    idle: u64,
    all: u64,
}

impl HostTicks {
    fn read() -> Option<Self> {
        Self::of(&read("/proc/stat")?)
    }

    /// From the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, and guests, which are in user.
    fn of(stat: &str) -> Option<Self> {
        let ticks: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .take(8)
            .map_while(|field| field.parse().ok())
            .collect();
        let &[_, _, _, idle, iowait, ..] = ticks.as_slice() else { return None };
        Some(Self { idle: idle + iowait, all: ticks.iter().sum() })
    }

    fn idle_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some((self.idle.saturating_sub(before.idle) as f64 / all as f64).min(1.0))
    }
}

/// `some avg10=1.53 ...` of /proc/pressure/cpu, as a part of 1.
fn waiting() -> Option<f64> {
    pressure(&read("/proc/pressure/cpu")?)
}

fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    Some(some.split(' ').next()?.parse::<f64>().ok()? / 100.0)
}

impl Limits {
    /// Within the limits that a container or a service manager has set for this process, with room for what is not measured.
    #[must_use]
    pub fn within_cgroup(self) -> Self {
        let lines = read("/proc/self/cgroup").unwrap_or_default();
        let own = memory_limit(Path::new("/sys/fs/cgroup"), &lines);
        Self {
            memory_bytes: own.map_or(self.memory_bytes, |own| self.memory_bytes.min(own / 10 * 8)),
            ..self
        }
    }
}

/// The memory limit of a cgroup v2 or v1; in a container, its own cgroup is the root.
fn memory_limit(root: &Path, lines: &str) -> Option<u64> {
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (directory, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let value = |directory: &Path| std::fs::read_to_string(directory.join(file)).ok();
        value(&directory.join(path)).or_else(|| value(&directory))?.trim().parse::<u64>().ok()
    };
    lines.lines().filter_map(of).min()
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_is_measured() {
        let mut meter = Meter::default();
        let busy_until = thread_ns() + 20_000_000;
        let mut memory = vec![0u8; 64 << 20];
        while thread_ns() < busy_until {
            memory.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        }
        let load = meter.load(0.25, Some(5_000_000_000));
        assert!(load.agent_cores * load.elapsed.as_secs_f64() >= 0.02, "{load:?}");
        assert!(load.cores() >= load.agent_cores + 0.25, "{load:?}");
        assert!(
            load.agent_cores * load.elapsed.as_secs_f64() < 4.0,
            "what helped before does not count: {load:?}"
        );
        let helped = meter.load(0.0, Some(9_000_000_000));
        assert!(helped.agent_cores * helped.elapsed.as_secs_f64() >= 3.99, "{helped:?}");
        assert!(load.memory_bytes >= 64 << 20, "{load:?}");
        assert!(load.idle.is_none_or(|idle| (0.0..=1.0).contains(&idle)), "{load:?}");
    }

    #[test]
    fn the_kernels_files_are_understood() {
        let before = HostTicks::of("cpu  100 0 50 800 50 0 0 0 10 0\ncpu0 1 2 3").unwrap();
        assert_eq!(before, HostTicks { idle: 850, all: 1000 });
        let now = HostTicks::of("cpu  160 0 70 810 60 0 0 0 10 0").unwrap();
        assert_eq!(now.idle_since(before), Some(0.2));
        assert_eq!(before.idle_since(now), None);
        assert_eq!(HostTicks::of("cpu  1 2"), None);
        let psi = "some avg10=10.82 avg60=5.75 avg300=10.56 total=235932765\nfull avg10=0.00 avg60=0.00";
        assert_eq!(pressure(psi), Some(0.1082));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn limits_of_the_own_cgroup_count() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |lines: &str| memory_limit(root.path(), lines);
        write("system.slice/wirespan.service/memory.max", "1000\n");
        write("other/memory.max", "max\n");
        write("memory/docker/x/memory.limit_in_bytes", "2000\n");
        assert_eq!(limit("0::/system.slice/wirespan.service\n"), Some(1000));
        assert_eq!(limit("0::/other\n"), None);
        assert_eq!(limit("9:cpu:/docker/x\n4:memory:/docker/x\n0::/other\n"), Some(2000));
        assert_eq!(limit("0::/not/seen/from/here\n"), None);
        write("memory.max", "3000\n");
        assert_eq!(limit("0::/not/seen/from/here\n"), Some(3000));
    }
}

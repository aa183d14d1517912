//! Reads what /proc says of a process.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest command line that is kept.
pub const COMMAND_BYTES_MAX: usize = 4096;
/// The kernel cuts a thread's name to this.
const COMM_BYTES_MAX: usize = 15;

/// The clock of start times in /proc: ticks of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    ns: u64,
}

impl Ticks {
    pub fn of_this_kernel() -> Self {
        // SAFETY: sysconf(3) has no preconditions.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self { ns: 1_000_000_000 / u64::try_from(per_second).unwrap_or_default().max(1) }
    }

    pub fn before(self, boot_ns: u64) -> u64 {
        boot_ns / self.ns
    }

    pub fn ns(self, ticks: u64) -> u64 {
        ticks.saturating_mul(self.ns)
    }
}

/// What the files of one process say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub start_ticks: u64,
    pub name: String,
    pub executable: String,
    pub command: String,
    /// Lines of its cgroups; empty where they were not asked for.
    pub cgroups: String,
}

impl Files {
    /// `None` when there is no such process. The files are of one process even if its pid is used again meanwhile, when the
    /// caller finds the start that it expects: that is read last.
    pub fn read(proc: &Path, pid: u32, cgroups: bool) -> Option<Self> {
        let directory = proc.join(pid.to_string());
        // A kernel thread has none.
        let executable = std::fs::read_link(directory.join("exe")).unwrap_or_else(|_| PathBuf::new());
        let command = command(&head(&directory.join("cmdline")).unwrap_or_default());
        let cgroups = if cgroups { head(&directory.join("cgroup")).unwrap_or_default() } else { Vec::new() };
        let stat = head(&directory.join("stat"))?;
        let (comm, start_ticks) = stat_fields(&String::from_utf8_lossy(&stat))?;
        let executable = executable.to_string_lossy();
        let executable = executable.strip_suffix(" (deleted)").unwrap_or(&executable).to_owned();
        Some(Self {
            start_ticks,
            name: name(&comm, &executable),
            executable,
            command,
            cgroups: String::from_utf8_lossy(&cgroups).into_owned(),
        })
    }
}

/// The first bytes of a file, in one call where they are few.
fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    std::fs::File::open(path).ok()?.take(COMMAND_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The first thread's name and the start of /proc/PID/stat. The name may hold anything, brackets too.
fn stat_fields(stat: &str) -> Option<(String, u64)> {
    let (front, rest) = stat.rsplit_once(')')?;
    let (_, comm) = front.split_once('(')?;
    Some((comm.to_owned(), rest.split_whitespace().nth(19)?.parse().ok()?))
}

/// Arguments, each ended by a zero byte; those of a program that wrote its own title end as it likes.
fn command(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace('\0', " ");
    text.trim_end_matches([' ', char::REPLACEMENT_CHARACTER]).to_owned()
}

/// How a program is called: by its first thread's name, which scripts and services choose, in full.
fn name(comm: &str, executable: &str) -> String {
    let file = file_name(executable);
    // Node.js names its threads by what they do.
    let says_nothing = comm.is_empty() || comm.ends_with("MainThread");
    let is_cut = comm.len() == COMM_BYTES_MAX && file.starts_with(comm);
    if !file.is_empty() && (says_nothing || is_cut) { file.to_owned() } else { comm.to_owned() }
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_process_is_read() {
        let files = Files::read(Path::new("/proc"), std::process::id(), true).unwrap();
        let executable = std::env::current_exe().unwrap();
        assert_eq!(files.executable, executable.to_string_lossy());
        assert!(files.command.starts_with(&std::env::args().next().unwrap()), "{}", files.command);
        assert!(files.cgroups.contains(":/"), "{}", files.cgroups);
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let age = uptime - Ticks::of_this_kernel().ns(files.start_ticks) as f64 / 1e9;
        assert!((-0.1..3600.0).contains(&age), "{age}");
        assert_eq!(Files::read(Path::new("/proc"), u32::MAX, true), None);
    }

    #[test]
    fn names_are_those_that_people_know() {
        assert_eq!(name("nginx", "/usr/sbin/nginx"), "nginx");
        assert_eq!(name("gunicorn", "/usr/bin/python3.11"), "gunicorn");
        assert_eq!(name("systemd-resolve", "/lib/systemd/systemd-resolved"), "systemd-resolved");
        assert_eq!(name("node-MainThread", "/usr/bin/node"), "node");
        assert_eq!(name("kworker/0:1", ""), "kworker/0:1");
    }

    #[test]
    fn a_name_may_hold_brackets() {
        let stat = format!("7 (a) S (b) R 1 {} 4711 0", ["0"; 17].join(" "));
        assert_eq!(stat_fields(&stat), Some(("a) S (b".to_owned(), 4711)));
    }

    #[test]
    fn command_lines_are_one_line() {
        assert_eq!(command(b"curl\0-s\0http://a/\0"), "curl -s http://a/");
        assert_eq!(command(b"nginx: worker process\0\0\0\0"), "nginx: worker process");
        assert_eq!(command(b""), "");
        assert_eq!(command(b"caf\xc3"), "caf");
    }

    proptest! {
        #[test]
        fn any_text_is_no_failure(text in "[()0-9 a]{0,200}") {
            stat_fields(&text);
        }
    }
}

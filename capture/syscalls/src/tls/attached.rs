//! The probes of one file.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wirespan_bpf::BpfError;
use wirespan_bpf::tracer::{Prober, UprobeLink};

use super::plan::{Ends, GoProgram, Library, Plan, Probe};

/// What is probed in a file, and what could not be.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file's name in the view of the process that it was found with.
    pub file: PathBuf,
    /// What it has; `None` when only its goroutines are followed.
    pub library: Option<Library>,
    /// How the ends of calls are seen.
    pub ends: Ends,
    /// For programs of Go.
    pub go: Option<GoProgram>,
    /// Functions that are probed.
    pub functions: Vec<&'static str>,
    /// Probes.
    pub probes: usize,
    /// What is missing, and why.
    pub missing: Vec<String>,
    /// Why the kernel takes no probe on a function of it.
    pub refused: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.file.display())?;
        match (&self.library, &self.go) {
            (Some(library), Some(go)) => write!(formatter, "{library} ({})", go.version)?,
            (Some(library), None) => write!(formatter, "{library}")?,
            (None, Some(go)) => write!(formatter, "{} without TLS", go.version)?,
            (None, None) => formatter.write_str("no plaintext")?,
        }
        if !self.functions.is_empty() {
            let ends = match self.ends {
                Ends::Instructions => "returns by probes on their instructions",
                Ends::Results => "results by probes where they are known",
                Ends::ReturnProbes => "returns by the kernel's return probes",
            };
            write!(formatter, "; {}; {} probes, {ends}", self.functions.join(", "), self.probes)?;
        }
        for missing in &self.missing {
            write!(formatter, "; not: {missing}")?;
        }
        Ok(())
    }
}

/// A file with its probes.
pub(super) struct Attached {
    pub report: Report,
    /// Processes that use it.
    pub users: usize,
    /// The probes stay without users.
    pub keep: bool,
    unused_since: Instant,
    links: Vec<UprobeLink>,
    /// While it is open, no other file gets its inode.
    _file: File,
}

impl Attached {
    /// Attaches what is planned.
    pub fn new(file: File, name: &Path, plan: Plan, prober: &Prober) -> Self {
        // Leads to the file that was read, whatever became of its path.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let mut report = Report {
            file: name.to_owned(),
            library: plan.library,
            ends: plan.ends,
            go: plan.go,
            functions: Vec::new(),
            probes: 0,
            missing: plan.missing,
            refused: None,
        };
        let cookie = report.go.as_ref().map(|go| wirespan_bpf::tracer::GoProgram::from(go).cookie());
        if let Some(Err(error)) = cookie.map(|_| prober.expect_coroutines()) {
            report.missing.push(format!("goroutines: {error}"));
        }
        let mut links = Vec::new();
        for (name, probes) in plan.functions {
            let attach = |probes: &[Probe]| {
                let program = probes.first().map_or("", |probe| probe.program);
                let result = probes.first().and_then(|probe| probe.result);
                let offsets: Vec<u64> = probes.iter().map(|probe| probe.offset).collect();
                prober.attach(program, &path, &offsets, result.map(|result| result.cookie()).or(cookie))
            };
            let same =
                |one: &Probe, other: &Probe| (one.program, one.result) == (other.program, other.result);
            match probes.chunk_by(same).map(attach).collect::<Result<Vec<_>, _>>() {
                Ok(attached) => {
                    links.extend(attached);
                    report.functions.push(name);
                }
                Err(error) => {
                    let reason = match error {
                        // The user knows the file by its name.
                        BpfError::Uprobe { offset, reason, .. } => format!("{reason}, at {offset:#x}"),
                        other => other.to_string(),
                    };
                    report.missing.push(format!("{name}: {reason}"));
                    report.refused.get_or_insert(reason);
                }
            }
        }
        report.probes = links.iter().map(UprobeLink::count).sum();
        if links.is_empty() {
            report.library = None;
        }
        tracing::info!(%report, "probed");
        Self { report, users: 0, keep: false, unused_since: Instant::now(), links, _file: file }
    }

    /// One process less uses it.
    pub fn leave(&mut self) {
        self.users = self.users.saturating_sub(1);
        self.unused_since = Instant::now();
    }

    /// Nobody has used it for so long.
    pub fn is_unused_for(&self, time: Duration) -> bool {
        !self.keep && self.users == 0 && self.unused_since.elapsed() >= time
    }

    /// Removes the probes, on a thread of its own: the kernel waits until none of them runs. Without one, that is waited for here.
    pub fn remove(self) -> Option<JoinHandle<()>> {
        let name = "unprobe".to_owned();
        let removal = std::thread::Builder::new().name(name).spawn(move || drop(self.links));
        removal.inspect_err(|error| tracing::warn!(%error, "no thread to remove probes")).ok()
    }
}

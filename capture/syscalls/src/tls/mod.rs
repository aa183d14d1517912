//! Plaintext of TLS, goroutines, Python's tasks and the loop of Node.js: finds the libraries of processes, and attaches the tracer's probes to their
//! functions.
//!
//! Takes in which processes begin, end and speak TLS; hands on probes of the running tracer, whose events then carry
//! what applications gave to, and took from, the library. A file is looked into once, and probed once for all processes.
//!
//! Probed: OpenSSL and BoringSSL, as a library or within a program that has symbols, GnuTLS, and Go's `crypto/tls` from Go
//! 1.18 on, also in stripped programs; on x86-64. Of others (rustls, Java, a stripped program with BoringSSL in it) there are
//! handshakes and sizes only; [`Libraries::take_unseen`] says of which processes.
//!
//! | module | what |
//! |---|---|
//! | `attached` | the probes of one file |
//! | `code` | code of files, decoded piece by piece |
//! | [`elf`] | ELF files, read in small ranges |
//! | [`entry`] | where a probe on the beginning of a function costs least |
//! | [`go`] | programs of Go: version, functions, goroutine numbers |
//! | [`maps`] | the files whose code a process has in memory |
//! | [`plan`] | what to probe in a file |
//! | [`python`] | interpreters of Python: version, contexts of tasks; queues through which threads get work |
//! | [`results`] | where results of Go's functions are known before they return |
//! | [`returns`] | where functions return |
//! | `thread` | all of this on a thread of its own |
//! | `unseen` | libraries that no probe is known for |

mod attached;
mod code;
pub mod elf;
pub mod entry;
pub mod go;
pub mod maps;
pub mod plan;
pub mod python;
pub mod results;
pub mod returns;
mod thread;
mod unseen;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fs::{DirEntry, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wirespan_bpf::tracer::Prober;
use wirespan_event::ProcessKey;

use attached::Attached;
pub use attached::Report;
use maps::{Changed, Identity};
use plan::{GoProgram, Kernel, Library};
pub use thread::{LibrariesThread, Noticed};
use unseen::UNKNOWN;
pub use unseen::Unseen;

/// After these times a process that began has mapped its libraries; the second is for those that it loads later.
const LOOKS: [Duration; 2] = [Duration::from_millis(30), Duration::from_secs(1)];
/// A process that is suspected again is not looked at sooner than this.
const SUSPECT_AGAIN: Duration = Duration::from_secs(5);
/// How long the probes of a file stay that no process uses any more.
const KEEP: Duration = Duration::from_secs(60);
/// How often such files are looked for.
const UNUSED_EVERY: Duration = Duration::from_secs(1);
/// How long one call looks at processes; the rest waits for the next.
const BUDGET: Duration = Duration::from_millis(5);
/// Processes that speak TLS without a library that is probed, named in reports; and files that cannot be probed.
const MAX_REPORTED: usize = 64;
/// Files in which there is nothing to probe that are remembered.
const MAX_NOTHING: usize = 16_384;
/// Where distributions put libraries. Probes on them cost nothing until a process uses one, and then see its first bytes.
const LIBRARY_DIRECTORIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/usr/local/lib",
];
const LIBRARY_NAMES: [&str; 3] = ["libssl.so", "libgnutls.so", "_queue."];

/// Whether plaintext of a process is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// It was not looked at yet.
    Unknown,
    /// It uses a library that is probed.
    Plaintext(Library),
    /// It uses none: of its TLS there are handshakes and sizes only.
    Handshakes,
}

/// What is known of a file.
enum Known {
    /// There was nothing to probe when it was as it was then.
    Nothing(Changed),
    /// It stays what it is: no other can have its place.
    Attached(Box<Attached>),
}

#[derive(Default)]
struct Process {
    /// Files with probes that it uses.
    files: BTreeSet<Identity>,
    looked_at: Option<Instant>,
    /// It was told that contents of its TLS are not seen.
    unseen: bool,
}

/// The TLS libraries of this host's processes, and the probes on them.
pub struct Libraries {
    prober: Prober,
    kernel: Kernel,
    files: HashMap<Identity, Known>,
    processes: HashMap<u32, Process>,
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    unused_due: Instant,
    /// Programs that speak TLS without a library that is probed: where each is, and what it speaks with.
    unprobed: BTreeMap<Identity, (PathBuf, &'static str)>,
    unseen: Vec<Unseen>,
    failures: BTreeSet<String>,
    refused: Vec<String>,
}

impl Libraries {
    /// Probes the libraries of this host's own distribution.
    pub fn new(prober: Prober) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut libraries = Self {
            prober,
            kernel: Kernel::of_release(&release),
            files: HashMap::new(),
            processes: HashMap::new(),
            due: BinaryHeap::new(),
            unused_due: Instant::now(),
            unprobed: BTreeMap::new(),
            unseen: Vec::new(),
            failures: BTreeSet::new(),
            refused: Vec::new(),
        };
        let files = |directory: &Path| directory.read_dir().into_iter().flatten().flatten();
        let named = |path: &Path, beginnings: &[&str]| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            beginnings.iter().any(|beginning| name.starts_with(beginning))
        };
        let of_python = |entry: DirEntry| {
            let path = entry.path();
            if named(&path, &["python3"]) { files(&path.join("lib-dynload")).collect() } else { vec![entry] }
        };
        for entry in LIBRARY_DIRECTORIES.iter().flat_map(|path| files(Path::new(path))).flat_map(of_python) {
            let path = entry.path();
            if named(&path, &LIBRARY_NAMES)
                && let Ok((identity, changed)) = maps::identify(&path)
            {
                libraries.look_into(identity, changed, &path, || path.clone());
                if let Some(Known::Attached(attached)) = libraries.files.get_mut(&identity) {
                    attached.keep = true;
                }
            }
        }
        libraries
    }

    /// Looks at processes.
    pub fn look(&mut self, noticed: &Noticed) {
        for &tgid in &noticed.found {
            if self.look_at_program(tgid) {
                self.look_at(tgid);
            }
        }
        for &tgid in &noticed.executed {
            self.process_started(tgid);
        }
        for (&child, &parent) in &noticed.forked {
            self.process_forked(parent, child);
        }
        for &process in &noticed.speak_tls {
            self.suspect(process);
        }
        for &tgid in &noticed.ended {
            self.process_ended(tgid);
        }
    }

    /// A process executed a program. That is looked into at once, its libraries soon.
    pub fn process_started(&mut self, tgid: u32) {
        if self.look_at_program(tgid) {
            self.look_soon(tgid);
        }
    }

    /// A process made another, which has all that it has, and may execute no program of its own, as workers of servers do.
    pub fn process_forked(&mut self, parent: u32, child: u32) {
        let Some(process) = self.processes.get(&parent) else { return };
        // Those of programs of Go execute one at once; what is in their memory then must not be taken for goroutines.
        let stays = |identity: &&Identity| match self.files.get(*identity) {
            Some(Known::Attached(attached)) => {
                attached.report.go.as_ref().is_none_or(|go| go.self_at.is_some())
            }
            _ => false,
        };
        let files: Vec<Identity> = process.files.iter().filter(stays).copied().collect();
        if files.is_empty() {
            return;
        }
        self.leave(child);
        self.processes.insert(child, Process::default());
        files.into_iter().for_each(|identity| self.add_user(child, identity));
        self.look_soon(child);
    }

    fn look_soon(&mut self, tgid: u32) {
        let now = Instant::now();
        self.due.extend(LOOKS.map(|after| Reverse((now + after, tgid))));
    }

    /// False when it is gone already, or a thread of the kernel.
    fn look_at_program(&mut self, tgid: u32) -> bool {
        self.leave(tgid);
        let program = PathBuf::from(format!("/proc/{tgid}/exe"));
        let Ok((identity, changed)) = maps::identify(&program) else { return false };
        self.processes.insert(tgid, Process::default());
        let name = || std::fs::read_link(&program).unwrap_or_else(|_| program.clone());
        self.look_into(identity, changed, &program, name);
        self.add_user(tgid, identity);
        true
    }

    /// A process ended.
    pub fn process_ended(&mut self, tgid: u32) {
        self.leave(tgid);
    }

    /// A connection of this process speaks TLS. If no library of it is probed, it is looked at again, now: between the first
    /// bytes of a handshake and those of the application lies a round trip.
    pub fn suspect(&mut self, key: ProcessKey) {
        let tgid = key.tgid;
        if !self.processes.contains_key(&tgid) {
            self.process_started(tgid);
        }
        let Some(process) = self.processes.get(&tgid) else { return };
        let again = process.looked_at.is_none_or(|looked_at| looked_at.elapsed() >= SUSPECT_AGAIN);
        if self.library_of(process).is_none() && again {
            self.look_at(tgid);
        }
        let is_unseen = match self.coverage(tgid) {
            Coverage::Unknown => return,
            coverage => coverage == Coverage::Handshakes,
        };
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        if std::mem::replace(&mut process.unseen, is_unseen) == is_unseen {
            return;
        }
        let (library, note) = if is_unseen { self.unprobed_program(tgid) } else { (None, None) };
        self.unseen.push(Unseen { process: key, library, note });
    }

    /// What a process speaks TLS with that is not probed, and what is to be said of its program when it is met for the first time.
    fn unprobed_program(&mut self, tgid: u32) -> (Option<&'static str>, Option<String>) {
        let program = PathBuf::from(format!("/proc/{tgid}/exe"));
        let Ok((identity, _)) = maps::identify(&program) else { return (Some(UNKNOWN), None) };
        if let Some((_, library)) = self.unprobed.get(&identity) {
            return (Some(library), None);
        }
        if self.unprobed.len() >= MAX_REPORTED {
            return (Some(UNKNOWN), None);
        }
        let library = unseen::library_of(tgid);
        let path = std::fs::read_link(&program).unwrap_or(program);
        let note = format!(
            "TLS of {library}: contents not visible, handshakes and sizes only, of {}",
            path.display()
        );
        self.unprobed.insert(identity, (path, library));
        (Some(library), Some(note))
    }

    /// Looks at processes that it is time for, and removes probes that nobody uses. Gives when there is more to do.
    pub fn advance(&mut self) -> Instant {
        let now = Instant::now();
        while let Some(&Reverse((due, tgid))) = self.due.peek()
            && due <= now
            && now.elapsed() < BUDGET
        {
            self.due.pop();
            if self.processes.contains_key(&tgid) {
                self.look_at(tgid);
            }
        }
        if now >= self.unused_due {
            self.unused_due = now + UNUSED_EVERY;
            self.remove_unused();
        }
        self.due.peek().map_or(self.unused_due, |&Reverse((due, _))| due.min(self.unused_due))
    }

    fn remove_unused(&mut self) {
        let removed = self.files.extract_if(
            |_, known| matches!(known, Known::Attached(attached) if attached.is_unused_for(KEEP)),
        );
        for (_, known) in removed {
            if let Known::Attached(attached) = known {
                attached.remove();
            }
        }
    }

    /// Whether plaintext of a process is seen.
    pub fn coverage(&self, tgid: u32) -> Coverage {
        let Some(process) = self.processes.get(&tgid) else { return Coverage::Unknown };
        match (self.library_of(process), process.looked_at) {
            (Some(library), _) => Coverage::Plaintext(library),
            (None, Some(_)) => Coverage::Handshakes,
            (None, None) => Coverage::Unknown,
        }
    }

    /// The files that are probed, and what of them could not be.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.files.values().filter_map(|known| match known {
            Known::Attached(attached) => Some(&attached.report),
            Known::Nothing(_) => None,
        })
    }

    /// Files that should be probed and cannot be, and why.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.failures.iter().map(String::as_str)
    }

    /// Files whose functions the kernel takes no probes on, and why, since the last call.
    pub fn take_refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }

    /// Processes whose contents of TLS are not seen, or are after all, since the last call.
    pub fn take_unseen(&mut self) -> Vec<Unseen> {
        std::mem::take(&mut self.unseen)
    }

    /// The files that are probed, one line each; then those that could not be, and why.
    pub fn report(&self) -> Vec<String> {
        let unprobed = self.unprobed.values().map(|(file, library)| {
            format!("{}: TLS of {library}: contents not visible, handshakes and sizes only", file.display())
        });
        let probed = self.reports().map(ToString::to_string);
        probed.chain(self.failures().map(str::to_owned)).chain(unprobed).collect()
    }

    fn library_of(&self, process: &Process) -> Option<Library> {
        process.files.iter().find_map(|identity| match self.files.get(identity) {
            Some(Known::Attached(attached)) => attached.report.library,
            _ => None,
        })
    }

    /// Looks into the files whose code a process has in memory.
    fn look_at(&mut self, tgid: u32) {
        let Ok(mappings) = maps::code_of(tgid) else {
            self.leave(tgid);
            return;
        };
        for mapping in mappings {
            let file = mapping.file_of(tgid);
            if let Ok((identity, changed)) = maps::identify(&file) {
                self.look_into(identity, changed, &file, || mapping.path.clone());
                self.add_user(tgid, identity);
            }
        }
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.looked_at = Some(Instant::now());
        }
    }

    /// A process uses a file that was looked into.
    fn add_user(&mut self, tgid: u32, identity: Identity) {
        let Some(Known::Attached(attached)) = self.files.get_mut(&identity) else { return };
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        if process.files.insert(identity) {
            attached.users += 1;
            let go = attached.report.go.as_ref();
            if let Some(Err(error)) = go.map(|go| self.prober.set_go_program(tgid, Some(go.into()))) {
                self.fails(format!("goroutines of process {tgid}: {error}"));
            }
        }
    }

    /// Looks into a file that was not seen before as it is, and probes it.
    fn look_into(
        &mut self,
        identity: Identity,
        changed: Changed,
        path: &Path,
        name: impl FnOnce() -> PathBuf,
    ) {
        match self.files.get(&identity) {
            Some(Known::Attached(_)) => return,
            Some(Known::Nothing(then)) if *then == changed => return,
            _ => {}
        }
        let name = name();
        let attached = self.attach(identity, path, &name).unwrap_or_else(|reason| {
            self.fails(format!("{}: {reason}", name.display()));
            None
        });
        let known = match attached {
            Some(attached) => Known::Attached(Box::new(attached)),
            None => Known::Nothing(changed),
        };
        if self.files.len() >= MAX_NOTHING {
            self.files.retain(|_, known| matches!(known, Known::Attached(_)));
        }
        if let Known::Attached(attached) = &known
            && let Some(reason) = &attached.report.refused
        {
            self.refused.push(format!("{} ({reason})", name.display()));
        }
        self.files.insert(identity, known);
    }

    fn fails(&mut self, failure: String) {
        if self.failures.len() < MAX_REPORTED {
            self.failures.insert(failure);
        }
    }

    fn attach(&self, identity: Identity, path: &Path, name: &Path) -> Result<Option<Attached>, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        // The path may lead to another file by now.
        if maps::identify_open(&file).ok().map(|(identity, _)| identity) != Some(identity) {
            return Ok(None);
        }
        let plan = match plan::plan(&file, self.kernel) {
            Ok(plan) => plan,
            // Also interpreters' scripts and programs for other machines are mapped and executed.
            Err(elf::ElfError::Foreign) => None,
            Err(error) => return Err(error.to_string()),
        };
        Ok(plan.map(|plan| Attached::new(file, name, plan, &self.prober)))
    }

    /// A process does not use its files any more.
    fn leave(&mut self, tgid: u32) {
        let Some(process) = self.processes.remove(&tgid) else { return };
        for identity in process.files {
            if let Some(Known::Attached(attached)) = self.files.get_mut(&identity) {
                attached.leave();
                if attached.report.go.is_some() {
                    // It is gone when the process was never told to the kernel.
                    let _ = self.prober.set_go_program(tgid, None);
                }
            }
        }
    }
}

impl Drop for Libraries {
    /// All probes are removed at the same time.
    fn drop(&mut self) {
        let attached = self.files.drain().filter_map(|(_, known)| match known {
            Known::Attached(attached) => attached.remove(),
            Known::Nothing(_) => None,
        });
        for removal in attached.collect::<Vec<_>>() {
            let _ = removal.join();
        }
    }
}

impl From<&GoProgram> for wirespan_bpf::tracer::GoProgram {
    fn from(program: &GoProgram) -> Self {
        Self { g: program.g.unwrap_or(0), goid: program.goid, self_at: program.self_at.unwrap_or(0) }
    }
}

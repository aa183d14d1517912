//! Who the host's processes are.
//!
//! Takes in events; hands on a [`Process`] for each process that has some. /proc is read when a process shows up for the first
//! time, not when it is made: of processes that live for a moment and touch no socket, nothing is read. Of those that have
//! ended by then, the exec event's file name and the parent are known. Processes stay known after their end until newer ones
//! need the room, because their last events come late.
//!
//! | module | what |
//! |---|---|
//! | `files` | reads /proc/PID |
//! | [`cgroup`] | containers and pods |
//! | `recent` | a map that forgets |

pub mod cgroup;
mod files;
mod recent;

use cgroup::Place;
use files::{Files, Ticks, file_name};
use recent::Recent;
use std::path::PathBuf;
use std::sync::Arc;
use wirespan_event::{Clock, Event, Header, Kind, ProcessKey};
use wirespan_records::Process;

/// Processes that are remembered, at least; at most twice as many.
const KNOWN_MIN: usize = 8192;
/// Cgroups that are remembered, at least.
const PLACES_MIN: usize = 2048;
/// Programs that were just started are read at once, before they can end, up to so many a second: a few thousandths of a core.
const EAGER_PER_SECOND: u64 = 100;
/// A fork is told when the child has begun; the clocks are the same.
const FORK_TO_START_NS: u64 = 1_000_000_000;
/// The root of the hierarchy, where a v1 hierarchy has all that v2 does not hold.
const ROOT_CGROUP: u64 = 1;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessStats {
    /// Processes that are remembered now.
    pub known: u64,
    /// Times that /proc was read for a process.
    pub reads: u64,
    /// Processes that had ended before they were read, and are known by their exec or their parent alone.
    pub from_events: u64,
    /// Processes that had ended before they were read, and of which nothing but the pid is known.
    pub unknown: u64,
}

/// The processes of a host.
pub struct Processes {
    proc: PathBuf,
    clock: Clock,
    ticks: Ticks,
    known: Recent<Id, Known>,
    begun: Recent<u32, Begun>,
    places: Recent<u64, Place>,
    /// The process whose event was the last, and that was announced.
    last: ProcessKey,
    eager: Budget,
    stats: ProcessStats,
}

/// A process, as precisely as both events and /proc can tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    tgid: u32,
    start_ticks: u64,
}

struct Known {
    process: Arc<Process>,
    /// It was handed on as it is.
    announced: bool,
}

/// How a process began, by its events.
#[derive(Clone, Debug)]
enum Begun {
    Fork { parent: ProcessKey, time_ns: u64 },
    Exec { of: ProcessKey, file: String },
}

/// So many a second, by the events' own time.
#[derive(Default)]
struct Budget {
    left: u64,
    since_ns: u64,
}

impl Budget {
    fn take(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.since_ns) >= 1_000_000_000 {
            *self = Self { left: EAGER_PER_SECOND, since_ns: now_ns };
        }
        let has = self.left > 0;
        self.left -= u64::from(has);
        has
    }
}

impl Processes {
    /// Nothing is known yet.
    pub fn new(clock: Clock) -> Self {
        Self::at(PathBuf::from("/proc"), clock)
    }

    fn at(proc: PathBuf, clock: Clock) -> Self {
        Self {
            proc,
            clock,
            ticks: Ticks::of_this_kernel(),
            known: Recent::new(KNOWN_MIN),
            begun: Recent::new(KNOWN_MIN),
            places: Recent::new(PLACES_MIN),
            last: ProcessKey::default(),
            eager: Budget::default(),
            stats: ProcessStats::default(),
        }
    }

    /// The processes that run now.
    pub fn running(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(&self.proc).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect()
    }

    /// Reads a process that runs, so that it is known if it ends soon.
    pub fn expect(&mut self, pid: u32) {
        let Some(files) = Files::read(&self.proc, pid, true) else { return };
        self.stats.reads += 1;
        let key = ProcessKey { tgid: pid, start_ns: self.ticks.ns(files.start_ticks) };
        let id = self.id(key);
        if self.known.get(id).is_none() {
            let place = Place::from_lines(&files.cgroups);
            let process = Arc::new(self.process(key, files, place));
            self.known.insert(id, Known { process, announced: false });
        }
    }

    /// The clocks lie differently to each other now; for processes that are read from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// What happens to processes.
    pub fn observe(&mut self, event: &Event<'_>) {
        let header = event.header;
        let key = header.process();
        match header.kind() {
            Some(Kind::Fork) if header.other_tgid != header.tgid => {
                let begun = Begun::Fork { parent: key, time_ns: header.exit_ns.max(header.enter_ns) };
                self.begun.insert(header.other_tgid, begun);
            }
            Some(Kind::Exec) => {
                let end = event.payload.iter().position(|byte| *byte == 0).unwrap_or(event.payload.len());
                let file = String::from_utf8_lossy(event.payload.get(..end).unwrap_or_default());
                self.begun.insert(key.tgid, Begun::Exec { of: key, file: file.into_owned() });
                // What was known is another program.
                self.known.remove(self.id(key));
                self.last = ProcessKey::default();
                if self.eager.take(header.time_ns()) {
                    self.read(key, header.cgroup);
                }
            }
            _ => {}
        }
    }

    /// The process of an event, when it was not handed on yet as it is.
    pub fn news(&mut self, header: &Header) -> Option<Arc<Process>> {
        let key = header.process();
        if key == self.last || key.tgid == 0 {
            return None;
        }
        self.last = key;
        let known = self.lookup(key, header.cgroup);
        (!std::mem::replace(&mut known.announced, true)).then(|| Arc::clone(&known.process))
    }

    /// A process; of one that is neither remembered nor there any more, little is known but the pid.
    pub fn get(&mut self, key: ProcessKey) -> Arc<Process> {
        Arc::clone(&self.lookup(key, 0).process)
    }

    /// What was counted.
    pub fn stats(&self) -> ProcessStats {
        ProcessStats { known: self.known.len() as u64, ..self.stats }
    }

    fn id(&self, key: ProcessKey) -> Id {
        Id { tgid: key.tgid, start_ticks: self.ticks.before(key.start_ns) }
    }

    fn lookup(&mut self, key: ProcessKey, cgroup: u64) -> &mut Known {
        let id = self.id(key);
        if self.known.get(id).is_none() && !self.read(key, cgroup) {
            let process = Arc::new(self.known_by_events(key, cgroup));
            self.known.insert(id, Known { process, announced: false });
        }
        let start_ns = self.clock.epoch_ns(key.start_ns);
        let known = self.known.get(id).unwrap_or_else(|| unreachable!("it was found or inserted above"));
        if !known.announced && known.process.start_ns != start_ns {
            // /proc told the start to a tick only.
            Arc::make_mut(&mut known.process).start_ns = start_ns;
        }
        known
    }

    /// Reads a process, if it is still there.
    fn read(&mut self, key: ProcessKey, cgroup: u64) -> bool {
        self.stats.reads += 1;
        let place = self.places.get(cgroup).cloned();
        let files = Files::read(&self.proc, key.tgid, place.is_none());
        let Some(files) = files.filter(|files| files.start_ticks == self.ticks.before(key.start_ns)) else {
            return false;
        };
        let place = place.unwrap_or_else(|| {
            let place = Place::from_lines(&files.cgroups);
            // The number is of cgroup v2 and says nothing where v1 has the controllers.
            if cgroup > ROOT_CGROUP && files.cgroups.lines().all(|line| line.starts_with("0::")) {
                self.places.insert(cgroup, place.clone());
            }
            place
        });
        let process = Arc::new(self.process(key, files, place));
        self.known.insert(self.id(key), Known { process, announced: false });
        true
    }

    fn process(&self, key: ProcessKey, files: Files, place: Place) -> Process {
        Process {
            pid: key.tgid,
            start_ns: self.clock.epoch_ns(key.start_ns),
            name: files.name,
            executable: files.executable,
            command: files.command,
            container_id: place.container_id,
            pod_uid: place.pod_uid,
        }
    }

    /// What exec and fork events told of a process that is gone.
    fn known_by_events(&mut self, key: ProcessKey, cgroup: u64) -> Process {
        let begun = self.begun.get(key.tgid).cloned();
        let place = self.places.get(cgroup).cloned().unwrap_or_default();
        let base = Process {
            pid: key.tgid,
            start_ns: self.clock.epoch_ns(key.start_ns),
            container_id: place.container_id,
            pod_uid: place.pod_uid,
            ..Process::default()
        };
        let parent = match begun {
            Some(Begun::Exec { of, file }) if self.id(of) == self.id(key) => {
                self.stats.from_events += 1;
                let name = file_name(&file).to_owned();
                return Process { name, command: file.clone(), executable: file, ..base };
            }
            Some(Begun::Fork { parent, time_ns })
                if time_ns.abs_diff(key.start_ns) < FORK_TO_START_NS && parent.tgid != key.tgid =>
            {
                self.known.get(self.id(parent)).map(|known| Arc::clone(&known.process))
            }
            _ => None,
        };
        let Some(parent) = parent else {
            self.stats.unknown += 1;
            return base;
        };
        // It is the same program, in the same place.
        self.stats.from_events += 1;
        Process { pid: base.pid, start_ns: base.start_ns, ..Process::clone(&parent) }
    }
}

#[cfg(test)]
mod tests;

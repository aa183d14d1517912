//! The running tracer: its events, the processes that they are of, and the guard that holds it to its limits.

use super::clock::{ClockWatch, boot_ns};
use super::cost::Cost;
use super::recording::Recording;
use super::{Counts, EventSource, SourceError};
use crate::guard::meter::Meter;
use crate::guard::{Guard, Level, Limits, Load};
use crate::priority;
use crate::processes::{ProcessStats, Processes};
use crate::tls::{LibrariesThread, Noticed, Unseen};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wirespan_bpf::tracer::{Feature, Snap, Tracer, TracerOptions};
use wirespan_event::{Entry, Event, Header, Kind, Source};
use wirespan_records::Endpoint;

/// How often cost, clock and recording are looked after.
const TICK: Duration = Duration::from_secs(1);
/// At start, processes are read for so long between two reads of the ring.
const READ: Duration = Duration::from_millis(5);
/// Processes that spoke TLS, between two reads of the ring.
const SUSPECTS_MAX: usize = 64;
/// At [`Level::Sampled`], one of so many connections is traced.
const SAMPLE: u32 = 8;
/// The inode of the initial pid namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What a live source is asked for.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// For the tracer.
    pub tracer: TracerOptions,
    /// Trace what goes through TLS libraries.
    pub tls: bool,
    /// What the tracer may cost; without limits it does everything, whatever that costs.
    pub limits: Option<Limits>,
    /// Connections of this network namespace with one of these ends are wirespan's own; their events are not handed on.
    pub own: Vec<Endpoint>,
    /// Write everything that is handed on to this event log.
    pub record: Option<PathBuf>,
}

/// Traces this host.
pub struct Live {
    options: LiveOptions,
    /// Inode of the network namespace that [`LiveOptions::own`] are in.
    netns: Option<u64>,
    /// `None` while the guard has it off.
    running: Option<Running>,
    features: Vec<Feature>,
    processes: Processes,
    clock: ClockWatch,
    clock_told: bool,
    guard: Option<Guard>,
    /// Of the thread that reads; made by it.
    meter: Option<Meter>,
    load: Load,
    recording: Recording,
    due: Instant,
    notes: Vec<String>,
    /// Of tracers that were ended, and events left out here.
    counts: Counts,
    /// Files that the kernel takes no probes on.
    unprobed_files: u64,
}

struct Running {
    tracer: Tracer,
    libraries: Option<LibrariesThread>,
    cost: Cost,
    /// Processes that were there at the start, and are not read yet.
    unread: Vec<u32>,
}

impl Running {
    fn start(options: &LiveOptions, processes: &Processes) -> Result<Self, SourceError> {
        let mut tracer = Tracer::start(&TracerOptions { uprobes: options.tls, ..options.tracer.clone() })?;
        let found = processes.running();
        let prober = tracer.take_prober().filter(|_| options.tls);
        let libraries = prober.map(|prober| LibrariesThread::start(prober, found.clone())).transpose();
        let libraries = libraries.map_err(SourceError::Thread)?;
        Ok(Self { tracer, libraries, cost: Cost::new(), unread: found })
    }
}

impl Live {
    /// Starts the tracer. Says what cannot be traced in [`Self::features`]; fails when nothing can.
    pub fn start(options: LiveOptions) -> Result<Self, SourceError> {
        let recording =
            options.record.as_deref().map_or_else(|| Ok(Recording::default()), Recording::begin)?;
        let clock = ClockWatch::new();
        let processes = Processes::new(clock.now());
        let running = Running::start(&options, &processes)?;
        Ok(Self {
            features: running.tracer.features().to_vec(),
            running: Some(running),
            guard: options.limits.map(Guard::new),
            meter: None,
            load: Load::default(),
            clock_told: false,
            due: Instant::now() + TICK,
            notes: Vec::new(),
            counts: Counts::default(),
            netns: std::fs::metadata("/proc/self/ns/net").ok().map(|namespace| namespace.ino()),
            unprobed_files: 0,
            options,
            processes,
            clock,
            recording,
        })
    }

    /// What is traced, and what is not and why.
    pub fn features(&self) -> Vec<Feature> {
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let names = Feature {
            name: "names of processes",
            off: (namespace != Path::new(INITIAL_PID_NAMESPACE)).then(|| {
                "wirespan sees other pids than the kernel; run its container in the host's pid namespace"
                    .to_owned()
            }),
        };
        let tls = Feature {
            name: "plaintext of TLS libraries",
            off: (!self.options.tls).then(|| "switched off".to_owned()),
        };
        let files = Feature {
            name: "programs and TLS libraries of all processes",
            off: (!may_look_into_processes()).then(|| {
                "without CAP_SYS_PTRACE, the files of processes of other users, or with more capabilities, cannot be found: \
                 of their TLS, only libraries in the distribution's directories are probed"
                    .to_owned()
            }),
        };
        [&self.features[..], &[names, files, tls]].concat()
    }

    /// The TLS libraries and Go programs that are probed, one line each; then those that could not be, and why. Waits until those
    /// that were there at the start are.
    pub fn libraries(&self) -> Vec<String> {
        let libraries = self.running.as_ref().and_then(|running| running.libraries.as_ref());
        libraries.map(LibrariesThread::report).unwrap_or_default()
    }

    /// Whether the TLS libraries and Go programs that were there at the start are probed.
    pub fn is_settled(&mut self) -> bool {
        let libraries = self.running.as_mut().and_then(|running| running.libraries.as_mut());
        libraries.is_none_or(LibrariesThread::is_settled)
    }

    /// What the operator should know, since the last call.
    pub fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Events so far, and what was lost or left out.
    pub fn counts(&self) -> Counts {
        let running = self.running.as_ref().and_then(|running| running.tracer.stats().ok());
        running.map_or(self.counts, |stats| self.counts.plus(Counts::of(&stats)))
    }

    /// Files of TLS libraries and programs that the kernel took no probes on, so far.
    pub fn unprobed_files(&self) -> u64 {
        self.unprobed_files
    }

    /// Counts the files that could not be probed; the first is told.
    fn count_unprobed(&mut self) {
        let libraries = self.running.as_ref().and_then(|running| running.libraries.as_ref());
        for refused in libraries.into_iter().flat_map(LibrariesThread::refused) {
            if self.unprobed_files == 0 {
                self.notes.push(format!(
                    "the kernel takes no probe on {refused}: what it encrypts is not seen; `wirespan probe` lists all such files"
                ));
            }
            self.unprobed_files += 1;
        }
    }

    /// What is known of processes.
    pub fn processes(&self) -> ProcessStats {
        self.processes.stats()
    }

    /// What the tracer and the host did in the last second.
    pub fn load(&self) -> Load {
        self.load
    }

    /// The guard, if there are limits.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.as_ref()
    }

    /// Everything that comes once a second.
    fn tick(&mut self, each: &mut dyn FnMut(Entry<'_>)) -> Result<(), SourceError> {
        if let Some(change) = self.clock.look() {
            self.processes.set_clock(change.clock);
            if let Some(step) = change.step_ns {
                self.notes.push(format!("the time of day was set by {} ms", step / 1_000_000));
            }
            self.tell(Entry::Clock(change.clock), each);
        }
        if let Some(error) = self.recording.flush() {
            self.notes.push(format!("the recording of events ended: {error}"));
        }
        self.count_unprobed();
        let programs = self.running.as_ref().map_or(0.0, |running| running.cost.cores());
        // What it takes to begin passes by itself.
        let probing_ns =
            self.is_settled().then(|| self.running.as_ref()?.libraries.as_ref()?.cpu_ns()).flatten();
        self.load = self.meter.as_mut().map(|meter| meter.load(programs, probing_ns)).unwrap_or_default();
        if let Some(guard) = &mut self.guard
            && let Some(step) = guard.sample(&self.load)
        {
            self.notes.push(format!("overhead guard: {step}"));
            match self.set_level(step.level, each) {
                Err(error) if self.running.is_none() => {
                    self.notes.push(format!("overhead guard: {}: {error}", Level::Off));
                    self.guard.iter_mut().for_each(Guard::take_back);
                }
                done => done?,
            }
        }
        self.due = Instant::now() + TICK;
        Ok(())
    }

    /// Works at another level from now on, at which not the same things are told: nothing that is open is gone on with.
    fn set_level(&mut self, level: Level, each: &mut dyn FnMut(Entry<'_>)) -> Result<(), SourceError> {
        if level == Level::Off {
            if let Some(running) = &mut self.running {
                running.tracer.detach()?;
                running.libraries = None;
            }
            // No event is made any more, so that none is left in the ring.
            while self.drain(each) > 0 {}
            self.counts = self.counts();
            self.running = None;
        } else {
            if self.running.is_none() {
                self.running = Some(Running::start(&self.options, &self.processes)?);
                // What it takes to begin is no reason to end again.
                self.meter = Some(Meter::default());
            }
            let Some(Running { tracer, .. }) = &mut self.running else { return Ok(()) };
            let snap = if level == Level::Full { self.options.tracer.snap } else { Snap::new(0, 0) };
            let one_of = if level == Level::Sampled { SAMPLE } else { 1 };
            tracer.set_default(snap, one_of)?;
            self.drain(each);
        }
        self.tell(Entry::Gap, each);
        Ok(())
    }

    fn tell(&mut self, entry: Entry<'_>, each: &mut dyn FnMut(Entry<'_>)) {
        self.recording.write(entry);
        each(entry);
    }

    /// Hands on what is in the ring, and says how many events that were.
    fn drain(&mut self, each: &mut dyn FnMut(Entry<'_>)) -> usize {
        let Self { running, processes, recording, options, netns, counts, notes, .. } = self;
        let Some(Running { tracer, libraries, .. }) = running else { return 0 };
        let mut noticed = Noticed::default();
        let mut hand_on = |entry: Entry<'_>| {
            recording.write(entry);
            each(entry);
        };
        for Unseen { process, library, note } in libraries.iter().flat_map(LibrariesThread::unseen) {
            notes.extend(note);
            hand_on(Entry::TlsUnseen(process, library));
        }
        let drained = tracer.drain(&mut |event| {
            if is_own(event.header, *netns, &options.own) {
                counts.own += 1;
                return;
            }
            notice(&mut noticed, &event, processes);
            if speaks(event.header)
                && let Some(process) = processes.news(event.header)
            {
                hand_on(Entry::Process(event.header.process(), &process));
            }
            hand_on(Entry::Event(event));
        });
        if let Some(libraries) = libraries {
            libraries.look(noticed);
        }
        drained
    }
}

impl EventSource for Live {
    fn next(
        &mut self,
        patience: Duration,
        each: &mut dyn FnMut(Entry<'_>),
    ) -> Result<Option<u64>, SourceError> {
        if !std::mem::replace(&mut self.clock_told, true) {
            self.tell(Entry::Clock(self.clock.now()), each);
            self.meter = Some(Meter::default());
            if !priority::prefer() {
                let note = "the thread that reads events cannot be put before others, so some are lost while all CPUs are busy; \
                            add cap_sys_nice with `setcap`";
                self.notes.push(note.to_owned());
            }
        }
        match &mut self.running {
            Some(running) => {
                running.tracer.wait(patience)?;
                running.cost.look(&running.tracer);
            }
            None => std::thread::sleep(patience),
        }
        // What happens from here on may be in the ring after what is drained now.
        let now_ns = boot_ns();
        self.drain(each);
        if let Some(Running { unread, .. }) = &mut self.running {
            let until = Instant::now() + READ;
            while Instant::now() < until
                && let Some(pid) = unread.pop()
            {
                self.processes.expect(pid);
            }
        }
        if Instant::now() >= self.due {
            self.tick(each)?;
        }
        Ok(Some(now_ns))
    }
}

/// Whether /proc shows this process the files of all others, by its effective capabilities.
fn may_look_into_processes() -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    wirespan_bpf::effective_capabilities(&status) >> CAP_SYS_PTRACE & 1 == 1
}

/// Takes what an event says beside what it is handed on for.
fn notice(noticed: &mut Noticed, event: &Event<'_>, processes: &mut Processes) {
    let header = event.header;
    match header.kind() {
        Some(Kind::Data)
            if speaks_tls(event)
                && noticed.speak_tls.len() < SUSPECTS_MAX
                && !noticed.speak_tls.contains(&header.process()) =>
        {
            noticed.speak_tls.push(header.process());
        }
        Some(Kind::Exec) => {
            processes.observe(event);
            noticed.executed(header.tgid);
        }
        Some(Kind::Fork) if header.other_tgid != header.tgid => {
            processes.observe(event);
            noticed.forked.insert(header.other_tgid, header.tgid);
        }
        Some(Kind::Exit) if header.tid == header.tgid => noticed.ended(header.tgid),
        _ => {}
    }
}

/// Requests are found in events of this kind, and it matters whose they are.
fn speaks(header: &Header) -> bool {
    matches!(header.kind(), Some(Kind::Data | Kind::Open | Kind::Socket))
}

/// A record of TLS begins here: handshake, alert, change of cipher or data, of any version since SSL 3.
fn speaks_tls(event: &Event<'_>) -> bool {
    let Some(&[kind, major, minor]) = event.payload.first_chunk() else { return false };
    event.header.source() == Some(Source::Syscall) && matches!((kind, major, minor), (20..=23, 3, 0..=4))
}

/// The address of an own end, a loopback one mostly, is another's in another network namespace.
fn is_own(header: &Header, netns: Option<u64>, own: &[Endpoint]) -> bool {
    header.family != 0
        && netns.is_none_or(|netns| netns == u64::from(header.netns))
        && own.iter().any(|end| {
            (end.port == header.local_port && end.ip == header.local().ip)
                || (end.port == header.remote_port && end.ip == header.remote().ip)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn tls_is_recognised_by_its_records() {
        let header = Header::default();
        let says = |payload: &[u8]| speaks_tls(&Event { header: &header, payload });
        assert!(says(b"\x16\x03\x01\x02\x00\x01"));
        assert!(says(b"\x17\x03\x03"));
        assert!(!says(b"GET / HTTP/1.1"));
        assert!(!says(b"\x16\x03"));
        let decrypted = Header { source: Source::OpenSsl as u8, ..header };
        assert!(!speaks_tls(&Event { header: &decrypted, payload: b"\x16\x03\x01" }));
    }

    /// Sends five bytes over a connection, and gives what is told of them.
    fn told(live: &mut Live) -> Vec<(u32, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"hello").unwrap();
        let mut told = Vec::new();
        for _ in 0..3 {
            let mut each = |entry: Entry<'_>| match entry {
                Entry::Event(Event { header, payload })
                    if header.remote_port == port && header.kind() == Some(Kind::Data) =>
                {
                    told.push((header.length, payload.to_vec()));
                }
                _ => {}
            };
            live.next(Duration::from_millis(20), &mut each).unwrap();
        }
        told
    }

    /// Traces this process; `None` where that is not possible, which CI does not take.
    fn own_process(limits: Option<Limits>) -> Option<Live> {
        let tracer =
            TracerOptions { left_out: None, only: Some(std::process::id()), ..TracerOptions::default() };
        match Live::start(LiveOptions { tracer, tls: false, limits, own: Vec::new(), record: None }) {
            Ok(live) => Some(live),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn levels_can_be_left_and_come_back_to() {
        let Some(mut live) = own_process(None) else { return };
        let mut gaps = 0;
        let mut set_level = |live: &mut Live, level| {
            live.set_level(level, &mut |entry| gaps += u32::from(matches!(entry, Entry::Gap))).unwrap();
        };
        let whole = [(5, b"hello".to_vec())];
        assert_eq!(told(&mut live), whole);
        set_level(&mut live, Level::NoPayload);
        assert_eq!(told(&mut live), [(5, Vec::new())]);
        set_level(&mut live, Level::Off);
        let before = live.counts();
        assert_eq!(told(&mut live), []);
        assert_eq!(live.counts(), before);
        set_level(&mut live, Level::Sampled);
        set_level(&mut live, Level::Full);
        assert_eq!(told(&mut live), whole);
        assert!(live.counts().events > before.events, "counts go on over a restart");
        assert_eq!(gaps, 4, "each time, what was open is told to be over");
    }

    #[test]
    fn what_a_restart_costs_does_not_end_the_tracer() {
        let Some(mut live) = own_process(Some(Limits { cpu_cores: 1000.0, memory_bytes: u64::MAX })) else {
            return;
        };
        told(&mut live);
        live.set_level(Level::Off, &mut |_| {}).unwrap();
        let mut starting = Meter::default();
        live.set_level(Level::Full, &mut |_| {}).unwrap();
        let cpu_s = |load: Load| load.agent_cores * load.elapsed.as_secs_f64();
        let taken_s = cpu_s(starting.load(0.0, None));
        live.tick(&mut |_| {}).unwrap();
        assert!(cpu_s(live.load()) < taken_s / 2.0, "{:?}, the start took {taken_s} s", live.load());
    }

    #[test]
    fn own_connections_are_known_by_either_end() {
        let own = [Endpoint { ip: [127, 0, 0, 1].into(), port: 7700 }];
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[127, 0, 0, 1]);
        let header = Header {
            family: wirespan_event::header::AF_INET,
            netns: 7,
            local: address,
            remote: address,
            ..Header::default()
        };
        let is_own = |header: &Header, own: &[Endpoint]| super::is_own(header, Some(7), own);
        assert!(is_own(&Header { local_port: 7700, remote_port: 40_000, ..header }, &own));
        assert!(is_own(&Header { local_port: 40_000, remote_port: 7700, ..header }, &own));
        assert!(!is_own(&Header { local_port: 40_000, remote_port: 80, ..header }, &own));
        assert!(!is_own(&Header { local_port: 7700, local: [9; 16], ..header }, &own));
        assert!(!is_own(&Header { local_port: 7700, netns: 8, ..header }, &own), "it is a container's");
    }
}

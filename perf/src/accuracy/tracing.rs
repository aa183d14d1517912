//! The tracer, while services run.

use anyhow::Context;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;
use wirespan_bpf::tracer::{Tracer, TracerOptions};
use wirespan_event::log::LogWriter;
use wirespan_event::{Clock, Entry, Kind};
use wirespan_syscalls::Processes;
use wirespan_syscalls::tls::Libraries;

/// How long the tracer waits for events.
const PATIENCE: Duration = Duration::from_millis(10);

/// On a thread of its own, until it is stopped.
pub struct Tracing<'scope> {
    thread: ScopedJoinHandle<'scope, anyhow::Result<u64>>,
    stop: Arc<AtomicBool>,
}

impl<'scope> Tracing<'scope> {
    /// Traces all processes but this one into an event log.
    pub fn start(scope: &'scope Scope<'scope, '_>, events: &Path) -> anyhow::Result<Self> {
        let log = LogWriter::new(File::create(events)?)?;
        let mut tracer = Tracer::start(&TracerOptions::default()).context("cannot trace")?;
        let mut libraries = Libraries::new(&mut tracer);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            if let Some(tgid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                libraries.process_started(tgid, &mut tracer);
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Ok(Self { thread: scope.spawn(move || trace(tracer, libraries, log, &stopped)), stop })
    }

    /// How many events were lost.
    pub fn stop(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn trace(mut tracer: Tracer, mut libraries: Libraries, mut log: LogWriter<File>, stop: &AtomicBool) -> anyhow::Result<u64> {
    let now = |clock| -> u64 {
        let time = nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default();
        time.as_nanos() as u64
    };
    let clock =
        Clock { boot_ns: now(nix::time::ClockId::CLOCK_REALTIME) - now(nix::time::ClockId::CLOCK_BOOTTIME) };
    let mut processes = Processes::new(clock);
    processes.scan();
    log.write(Entry::Clock(clock))?;
    let mut started: Vec<u32> = Vec::new();
    let mut result = Ok(());
    while !stop.load(Ordering::Relaxed) {
        for tgid in started.drain(..) {
            libraries.process_started(tgid, &mut tracer);
        }
        libraries.advance(&mut tracer);
        tracer.wait(PATIENCE)?;
        tracer.drain(&mut |event| {
            let header = event.header;
            if header.kind() == Some(Kind::Exec) {
                started.push(header.tgid);
            } else if header.kind() == Some(Kind::Fork) && header.other_tgid != header.tgid {
                started.push(header.other_tgid);
            }
            processes.observe(&event);
            if let Some(process) = processes.news(event.header) {
                result = log.write(Entry::Process(event.header.process(), &process));
            }
            if let Err(error) = log.write(Entry::Event(event)) {
                result = Err(error);
            }
        });
    }
    result?;
    log.flush()?;
    Ok(tracer.stats()?.lost())
}

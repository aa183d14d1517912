//! The tracer, and what it says while services run.

use anyhow::{Context, bail};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wirespan_event::log::LogWriter;
use wirespan_event::{Clock, Entry, ProcessKey};
use wirespan_records::Process;
use wirespan_syscalls::source::TracerOptions;
use wirespan_syscalls::{EventSource, Live, LiveOptions, SourceError};

/// How long the tracer waits for events.
const PATIENCE: Duration = Duration::from_millis(10);
/// It is behind, or attaches the first probes, for so long at most.
const BEHIND: Duration = Duration::from_secs(60);

/// With loss: a ring that is soon full, and for how long at a time it is read, and is not.
const SMALL_RING: u32 = 64 << 10;
const READ: Duration = Duration::from_millis(200);
const UNREAD: Duration = Duration::from_millis(100);

/// Traces all processes but this one, on a thread of its own. One tracer serves many runs: taking its probes away takes long.
pub struct Tracing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), SourceError>>>,
    with_loss: bool,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// What every log begins with.
    clock: Clock,
    processes: HashMap<ProcessKey, Arc<Process>>,
    log: Option<LogWriter<File>>,
    /// Why the log is not complete.
    failure: Option<std::io::Error>,
    lost: u64,
    lost_before: u64,
    /// Times that it looked for events, and wrote all that there were.
    looks: u64,
    /// What ran at the start is probed.
    is_settled: bool,
}

impl Tracing {
    /// Starts the tracer; all that runs already is probed then. `with_loss`, the ring is full now and then, as when this process
    /// gets no CPU.
    pub fn start(with_loss: bool) -> anyhow::Result<Self> {
        let this = Self::begin(with_loss, None)?;
        this.wait_until(|heard| heard.is_settled)?;
        Ok(this)
    }

    fn begin(with_loss: bool, log: Option<LogWriter<File>>) -> anyhow::Result<Self> {
        let mut tracer = TracerOptions::default();
        if with_loss {
            tracer.ring_bytes = SMALL_RING;
        }
        let options = LiveOptions { tracer, tls: true, limits: None, own: Vec::new(), record: None };
        let live = Live::start(options).context("cannot trace")?;
        let shared =
            Arc::new(Shared { heard: Mutex::new(Heard { log, ..Heard::default() }), ..Shared::default() });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || trace(live, &of_thread, with_loss));
        Ok(Self { shared, thread: Some(thread), with_loss })
    }

    /// Another one of the same kind.
    pub fn another(&self) -> anyhow::Result<Self> {
        Self::start(self.with_loss)
    }

    /// Another one, which writes all that it says to an event log: also what is said while what runs already is being probed.
    pub fn another_from_the_start(&self, events: &Path) -> anyhow::Result<Self> {
        Self::begin(self.with_loss, Some(LogWriter::new(File::create(events)?)?))
    }

    /// Writes what is said from now on to an event log.
    pub fn record(&self, events: &Path) -> anyhow::Result<()> {
        let mut log = LogWriter::new(File::create(events)?)?;
        let mut heard = self.shared.heard();
        log.write(Entry::Clock(heard.clock))?;
        for (key, process) in &heard.processes {
            log.write(Entry::Process(*key, process))?;
        }
        heard.log = Some(log);
        heard.lost_before = heard.lost;
        Ok(())
    }

    /// Ends the event log. Gives how many events were lost meanwhile.
    pub fn finish(&self) -> anyhow::Result<u64> {
        self.catch_up()?;
        let mut heard = self.shared.heard();
        let mut log = heard.log.take().context("nothing is recorded")?;
        log.flush()?;
        if let Some(error) = heard.failure.take() {
            return Err(error).context("the event log is not complete");
        }
        Ok(heard.lost - heard.lost_before)
    }

    /// Waits until all that happened before was told. The look that is under way may have begun before.
    fn catch_up(&self) -> anyhow::Result<()> {
        let looks = self.shared.heard().looks + 2;
        self.wait_until(|heard| heard.looks >= looks)
    }

    fn wait_until(&self, is_done: impl Fn(&Heard) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + BEHIND;
        while !is_done(&self.shared.heard()) {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                bail!("the tracer has ended");
            }
            if Instant::now() > end {
                bail!("the tracer is more than {} s behind", BEHIND.as_secs());
            }
            std::thread::sleep(PATIENCE);
        }
        Ok(())
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("the tracer ended: {error}"),
            Some(Err(panic)) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trace(mut live: Live, shared: &Shared, with_loss: bool) -> Result<(), SourceError> {
    let mut read_since = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        if with_loss && read_since.elapsed() >= READ {
            std::thread::sleep(UNREAD);
            read_since = Instant::now();
        }
        live.next(PATIENCE, &mut |entry| shared.heard().take(entry))?;
        let lost = live.counts().lost().map(|(_, events)| events).sum();
        let is_settled = live.is_settled();
        let mut heard = shared.heard();
        heard.lost = lost;
        heard.looks += 1;
        heard.is_settled = is_settled;
        drop(heard);
        for note in live.notes() {
            eprintln!("the tracer says: {note}");
        }
    }
    Ok(())
}

impl Heard {
    fn take(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Clock(clock) => self.clock = clock,
            Entry::Process(key, process) => drop(self.processes.insert(key, Arc::clone(process))),
            Entry::Event(_) | Entry::TlsUnseen(..) | Entry::Gap => {}
        }
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.write(entry)) {
            self.failure = Some(error);
        }
    }
}

//! One run of a scenario: its events as a log, and beside it what the services noted.

use super::load::Requests;
use super::scenario::Scenario;
use super::service::{Place, Running, Service, Workshop};
use super::tracing::Tracing;
use super::truth::Truth;
use crate::namespace::in_namespace;
use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wirespan_event::Entry;
use wirespan_event::log::LogReader;
use wirespan_host::context::{ContextConfig, Rules};
use wirespan_host::{Host, HostConfig};
use wirespan_records::Span;

/// How often a host is told what time it is, ns.
const ADVANCE_NS: u64 = 10_000_000;
/// The last events come within this time.
pub const SETTLE: Duration = Duration::from_millis(200);

/// A run that is over.
pub struct Recording {
    events: PathBuf,
    notes: Notes,
}

/// What is known of a run but for its events.
#[derive(Serialize, Deserialize)]
struct Notes {
    /// What the requests' ids begin with.
    tag: String,
    requests: usize,
    lost_events: u64,
    /// See [`Truth::read`].
    services: String,
}

impl Recording {
    /// Runs services under the tracer; leaves the events in a file.
    pub fn make(
        events: PathBuf,
        scenario: &Scenario,
        workshop: &Workshop,
        concurrency: usize,
        count: usize,
        wire_ids: bool,
    ) -> anyhow::Result<Self> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let tag = format!("p{}r{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let notes = in_namespace(|| {
            private_host(workshop)?;
            std::thread::scope(|scope| {
                let mut tracer = None;
                if !scenario.attached_late {
                    tracer = Some(Tracing::start(scope, &events)?);
                }
                let services = Running::start(&scenario.services, workshop, &Place::default())?;
                let certificate = &workshop.certificate();
                let requests = Requests {
                    path: scenario.path,
                    load: scenario.load,
                    tls: scenario.services.last().is_some_and(Service::is_tls),
                    port: services.entry,
                    tag: &tag,
                    count,
                    concurrency,
                    wire_ids,
                    certificate,
                };
                let tracer = match tracer {
                    Some(tracer) => tracer,
                    None => {
                        let before = format!("{tag}before");
                        Requests { tag: &before, count: 4 * concurrency, ..requests }.make()?;
                        Tracing::start(scope, &events)?
                    }
                };
                let made = requests.make();
                std::thread::sleep(SETTLE);
                let lost_events = tracer.stop()?;
                made.with_context(|| services.said())?;
                Ok(Notes { tag: tag.clone(), requests: count, lost_events, services: services.notes()? })
            })
        })?;
        fs::write(notes_of(&events), serde_json::to_vec(&notes)?)?;
        Ok(Self { events, notes })
    }

    /// A run whose files were kept.
    pub fn open(events: PathBuf) -> anyhow::Result<Self> {
        let notes = notes_of(&events);
        let text = fs::read(&notes).with_context(|| format!("cannot read {}", notes.display()))?;
        Ok(Self { notes: serde_json::from_slice(&text)?, events })
    }

    /// Deletes its files.
    pub fn remove(self) -> anyhow::Result<()> {
        fs::remove_file(notes_of(&self.events))?;
        Ok(fs::remove_file(self.events)?)
    }

    /// What its requests' ids begin with.
    pub fn tag(&self) -> &str {
        &self.notes.tag
    }

    /// How many were made.
    pub fn requests(&self) -> usize {
        self.notes.requests
    }

    /// Events that the tracer could not hand on.
    pub fn lost_events(&self) -> u64 {
        self.notes.lost_events
    }

    /// What the services say.
    pub fn truth(&self) -> anyhow::Result<Truth> {
        Truth::read(&self.notes.services, &self.notes.tag)
    }

    /// What a host makes of the events.
    pub fn spans(&self, rules: Rules) -> anyhow::Result<Vec<Span>> {
        spans_of(&self.events, rules)
    }
}

/// What a host makes of an event log.
pub fn spans_of(events: &Path, rules: Rules) -> anyhow::Result<Vec<Span>> {
    let mut log = LogReader::new(File::open(events)?)?;
    let context = ContextConfig { rules, ..ContextConfig::default() };
    let mut host = Host::new(HostConfig { context, ..HostConfig::default() });
    let mut spans = Vec::new();
    let (mut now_ns, mut advanced_ns) = (0, 0);
    while let Some(entry) = log.next_entry()? {
        match entry {
            Entry::Clock(clock) => host.set_clock(clock),
            Entry::Process(key, process) => host.process(key, process.clone()),
            Entry::Event(event) => {
                host.event(&event);
                now_ns = event.header.exit_ns.max(now_ns);
                if now_ns > advanced_ns + ADVANCE_NS {
                    host.advance(now_ns, &mut spans);
                    advanced_ns = now_ns;
                }
            }
        }
    }
    host.finish(&mut spans);
    if log.stats().damaged + log.stats().cut > 0 {
        bail!("the event log is damaged: {:?}", log.stats());
    }
    Ok(spans)
}

fn notes_of(events: &Path) -> PathBuf {
    events.with_extension("notes")
}

/// This thread's namespace has a loopback interface that is up, and a name server on it.
fn private_host(workshop: &Workshop) -> anyhow::Result<()> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run `ip`")?;
    if !up.success() {
        bail!("cannot set the loopback interface up");
    }
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace; run as root")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some(&workshop.resolver()), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)
        .context("cannot set the name server")
}

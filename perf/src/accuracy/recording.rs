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
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use wirespan_host::context::{ContextConfig, Rules};
use wirespan_host::{Host, HostConfig};
use wirespan_records::Span;
use wirespan_syscalls::{EventSource, LogFile};

/// The last events come within this time.
pub const SETTLE: Duration = Duration::from_millis(200);

/// So long there are requests already when the tracer begins in the middle of them.
const UNTRACED: Duration = Duration::from_millis(500);

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

/// What is run.
pub struct Run<'a> {
    pub scenario: &'a Scenario,
    /// Requests at the same time.
    pub concurrency: usize,
    /// Requests altogether.
    pub requests: usize,
    /// With `traceparent`.
    pub wire_ids: bool,
    /// The tracer begins when requests have been made for some time.
    pub in_the_middle: bool,
}

impl Run<'_> {
    /// Runs the services under the tracer; leaves the events in a file.
    pub fn record(
        &self,
        events: PathBuf,
        workshop: &Workshop,
        tracing: &Tracing,
    ) -> anyhow::Result<Recording> {
        let &Self { scenario, concurrency, requests: count, wire_ids, in_the_middle } = self;
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let tag = format!("p{}r{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let notes = in_namespace(|| {
            private_host(workshop)?;
            if !scenario.attached_late && !in_the_middle {
                tracing.record(&events)?;
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
            let late;
            let mut tracing = tracing;
            let made = if in_the_middle {
                let (made, begun) = std::thread::scope(|scope| {
                    let making = scope.spawn(|| requests.make());
                    std::thread::sleep(UNTRACED);
                    let begun = tracing.another_from_the_start(&events);
                    (making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), begun)
                });
                late = begun?;
                tracing = &late;
                made
            } else {
                if scenario.attached_late {
                    let before = format!("{tag}before");
                    Requests { tag: &before, count: 4 * concurrency, ..requests }.make()?;
                    late = tracing.another()?;
                    late.record(&events)?;
                    tracing = &late;
                }
                requests.make()
            };
            std::thread::sleep(SETTLE);
            let lost_events = tracing.finish()?;
            made.with_context(|| services.said())?;
            Ok(Notes { tag: tag.clone(), requests: count, lost_events, services: services.notes()? })
        })?;
        fs::write(notes_of(&events), serde_json::to_vec(&notes)?)?;
        Ok(Recording { events, notes })
    }
}

impl Recording {
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
    let mut log = LogFile::open(events)?;
    let context = ContextConfig { rules, ..ContextConfig::default() };
    let mut host = Host::new(HostConfig { context, ..HostConfig::default() });
    let mut spans = Vec::new();
    while let Some(now_ns) = log.next(Duration::ZERO, &mut |entry| host.entry(entry))? {
        host.advance(now_ns, &mut spans);
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

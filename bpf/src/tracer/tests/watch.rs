//! A tracer of this process, and what it told.

use std::time::{Duration, Instant};

use wirespan_event::{Flags, Header, Kind};

use super::super::object::Kernel;
use super::super::{Tracer, TracerOptions};
use crate::BpfError;

/// One event, kept.
#[derive(Clone, Debug)]
pub struct Seen {
    pub header: Header,
    pub payload: Vec<u8>,
}

impl Seen {
    pub fn kind(&self) -> Kind {
        self.header.kind().unwrap()
    }

    pub fn has(&self, flags: Flags) -> bool {
        self.header.flags.has(flags)
    }
}

/// A running tracer with what it told so far.
pub struct Watch {
    pub tracer: Tracer,
    pub seen: Vec<Seen>,
}

/// Options to watch this process alone.
pub fn this_process() -> TracerOptions {
    TracerOptions { left_out: None, only: Some(std::process::id()), ..TracerOptions::default() }
}

/// Watches; `None`, after saying why, where that is not possible and need not be.
pub fn watch(options: &TracerOptions) -> Option<Watch> {
    check(Tracer::start(options))
}

/// The same, with the kernel taken for another.
pub fn watch_on(kernel: Kernel, options: &TracerOptions) -> Option<Watch> {
    check(Tracer::start_on(kernel, options))
}

/// With probes; the same as on a kernel whose links hold one probe each, where told.
pub fn watch_with_probes(links_of_many: bool) -> Option<Watch> {
    let options = TracerOptions { uprobes: true, ..this_process() };
    watch_on(Kernel { links_of_many, ..Kernel::RUNNING }, &options)
}

fn check(started: Result<Tracer, BpfError>) -> Option<Watch> {
    match started {
        Ok(tracer) => Some(Watch { tracer, seen: Vec::new() }),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

impl Watch {
    /// Takes what is there.
    pub fn drain(&mut self) {
        let seen = &mut self.seen;
        self.tracer.drain(&mut |event| {
            seen.push(Seen { header: *event.header, payload: event.payload.to_vec() });
        });
    }

    /// The events that `wanted` picks, as soon as there are `count` of them.
    pub fn wait_for(&mut self, count: usize, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let start = Instant::now();
        loop {
            self.drain();
            let found: Vec<_> = self.seen.iter().filter(|seen| wanted(seen)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{} of {count} events; seen were {:#?}; {:?}",
                found.len(),
                self.seen,
                self.tracer.stats()
            );
            self.tracer.wait(Duration::from_millis(5)).unwrap();
        }
    }

    /// Events of connections that this port is an end of.
    pub fn of_port(&mut self, count: usize, kind: Kind, port: u16) -> Vec<Seen> {
        self.wait_for(count, |seen| {
            seen.kind() == kind && (seen.header.local_port == port || seen.header.remote_port == port)
        })
    }
}

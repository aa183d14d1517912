//! The tracer of system calls: facts about what this host's processes do with sockets, as [`Event`]s.
//!
//! Takes in [`TracerOptions`]; hands on events out of the ring of `programs/tracer.bpf.c`, in the order in which their room
//! there was taken, and says what is not traced ([`Feature`]) and what was lost ([`Stats`]). It runs until it is dropped.
//!
//! What runs for each system call, and each time that bytes go through a socket, is paid by everybody. So the programs that see
//! io_uring's bytes, which run for all bytes, are attached when somebody uses it: by the next [`Tracer::drain`].
//!
//! Written for Linux 5.8 and newer with BTF; `make kernels` tries it on Debian's, from 5.10 on, x86-64.
//!
//! | module | what |
//! |---|---|
//! | `options` | what is traced |
//! | `calls` | which system calls those are |
//! | `go` | which processes are programs of Go |
//! | `object` | the programs in the kernel |
//! | `policy` | how much payload comes with events |
//! | `probes` | the programs of probes in the kernel |
//! | `ring` | events, and waiting for them |
//! | `stats` | what was lost or left out |
//! | `uprobe` | probes on functions of programs and libraries |

mod calls;
mod go;
mod object;
mod options;
mod policy;
mod probes;
mod ring;
mod stats;
#[cfg(test)]
mod tests;
mod uprobe;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, MapData, PerCpuArray};
use wirespan_event::Event;

use crate::BpfError;
pub use go::{GoProgram, GoResult, GoWord};
use object::{Kernel, Object};
pub use options::{Groups, TracerOptions};
use policy::Policy;
pub use policy::Snap;
use probes::Probes;
use ring::Ring;
use stats::Counters;
pub use stats::{ProgramStats, Stats};
pub use uprobe::{Prober, UprobeLink};

/// Something that is traced, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What, in plain words.
    pub name: &'static str,
    /// Why it is off; `None` when it is on.
    pub off: Option<String>,
}

/// The kernel counts what programs cost while this is there.
#[derive(Debug)]
pub struct CostCounting {
    _descriptor: OwnedFd,
}

/// Programs that are attached when they are needed.
const ON_DEMAND: [&str; 2] = ["send_length", "recv_length"];

/// What programs are attached to: feature, program, tracepoint, whether it is asked for.
fn attachments(groups: &Groups) -> [(&'static str, &'static str, &'static str, bool); 10] {
    let calls = groups.data || groups.connections || groups.turns;
    [
        // What forgets a socket is there before what remembers one.
        ("ends of TCP sockets", "destroy_sock", "tcp_destroy_sock", groups.data || groups.connections),
        // The ends first: an end without a beginning is ignored, a beginning without an end is remembered.
        ("ends of system calls", "sys_exit", "sys_exit", calls),
        ("system calls", "sys_enter", "sys_enter", calls),
        ("states of TCP connections", "set_state", "inet_sock_set_state", groups.connections),
        ("new processes and threads", "process_fork", "sched_process_fork", groups.processes),
        ("executed programs", "process_exec", "sched_process_exec", groups.processes),
        ("ends of processes and threads", "process_exit", "sched_process_exit", calls || groups.processes),
        ("bytes sent by io_uring", "send_length", "sock_send_length", groups.lengths),
        ("bytes received by io_uring", "recv_length", "sock_recv_length", groups.lengths),
        ("wake-ups between threads", "waking", "sched_waking", groups.wakes),
    ]
}

/// A running tracer.
pub struct Tracer {
    object: Object,
    ring: Ring,
    policy: Arc<Mutex<Policy>>,
    counters: PerCpuArray<MapData, Counters>,
    probes: Arc<Probes>,
    /// Until it is taken.
    prober: Option<Prober>,
    features: Vec<Feature>,
    wishes: Array<MapData, Wishes>,
    /// Loaded, not attached: features and programs.
    on_demand: Vec<(&'static str, &'static str)>,
}

/// `struct wishes` of `programs/tracer_maps.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    lengths: u32,
}

// SAFETY: an integer.
unsafe impl Pod for Wishes {}

impl Tracer {
    /// Loads the programs and attaches them one by one. Fails when system calls cannot be traced; anything else that cannot
    /// is off, see [`Self::features`].
    pub fn start(options: &TracerOptions) -> Result<Self, BpfError> {
        Self::start_on(Kernel::RUNNING, options)
    }

    fn start_on(kernel: Kernel, options: &TracerOptions) -> Result<Self, BpfError> {
        let ring_bytes = options.ring_bytes.max(1 << 12).checked_next_power_of_two().unwrap_or(1 << 31);
        let options = TracerOptions { ring_bytes, ..options.clone() };
        let mut object = Object::load(&options, kernel)?;
        let probes = Arc::new(if options.uprobes { object.load_probes(kernel)? } else { Probes::default() });
        let policy = Arc::new(Mutex::new(Policy::take(&mut object, options.snap)?));
        let prober = Prober {
            probes: Arc::clone(&probes),
            go_programs: object.map("go_programs")?,
            policy: Arc::clone(&policy),
        };
        let mut tracer = Self {
            ring: Ring::take(&mut object)?,
            counters: object.map("counters")?,
            policy,
            probes,
            prober: Some(prober),
            features: Vec::new(),
            wishes: object.map("wishes")?,
            on_demand: Vec::new(),
            object,
        };
        let attachments = attachments(&options.groups);
        // All are loaded first: the kernel checks some for a tenth of a second, in which what others tell is not taken.
        let loaded = attachments.map(|(_, program, tracepoint, wanted)| {
            wanted.then(|| tracer.object.load_program(program, tracepoint))
        });
        for ((name, program, ..), loaded) in attachments.into_iter().zip(loaded) {
            let off = match loaded.map(|loaded| loaded.and_then(|()| tracer.start_program(name, program))) {
                Some(Err(error)) if program.starts_with("sys_") => return Err(error),
                Some(started) => started.err().map(|error| error.reason()),
                None => Some("switched off".to_owned()),
            };
            tracer.features.push(Feature { name, off });
        }
        Ok(tracer)
    }

    /// Attaches a loaded program, unless that has time.
    fn start_program(&mut self, feature: &'static str, program: &'static str) -> Result<(), BpfError> {
        if ON_DEMAND.contains(&program) {
            self.on_demand.push((feature, program));
            return Ok(());
        }
        self.object.attach(program)
    }

    /// Attaches what is needed by now.
    fn grant_wishes(&mut self) {
        if self.on_demand.is_empty() || !self.wishes.get(&0, 0).is_ok_and(|wishes| wishes.lengths != 0) {
            return;
        }
        for (name, program) in self.on_demand.drain(..) {
            if let Err(error) = self.object.attach(program)
                && let Some(feature) = self.features.iter_mut().find(|feature| feature.name == name)
            {
                feature.off = Some(error.reason());
            }
        }
    }

    /// Everything that can be traced: on, as soon as somebody does it, or why not.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Waits until a quarter of the ring is full, or until the time is over. Single events do not end it, because waking
    /// somebody costs more than an event: `time` is how long events may wait.
    pub fn wait(&self, time: Duration) -> Result<(), BpfError> {
        self.ring.wait(time).map_err(|error| BpfError::map(&error))
    }

    /// Hands on what is in the ring, and says how many events that were. Under load that never stops, it returns after a ringful.
    pub fn drain(&mut self, each: &mut dyn FnMut(Event<'_>)) -> usize {
        self.grant_wishes();
        self.ring.drain(each)
    }

    /// Nothing is traced any more but by probes; what is in the ring is handed on by [`Self::drain`].
    pub fn detach(&mut self) -> Result<(), BpfError> {
        self.object.detach()
    }

    /// Sets how much payload comes with events, and traces the data of one of `one_of` connections only, rounded up to a power of
    /// two.
    pub fn set_default(&mut self, snap: Snap, one_of: u32) -> Result<(), BpfError> {
        self.policy().set_default(snap, one_of)
    }

    /// Lets the kernel count what programs cost, for [`Stats::programs`], until the result is dropped.
    pub fn count_cost(&self) -> Result<CostCounting, BpfError> {
        let counting = aya::sys::enable_stats(aya::sys::Stats::RunTime);
        Ok(CostCounting { _descriptor: counting.map_err(|error| BpfError::load(&error))? })
    }

    /// Events so far, and what was lost or left out.
    pub fn stats(&self) -> Result<Stats, BpfError> {
        let counters = Counters::sum(&self.counters)?;
        let mut programs = self.object.program_stats()?;
        for stats in self.probes.stats() {
            programs.push(stats?);
        }
        Ok(Stats {
            made: counters.made,
            events: self.ring.events,
            bytes: self.ring.bytes,
            ring_full: counters.ring_full,
            threads_full: counters.threads_full,
            sockets_full: counters.conns_full,
            muted: counters.muted,
            unreadable: counters.unreadable,
            messages_over: counters.messages_over,
            peeked: counters.peeked,
            compat: counters.compat,
            closes_over: counters.closes_over,
            sockets_met: counters.conns_met,
            malformed: self.ring.malformed,
            recursion_misses: programs.iter().map(|program| program.recursion_misses).sum(),
            programs,
        })
    }

    /// What attaches probes, those of [`TracerOptions::uprobes`]; once.
    pub fn take_prober(&mut self) -> Option<Prober> {
        self.prober.take()
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

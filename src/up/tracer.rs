//! The tracer's thread: events of the host's system calls and TLS libraries become spans of its processes.

use super::sources::Mode;
use super::tracer_counters::TracerCounters;
use anyhow::ensure;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wirespan_analyzer::{Registry, Sink};
use wirespan_host::{Host, HostConfig};
use wirespan_records::{Endpoint, Records};
use wirespan_syscalls::guard::Limits;
use wirespan_syscalls::source::TracerOptions;
use wirespan_syscalls::{EventSource, Live, LiveOptions, SourceError};

/// How long events wait in the ring; each look costs a little, and spans wait longer for other reasons.
const PATIENCE: Duration = Duration::from_millis(10);
/// Records are handed on when there are so many, or after so long.
const HAND_ON_RECORDS: usize = 2048;
const HAND_ON_EVERY: Duration = Duration::from_millis(200);

/// What is traced, and what that may cost.
#[derive(clap::Args)]
pub struct TracerArgs {
    /// Trace system calls and TLS libraries of this host's processes with eBPF: needs root and a kernel with type information
    /// (BTF); `wirespan probe` says what can be traced. With `on`, no interface needs to be watched
    #[arg(long, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    tracer: When,

    /// Cores that the tracer may take, its programs in the kernel included; on a host without idle CPU, half of that. When it takes
    /// more, payload, then most connections, then all is left out, until there is room again [default: a tenth of the
    /// machine's, from 0.25 to 1]
    #[arg(long, value_name = "CORES", value_parser = positive)]
    tracer_cpu: Option<f64>,

    /// Memory of this process beyond which the tracer does less, MiB; never more than its cgroup may have
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    tracer_memory: u64,

    /// Write the tracer's events to this file too, for `wirespan replay`; they hold what applications sent and received
    #[arg(long, value_name = "FILE")]
    record_events: Option<PathBuf>,
}

/// When processes are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// With --mode host, where it is possible
    Auto,
    /// Always; fails where it is not possible
    On,
    /// Never
    Off,
}

impl TracerArgs {
    /// Processes are traced for their own sake: no interface needs to be watched.
    pub fn is_enough(&self) -> bool {
        self.tracer == When::On
    }

    /// Starts the tracer, where it is wanted. Where it cannot be had and need not, a sentence says so.
    pub fn open(&self, mode: Mode, own: &[Endpoint]) -> anyhow::Result<Option<Live>> {
        let wanted = match self.tracer {
            When::On => true,
            When::Auto => mode == Mode::Host,
            When::Off => false,
        };
        ensure!(wanted || self.record_events.is_none(), "--record-events needs the tracer; add --tracer on");
        if !wanted {
            return Ok(None);
        }
        let options = LiveOptions {
            tracer: TracerOptions::default(),
            tls: true,
            limits: Some(self.limits()),
            own: own.to_vec(),
            record: self.record_events.clone(),
        };
        match Live::start(options) {
            Ok(live) => {
                for feature in live.features() {
                    if let Some(reason) = feature.off {
                        eprintln!("wirespan: not traced: {} ({reason})", feature.name);
                    }
                }
                Ok(Some(live))
            }
            Err(SourceError::Tracer(error)) if self.tracer == When::Auto && self.record_events.is_none() => {
                eprintln!("wirespan: processes are not traced, packets are: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn limits(&self) -> Limits {
        let of_machine = Limits::of_machine(std::thread::available_parallelism().map_or(1, usize::from));
        let cpu_cores = self.tracer_cpu.unwrap_or(of_machine.cpu_cores);
        Limits { cpu_cores, memory_bytes: self.tracer_memory << 20 }.within_cgroup()
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|cores| *cores > 0.0)
        .ok_or_else(|| "give a number of cores above 0, such as 0.2".to_owned())
}

/// A thread that traces until it is told to stop, and hands on everything it took in before it ends.
pub struct TracerThread(JoinHandle<()>);

impl TracerThread {
    pub fn start(
        source: Live,
        config: HostConfig,
        sink: Sink,
        registry: &Registry,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let counters = TracerCounters::new(registry, &source);
        let tracing =
            Tracing { source, host: Host::new(config), records: Records::default(), sink, counters };
        let run = move || tracing.run(&stop);
        Ok(Self(std::thread::Builder::new().name("tracer".to_owned()).spawn(run)?))
    }

    /// Waits for the end.
    pub fn join(self) -> anyhow::Result<()> {
        self.0.join().map_err(|_| anyhow::anyhow!("the tracer's thread ended by a panic"))
    }
}

struct Tracing {
    source: Live,
    host: Host,
    records: Records,
    sink: Sink,
    counters: TracerCounters,
}

impl Tracing {
    fn run(mut self, stop: &AtomicBool) {
        let mut hand_on_at = Instant::now() + HAND_ON_EVERY;
        while !stop.load(Ordering::Relaxed) {
            match self.source.next(PATIENCE, &mut |entry| self.host.entry(entry)) {
                Ok(Some(now_ns)) => self.host.advance(now_ns, &mut self.records),
                Ok(None) => break,
                Err(error) => {
                    eprintln!("wirespan: processes are not traced any more, packets are: {error}");
                    break;
                }
            }
            let now = Instant::now();
            if self.records.len() >= HAND_ON_RECORDS || now >= hand_on_at {
                self.hand_on();
                hand_on_at = now + HAND_ON_EVERY;
            }
        }
        self.host.finish(&mut self.records);
        self.hand_on();
    }

    /// Gives the records to the exporter, whose queue drops and counts when it is full, and the counters to the registry.
    fn hand_on(&mut self) {
        self.sink.send(std::mem::take(&mut self.records));
        self.counters.set(&self.source, &self.host.stats());
        for note in self.source.notes() {
            eprintln!("wirespan: {note}");
        }
    }
}

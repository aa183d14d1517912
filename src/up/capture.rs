//! The capture threads: one per source, each with a worker of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};
use wirespan_analyzer::{Counter, Registry, Sink};
use wirespan_capture::{CaptureError, PacketSource, SourceStats, af_packet, af_xdp};
use wirespan_dataplane::{Worker, WorkerConfig, WorkerStats};
use wirespan_records::{DropReason, Records};

/// Records are handed on when there are so many, or after so long.
const HAND_ON_RECORDS: usize = 2048;
const HAND_ON_EVERY: Duration = Duration::from_millis(200);

/// How frames are taken from an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// A ring shared with the kernel; the host's own traffic goes on as it is
    AfPacket,
    /// AF_XDP; takes the frames away from the host, so only for an interface that a mirror feeds
    AfXdp,
}

/// Opens the sources of one interface.
pub fn open(
    backend: Backend,
    interface: &str,
    port: u16,
    workers: u16,
) -> Result<Vec<Box<dyn PacketSource>>, CaptureError> {
    match backend {
        Backend::AfPacket => {
            // Fanout groups are numbers of the network namespace: the process id keeps two wirespans apart.
            let group = (std::process::id() as u16).wrapping_add(port);
            let options = af_packet::Options {
                fanout_group: (workers > 1).then_some(group),
                port,
                ..af_packet::Options::default()
            };
            let open = |_| {
                Ok(Box::new(af_packet::AfPacket::open(interface, options.clone())?) as Box<dyn PacketSource>)
            };
            (0..workers).map(open).collect()
        }
        Backend::AfXdp => {
            let options = af_xdp::Options { port, ..af_xdp::Options::default() };
            let sources = af_xdp::AfXdp::open(interface, options)?;
            Ok(sources.into_iter().map(|source| Box::new(source) as Box<dyn PacketSource>).collect())
        }
    }
}

/// Addresses of this host, sorted.
pub fn local_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .map(|interfaces| interfaces.iter().map(if_addrs::Interface::ip).collect())
        .unwrap_or_default();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A thread that captures until it is told to stop, and hands on everything it took in before it ends.
pub struct CaptureThread {
    interface: String,
    thread: JoinHandle<Result<(), CaptureError>>,
}

impl CaptureThread {
    pub fn start(
        interface: &str,
        source: Box<dyn PacketSource>,
        config: WorkerConfig,
        sink: Sink,
        registry: &Registry,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let counters = Counters::new(registry, interface, config.flow.worker);
        let worker = Worker::new(config);
        let capture = Capture { source, worker, records: Records::default(), sink, counters };
        let name = format!("capture-{interface}");
        let thread = std::thread::Builder::new().name(name).spawn(move || capture.run(&stop))?;
        Ok(Self { interface: interface.to_owned(), thread })
    }

    /// The thread ended, by itself or because it was told to.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    pub fn join(self) -> anyhow::Result<()> {
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => anyhow::bail!("the capture thread of {} ended by a panic", self.interface),
        }
    }
}

struct Capture {
    source: Box<dyn PacketSource>,
    worker: Worker,
    records: Records,
    sink: Sink,
    counters: Counters,
}

impl Capture {
    fn run(mut self, stop: &AtomicBool) -> Result<(), CaptureError> {
        let mut hand_on_at = Instant::now() + HAND_ON_EVERY;
        let result = loop {
            if stop.load(Ordering::Relaxed) {
                break Ok(());
            }
            match self.source.next_batch() {
                Ok(Some(batch)) if batch.is_empty() => {
                    let now_ns = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
                    self.worker.idle(now_ns, &mut self.records);
                }
                Ok(Some(batch)) => self.worker.batch(batch, &mut self.records),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            let now = Instant::now();
            if self.records.len() >= HAND_ON_RECORDS || now >= hand_on_at {
                self.hand_on();
                hand_on_at = now + HAND_ON_EVERY;
            }
        };
        self.worker.finish(&mut self.records);
        self.hand_on();
        result
    }

    /// Gives the records to the exporter, whose queue drops and counts when it is full, and the counters to the registry.
    fn hand_on(&mut self) {
        self.sink.send(std::mem::take(&mut self.records));
        self.counters.set(&self.worker.stats(), &self.source.stats());
    }
}

/// What a capture thread counts, in the registry.
struct Counters {
    received: Counter,
    kernel_drops: Counter,
    frames: Counter,
    bytes: Counter,
    packets: Counter,
    drops: HashMap<DropReason, Counter>,
    flows: Counter,
    evicted: Counter,
    live: Counter,
    gap_bytes: Counter,
}

impl Counters {
    fn new(registry: &Registry, interface: &str, worker: u16) -> Self {
        let worker = worker.to_string();
        let labels = [("interface", interface), ("worker", worker.as_str())];
        let counter = |name, help| registry.counter(name, help, &labels);
        let drop_counter = |&reason: &DropReason| {
            let labels = [labels[0], labels[1], ("reason", reason.as_str())];
            let help = "Frames that did not become a packet of a flow, by reason.";
            (reason, registry.counter("wirespan_frames_dropped_total", help, &labels))
        };
        Self {
            received: counter("wirespan_capture_received_total", "Frames lent by the source."),
            kernel_drops: counter(
                "wirespan_capture_kernel_drops_total",
                "Frames the kernel dropped: the ring was full.",
            ),
            frames: counter("wirespan_frames_total", "Frames taken in: packets and the dropped ones."),
            bytes: counter("wirespan_frame_bytes_total", "Bytes of the frames on the wire."),
            packets: counter("wirespan_packets_total", "Packets that went to the flow table."),
            drops: DropReason::ALL.iter().map(drop_counter).collect(),
            flows: counter("wirespan_flows_total", "Flows begun."),
            evicted: counter("wirespan_flows_evicted_total", "Flows that left because the table was full."),
            live: registry.gauge("wirespan_flows_live", "Flows in the table.", &labels),
            gap_bytes: counter(
                "wirespan_l7_gap_bytes_total",
                "Stream bytes that a parser waited for and that were not captured.",
            ),
        }
    }

    fn set(&self, worker: &WorkerStats, source: &SourceStats) {
        self.received.set(source.received);
        self.kernel_drops.set(source.kernel_drops);
        self.frames.set(worker.frames);
        self.bytes.set(worker.bytes);
        self.packets.set(worker.packets);
        for (reason, counter) in &self.drops {
            counter.set(worker.drops.get(*reason));
        }
        self.flows.set(worker.flow.flows);
        self.evicted.set(worker.flow.evicted);
        self.live.set(worker.flow.live);
        self.gap_bytes.set(worker.l7.gap_bytes);
    }
}

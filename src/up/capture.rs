//! The capture threads: one per source, each with a worker of its own.

use super::counters::{Counters, Fallbacks};
use super::filter::LiveFilter;
use super::sources::WorkerSource;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};
use wirespan_analyzer::{Registry, Sink};
use wirespan_capture::{CaptureError, Loss, NicMissed, PacketSource, placement};
use wirespan_dataplane::{Worker, WorkerConfig};
use wirespan_records::Records;

/// Records are handed on when there are so many, or after so long.
const HAND_ON_RECORDS: usize = 2048;
const HAND_ON_EVERY: Duration = Duration::from_millis(200);

/// A thread that captures until it is told to stop, and hands on everything it took in before it ends.
pub struct CaptureThread {
    name: String,
    thread: JoinHandle<Result<(), CaptureError>>,
}

impl CaptureThread {
    pub fn start(
        source: WorkerSource,
        config: WorkerConfig,
        filter: LiveFilter,
        sink: Sink,
        registry: &Registry,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<Self> {
        let WorkerSource { name, frames, shunt, cpu, missed, samples: _ } = source;
        let counters = Counters::new(registry, &name, config.flow.worker);
        let fallbacks = Fallbacks::new(registry, &name);
        let mut worker = Worker::new(config);
        if let Some(shunt) = shunt {
            worker.set_shunt(shunt);
        }
        let records = Records::default();
        let capture =
            Capture { frames, missed, worker, filter, filter_version: 0, records, sink, counters, fallbacks };
        let run = move || {
            // A worker that may not choose its CPU runs where it is put.
            if let Some(cpu) = cpu {
                let _ = placement::pin_to_cpu(cpu);
            }
            capture.run(&stop)
        };
        let thread = std::thread::Builder::new().name(format!("capture-{name}")).spawn(run)?;
        Ok(Self { name, thread })
    }

    /// The thread ended, by itself or because it was told to.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    pub fn join(self) -> anyhow::Result<()> {
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => anyhow::bail!("the capture thread of {} ended by a panic", self.name),
        }
    }
}

struct Capture {
    frames: Box<dyn PacketSource>,
    missed: Option<NicMissed>,
    worker: Worker,
    filter: LiveFilter,
    filter_version: u64,
    records: Records,
    sink: Sink,
    counters: Counters,
    fallbacks: Fallbacks,
}

impl Capture {
    fn run(mut self, stop: &AtomicBool) -> Result<(), CaptureError> {
        let mut now = Instant::now();
        let mut hand_on_at = now + HAND_ON_EVERY;
        self.take_filter()?;
        let result = loop {
            if stop.load(Ordering::Relaxed) {
                break Ok(());
            }
            self.worker.set_backlog(self.frames.backlog(), now);
            match self.frames.next_batch() {
                Ok(Some(batch)) if batch.is_empty() => {
                    let now_ns = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
                    self.worker.idle(now_ns, &mut self.records);
                }
                Ok(Some(batch)) => self.worker.batch(batch, &mut self.records),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            now = Instant::now();
            if self.records.len() >= HAND_ON_RECORDS || now >= hand_on_at {
                self.hand_on();
                hand_on_at = now + HAND_ON_EVERY;
                if let Err(error) = self.take_filter() {
                    break Err(error);
                }
            }
        };
        self.worker.finish(&mut self.records);
        self.hand_on();
        result
    }

    /// Takes rules that are new; the source applies them where it can.
    fn take_filter(&mut self) -> Result<(), CaptureError> {
        if let Some(filter) = self.filter.changed(&mut self.filter_version) {
            let by_source = self.frames.set_filter(&filter)?;
            self.worker.set_filter(&filter, by_source);
        }
        Ok(())
    }

    /// Gives the records to the exporter, whose queue drops and counts when it is full, and the counters to the registry.
    fn hand_on(&mut self) {
        self.sink.send(std::mem::take(&mut self.records));
        let mut lent = self.frames.stats();
        if let Some(missed) = &mut self.missed {
            lent.lose(Loss::NicMissed, missed.frames());
        }
        self.counters.set(&self.worker.stats(), &lent);
        for note in self.frames.notes() {
            self.fallbacks.count(note.kind());
            eprintln!("wirespan: {note}");
        }
    }
}

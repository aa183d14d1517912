//! Nothing is allocated per packet: a worker that has seen its flows once takes their packets without the allocator.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use wirespan_capture::PacketSource;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
use wirespan_frame::{Batch, Descriptor};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, Span};

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Counts {
    flows: u64,
    spans: u64,
}

impl SpanSink for Counts {
    fn span(&mut self, _: Span) {
        self.spans += 1;
    }
}

impl RecordSink for Counts {
    fn flow(&mut self, _: Flow) {
        self.flows += 1;
    }

    fn tick(&mut self, _: FlowTick) {}
}

/// The frames of a recorded capture, in memory.
struct Frames {
    region: Vec<u8>,
    descriptors: Vec<Descriptor>,
}

impl Frames {
    fn of_the_shop() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/shop.pcap");
        let mut source = PcapFile::open(path).unwrap();
        let (mut region, mut descriptors) = (Vec::new(), Vec::new());
        while let Some(batch) = source.next_batch().unwrap() {
            for frame in batch.frames() {
                descriptors.push(Descriptor {
                    offset: region.len(),
                    len: frame.data.len() as u32,
                    wire_len: frame.wire_len,
                    ts_ns: frame.ts_ns,
                    link: frame.link,
                    port: frame.port,
                    hints: frame.hints,
                });
                region.extend_from_slice(frame.data);
            }
        }
        Self { region, descriptors }
    }

    /// Gives all frames to the worker, and the number of allocations that took.
    fn replay(&mut self, worker: &mut Worker, sink: &mut Counts) -> u64 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for descriptors in self.descriptors.chunks(100) {
            worker.batch(Batch::new(&self.region, descriptors), sink);
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // The next time is an hour later: every flow is over by then.
        self.descriptors.iter_mut().for_each(|descriptor| descriptor.ts_ns += 3_600_000_000_000);
        allocations
    }
}

/// Both in one test: the counter is the process's.
#[test]
fn nothing_is_allocated_but_records() {
    let mut frames = Frames::of_the_shop();
    let mut config = WorkerConfig::default();
    config.flow.l7 = false;
    config.flow.ticks = true;
    let (mut worker, mut sink) = (Worker::new(config), Counts::default());
    // Each flow that needs a list of holes finds one in its place in the end.
    for _ in 0..8 {
        frames.replay(&mut worker, &mut sink);
    }
    let flows = sink.flows;
    assert_eq!(
        frames.replay(&mut worker, &mut sink),
        0,
        "flows end, begin and are reported without allocating"
    );
    assert!(sink.flows > flows && flows > 0);

    let (mut worker, mut sink) = (Worker::new(WorkerConfig::default()), Counts::default());
    frames.replay(&mut worker, &mut sink);
    let spans = sink.spans;
    let allocations = frames.replay(&mut worker, &mut sink);
    let made = sink.spans - spans;
    assert!(made > 100);
    // A span is made of two messages with attributes and long texts, and its flow has a parser; nothing else is left to allocate for.
    assert!(
        allocations < made * 10,
        "{allocations} allocations for {made} spans of {} frames",
        frames.descriptors.len()
    );
}

//! Decoding and flow updates, on what real servers said: `cargo bench -p wirespan-dataplane`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on stops")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_capture::{Batch, Descriptor, PacketSource};
use wirespan_dataplane::decode::{DecodeConfig, Decoder};
use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, Span};

struct Ignore;

impl SpanSink for Ignore {
    fn span(&mut self, _: Span) {}
}

impl RecordSink for Ignore {
    fn flow(&mut self, _: Flow) {}

    fn tick(&mut self, _: FlowTick) {}
}

/// Every frame of a capture, as one batch in memory.
fn frames() -> (Vec<u8>, Vec<Descriptor>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shop.pcap");
    let mut file = PcapFile::open(&path).unwrap();
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    while let Some(batch) = file.next_batch().unwrap() {
        for frame in batch.frames() {
            descriptors.push(Descriptor {
                offset: bytes.len(),
                len: frame.data.len() as u32,
                wire_len: frame.wire_len,
                ts_ns: frame.ts_ns,
                link: frame.link,
                port: frame.port,
                hints: frame.hints,
            });
            bytes.extend_from_slice(frame.data);
        }
    }
    (bytes, descriptors)
}

fn packets(criterion: &mut Criterion) {
    let (bytes, descriptors) = frames();
    let batch = Batch::new(&bytes, &descriptors);
    let mut group = criterion.benchmark_group("packets");
    group.throughput(Throughput::Elements(batch.len() as u64));
    let mut decoder = Decoder::new(DecodeConfig::default());
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for frame in batch.frames() {
                let _ = black_box(decoder.decode(&frame));
            }
        });
    });
    for (name, payload) in [("flows", false), ("flows and requests", true)] {
        // Cut behind the headers, frames have flows and no requests.
        let cut: Vec<_> = descriptors
            .iter()
            .map(|frame| Descriptor { len: if payload { frame.len } else { frame.len.min(66) }, ..*frame })
            .collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut worker = Worker::new(WorkerConfig::default());
                worker.batch(Batch::new(&bytes, &cut), &mut Ignore);
                worker.finish(&mut Ignore);
            });
        });
    }
}

criterion_group!(benches, packets);
criterion_main!(benches);

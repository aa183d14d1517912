//! One worker under a load of one kind: `live FLOWS PACKETS`, `new PACKETS`, `idle FLOWS` or `file FILE [l4]`.
//!
//! Prints packets per second, of one core without L7 (but for files), and the resident memory. Frames have 60 bytes
//! and are made in front of the worker, which is part of the time.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

use std::time::Instant;
use wirespan_capture::PacketSource;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
use wirespan_frame::{Batch, Descriptor, Hints, LinkType};
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, Span};

const BATCH: usize = 256;
const FRAME_BYTES: usize = 60;

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

/// Writes a TCP segment without payload of flow `n`, there or back.
fn write_frame(frame: &mut [u8], n: u64, back: bool) {
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
    let client = [10, (n >> 40) as u8, (n >> 32) as u8, (n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8];
    let (ends, ports) = ((&client[..4], &[10, 0, 0, 1][..]), ([client[4], client[5]], [200, n as u8]));
    let (from, to) = if back { (26, 30) } else { (30, 26) };
    frame[to..to + 4].copy_from_slice(ends.0);
    frame[from..from + 4].copy_from_slice(ends.1);
    let (from, to) = if back { (34, 36) } else { (36, 34) };
    frame[to..to + 2].copy_from_slice(&ports.0);
    frame[from..from + 2].copy_from_slice(&ports.1);
    frame[46..50].copy_from_slice(&[0x50, 0x10, 1, 0]);
}

/// Gives a worker `packets` frames, each of the flow and direction that `choose` says, `step_ns` apart.
fn run(
    worker: &mut Worker,
    sink: &mut Counts,
    packets: u64,
    step_ns: u64,
    mut choose: impl FnMut(u64) -> (u64, bool),
) {
    let mut region = vec![0; BATCH * FRAME_BYTES];
    let descriptor = Descriptor {
        offset: 0,
        len: FRAME_BYTES as u32,
        wire_len: FRAME_BYTES as u32,
        ts_ns: 0,
        link: LinkType::Ethernet,
        port: 0,
        hints: Hints::default(),
    };
    let mut descriptors = vec![descriptor; BATCH];
    for batch in 0..packets.div_ceil(BATCH as u64) {
        for (at, descriptor) in descriptors.iter_mut().enumerate() {
            let number = batch * BATCH as u64 + at as u64;
            let (flow, back) = choose(number);
            write_frame(&mut region[at * FRAME_BYTES..][..FRAME_BYTES], flow, back);
            descriptor.offset = at * FRAME_BYTES;
            descriptor.ts_ns = 1_700_000_000_000_000_000 + number * step_ns;
        }
        worker.batch(Batch::new(&region, &descriptors), sink);
    }
}

fn scatter(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n ^ n >> 32
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).map_or(1_000_000, |text| text.parse::<u64>().unwrap());
    let mut config = WorkerConfig::default();
    config.flow.l7 = false;
    let mut sink = Counts::default();
    let before = resident_bytes();
    let (mut worker, packets, started);
    match args.first().map(String::as_str) {
        Some("live") => {
            let flows = number(1);
            config.flow.max_flows = flows as usize + 1;
            worker = Worker::new(config);
            run(&mut worker, &mut sink, 2 * flows, 1, |n| (n % flows, n >= flows));
            packets = number(2);
            started = Instant::now();
            run(&mut worker, &mut sink, packets, 1, |n| (scatter(n) % flows, scatter(n) >> 60 & 1 == 1));
        }
        Some("new") => {
            worker = Worker::new(config);
            run(&mut worker, &mut sink, 1 << 20, 1_000, |n| (n | 1 << 40, false));
            packets = number(1);
            started = Instant::now();
            run(&mut worker, &mut sink, packets, 1_000, |n| (n, false));
        }
        Some("idle") => {
            packets = number(1);
            config.flow.max_flows = packets as usize + 1;
            worker = Worker::new(config);
            started = Instant::now();
            run(&mut worker, &mut sink, packets, 1, |n| (n, false));
            let resident = resident_bytes() - before;
            println!("{} bytes of resident memory per flow", resident / worker.stats().flow.live);
        }
        Some("file") => {
            config.flow.l7 = args.get(2).is_none_or(|stage| stage != "l4");
            worker = Worker::new(config);
            started = Instant::now();
            let mut source = PcapFile::open(&args[1]).unwrap();
            while let Some(batch) = source.next_batch().unwrap() {
                worker.batch(batch, &mut sink);
            }
            worker.finish(&mut sink);
            packets = worker.stats().frames;
        }
        _ => panic!("say live FLOWS PACKETS, new PACKETS, idle FLOWS or file FILE [l4]"),
    }
    let seconds = started.elapsed().as_secs_f64();
    let stats = worker.stats();
    println!(
        "{:.2} million packets/s ({packets} in {seconds:.3} s), {} flows, {} evicted, {} spans, {:?}, resident {} MiB",
        packets as f64 / seconds / 1e6,
        stats.flow.flows,
        stats.flow.evicted,
        sink.spans,
        stats.flow.memory,
        resident_bytes() >> 20,
    );
}

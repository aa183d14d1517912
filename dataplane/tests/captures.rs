//! Whole captures through a worker: what real servers said (golden), and whatever else is at hand (invariants).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wirespan_capture::pcap_file::PcapFile;
use wirespan_capture::{PacketSource, spread};
use wirespan_dataplane::decode::Decoder;
use wirespan_dataplane::worker::{Worker, WorkerConfig, WorkerStats};
use wirespan_frame::{Batch, Descriptor};
use wirespan_records::{CloseType, Drops, FlowMetrics, L4Protocol, Records, Session, Span, Text};

fn analyse(file: &Path, config: WorkerConfig) -> (Records, WorkerStats) {
    let mut source = PcapFile::open(file).unwrap();
    let (mut worker, mut records) = (Worker::new(config), Records::default());
    while let Some(batch) = source.next_batch().unwrap() {
        worker.batch(batch, &mut records);
    }
    worker.finish(&mut records);
    let stats = worker.stats();
    (records, stats)
}

/// The same by several workers: records in any order, statistics of each.
fn analyse_spread(file: &Path, workers: usize, config: &WorkerConfig) -> (Records, Vec<WorkerStats>) {
    std::thread::scope(|scope| {
        let start = |mut end: spread::FileEnd| {
            scope.spawn(move || {
                let (mut worker, mut records) = (Worker::new(config.clone()), Records::default());
                while let Some(batch) = end.next_batch().unwrap() {
                    worker.batch(batch, &mut records);
                }
                worker.finish(&mut records);
                (records, worker.stats())
            })
        };
        let threads: Vec<_> =
            spread::files(&[file.to_owned()], &[], workers).unwrap().into_iter().map(start).collect();
        let (mut all, mut stats) = (Records::default(), Vec::new());
        for thread in threads {
            let (records, part) = thread.join().unwrap();
            all.spans.extend(records.spans);
            all.flows.extend(records.flows);
            all.ticks.extend(records.ticks);
            stats.push(part);
        }
        (all, stats)
    })
}

/// One line for each span and flow, sorted, without the ids that workers give.
fn lines(records: &Records) -> Vec<String> {
    let spans = records.spans.iter().cloned().map(|mut span| {
        span.flow_id = 0;
        format!("{span:?}")
    });
    let flows = records.flows.iter().cloned().map(|mut flow| {
        flow.flow_id = 0;
        format!("{flow:?}")
    });
    let mut lines: Vec<String> = spans.chain(flows).collect();
    lines.sort();
    lines
}

/// Joined captures: the clock jumps. Beside fragments, workers then disagree by the time between two packets on how much
/// time went by, so that flows which time out at that very moment may do so a packet earlier or later.
fn clock_jumps(file: &Path) -> bool {
    let (mut source, mut last_ns) = (PcapFile::open(file).unwrap(), None);
    while let Some(batch) = source.next_batch().unwrap() {
        for frame in batch.frames() {
            let last_ns = last_ns.replace(frame.ts_ns).unwrap_or(frame.ts_ns);
            if frame.ts_ns.abs_diff(last_ns) > 600_000_000_000 {
                return true;
            }
        }
    }
    false
}

fn captures(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(captures(&path));
        } else if path.extension().is_some_and(|extension| extension == "pcap") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One line per kind of exchange and per kind of flow, with how often it was seen.
#[test]
fn what_real_servers_said() {
    let (records, stats) = analyse(&fixtures().join("shop.pcap"), WorkerConfig::default());
    assert_eq!(stats.frames, stats.packets + stats.drops.total());
    let mut lines: BTreeMap<String, u32> = BTreeMap::new();
    for span in &records.spans {
        let text = |value: &Option<Text>| value.clone().unwrap_or_default();
        let line = format!(
            "{} {} {} {} -> {} {} {}",
            span.l7_protocol.as_str(),
            span.server.ip,
            text(&span.request_type),
            text(&span.endpoint),
            span.response_status.as_str(),
            span.response_code.map(|code| code.to_string()).unwrap_or_default(),
            span.session.as_str(),
        );
        *lines.entry(line).or_default() += 1;
    }
    for flow in &records.flows {
        let protocol = flow.l7_protocol.map_or("-", |protocol| protocol.as_str());
        let line = format!(
            "flow {} {} {} {}",
            flow.protocol.as_str(),
            flow.server.ip,
            protocol,
            flow.close_type.as_str()
        );
        *lines.entry(line).or_default() += 1;
    }
    let lines: Vec<String> = lines.iter().map(|(line, count)| format!("{count:>4} {line}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

/// On every capture at hand: nothing is lost on the way, and several workers make the records that one makes.
#[test]
fn every_frame_and_packet_is_accounted_for() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let mut files = captures(&fixtures());
    if corpus.is_dir() {
        files.extend(captures(&corpus));
    } else {
        eprintln!(
            "skipped in part: no corpus of captures at {}; only the fixtures were read",
            corpus.display()
        );
    }
    for file in files {
        let mut config = WorkerConfig::default();
        config.flow.ticks = true;
        let (records, stats) = analyse(&file, config.clone());
        let name = file.display();
        assert_eq!(stats.frames, stats.packets + stats.drops.total(), "{name}");
        let mut total = FlowMetrics::default();
        records.flows.iter().for_each(|flow| total.merge(&flow.metrics));
        assert_eq!(total.packets.tx + total.packets.rx, stats.packets, "{name}");
        let mut seconds = FlowMetrics::default();
        records.ticks.iter().for_each(|tick| seconds.merge(&tick.metrics));
        assert_eq!(seconds.packets.tx + seconds.packets.rx, stats.packets, "{name}");
        assert_eq!(
            (total.l7.request, total.l7.response),
            (seconds.l7.request, seconds.l7.response),
            "{name}"
        );
        let alone = lines(&records);
        for workers in [2, 3] {
            let (records, parts) = analyse_spread(&file, workers, &config);
            let lines = lines(&records);
            let first = alone.iter().zip(&lines).find(|(alone, spread)| alone != spread);
            assert!(
                alone == lines || clock_jumps(&file),
                "{name} by {workers}: {} and {} records, {first:#?}",
                alone.len(),
                lines.len()
            );
            let sum = |count: fn(&WorkerStats) -> u64| parts.iter().map(count).sum::<u64>();
            assert_eq!(sum(|s| s.frames), stats.frames, "{name}");
            assert_eq!(sum(|s| s.bytes), stats.bytes, "{name}");
            assert_eq!(sum(|s| s.packets), stats.packets, "{name}");
            let mut drops = Drops::default();
            parts.iter().for_each(|part| drops.merge(&part.drops));
            assert_eq!(drops, stats.drops, "{name}");
        }
    }
}

/// A mirror that sees one direction only: what that direction tells is the same, and nothing is made up for the other.
#[test]
fn one_direction_gives_one_sided_metrics() {
    let whole = analyse(&fixtures().join("shop.pcap"), WorkerConfig::default()).0;
    for from_server in [false, true] {
        let mut source = PcapFile::open(fixtures().join("shop.pcap")).unwrap();
        let mut decoder = Decoder::new(WorkerConfig::default().decode);
        let (mut worker, mut records) = (Worker::new(WorkerConfig::default()), Records::default());
        while let Some(batch) = source.next_batch().unwrap() {
            for frame in batch.frames() {
                let sent_by_server = decoder.decode(&frame).is_ok_and(|p| p.src_port < p.dst_port);
                if sent_by_server == from_server {
                    let descriptor = Descriptor {
                        offset: 0,
                        len: frame.data.len() as u32,
                        wire_len: frame.wire_len,
                        ts_ns: frame.ts_ns,
                        link: frame.link,
                        port: frame.port,
                        hints: frame.hints,
                    };
                    worker.batch(Batch::new(frame.data, &[descriptor]), &mut records);
                }
            }
        }
        worker.finish(&mut records);
        assert_eq!(worker.stats().l7.gap_bytes, 0);
        assert!(!records.flows.is_empty());
        for flow in records.flows.iter().filter(|flow| flow.protocol == L4Protocol::Tcp) {
            let m = &flow.metrics;
            assert_eq!(if from_server { m.packets.tx } else { m.packets.rx }, 0, "{flow:?}");
            for latency in [m.rtt, m.rtt_client, m.rtt_server, m.srt, m.art, m.l7.rrt] {
                assert_eq!(latency.count, 0, "{flow:?}");
            }
            assert!(m.cit.max_us < 60_000_000, "{flow:?}");
            let same =
                whole.flows.iter().filter(|other| other.client == flow.client && other.server == flow.server);
            let sent = |m: &FlowMetrics| if from_server { m.l4_bytes.rx } else { m.l4_bytes.tx };
            let total: u64 = same.map(|other| sent(&other.metrics)).sum();
            let seen = records.flows.iter().filter(|f| f.client == flow.client && f.server == flow.server);
            assert_eq!(seen.map(|f| sent(&f.metrics)).sum::<u64>(), total, "{flow:?}");
            assert!(
                matches!(
                    flow.close_type,
                    CloseType::ForcedReport
                        | CloseType::ServerSynMissing
                        | CloseType::ClientAckMissing
                        | CloseType::ClientHalfClose
                        | CloseType::ServerHalfClose
                        | CloseType::Timeout
                        | CloseType::ClientReset
                        | CloseType::ClientResetRegular
                        | CloseType::ServerReset
                ),
                "{flow:?}"
            );
        }
        let complete = |span: &&Span| span.protocol == L4Protocol::Tcp && span.session == Session::Complete;
        assert_eq!(records.spans.iter().filter(complete).count(), 0);
    }
}

/// A mirror of two ports, the one with what servers receive 40 us late: longer than most of their answers take.
#[test]
fn directions_captured_apart_say_the_same() {
    const LATE_NS: u64 = 40_000;
    let shop = fixtures().join("shop.pcap");
    let mut source = PcapFile::open(&shop).unwrap();
    let mut decoder = Decoder::new(WorkerConfig::default().decode);
    let mut frames = Vec::new();
    while let Some(batch) = source.next_batch().unwrap() {
        for frame in batch.frames() {
            let is_late =
                decoder.decode(&frame).is_ok_and(|p| p.l4 == L4Protocol::Tcp && p.src_port > p.dst_port);
            let ts_ns = frame.ts_ns + if is_late { LATE_NS } else { 0 };
            let descriptor = Descriptor {
                offset: 0,
                len: frame.data.len() as u32,
                wire_len: frame.wire_len,
                ts_ns,
                link: frame.link,
                port: frame.port,
                hints: frame.hints,
            };
            frames.push((descriptor, frame.data.to_vec()));
        }
    }
    frames.sort_by_key(|(descriptor, _)| descriptor.ts_ns);
    let (mut worker, mut records) = (Worker::new(WorkerConfig::default()), Records::default());
    for (descriptor, data) in &frames {
        worker.batch(Batch::new(data, std::slice::from_ref(descriptor)), &mut records);
    }
    worker.finish(&mut records);
    let exchanges = |records: &Records| {
        let tcp = records.spans.iter().filter(|span| span.protocol == L4Protocol::Tcp);
        let mut exchanges: Vec<_> = tcp
            .map(|span| {
                let ends = (span.client, span.server, span.req_tcp_seq, span.resp_tcp_seq);
                format!("{ends:?} {:?} {:?}", span.request_resource, span.response_code)
            })
            .collect();
        exchanges.sort();
        exchanges
    };
    assert_eq!(exchanges(&records), exchanges(&analyse(&shop, WorkerConfig::default()).0));
}

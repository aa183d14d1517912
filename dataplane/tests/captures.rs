//! Whole captures through a worker: what real servers said (golden), and whatever else is at hand (invariants).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wirespan_capture::PacketSource;
use wirespan_capture::pcap_file::PcapFile;
use wirespan_dataplane::worker::{Shard, Worker, WorkerConfig, WorkerStats};
use wirespan_records::{FlowMetrics, Records};

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
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
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

/// On every capture at hand: nothing is lost on the way, and shards see what one worker sees.
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
        let (records, stats) = analyse(&file, config);
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
        let shards: Vec<_> = (0..3)
            .map(|index| {
                let shard = Shard { index, of: 3 };
                analyse(&file, WorkerConfig { shard, ..WorkerConfig::default() })
            })
            .collect();
        assert_eq!(shards.iter().map(|(_, s)| s.packets).sum::<u64>(), stats.packets, "{name}");
        assert_eq!(shards.iter().map(|(r, _)| r.flows.len()).sum::<usize>(), records.flows.len(), "{name}");
    }
}

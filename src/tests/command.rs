//! The command as a user runs it: on captures, on corrupt input, on live traffic between namespaces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{Host, Up, accounts_for_frames, fixture, is_root, objects, text, wirespan};

/// The fields that outside checks rely on (ARCHITECTURE.md, contract of `replay`).
const SPAN_FIELDS: &str = "kind signal observation_point start_ns end_ns duration_us client_ip client_port server_ip server_port \
    protocol tunnel l7_protocol version request_type request_domain request_resource endpoint request_id response_status \
    response_code response_exception response_result request_bytes response_bytes trace_id span_id x_request_id \
    req_tcp_seq resp_tcp_seq session";
const FLOW_FIELDS: &str = "kind start_ns end_ns client_ip client_port server_ip server_port protocol tunnel vlan packet_tx \
    packet_rx byte_tx byte_rx l3_byte_tx l3_byte_rx l4_byte_tx l4_byte_rx tcp_flags_tx tcp_flags_rx syn_count synack_count \
    retrans_tx retrans_rx retrans_syn retrans_synack ooo_tx ooo_rx zero_win_tx zero_win_rx rtt_us rtt_client_us \
    rtt_server_us srt_us_max srt_us_sum srt_count art_us_max art_us_sum art_count cit_us_max cit_us_sum cit_count close_type \
    l7_protocol l7_request l7_response l7_error";

#[test]
fn replay_prints_the_fields_of_its_contract() {
    let file = fixture();
    let arguments = ["replay", "--format", "jsonl", "--emit", "spans,flows,stats", file.to_str().unwrap()];
    let all = objects(&wirespan(&arguments));
    for (kind, fields) in [("span", SPAN_FIELDS), ("flow", FLOW_FIELDS)] {
        let first = all.iter().find(|object| object["kind"] == kind).unwrap();
        let has: BTreeSet<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
        let missing: Vec<&str> = fields.split_whitespace().filter(|field| !has.contains(field)).collect();
        assert!(missing.is_empty(), "{kind} lacks {missing:?}");
    }
    let stats = all.last().unwrap();
    let count = |kind: &str| all.iter().filter(|object| object["kind"] == kind).count() as u64;
    let spans: u64 = stats["spans"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((spans, stats["flows"].as_u64().unwrap()), (count("span"), count("flow")));
    accounts_for_frames(stats);
    assert!(stats["packets_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn obfuscation_leaves_no_value() {
    let file = fixture();
    let plain = wirespan(&["replay", "--format", "jsonl", file.to_str().unwrap()]);
    let masked = wirespan(&["replay", "--format", "jsonl", "--obfuscate", file.to_str().unwrap()]);
    let statements = |output: &Output| {
        let spans = objects(output).into_iter().filter(|span| span["l7_protocol"] == "MySQL");
        spans.map(|span| span["request_resource"].to_string()).collect::<Vec<_>>().join("\n")
    };
    assert!(statements(&plain).chars().any(|c| c.is_ascii_digit()));
    assert!(!statements(&masked).chars().any(|c| c.is_ascii_digit()), "{}", statements(&masked));
}

#[test]
fn standard_input_is_a_capture_too() {
    let file = fixture();
    let replay = |more: &[&str], input: Stdio| {
        let arguments = [&["replay", "--format", "jsonl"], more].concat();
        Command::new(env!("CARGO_BIN_EXE_wirespan")).args(arguments).stdin(input).output().unwrap()
    };
    let piped = || Stdio::from(std::fs::File::open(&file).unwrap());
    let named = replay(&[file.to_str().unwrap()], Stdio::null());
    let spans = objects(&named);
    assert!(!spans.is_empty());
    assert_eq!(objects(&replay(&["-"], piped())), spans);
    assert_eq!(objects(&replay(&["-", "--workers", "2"], piped())).len(), spans.len());
    let through_a_pipe = Command::new("sh")
        .args(["-c", "cat \"$1\" | \"$0\" replay --format jsonl /dev/stdin", env!("CARGO_BIN_EXE_wirespan")])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(objects(&through_a_pipe), spans);
    for more_than_once in [&["-", "-"][..], &["-", "-", "--workers", "2"]] {
        let refused = replay(more_than_once, piped());
        assert!(!refused.status.success() && text(&refused.stderr).contains("read once"));
    }
}

/// A pcap file of this machine's byte order, with nanoseconds, as pcapng: with its packets on the last of these interfaces, in microseconds.
fn as_pcapng(pcap: &[u8], interfaces: &[&str]) -> Vec<u8> {
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = (body.len().next_multiple_of(4) + 12) as u32;
        let padding = vec![0; len as usize - 12 - body.len()];
        [&kind.to_ne_bytes()[..], &len.to_ne_bytes(), body, &padding, &len.to_ne_bytes()].concat()
    }
    let section = [&0x1a2b_3c4d_u32.to_ne_bytes()[..], &1_u32.to_ne_bytes(), &[0xff; 8]].concat();
    let mut file = block(0x0a0d_0d0a, &section);
    for name in interfaces {
        let option = [2_u16, name.len() as u16].map(u16::to_ne_bytes).concat();
        file.extend(block(1, &[&1_u32.to_ne_bytes()[..], &[0; 4], &option, name.as_bytes()].concat()));
    }
    let mut rest = &pcap[24..];
    while let Some((header, tail)) = rest.split_first_chunk::<16>() {
        let field = |at: usize| u32::from_ne_bytes(*header[at..].first_chunk().unwrap());
        let us = u64::from(field(0)) * 1_000_000 + u64::from(field(4) / 1_000);
        let (data, tail) = tail.split_at(field(8) as usize);
        let fields = [interfaces.len() as u32 - 1, (us >> 32) as u32, us as u32, field(8), field(12)];
        file.extend(block(6, &[&fields.map(u32::to_ne_bytes).concat(), data].concat()));
        rest = tail;
    }
    file
}

#[test]
fn taps_know_the_interfaces_of_a_pcapng_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("two.pcapng");
    std::fs::write(&file, as_pcapng(&std::fs::read(fixture()).unwrap(), &["eth0", "eth1"])).unwrap();
    let taps = directory.path().join("taps.yaml");
    std::fs::write(&taps, "taps:\n- {name: a, kind: nic, match: {interface: eth0}}\n- {name: b, kind: nic, match: {interface: eth1}}\n")
        .unwrap();
    for workers in ["1", "2"] {
        let [taps, file] = [&taps, &file].map(|path| path.to_str().unwrap());
        let spans =
            objects(&wirespan(&["replay", "--format", "jsonl", "--taps", taps, "--workers", workers, file]));
        assert!(!spans.is_empty() && spans.iter().all(|span| span["tap"] == "b"));
    }
}

/// The same traffic from two taps: a file for each.
#[test]
fn taps_name_where_records_come_from() {
    let (file, directory) = (fixture(), tempfile::tempdir().unwrap());
    let other = directory.path().join("edge.pcap");
    std::fs::copy(&file, &other).unwrap();
    let taps = directory.path().join("taps.yaml");
    let names = "taps:\n- {name: core, kind: physical-port, match: {interface: shop.pcap}}\n\
                 - {name: edge, id: 9, kind: nic, match: {interface: edge.pcap}}\n";
    std::fs::write(&taps, names).unwrap();
    let replay = |more: &[&str], files: &[&Path]| {
        let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
        wirespan(&[&["replay", "--format", "jsonl", "--emit", "spans,flows,stats"], more, &files].concat())
    };
    let with_taps = ["--taps", taps.to_str().unwrap()];
    let plain = objects(&replay(&[], &[&file]));
    assert!(plain.iter().all(|object| object.get("tap").is_none() && object["tap_id"].is_null()));
    for workers in ["1", "2"] {
        let both = objects(&replay(&[&with_taps[..], &["--workers", workers]].concat(), &[&file, &other]));
        for (kind, tap) in
            [("span", ("core", 1)), ("span", ("edge", 9)), ("flow", ("core", 1)), ("flow", ("edge", 9))]
        {
            let of = |all: &[Value]| all.iter().filter(|object| object["kind"] == kind).count();
            let from: Vec<Value> =
                both.iter().filter(|o| o["tap"] == tap.0 && o["tap_id"] == tap.1).cloned().collect();
            assert_eq!(of(&from), of(&plain), "{kind} {tap:?}, {workers} workers");
        }
    }

    std::fs::write(&taps, "dedup: true\ntaps: []\n").unwrap();
    let twice = objects(&replay(&with_taps, &[&file, &other]));
    let stats = twice.last().unwrap();
    accounts_for_frames(stats);
    let decoded = &plain.last().unwrap()["decoded"];
    assert_eq!(
        (&stats["undecoded"]["duplicate"], &stats["decoded"]),
        (decoded, decoded),
        "the second file is copies"
    );

    std::fs::write(&taps, "taps:\n- {name: a, kind: switch, match: {vlan: 1}}\n").unwrap();
    let refused = replay(&with_taps, &[&file]);
    let sentence = text(&refused.stderr);
    assert!(
        !refused.status.success() && sentence.contains("line 2") && sentence.contains("physical-port"),
        "{sentence}"
    );
}

#[test]
fn trace_headers_and_flow_keys_are_settings() {
    let file = fixture();
    let replay = |more: &[&str]| {
        let arguments =
            [&["replay", "--format", "jsonl", "--emit", "spans,flows", file.to_str().unwrap()], more]
                .concat();
        objects(&wirespan(&arguments))
    };
    let (plain, set) =
        (replay(&[]), replay(&["--trace-headers", "X-Request-ID", "--flow-key", "vlan,tunnel"]));
    let traced = |all: &[Value]| {
        let spans = all.iter().filter(|object| object["x_request_id"].is_string());
        spans.map(|span| span["trace_id"] == span["x_request_id"]).collect::<Vec<_>>()
    };
    assert!(!traced(&plain).is_empty() && traced(&plain).iter().all(|same| !same));
    assert!(!traced(&set).is_empty() && traced(&set).iter().all(|same| *same));
    assert_eq!(plain.len(), set.len());
}

#[test]
fn corrupt_captures_are_counted_and_missing_ones_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let cut = directory.path().join("cut.pcap");
    let bytes = std::fs::read(fixture()).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let output = wirespan(&["replay", "--format", "jsonl", "--emit", "stats", cut.to_str().unwrap()]);
    let stats = &objects(&output)[0];
    accounts_for_frames(stats);
    assert_eq!(stats["unreadable"], 1);
    let reads = |files: &[&Path]| {
        let files = files.iter().map(|file| file.to_str().unwrap());
        let output = wirespan(
            &["replay", "--format", "jsonl", "--emit", "stats"].into_iter().chain(files).collect::<Vec<_>>(),
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let (empty, unpacked) = (directory.path().join("empty.pcap"), directory.path().join("cut.pcap.gz"));
    std::fs::write(&empty, b"").unwrap();
    let mut gzip = Command::new("gzip").arg("-c").arg(fixture()).stdout(Stdio::piped()).spawn().unwrap();
    let mut zipped = Vec::new();
    gzip.stdout.take().unwrap().read_to_end(&mut zipped).unwrap();
    gzip.wait().unwrap();
    std::fs::write(&unpacked, &zipped[..zipped.len() / 2]).unwrap();
    let said = reads(&[&cut, &empty, &unpacked]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    let whats =
        ["the file ends in the middle of a record", "the file is empty", "the gzip stream is corrupt"];
    for ((line, file), what) in lines.iter().zip([&cut, &empty, &unpacked]).zip(whats) {
        assert!(line.contains(&format!("{}: {what}", file.display())), "{line}");
        assert!(line.ends_with("what could be read was analysed"), "{line}");
    }

    let noise = directory.path().join("noise.pcap");
    std::fs::write(&noise, b"this is no capture file at all").unwrap();
    let refused = [
        (noise, "is not a capture file"),
        (directory.path().join("none"), "check the path"),
        (directory.path().to_owned(), "Is a directory"),
    ];
    for (file, says) in refused {
        let output = wirespan(&["replay", file.to_str().unwrap()]);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}

#[test]
fn each_packet_is_in_one_flow_also_where_the_flow_table_is_full() {
    let capture = fixture();
    let replayed = |flows_max: &str| {
        let emit = ["--format", "jsonl", "--emit", "flows,stats", "--max-flows", flows_max];
        objects(&wirespan(&[&["replay", capture.to_str().unwrap()], &emit[..]].concat()))
    };
    for (flows_max, is_full) in [("1000", false), ("8", true), ("1", true)] {
        let mut flows = replayed(flows_max);
        let stats = flows.pop().unwrap();
        let sum = |tx: &str, rx: &str| -> u64 {
            flows.iter().map(|flow| flow[tx].as_u64().unwrap() + flow[rx].as_u64().unwrap()).sum()
        };
        assert_eq!(sum("packet_tx", "packet_rx"), stats["decoded"].as_u64().unwrap());
        accounts_for_frames(&stats);
        let evicted = flows.iter().filter(|flow| flow["close_type"] == "evicted").count();
        assert_eq!(stats["flows_evicted"], evicted);
        assert_eq!(evicted > 100, is_full, "{stats}");
    }
}

#[test]
fn replay_stores_and_writes_parquet() {
    let directory = tempfile::tempdir().unwrap();
    let (data, out) = (directory.path().join("data"), directory.path().join("out"));
    let file = fixture();
    let emit = ["--emit", "spans,flows", "--format", "parquet", "--out", out.to_str().unwrap()];
    let output = wirespan(
        &[&["replay", file.to_str().unwrap(), "--data", data.to_str().unwrap()], &emit[..]].concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("rows stored"), "{}", text(&output.stderr));
    for name in ["spans.parquet", "flows.parquet"] {
        let bytes = std::fs::read(out.join(name)).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{name}");
    }
    let spans = objects(&wirespan(&["replay", "--format", "jsonl", file.to_str().unwrap()])).len();

    let store =
        Running::start(&["store", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], "ready ");
    assert_eq!(ask(&store, "SELECT count() FROM l7_log"), spans.to_string());
    let second = wirespan(&["store", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    assert!(text(&second.stderr).contains("in use"), "{}", text(&second.stderr));
}

/// A command that runs until it is told to end; `said` is what follows the first line's `marker`.
struct Running {
    child: Child,
    said: String,
}

impl Running {
    fn start(arguments: &[&str], marker: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wirespan"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = line.trim().strip_prefix(marker).unwrap_or_else(|| panic!("it said {line:?}")).to_owned();
        Self { child, said }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: kill(2) on a child of ours that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

/// The answer of a store over ClickHouse's HTTP interface.
fn ask(store: &Running, sql: &str) -> String {
    let url = format!("{}/?database=wirespan", store.said);
    let output = Command::new("curl").args(["-sS", "--data-binary", sql, &url]).output().unwrap();
    text(&output.stdout).trim().to_owned()
}

#[test]
fn up_shows_live_requests_and_keeps_them() {
    if !is_root() {
        return;
    }
    let host = Host::web(7);
    let mut up = Up::start(&["-i", &host.veth, "--tracer", "off"]);
    let (server, wire) = (format!("http://{}", up.page), up.wire(&host));
    for path in ["dev", "dev", "no-such-file"] {
        assert!(host.get(path).wait().unwrap().success());
    }
    let query = |sql: &str| wirespan(&["query", "--format", "csv", "--server", &server, sql]);
    let requests = "SELECT request_resource, response_code, count() FROM l7_log GROUP BY ALL ORDER BY ALL";
    let expected = "\"/dev\",200,2";
    let deadline = Instant::now() + Duration::from_secs(30);
    let answer = loop {
        let answer = text(&query(requests).stdout);
        if answer.contains("404") || Instant::now() > deadline {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(
        answer.contains(&expected.replace('"', "")) && answer.contains("/no-such-file,404,1"),
        "{answer}"
    );
    // The store sums requests after it has stored them.
    let top = loop {
        let top = text(&wirespan(&["top", "--once", "--server", &server]).stdout);
        if top.contains("10.213.7.2:8000") || Instant::now() > deadline {
            break top;
        }
    };
    assert!(top.contains("10.213.7.2:8000") && top.contains("HTTP"), "{top}");
    up.accounts_for_wire(&wire);

    let (status, said) = up.stop();
    assert!(status.success() && said.contains("lost 0"), "{said}");

    // What was seen is there after the end, flows too.
    let store =
        Running::start(&["store", "--data", up.data.to_str().unwrap(), "--listen", "127.0.0.1:0"], "ready ");
    let sql = "SELECT (SELECT count() FROM l7_log WHERE l7_protocol = 'HTTP'), (SELECT count() FROM flow_log WHERE l7_protocol = 'HTTP')";
    assert_eq!(ask(&store, sql), "3\t3");
}

#[test]
fn up_says_what_to_do_when_it_cannot_capture() {
    let directory = tempfile::tempdir().unwrap();
    let output = wirespan(&["up", "-i", "no-such-if0", "--data", directory.path().to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("no-such-if0"), "{}", text(&output.stderr));
    let twice = wirespan(&["up", "-i", "lo,lo", "--data", directory.path().to_str().unwrap()]);
    assert!(!twice.status.success());
    assert!(text(&twice.stderr).contains("lo is given twice"), "{}", text(&twice.stderr));
}

#[test]
fn up_says_what_to_do_in_a_network_namespace_without_loopback() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_wirespan"), "up", "--tracer", "on"])
        .args(["--listen", "127.0.0.1:0", "--data", directory.path().to_str().unwrap()])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(said.lines().count() == 1 && said.contains("`ip link set lo up`"), "{said}");
}

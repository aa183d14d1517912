//! A few scenarios of the suite `accuracy`, small enough for every test run: the whole way from system calls to links.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;
use std::process::Command;

/// The fields of a cell that are looked at.
#[derive(Debug, Deserialize)]
struct Cell {
    scenario: String,
    precision: f64,
    recall: f64,
    aim: f64,
    calls: u64,
    lost_events: u64,
    pairs: u64,
    equal_pairs: u64,
    right: u64,
    wrong: u64,
}

/// Runs scenarios blind, eight requests at the same time.
fn run(scenarios: &[&str], more: &[&str]) -> Option<Vec<Cell>> {
    // SAFETY: it only tells.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: needs root, for the tracer and network namespaces");
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_wirespan-perf"));
    command.args(["--json", "accuracy", "--blind", "--concurrency", "8", "--requests", "200"]);
    command.args(more);
    let output = command.args(scenarios.iter().flat_map(|name| ["--scenario", name])).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let cells: Vec<Cell> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cells.len(), scenarios.len(), "{text}");
    Some(cells)
}

/// In one run, because taking the tracer's probes away takes long.
const SCENARIOS: [&str; 9] = [
    "nginx-python-redis",
    "nginx-no-keepalive",
    "fork-per-request",
    "node-all",
    "node-interleaved",
    "pipelined-redis",
    "http2-node",
    "http2-node-nginx",
    "tls1.3-node",
];

#[test]
fn calls_are_linked_with_the_requests_for_which_they_were_made() {
    for cell in run(&SCENARIOS, &[]).into_iter().flatten() {
        assert!(cell.calls >= 400, "{cell:?}");
        assert_eq!(cell.lost_events, 0, "{}", cell.scenario);
        assert!(cell.precision >= 0.99, "{cell:?}");
        assert!(cell.recall >= cell.aim, "{cell:?}");
        assert!(cell.pairs > 0 && cell.equal_pairs as f64 >= 0.999 * cell.pairs as f64, "{cell:?}");
    }
}

/// The kernel has no room for events again and again, while real services answer several requests at the same time.
#[test]
fn where_events_are_lost_links_are_missing_and_not_wrong() {
    let Some(cells) = run(&["nginx-python-redis", "node-all", "node-interleaved"], &["--with-loss"]) else {
        return;
    };
    for cell in &cells {
        assert!(cell.right > 0, "{cell:?}");
        assert_eq!(cell.wrong, 0, "{cell:?}");
    }
    assert!(cells.iter().map(|cell| cell.lost_events).sum::<u64>() > 100, "{cells:?}");
}

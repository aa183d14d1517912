//! DPDK starts once per process, so each test has one of its own.

#![allow(dead_code, unused_imports, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "only tests run this")]

#[path = "../../../tests/support/sender.rs"]
mod sender;

use std::env;
use std::process::Command;
use std::time::Duration;

pub use sender::Sender;
use wirespan_capture::PacketSource;
use wirespan_dpdk::{EalOptions, PortOptions};

const CHILD: &str = "WIRESPAN_DPDK_TEST";

/// Runs the test of this name in a process of its own: this test binary again with this test only.
pub fn in_own_process(name: &str, test: impl FnOnce()) {
    in_own_process_for(name, "", |_| test());
}

/// As [`in_own_process`], for `what`, which the test is told.
pub fn in_own_process_for(name: &str, what: &str, test: impl FnOnce(&str)) {
    if let Ok(what) = env::var(CHILD) {
        return test(&what);
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", name, "--nocapture"])
        .env(CHILD, what)
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.contains("EAL:"), "DPDK does not speak past us: {text}");
    println!("{text}");
}

/// Whether this is the process of a test's own.
pub fn is_own_process() -> bool {
    env::var_os(CHILD).is_some()
}

/// Virtual devices only, on ordinary pages.
pub fn eal(vdevs: &[&str]) -> EalOptions {
    EalOptions {
        no_huge: true,
        no_pci: true,
        vdevs: vdevs.iter().map(|&vdev| vdev.to_owned()).collect(),
        ..EalOptions::default()
    }
}

/// A port with queues that fit in little memory.
pub fn port(name: &str) -> PortOptions {
    PortOptions { descriptors: 512, poll_timeout: Duration::from_millis(20), ..PortOptions::new(name) }
}

/// The bytes of so many frames, or of those that there are.
pub fn take(source: &mut dyn PacketSource, most: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while frames.len() < most {
        let batch = source.next_batch().unwrap().unwrap();
        if batch.is_empty() {
            break;
        }
        frames.extend(batch.frames().map(|frame| frame.data.to_vec()));
    }
    frames
}

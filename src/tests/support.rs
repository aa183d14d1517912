//! `wirespan up` as a test runs it.

#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether tests that need root can run; in CI they must.
pub fn is_root() -> bool {
    // SAFETY: geteuid(2) has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    assert!(root || std::env::var_os("CI").is_none(), "this test needs root, and in CI none may skip");
    if !root {
        eprintln!("skipped: needs root for network namespaces, live capture and tracing");
    }
    root
}

pub fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `wirespan up` with a store of its own; killed at the end.
pub struct Up {
    pub child: Child,
    pub page: String,
    /// What it said before it began to watch.
    pub said: String,
    _directory: tempfile::TempDir,
}

impl Up {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_wirespan")), arguments)
    }

    /// Starts it by a command that takes its arguments behind its own.
    pub fn start_by(mut command: Command, arguments: &[&str]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (page, clickhouse) = (free(), free());
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let mut child = command
            .arg("up")
            .args(arguments)
            .args(["--data", data.to_str().unwrap(), "--listen", &page, "--clickhouse-listen", &clickhouse])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut line) = (String::new(), String::new());
        while !line.contains("wirespan watches") {
            line.clear();
            assert!(messages.read_line(&mut line).unwrap() > 0, "it ended: {said}");
            said.push_str(&line);
        }
        // Nobody must wait for its messages to be read.
        std::thread::spawn(move || std::io::copy(&mut messages, &mut std::io::stderr()));
        Self { child, page, said, _directory: directory }
    }

    /// The sum of a counter over its labels.
    pub fn count(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.page);
        let output = Command::new("curl").args(["-sS", &url]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    pub fn ask(&self, sql: &str) -> Vec<Vec<Value>> {
        let body = serde_json::json!({ "sql": sql }).to_string();
        let url = format!("http://{}/api/sql", self.page);
        let output = Command::new("curl")
            .args(["-sS", "-H", "content-type: application/json", "--data-binary", &body, &url])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        serde_json::from_value(answer["rows"].clone()).unwrap_or_else(|_| panic!("{answer}"))
    }

    pub fn wait_for(&self, what: &str, mut is_there: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is_there(self) {
            assert!(start.elapsed() < PATIENCE, "{what} did not come");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as a user does, and waits.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // SAFETY: kill(2) on a child of ours that was not waited for, or that is gone.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.end();
        }
    }
}

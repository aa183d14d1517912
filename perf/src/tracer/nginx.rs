//! Requests per second of nginx under wrk, agent and load on the same cores.

use super::{BENCH, ROUNDS, traced_as};
use crate::measure::{Measurement, Output};
use anyhow::{Context, bail};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wirespan_bpf::tracer::TracerOptions;

const PORT: u16 = 17_781;
const CONNECTIONS: u32 = 64;
const BODY: usize = 1_024;

/// Runs this part of the suite.
pub fn run(time: Duration, output: &mut Output) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let server = Server::start(directory.path())?;
    // The load comes from another machine as a rule: with the server alone, its worker is what is traced.
    let whole = TracerOptions { left_out: None, ..TracerOptions::default() };
    let server_alone = TracerOptions { only: Some(server.worker()?), ..whole.clone() };
    let mut off = 0_f64;
    let mut on = [("server and load", whole, 0_f64), ("server", server_alone, 0_f64)];
    let mut lost = 0;
    for _ in 0..ROUNDS {
        off = off.max(requests_per_s(time)?);
        for (_, options, best) in &mut on {
            let (rate, stats) = traced_as(options, || requests_per_s(time))?;
            *best = best.max(rate);
            lost += stats.lost();
        }
    }
    for (traced, _, rate) in on {
        let name = format!("nginx, {CONNECTIONS} connections, {traced}");
        output.push(Measurement::new(BENCH, &name, rate, "requests/s", off))?;
    }
    output.push(Measurement::limit(BENCH, "nginx, lost", lost as f64, "events"))
}

struct Server(Child);

impl Server {
    fn start(directory: &Path) -> anyhow::Result<Self> {
        std::fs::write(directory.join("index.html"), "x".repeat(BODY))?;
        let root = directory.display();
        let configuration = directory.join("nginx.conf");
        // Workers would run as nobody, who may not read the directory.
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        std::fs::write(
            &configuration,
            format!(
                "daemon off; {user} worker_processes 1; pid {root}/pid; error_log {root}/errors; events {{ worker_connections 512; }} \
                 http {{ access_log off; sendfile on; keepalive_requests 1000000000; client_body_temp_path {root}/body; \
                 proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi; \
                 server {{ listen 127.0.0.1:{PORT}; root {root}; }} }}"
            ),
        )?;
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("nginx")
            .args(["-p", &root.to_string(), "-c"])
            .arg(&configuration)
            .env("PATH", path)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run nginx; install the package nginx")?;
        let mut server = Self(child);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            if let Some(status) = server.0.try_wait()? {
                bail!("nginx ended ({status}); is port {PORT} in use?");
            }
            anyhow::ensure!(
                start.elapsed() < Duration::from_secs(10),
                "nginx does not answer on port {PORT}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Server {
    /// The process that answers.
    fn worker(&self) -> anyhow::Result<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.0.id());
        let children = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        children.split(' ').next().and_then(|child| child.parse().ok()).context("nginx has no worker")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asks the master, which ends its worker; killing it would leave the worker behind.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.0.wait();
    }
}

fn requests_per_s(time: Duration) -> anyhow::Result<f64> {
    let seconds = time.as_secs().max(1);
    let wrk = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{seconds}s"),
            &format!("http://127.0.0.1:{PORT}/"),
        ])
        .output()
        .context("cannot run wrk; install the package wrk")?;
    let text = String::from_utf8_lossy(&wrk.stdout);
    anyhow::ensure!(!text.contains("Non-2xx"), "nginx answers with errors: {text}");
    text.lines()
        .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok())
        .with_context(|| format!("wrk says nothing about requests: {text}"))
}

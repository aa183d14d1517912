//! Requests per second of nginx under wrk, agent and load on the same cores. A shared machine has good and bad seconds, so each
//! trial with the tracer is beside one without it, and the pair with the median ratio counts.

use super::{BENCH, traced_as};
use crate::measure::{Clock, Measurement, Output, Whose};
use anyhow::{Context, bail};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wirespan_bpf::tracer::TracerOptions;

const PORT: u16 = 17_781;
const CONNECTIONS: u32 = 64;
const BODY: usize = 1_024;
const TURNS: u32 = 5;

/// Runs this part of the suite.
pub fn run(time: Duration, output: &mut Output) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let server = Server::start(directory.path())?;
    let worker = server.worker()?;
    // The load comes from another machine as a rule: with the server alone, its worker is what is traced.
    let whole = TracerOptions { left_out: None, ..TracerOptions::default() };
    let server_alone = TracerOptions { only: Some(worker.as_raw().cast_unsigned()), ..whole.clone() };
    let mut modes = [("server and load", whole, Vec::new()), ("server", server_alone, Vec::new())];
    let mut lost = 0;
    for _ in 0..TURNS {
        for (_, options, pairs) in &mut modes {
            let off = trial(worker, time)?;
            let (on, stats) = traced_as(options, || trial(worker, time))?;
            pairs.push((off, on));
            lost += stats.lost();
        }
    }
    for (traced, _, pairs) in modes {
        let name = format!("nginx, {CONNECTIONS} connections, {traced}");
        let (off, on) = median_pair(&pairs, |rates| rates.per_s)?;
        output.push(Measurement::new(BENCH, &name, on, "requests/s", off))?;
        let (off, on) = median_pair(&pairs, |rates| rates.per_cpu_s)?;
        output.push(Measurement::new(BENCH, &format!("{name}, CPU"), on, "requests/CPU s", off))?;
    }
    output.push(Measurement::limit(BENCH, "nginx, lost", lost as f64, "events"))
}

/// What nginx did in a trial.
#[derive(Clone, Copy)]
struct Rates {
    /// Requests per second.
    per_s: f64,
    /// Requests per second that its worker was on a CPU: what others do on the machine changes that less.
    per_cpu_s: f64,
}

/// Of pairs of trials without and with the tracer, one right after the other, the one whose ratio is the median.
fn median_pair(pairs: &[(Rates, Rates)], rate: impl Fn(&Rates) -> f64) -> anyhow::Result<(f64, f64)> {
    let mut pairs: Vec<_> = pairs.iter().map(|(off, on)| (rate(off), rate(on))).collect();
    pairs.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    pairs.get(pairs.len() / 2).copied().context("nothing was measured")
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
    fn worker(&self) -> anyhow::Result<Pid> {
        let path = format!("/proc/{0}/task/{0}/children", self.0.id());
        let children = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let worker = children.split(' ').next().and_then(|child| child.parse().ok());
        worker.map(Pid::from_raw).context("nginx has no worker")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asks the master, which ends its worker; killing it would leave the worker behind.
        let _ = nix::sys::signal::kill(Pid::from_raw(self.0.id() as i32), nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn trial(worker: Pid, time: Duration) -> anyhow::Result<Rates> {
    let clock = Clock::start(Whose::Process(worker)).context("nginx's worker has ended")?;
    let (requests, per_s) = load(time)?;
    let used = clock.stop().context("nginx's worker has ended")?;
    Ok(Rates { per_s, per_cpu_s: requests / used.cpu_s })
}

/// Requests, and requests per second.
fn load(time: Duration) -> anyhow::Result<(f64, f64)> {
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
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let per_s = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    requests.zip(per_s).with_context(|| format!("wrk says nothing about requests: {text}"))
}

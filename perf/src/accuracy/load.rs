//! Requests to the last service of a scenario, each with an id that no other request of the machine has.

use super::scenario::Load;
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Requests at once on a pipelined connection.
const PIPELINED: usize = 5;

/// Requests with the ids `TAG-0`, `TAG-1`, ...
pub struct Requests<'a> {
    /// What is asked; the id comes behind it.
    pub path: &'a str,
    /// Who asks, and how.
    pub load: Load,
    /// Over TLS.
    pub tls: bool,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// What ids begin with.
    pub tag: &'a str,
    /// How many are made.
    pub count: usize,
    /// How many at the same time.
    pub concurrency: usize,
    /// With a `traceparent` of their own.
    pub wire_ids: bool,
    /// The authority of a service that is asked over TLS.
    pub certificate: &'a Path,
}

impl Requests<'_> {
    /// Makes them; every one must be answered.
    pub fn make(&self) -> anyhow::Result<()> {
        if let Load::Curl(option) = self.load {
            return self.with_curl(option);
        }
        let at_once = if self.load == Load::Pipelined { PIPELINED } else { 1 };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || {
                let mut connection = None;
                loop {
                    let first = next.fetch_add(at_once, Ordering::Relaxed);
                    let ids = first..self.count.min(first + at_once);
                    if ids.is_empty() {
                        return Ok(());
                    }
                    self.exchange(&mut connection, ids)?;
                    if self.load == Load::Close {
                        connection = None;
                    }
                }
            };
            let threads: Vec<_> = (0..self.concurrency).map(|_| scope.spawn(work)).collect();
            let results = threads.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            results.collect::<anyhow::Result<Vec<()>>>().map(drop)
        })
    }

    fn exchange(
        &self,
        connection: &mut Option<BufReader<TcpStream>>,
        ids: Range<usize>,
    ) -> anyhow::Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                connection.insert(BufReader::new(stream))
            }
        };
        let mut text = String::new();
        for id in ids.clone() {
            let _ = write!(text, "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\n", self.path_of(id));
            if self.wire_ids {
                let _ = write!(text, "{}\r\n", traceparent(id));
            }
            let last = self.load == Load::Close;
            text += if last { "Connection: close\r\n\r\n" } else { "\r\n" };
        }
        connection.get_mut().write_all(text.as_bytes())?;
        for id in ids {
            read_answer(connection).with_context(|| format!("no answer to {}", self.path_of(id)))?;
        }
        Ok(())
    }

    fn with_curl(&self, option: &str) -> anyhow::Result<()> {
        let scheme = if self.tls { "https" } else { "http" };
        let mut config = String::new();
        for id in 0..self.count {
            // Options hold for one URL only; behind the last `next` curl wants another.
            if id > 0 {
                config += "next\n";
            }
            let _ = writeln!(config, "url = \"{scheme}://127.0.0.1:{}{}\"", self.port, self.path_of(id));
            let _ = writeln!(
                config,
                "cacert = \"{}\"\n{option}\noutput = \"/dev/null\"\nfail",
                self.certificate.display()
            );
            if self.wire_ids {
                let _ = writeln!(config, "header = \"{}\"", traceparent(id));
            }
        }
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--parallel", "--parallel-max"])
            .arg(self.concurrency.to_string());
        let mut child = curl.args(["--config", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("curl takes no input")?.write_all(config.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("curl: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn path_of(&self, id: usize) -> String {
        format!("{}/{}-{id}", self.path, self.tag)
    }
}

/// The header of a trace that begins here: any ids will do that are not 0.
fn traceparent(id: usize) -> String {
    format!("traceparent: 00-{:032x}-{:016x}-01", id + 1, id + 1)
}

/// Reads an answer that says how long it is.
fn read_answer(connection: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let (mut line, mut length) = (String::new(), None);
    connection.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        bail!("the answer begins with {line:?}");
    }
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse()?);
        }
    }
    let mut body = vec![0; length.context("the answer does not say how long it is")?];
    Ok(connection.read_exact(&mut body)?)
}

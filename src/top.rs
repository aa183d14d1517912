//! `wirespan top`: rate, errors and duration of every service, live in the terminal.

use crate::api::{Api, ServerArgs, escape};
use crate::table::{Table, duration};
use serde::Deserialize;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// What `wirespan top` is asked for.
#[derive(clap::Args)]
pub struct TopArgs {
    /// Print once and end
    #[arg(long)]
    once: bool,

    /// The time that rates and percentiles are over, such as 30s, 5m, 1h
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    last: String,

    /// Seconds between refreshes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    every: u64,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
struct Answer {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    server_ip: String,
    server_port: u16,
    name: Option<String>,
    unix: Option<Unix>,
    l7_protocol: String,
    requests: u64,
    rate: f64,
    error_ratio: f64,
    p50_us: u64,
    p95_us: u64,
    p99_us: u64,
}

/// A server behind a UNIX socket, whose name is that of the service.
#[derive(Deserialize)]
struct Unix {
    process: Option<String>,
}

impl Service {
    fn name(&self) -> String {
        let name = self.unix.as_ref().map_or(&self.name, |unix| &unix.process);
        name.clone().unwrap_or_default()
    }

    fn address(&self) -> String {
        match (&self.unix, &self.name) {
            (Some(_), Some(name)) => name.clone(),
            _ if self.server_ip.contains(':') => format!("[{}]:{}", self.server_ip, self.server_port),
            _ => format!("{}:{}", self.server_ip, self.server_port),
        }
    }
}

/// Runs the command.
pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.server);
    let path = format!("/api/services?last={}", escape(&args.last));
    let live = !args.once && stdout().is_terminal();
    loop {
        let answer: Answer = api.get(&path)?;
        let mut out = stdout().lock();
        if live {
            // Clear the screen and go to its top.
            write!(out, "\x1b[2J\x1b[H")?;
        }
        writeln!(out, "{} services, last {}", answer.services.len(), args.last)?;
        write!(out, "{}", table(&answer))?;
        out.flush()?;
        if args.once {
            return Ok(());
        }
        drop(out);
        std::thread::sleep(Duration::from_secs(args.every));
    }
}

fn table(answer: &Answer) -> Table {
    let words = ["service", "address", "protocol"].map(|name| (name.to_owned(), false));
    let numbers = ["req/s", "errors", "p50", "p95", "p99", "requests"].map(|name| (name.to_owned(), true));
    let mut table = Table::new(words.into_iter().chain(numbers));
    for service in &answer.services {
        table.row([
            service.name(),
            service.address(),
            service.l7_protocol.clone(),
            format!("{:.1}", service.rate),
            format!("{:.1} %", service.error_ratio * 100.0),
            duration(service.p50_us),
            duration(service.p95_us),
            duration(service.p99_us),
            service.requests.to_string(),
        ]);
    }
    table
}

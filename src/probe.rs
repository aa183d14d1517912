//! `wirespan probe`: what NICs, kernel and machine have for capture, what of it this process may have, and what of the host's processes can
//! be traced. Changes nothing; the tracer runs for a moment.

use crate::table::Table;
use anyhow::Context;
use serde::Serialize;
use wirespan_capture::ways;
use wirespan_offload::{Machine, Nic, Plan, Report, Row};
use wirespan_syscalls::source::{Feature, TracerOptions};
use wirespan_syscalls::{Live, LiveOptions};

/// Show what NICs can do for capture, what the system refuses of it, what `--offload` would change, and what of this host's
/// processes can be traced
#[derive(clap::Args)]
pub struct ProbeArgs {
    /// Interfaces to look at; all when none is named
    #[arg(short, long = "interface", value_name = "IF", value_delimiter = ',')]
    interfaces: Vec<String>,
    /// The plan to show: `auto`, `off`, or a list such as channels=4,rx-ring=max,rss=symmetric,gro=off
    #[arg(long, value_name = "PLAN", default_value = "auto")]
    offload: Plan,
    /// The `--workers` of `up`, which `auto` makes channels for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One interface as JSON.
#[derive(Serialize)]
struct Probed {
    #[serde(flatten)]
    report: Report,
    plan: Vec<Row>,
}

#[derive(Serialize)]
struct Json {
    interfaces: Vec<Probed>,
    machine: Machine,
    capture: Vec<Possible>,
    tracer: Traced,
}

/// What the tracer can do here.
#[derive(Serialize)]
struct Traced {
    /// Why nothing is traced.
    off: Option<String>,
    features: Vec<Possible>,
    /// TLS libraries and Go programs, a line each.
    libraries: Vec<String>,
}

#[derive(Serialize)]
struct Possible {
    name: &'static str,
    /// Why not.
    off: Option<String>,
}

impl Possible {
    /// Ways to capture, by trying.
    fn ways() -> Vec<Self> {
        let way =
            |(name, tried): wirespan_capture::Way| Self { name, off: tried.err().map(|e| e.to_string()) };
        ways().into_iter().map(way).collect()
    }

    fn row(&self) -> [String; 2] {
        let answer = self.off.as_ref().map_or_else(|| "yes".to_owned(), |reason| format!("no: {reason}"));
        [self.name.to_owned(), answer]
    }
}

impl Traced {
    /// Starts the tracer to see.
    fn probe() -> Self {
        let tracer = TracerOptions { ring_bytes: 1 << 16, ..TracerOptions::default() };
        let options = LiveOptions { tracer, tls: true, limits: None, own: Vec::new(), record: None };
        match Live::start(options) {
            Ok(live) => {
                let possible = |feature: Feature| Possible { name: feature.name, off: feature.off };
                let features = live.features().into_iter().map(possible).collect();
                Self { off: None, features, libraries: live.libraries() }
            }
            Err(error) => Self { off: Some(error.to_string()), features: Vec::new(), libraries: Vec::new() },
        }
    }

    fn table(&self) -> Table {
        let mut table =
            Table::new([("processes of this host".to_owned(), false), ("traced".to_owned(), false)]);
        if let Some(reason) = &self.off {
            table.row(["all".to_owned(), format!("no: {reason}")]);
        }
        for feature in &self.features {
            table.row(feature.row());
        }
        for library in &self.libraries {
            let (file, what) = library.split_once(": ").unwrap_or((library, ""));
            table.row([file.to_owned(), what.to_owned()]);
        }
        table
    }
}

/// Prints a table for each interface and one for the machine.
pub fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let names = if args.interfaces.is_empty() { Nic::names()? } else { args.interfaces.clone() };
    let mut nics = names.iter().map(|name| Nic::open(name)).collect::<Result<Vec<_>, _>>()?;
    let machine = Machine::read()?;
    let capture = Possible::ways();
    let probed = nics.iter_mut().map(|nic| {
        let report = nic.report();
        let mut plan = report.rows(&args.offload, args.workers);
        plan.iter_mut().for_each(|row| mark_refused(row, &capture));
        Probed { plan, report }
    });
    let probed: Vec<_> = probed.collect();
    if args.json {
        let json = Json { interfaces: probed, machine, capture, tracer: Traced::probe() };
        let mut out = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &json)?;
        return std::io::Write::write_all(&mut out, b"\n").context("cannot write the report");
    }
    let mut text = String::new();
    for Probed { report, plan } in &probed {
        text.push_str(&interface(report, plan));
    }
    let mut table = Table::new([("this kernel and machine".to_owned(), false), (String::new(), false)]);
    for (what, value) in machine.rows() {
        table.row([what, value]);
    }
    text.push_str(&format!("{table}\n"));
    let mut table =
        Table::new([("capture by this process".to_owned(), false), ("possible".to_owned(), false)]);
    for way in &capture {
        table.row(way.row());
    }
    text.push_str(&format!("{table}\n{}", Traced::probe().table()));
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).context("cannot write the report")
}

/// What the driver has is of no use where the system refuses it.
fn mark_refused(row: &mut Row, capture: &[Possible]) {
    let is_refused = |name| capture.iter().any(|way| way.name == name && way.off.is_some());
    let refused = match row.what.as_str() {
        "XDP program" => is_refused("XDP program"),
        "AF_XDP" => is_refused("AF_XDP") || is_refused("XDP program"),
        _ => false,
    };
    if refused {
        row.possible = format!("refused to this process: {}", row.possible);
    }
}

/// The table of an interface and an empty line.
fn interface(report: &Report, rows: &[Row]) -> String {
    let columns = [report.link.name.as_str(), "now", "possible", "plan"];
    let mut table = Table::new(columns.map(|name| (name.to_owned(), false)));
    for row in rows {
        table.row([row.what.clone(), row.now.clone(), row.possible.clone(), row.plan.clone()]);
    }
    format!("{table}\n")
}

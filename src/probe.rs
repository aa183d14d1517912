//! `wirespan probe`: what NICs, kernel and machine have for capture, and what of its processes can be traced. Changes nothing;
//! the tracer runs for a moment.

use crate::table::Table;
use anyhow::Context;
use serde::Serialize;
use wirespan_offload::{Machine, Nic, Plan, Report, Row};
use wirespan_syscalls::source::{Feature, TracerOptions};
use wirespan_syscalls::{Live, LiveOptions};

/// Show what NICs can do for capture, what `--offload` would change, and what of this host's processes can be traced
#[derive(clap::Args)]
pub struct ProbeArgs {
    /// Interfaces to look at; all when none is named
    #[arg(short, long = "interface", value_name = "IF", value_delimiter = ',')]
    interfaces: Vec<String>,
    /// The plan to show: `auto`, `off`, or a list such as channels=4,rx-ring=max,rss=symmetric,gro=off
    #[arg(long, value_name = "PLAN", default_value = "auto")]
    offload: Plan,
    /// Workers that `auto` makes channels for; one per CPU when not given
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
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
    tracer: Traced,
}

/// What the tracer can do here.
#[derive(Serialize)]
struct Traced {
    /// Why nothing is traced.
    off: Option<String>,
    features: Vec<Traceable>,
    /// TLS libraries and Go programs, a line each.
    libraries: Vec<String>,
}

#[derive(Serialize)]
struct Traceable {
    name: &'static str,
    /// Why not.
    off: Option<String>,
}

impl Traced {
    /// Starts the tracer to see.
    fn probe() -> Self {
        let tracer = TracerOptions { ring_bytes: 1 << 16, ..TracerOptions::default() };
        let options = LiveOptions { tracer, tls: true, limits: None, own: Vec::new(), record: None };
        match Live::start(options) {
            Ok(live) => {
                let traceable = |feature: Feature| Traceable { name: feature.name, off: feature.off };
                let features = live.features().into_iter().map(traceable).collect();
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
            let traced =
                feature.off.as_ref().map_or_else(|| "yes".to_owned(), |reason| format!("no: {reason}"));
            table.row([feature.name.to_owned(), traced]);
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
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = args.workers.unwrap_or_else(|| u32::try_from(cpus()).unwrap_or(u32::MAX));
    let names = if args.interfaces.is_empty() { Nic::names()? } else { args.interfaces.clone() };
    let mut nics = names.iter().map(|name| Nic::open(name)).collect::<Result<Vec<_>, _>>()?;
    let machine = Machine::read()?;
    if args.json {
        let probed = nics.iter_mut().map(|nic| {
            let report = nic.report();
            Probed { plan: report.rows(&args.offload, workers), report }
        });
        let json = Json { interfaces: probed.collect(), machine, tracer: Traced::probe() };
        let mut out = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &json)?;
        return std::io::Write::write_all(&mut out, b"\n").context("cannot write the report");
    }
    let mut text = String::new();
    for nic in &mut nics {
        let report = nic.report();
        text.push_str(&interface(&report, &report.rows(&args.offload, workers)));
    }
    let mut table = Table::new([("this kernel and machine".to_owned(), false), (String::new(), false)]);
    for (what, value) in machine.rows() {
        table.row([what, value]);
    }
    text.push_str(&format!("{table}\n{}", Traced::probe().table()));
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).context("cannot write the report")
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

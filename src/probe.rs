//! `wirespan probe`: what NICs, kernel and machine have for capture. Reads only.

use crate::table::Table;
use anyhow::Context;
use serde::Serialize;
use wirespan_offload::{Machine, Nic, Plan, Report, Row};

/// Show what NICs can do for capture, and what `--offload` would change
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
        let json = Json { interfaces: probed.collect(), machine };
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
    text.push_str(&table.to_string());
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

//! Whether calls are linked with the requests for which they were made: real services, asked for things that make them call each
//! other, under the tracer.
//!
//! The truth is in the ids: a service that serves `X` calls with the ids `X.1`, `X.2`, ..., which are in what is asked for, in a header
//! `x-oracle-id`, and in what services note of each. wirespan does not look at them. Blind, no request carries an id that it knows
//! (and those rules are off); else requests carry `traceparent`, as instrumented programs hand it on.
//!
//! Takes in nothing; hands on one [`Cell`] for each scenario and number of requests at the same time, and ACCURACY.md.
//!
//! | module | what |
//! |---|---|
//! | `scenario` | which services, how they are asked |
//! | `service` | their processes |
//! | `load` | who asks |
//! | `tracing` | the tracer |
//! | `recording` | a run: its events, in a file, and the services' notes |
//! | `truth`, `score` | what the notes say; spans beside it |
//! | `network`, `streams`, `sequence` | sequence numbers of spans beside captures of the way between |
//! | `page` | ACCURACY.md |

mod load;
mod network;
mod page;
mod recording;
mod scenario;
mod score;
mod sequence;
mod service;
mod streams;
mod tracing;
mod truth;

use anyhow::{Context, bail};
use page::Page;
use recording::{Recording, Run};
use scenario::Scenario;
use score::Score;
use sequence::Compared;
use serde::Serialize;
use service::Workshop;
use std::path::PathBuf;
use tracing::Tracing;
use wirespan_host::context::Rules;

/// What `wirespan-perf accuracy` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct AccuracyArgs {
    /// Scenarios; all unless told
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,

    /// Requests at the same time; 1, 8 and 64 unless told
    #[arg(long, value_name = "N")]
    concurrency: Vec<usize>,

    /// Requests to the first service
    #[arg(long, default_value_t = 200, value_name = "N")]
    requests: usize,

    /// Only without ids that wirespan knows
    #[arg(long, conflicts_with = "wire_ids")]
    blind: bool,

    /// Only with `traceparent`
    #[arg(long)]
    wire_ids: bool,

    /// Sequence numbers instead of links
    #[arg(long, conflicts_with_all = ["scenario", "concurrency", "blind", "wire_ids", "write", "keep_events", "from"])]
    sequences: bool,

    /// Lose events: the tracer's ring is small, and is not read for a third of the time. Links may be missing, and not wrong
    #[arg(long, conflicts_with_all = ["from", "write"])]
    with_loss: bool,

    /// Start the tracer in the middle of the requests: links may be missing, and not wrong
    #[arg(long, conflicts_with_all = ["from", "write", "sequences"])]
    in_the_middle: bool,

    /// Where to write the result as a page
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Where to leave event logs and the services' notes
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    keep_events: Option<PathBuf>,

    /// Instead of running services: what --keep-events left there
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

/// One scenario at one concurrency, blind or not.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    pub scenario: String,
    pub concurrency: usize,
    pub wire_ids: bool,
    pub requests: usize,
    /// Events that the tracer could not hand on.
    pub lost_events: u64,
    pub precision: f64,
    pub recall: f64,
    /// The least recall that is aimed at.
    pub aim: f64,
    /// The recall of the calls that can carry an id.
    pub carriers_recall: f64,
    #[serde(flatten)]
    pub score: Score,
}

impl Cell {
    /// What the requests carried.
    fn mode(&self) -> &'static str {
        mode(self.wire_ids)
    }

    /// Precision and recall are what is aimed at; with ids, also the recall of the calls that carry one.
    fn reached(&self) -> bool {
        let with_ids = !self.wire_ids || self.carriers_recall >= scenario::WITH_IDS;
        self.precision >= scenario::PRECISION && self.recall >= self.aim && with_ids
    }
}

fn mode(wire_ids: bool) -> &'static str {
    if wire_ids { "ids" } else { "blind" }
}

/// Runs the suite.
pub fn run(args: &AccuracyArgs, json: bool) -> anyhow::Result<()> {
    if args.sequences {
        return sequences(args.requests, &Tracing::start(args.with_loss)?, json).map(drop);
    }
    let all = scenario::all();
    for name in &args.scenario {
        if !all.iter().any(|scenario| scenario.name == name) {
            let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
            bail!("there is no scenario {name}; there are {}", names.join(", "));
        }
    }
    let chosen = |scenario: &&Scenario| {
        args.scenario.is_empty() || args.scenario.iter().any(|name| name == scenario.name)
    };
    let chosen: Vec<&Scenario> = all.iter().filter(chosen).collect();
    let concurrency = if args.concurrency.is_empty() { vec![1, 8, 64] } else { args.concurrency.clone() };
    let modes = [(false, !args.wire_ids), (true, !args.blind)];

    let temporary = tempfile::Builder::new().prefix("wirespan-events").tempdir()?;
    let directory = args.from.as_deref().or(args.keep_events.as_deref()).unwrap_or(temporary.path());
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let services: Vec<_> = chosen.iter().flat_map(|scenario| &scenario.services).collect();
    let tools = match args.from {
        Some(_) => None,
        None => Some((Workshop::new(&services)?, Tracing::start(args.with_loss)?)),
    };

    let mut cells = Vec::new();
    for scenario in &chosen {
        for &concurrency in &concurrency {
            for (wire_ids, _) in modes.iter().filter(|(_, wanted)| *wanted) {
                let mode = mode(*wire_ids);
                let path = directory.join(format!("{}-{concurrency}-{mode}.events", scenario.name));
                let what = || format!("{} at concurrency {concurrency}, {mode}", scenario.name);
                let recording = match &tools {
                    Some((workshop, tracing)) => {
                        let run = Run {
                            scenario,
                            concurrency,
                            requests: args.requests,
                            wire_ids: *wire_ids,
                            in_the_middle: args.in_the_middle,
                        };
                        run.record(path, workshop, tracing)
                    }
                    None => Recording::open(path),
                };
                let recording = recording.with_context(what)?;
                let cell = cell(scenario, concurrency, *wire_ids, &recording).with_context(what)?;
                print(&cell, json, cells.is_empty())?;
                cells.push(cell);
                if args.from.is_none() && args.keep_events.is_none() {
                    recording.remove()?;
                }
            }
        }
    }
    if let Some(file) = &args.write {
        let sequences = match &tools {
            Some((_, tracing)) => sequences(args.requests, tracing, json)?,
            None => Vec::new(),
        };
        let page = Page { scenarios: &chosen, cells: &cells, sequences: &sequences };
        std::fs::write(file, page.render()?).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Compares sequence numbers, and prints them as they come.
fn sequences(requests: usize, tracing: &Tracing, json: bool) -> anyhow::Result<Vec<Compared>> {
    sequence::compare(requests, tracing, |compared| {
        if json {
            println!("{}", serde_json::to_string(compared)?);
        } else {
            let Compared { network, tap, exchanges, equal } = compared;
            println!(
                "{network:<20} {tap:<10} {exchanges:>8} exchanges, {equal:>8} with the same sequence numbers"
            );
        }
        Ok(())
    })
}

fn cell(
    scenario: &Scenario,
    concurrency: usize,
    wire_ids: bool,
    recording: &Recording,
) -> anyhow::Result<Cell> {
    let truth = recording.truth()?;
    let spans = recording.spans(if wire_ids { Rules::ALL } else { Rules::BLIND })?;
    let score = Score::new(&truth, &spans, recording.tag());
    Ok(Cell {
        scenario: scenario.name.to_owned(),
        concurrency,
        wire_ids,
        requests: recording.requests(),
        lost_events: recording.lost_events(),
        precision: score.precision(),
        recall: score.recall(),
        aim: scenario.aim,
        carriers_recall: score.carriers_recall(),
        score,
    })
}

fn print(cell: &Cell, json: bool, first: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(cell)?);
        return Ok(());
    }
    if first {
        println!(
            "{:<26} {:>4} {:<6} {:>7} {:>9} {:>7} {:>7} {:>9} {:>7} {:>7} {:>9} {:>6}",
            "scenario",
            "conc",
            "mode",
            "calls",
            "precision",
            "recall",
            "wrong",
            "ambiguous",
            "orphans",
            "missing",
            "equal seq",
            "lost"
        );
    }
    let Cell { scenario, concurrency, score, lost_events, .. } = cell;
    let mode = cell.mode();
    println!(
        "{scenario:<26} {concurrency:>4} {mode:<6} {:>7} {:>9.4} {:>7.4} {:>7} {:>9} {:>7} {:>7} {:>9.4} {lost_events:>6}",
        score.calls,
        cell.precision,
        cell.recall,
        score.wrong,
        score.ambiguous,
        score.orphans,
        score.missing,
        score.equal_rate()
    );
    Ok(())
}

//! Instructions per packet of each stage and parser, counted by callgrind, beside those of a file that is committed: they
//! are the same on a busy machine, so that a regression shows.
//!
//! A stage costs what a pass as far as it takes more than a pass as far as the stage before it, on the same input. The file
//! also holds the functions of each stage, so that a stage that became dearer can be blamed on one.

use crate::analysis::Stage;
use crate::callgrind;
use crate::capture::{Template, fixture};
use crate::measure::{Measurement, Output};
use crate::split::by_protocol;
use crate::traffic::TrafficArgs;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What `wirespan-perf instructions` is asked for.
#[derive(clap::Args)]
pub struct InstructionArgs {
    /// Write the file anew rather than compare with it
    #[arg(long)]
    write: bool,
}

/// More than this part worse fails.
const WORSE: f64 = 0.05;
/// Functions that take less of a stage are not kept.
const SMALL: f64 = 0.02;
/// Enough that what happens once does not matter.
const PACKETS: u64 = 50_000;

/// Instructions per packet of a stage on an input, and of its functions.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cost {
    total: f64,
    functions: BTreeMap<String, f64>,
}

type Costs = BTreeMap<String, Cost>;

/// Runs the suite.
pub fn run(args: &InstructionArgs, output: &mut Output) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let costs = measure()?;
    if args.write {
        std::fs::write(&path, to_text(&costs)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}; make it with `make instructions`", path.display()))?;
    let kept = from_text(&text).context("perf/instructions.txt is malformed; run `make instructions`")?;
    for (name, cost) in &costs {
        let limit = kept.get(name).map_or(0.0, |cost| cost.total);
        output.push(Measurement::new("instructions", name, cost.total, "per packet", limit))?;
    }
    let worse = complaints(&kept, &costs);
    if !worse.is_empty() {
        bail!(
            "{}\nWhen that is the price of something wanted, run `make instructions` and commit the file",
            worse.join("\n")
        );
    }
    Ok(())
}

fn measure() -> anyhow::Result<Costs> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = |name: &str| dir.path().join(format!("{name}.pcap"));
    let (shop, small) = (file("shop"), file("64 B"));
    Template::read(&fixture())?.repeat(PACKETS, &shop)?;
    TrafficArgs::connections(64, 10_000).write(PACKETS, 1e6, &small)?;
    let mut costs = Costs::new();
    stages(&shop, &[Stage::Frames, Stage::Decode, Stage::L4, Stage::L7], &mut costs)?;
    // Without payload there is nothing more to do for L7.
    stages(&small, &[Stage::Frames, Stage::Decode, Stage::L4], &mut costs)?;
    for (protocol, input) in by_protocol(&fixture(), dir.path())? {
        let long = file(&protocol);
        Template::read(&input)?.repeat(PACKETS / 5, &long)?;
        stages(&long, &[Stage::L4, Stage::L7], &mut costs)?;
    }
    Ok(costs)
}

/// The costs of all `stages` but the first on an input.
fn stages(input: &Path, stages: &[Stage], costs: &mut Costs) -> anyhow::Result<()> {
    let name = input.file_stem().unwrap_or_default().to_string_lossy();
    let mut counted = Vec::new();
    for stage in stages {
        counted.push(callgrind::count(*stage, input)?);
    }
    for (pair, stage) in counted.windows(2).zip(&stages[1..]) {
        let [before, after] = pair else { continue };
        let packets = after.packets.max(1) as f64;
        let per_packet = |after: u64, before: u64| (after as f64 - before as f64) / packets;
        let total = per_packet(after.total, before.total);
        let functions = after.functions.iter().map(|(function, count)| {
            let before = before.functions.get(function).copied().unwrap_or(0);
            (function.clone(), per_packet(*count, before))
        });
        let kept = |(name, count): &(String, f64)| *count >= SMALL * total && !name.starts_with("0x");
        let functions = functions.filter(kept).collect();
        costs.insert(format!("{} on {name}", stage.name()), Cost { total, functions });
    }
    Ok(())
}

/// A line per stage that is too dear, with the function that has grown most.
fn complaints(kept: &Costs, costs: &Costs) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, now) in costs {
        let Some(before) = kept.get(name) else {
            lines.push(format!("{name} is not in perf/instructions.txt"));
            continue;
        };
        if now.total <= before.total * (1.0 + WORSE) {
            continue;
        }
        let growth = |(function, count): (&String, &f64)| {
            (function.clone(), count - before.functions.get(function).copied().unwrap_or(0.0))
        };
        let most = now.functions.iter().map(growth).max_by(|a, b| a.1.total_cmp(&b.1));
        let blamed =
            most.map_or(String::new(), |(function, by)| format!("; most of it in {function}: {by:+.0}"));
        lines.push(format!(
            "{name} takes {:.0} instructions per packet, {:.0} before{blamed}",
            now.total, before.total
        ));
    }
    lines
}

const HEAD: &str =
    "# Instructions per packet, written by `make instructions` and compared by `make check-instructions`.\n";

fn to_text(costs: &Costs) -> String {
    let mut text = HEAD.to_owned();
    for (name, cost) in costs {
        let _ = writeln!(text, "\n{:.1} {name}", cost.total);
        let mut functions: Vec<_> = cost.functions.iter().collect();
        functions.sort_by(|a, b| b.1.total_cmp(a.1));
        for (function, count) in functions {
            let _ = writeln!(text, "    {count:.1} {function}");
        }
    }
    text
}

fn from_text(text: &str) -> Option<Costs> {
    let mut costs = Costs::new();
    let mut last = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (count, name) = line.trim_start().split_once(' ')?;
        let count: f64 = count.parse().ok()?;
        if line.starts_with(' ') {
            costs.get_mut(last.as_ref()?)?.functions.insert(name.to_owned(), count);
        } else {
            costs.insert(name.to_owned(), Cost { total: count, functions: BTreeMap::new() });
            last = Some(name.to_owned());
        }
    }
    Some(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(total: f64, functions: &[(&str, f64)]) -> Costs {
        let functions = functions.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Costs::from([("l4 on shop".to_owned(), Cost { total, functions })])
    }

    #[test]
    fn the_file_says_what_was_measured() {
        let measured = costs(321.5, &[("FlowTable::packet", 200.0), ("a name with spaces", 21.5)]);
        let text = to_text(&measured);
        assert!(
            text.ends_with("\n321.5 l4 on shop\n    200.0 FlowTable::packet\n    21.5 a name with spaces\n"),
            "{text}"
        );
        assert_eq!(from_text(&text), Some(measured));
        assert_eq!(from_text("words only"), None);
    }

    #[test]
    fn a_stage_that_is_more_than_five_percent_worse_fails_with_a_function() {
        let before = costs(100.0, &[("lookup", 60.0), ("update", 40.0)]);
        assert!(complaints(&before, &costs(104.9, &[("lookup", 64.9)])).is_empty());
        assert!(complaints(&before, &costs(50.0, &[])).is_empty());
        let worse = complaints(&before, &costs(120.0, &[("lookup", 61.0), ("update", 59.0)]));
        assert_eq!(
            worse,
            ["l4 on shop takes 120 instructions per packet, 100 before; most of it in update: +19"]
        );
        assert_eq!(complaints(&Costs::new(), &before), ["l4 on shop is not in perf/instructions.txt"]);
    }
}

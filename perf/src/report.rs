//! Every suite in one run, and what it measured as a part of `README.md`.

use crate::measure::{Measurement, Output};
use crate::replay::ReplayArgs;
#[cfg(feature = "store")]
use crate::store::{self, StoreArgs};
use crate::{limits, replay};
use anyhow::Context;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const BEGIN: &str = "<!-- begin: written by `wirespan-perf report` -->";
const END: &str = "<!-- end -->";

/// What `wirespan-perf report` is asked for.
#[derive(clap::Args)]
pub struct ReportArgs {
    /// A capture to measure beside the recording from the repository; can be given several times
    #[arg(long, value_name = "CAPTURE")]
    input: Vec<PathBuf>,
}

/// Runs every suite: `replay` on the fixture and on each of `inputs`.
pub fn run_all(inputs: &[PathBuf], output: &mut Output) -> anyhow::Result<()> {
    limits::run(output)?;
    for input in std::iter::once(None).chain(inputs.iter().cloned().map(Some)) {
        let args = ReplayArgs { input, packets: 1_000_000, out: None, rounds: 5, compare: true };
        replay::run(&args, output)?;
    }
    #[cfg(feature = "store")]
    store::run(&StoreArgs { rate: 100_000, seconds: 10 }, output)?;
    Ok(())
}

/// Runs the command.
pub fn run(args: &ReportArgs, output: &mut Output) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let load_before = load();
    run_all(&args.input, output)?;
    let part = section(&machine(&load_before), output.measurements());
    let text =
        replaced(&readme, &part).context("perf/README.md has lost its markers; restore them from git")?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The text with another part between the markers; `None` when they are not there.
fn replaced(text: &str, part: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

fn section(machine: &str, measurements: &[Measurement]) -> String {
    let mut text = format!("{machine}\n\n| bench | variant | value | unit | limit | ratio |\n");
    text.push_str("|---|---|---:|---|---:|---:|\n");
    for measurement in measurements {
        let _ = writeln!(text, "| {} |", measurement.cells().join(" | "));
    }
    text
}

/// One line about where and when it was measured.
fn machine(load_before: &str) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown CPU", |(_, name)| name);
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let date =
        Command::new("date").args(["-u", "+%Y-%m-%d"]).output().map(|out| out.stdout).unwrap_or_default();
    format!(
        "Measured on {} with {cores} cores of {model}, Linux {}; load average before the run {load_before}. Above the \
         number of cores, others had their share: then CPU seconds are to be trusted, wall clock is not.",
        String::from_utf8_lossy(&date).trim(),
        kernel.trim(),
    )
}

/// The load average of the last minute.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("# A\n{BEGIN}\nold\n{END}\n# B\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("# A\n{BEGIN}\nnew\n{END}\n# B\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert_eq!(replaced("# A\n", "new\n"), None);
    }

    #[test]
    fn the_readme_has_its_markers() {
        let readme =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
        assert!(replaced(&readme, "").is_some());
    }

    #[test]
    fn a_row_per_measurement() {
        let measurements = [
            Measurement::limit("limits", "memory copy", 8.5, "GB/s"),
            Measurement::new("replay/shop", "l4+l7", 2_000_000.0, "packets/s", 8_000_000.0),
        ];
        let text = section("Here.", &measurements);
        assert!(text.starts_with("Here.\n\n| bench |"));
        assert!(text.contains("| limits | memory copy | 8.50 | GB/s |  |  |\n"), "{text}");
        assert!(
            text.ends_with("| replay/shop | l4+l7 | 2,000,000 | packets/s | 8,000,000 | 0.25 |\n"),
            "{text}"
        );
    }
}

//! Every suite in one run, and what it measured as a part of `README.md`.

use crate::capture::{Template, fixture};
use crate::compare::{self, CompareArgs};
use crate::flows::{self, FlowsArgs};
use crate::latency::{self, LatencyArgs};
use crate::limits::{self, LimitsArgs};
use crate::live::{self, LiveArgs};
use crate::measure::{Measurement, Output, above_zero};
use crate::memory::{self, MemoryArgs};
use crate::plot::{self, Bar};
use crate::replay::{self, ReplayArgs};
#[cfg(feature = "store")]
use crate::store::{self, StoreArgs};
use crate::tracer::{self, TracerArgs};
use crate::traffic::TrafficArgs;
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

    /// How long memory is watched
    #[arg(long, default_value_t = 60.0, value_parser = above_zero, value_name = "S")]
    memory_seconds: f64,
}

/// Runs every suite: on the fixture, on each of `inputs`, and on made-up traffic.
pub fn run_all(args: &ReportArgs, output: &mut Output) -> anyhow::Result<()> {
    // Before minutes are spent.
    for input in &args.input {
        Template::read(input)?;
    }
    limits::run(&LimitsArgs { seconds: 1.0 }, output)?;
    let replay =
        |input, flows, packets| ReplayArgs { input, flows, packets, out: None, rounds: 3, workers: None };
    replay::run(&replay(None, Some(100_000), 3_000_000), output)?;
    let inputs = || std::iter::once(None).chain(args.input.iter().cloned().map(Some));
    for input in inputs() {
        replay::run(&replay(input.clone(), None, 1_000_000), output)?;
        compare::run(&CompareArgs { input, packets: 1_000_000, rounds: 3 }, output)?;
    }
    let small = TrafficArgs::connections(64, 100_000);
    let live = |traffic, shunt| LiveArgs { traffic, backend: Vec::new(), seconds: 1.0, shunt };
    live::run(&live(small, false), output)?;
    for input in inputs() {
        let traffic = TrafficArgs::capture(&input.unwrap_or_else(fixture));
        live::run(&live(traffic, false), output)?;
    }
    for size in [64, 1_400, 3_278] {
        live::run(&live(TrafficArgs::elephant(size), true), output)?;
    }
    #[cfg(feature = "dpdk")]
    crate::dpdk::run(2.0, output)?;
    latency::run(&LatencyArgs { backend: Vec::new(), rate: 200_000.0, seconds: 2.0 }, output)?;
    flows::run(&FlowsArgs { flows: vec![1_000, 10_000, 100_000, 1_000_000, 10_000_000] }, output)?;
    memory::run(&MemoryArgs { seconds: args.memory_seconds, flows: 100_000 }, output)?;
    tracer::run(&TracerArgs::default(), output)?;
    #[cfg(feature = "store")]
    store::run(&StoreArgs { rate: 100_000, seconds: 10 }, output)?;
    #[cfg(feature = "store")]
    crate::stitch::run(&crate::stitch::StitchArgs { spans: 10_000_000, data: None }, output)?;
    Ok(())
}

/// Runs the command.
pub fn run(args: &ReportArgs, output: &mut Output) -> anyhow::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("README.md");
    let readme = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let load_before = load();
    run_all(args, output)?;
    let plots = plots(output.measurements());
    let part = section(&machine(&load_before), &plots, output.measurements());
    let text =
        replaced(&readme, &part).context("perf/README.md has lost its markers; restore them from git")?;
    let mut files = vec![(path, text)];
    files.extend(
        plots.into_iter().map(|(name, svg)| (here.join("plots").join(name).with_extension("svg"), svg)),
    );
    std::fs::create_dir_all(here.join("plots")).context("cannot make perf/plots")?;
    for (path, text) in files {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Plots by their names, of what was measured.
fn plots(measurements: &[Measurement]) -> Vec<(&'static str, String)> {
    let millions =
        |wanted: &dyn Fn(&Measurement) -> bool, label: &dyn Fn(&Measurement) -> String, limits: bool| {
            let bar = |m: &Measurement| Bar {
                label: label(m),
                value: m.value / 1e6,
                limit: m.limit.filter(|_| limits).map(|limit| limit / 1e6),
            };
            let of_rates = measurements.iter().filter(|m| m.unit == "packets/s" && wanted(m));
            of_rates.map(bar).collect::<Vec<_>>()
        };
    let whole = |m: &Measurement| format!("{}: {}", m.bench, m.variant);
    let stages =
        |m: &Measurement| m.bench.starts_with("replay/") && m.variant != "file read" && m.variant != "frames";
    let live = |m: &Measurement| m.bench.starts_with("live/");
    let peers = |m: &Measurement| m.bench.starts_with("compare/");
    let flows: Vec<_> = measurements.iter().filter_map(per_packet).collect();
    vec![
        (
            "stages",
            plot::bars(
                "Replay: million packets per second by stage",
                "Mpps",
                &millions(&stages, &whole, false),
            ),
        ),
        (
            "live",
            plot::bars(
                "Live, without loss, and the empty loop (pale)",
                "Mpps",
                &millions(&live, &whole, true),
            ),
        ),
        (
            "peers",
            plot::bars(
                "wirespan with L7, and others (pale) on the same file",
                "Mpps",
                &millions(&peers, &whole, true),
            ),
        ),
        ("flows", plot::line("Time per packet by live flows", "ns", &flows)),
    ]
}

/// Live flows and nanoseconds per packet, of a measurement of that.
fn per_packet(m: &Measurement) -> Option<(u64, f64)> {
    let number = m.variant.strip_suffix(" flows: packet")?;
    let (digits, factor) = match number.strip_suffix('M') {
        Some(millions) => (millions, 1_000_000),
        None => number.strip_suffix('k').map_or((number, 1), |thousands| (thousands, 1_000)),
    };
    Some((digits.parse::<u64>().ok()? * factor, m.value))
}

/// The text with another part between the markers; `None` when they are not there.
fn replaced(text: &str, part: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

fn section(machine: &str, plots: &[(&str, String)], measurements: &[Measurement]) -> String {
    let mut text = format!("{machine}\n\n");
    for (name, _) in plots {
        let _ = writeln!(text, "![{name}](plots/{name}.svg)");
    }
    text.push_str("\n| bench | variant | value | unit | limit | ratio |\n");
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
         number of cores, others had their share: then CPU seconds are to be trusted, wall clock is not. Command line: \
         `{}`.",
        String::from_utf8_lossy(&date).trim(),
        kernel.trim(),
        command_line(std::env::args()),
    )
}

/// How this was started, with file names rather than paths.
pub fn command_line(args: impl Iterator<Item = String>) -> String {
    let name = |arg: String| arg.rsplit('/').next().unwrap_or_default().to_owned();
    args.map(name).collect::<Vec<_>>().join(" ")
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
    fn a_plot_for_each_question() {
        let rate = |bench, variant| Measurement::new(bench, variant, 2e6, "packets/s", 4e6);
        let flows = Measurement::new("flows", "100k flows: packet", 80.0, "ns", 40.0);
        assert_eq!(per_packet(&flows), Some((100_000, 80.0)));
        assert_eq!(per_packet(&rate("replay/shop", "l4")), None);
        let plots =
            plots(&[rate("replay/shop", "l4"), rate("live/AF_XDP", "l4"), rate("compare/shop", "it"), flows]);
        let names = plots.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names, ["stages", "live", "peers", "flows"]);
        assert!(plots.iter().all(|(_, svg)| svg.contains("2.00 Mpps") || svg.contains("80.00 ns")));
    }

    #[test]
    fn command_lines_have_no_paths() {
        let args = ["/a/b/wirespan-perf", "report", "--input", "/c/mix.pcap"].map(str::to_owned);
        assert_eq!(command_line(args.into_iter()), "wirespan-perf report --input mix.pcap");
    }

    #[test]
    fn a_row_per_measurement() {
        let measurements = [
            Measurement::limit("limits", "memory copy", 8.5, "GB/s"),
            Measurement::new("replay/shop", "l4+l7", 2_000_000.0, "packets/s", 8_000_000.0),
        ];
        let text = section("Here.", &[("live", String::new())], &measurements);
        assert!(text.starts_with("Here.\n\n![live](plots/live.svg)\n\n| bench |"), "{text}");
        assert!(text.contains("| limits | memory copy | 8.50 | GB/s |  |  |\n"), "{text}");
        assert!(
            text.ends_with("| replay/shop | l4+l7 | 2,000,000 | packets/s | 8,000,000 | 0.25 |\n"),
            "{text}"
        );
    }
}

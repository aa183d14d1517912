//! ACCURACY.md.

use super::Cell;
use super::scenario::{PRECISION, Scenario, WITH_IDS};
use super::sequence::Compared;
use std::fmt::Write;
use std::process::Command;

/// Everything that the page shows.
pub struct Page<'a> {
    /// In the order of the table.
    pub scenarios: &'a [&'a Scenario],
    /// Blind and with ids.
    pub cells: &'a [Cell],
    /// Sequence numbers beside captures.
    pub sequences: &'a [Compared],
}

const INTRODUCTION: &str = "\
# How sure links are

Written by `make accuracy`; see `perf/src/accuracy`. Real services, asked for things that make them call each other, under the tracer.
The truth is in the ids: a service that serves `X` calls with the ids `X.1`, `X.2`, ..., which are in what is asked for and in what
services note of each; wirespan does not look at them. Blind, requests carry no id that wirespan knows and those rules are off. With
ids, requests carry `traceparent`, handed on as instrumented programs do. Redis and DNS cannot carry it: such calls are linked as
those are that are blind.

- precision: of the calls that were linked, those linked with the request for which they were made
- recall: of the calls that were made, those linked with that request
- carrying ids: the recall of the calls whose protocol carries ids, and of those that were not seen
- wrong: calls linked with another request
- ambiguous, orphans: calls seen and linked with none, while the process had several requests to answer, or at most one
- missing: calls not seen
- same seq: of the exchanges seen in both processes, those with the same sequence numbers of request and response
";

impl Page<'_> {
    /// As Markdown.
    pub fn render(&self) -> anyhow::Result<String> {
        let mut text = format!("{INTRODUCTION}\n{}\n", circumstances());
        self.aims(&mut text)?;
        self.links(&mut text)?;
        self.rules(&mut text)?;
        self.sequences(&mut text)?;
        self.arrangements(&mut text)?;
        Ok(text)
    }

    fn aims(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## Aims that are not reached\n")?;
        writeln!(
            text,
            "Aimed at: precision {PRECISION} everywhere; the recall of the last column; {WITH_IDS} of the calls that carry ids.\n"
        )?;
        let missed: Vec<_> = self.cells.iter().filter(|cell| !cell.reached()).collect();
        for cell in &missed {
            let carrying = match cell.wire_ids {
                true => format!(", carrying ids {}", rate(cell.carriers_recall)),
                false => String::new(),
            };
            writeln!(
                text,
                "- {}, {} at once, {}: precision {}, recall {} (aim {}){carrying}",
                cell.scenario,
                cell.concurrency,
                cell.mode(),
                rate(cell.precision),
                rate(cell.recall),
                cell.aim
            )?;
        }
        if missed.is_empty() {
            writeln!(text, "None.")?;
        }
        Ok(())
    }

    fn links(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## Links\n")?;
        writeln!(
            text,
            "| scenario | at once | calls | precision | recall | wrong | ambiguous | orphans | missing | same seq | lost events | \
             precision, ids | recall, ids | carrying ids | aim |"
        )?;
        writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        for blind in self.cells.iter().filter(|cell| !cell.wire_ids) {
            let with_ids = self
                .cells
                .iter()
                .find(|c| c.wire_ids && c.scenario == blind.scenario && c.concurrency == blind.concurrency);
            let of_ids = |of: fn(&Cell) -> f64| with_ids.map(|cell| rate(of(cell))).unwrap_or_default();
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                blind.scenario,
                blind.concurrency,
                blind.score.calls,
                rate(blind.precision),
                rate(blind.recall),
                rate(blind.score.wrong_rate()),
                rate(blind.score.ambiguous_rate()),
                rate(blind.score.orphan_rate()),
                rate(blind.score.missing_rate()),
                rate(blind.score.equal_rate()),
                blind.lost_events,
                of_ids(|cell| cell.precision),
                of_ids(|cell| cell.recall),
                match with_ids {
                    Some(cell) if cell.score.carriers > 0 => rate(cell.carriers_recall),
                    _ => "-".to_owned(),
                },
                blind.aim
            )?;
        }
        Ok(())
    }

    fn rules(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## Which rule linked, blind\n")?;
        writeln!(text, "| scenario | at once | rule | right | wrong |\n|---|---:|---|---:|---:|")?;
        for cell in self.cells.iter().filter(|cell| !cell.wire_ids) {
            for (rule, (right, wrong)) in &cell.score.rules {
                writeln!(text, "| {} | {} | {rule} | {right} | {wrong} |", cell.scenario, cell.concurrency)?;
            }
        }
        Ok(())
    }

    fn sequences(&self, text: &mut String) -> std::fmt::Result {
        if self.sequences.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\n## Sequence numbers\n\n\
             A client's and a server's namespace with a router between them. tcpdump captures at every end of both veth pairs; the heads\n\
             of requests and responses are looked for in its streams, and their places there compared with the numbers in the spans\n\
             of the processes. Aimed at: 0.999.\n"
        )?;
        writeln!(text, "| network | tap | exchanges | same numbers |\n|---|---|---:|---:|")?;
        for compared in self.sequences {
            writeln!(
                text,
                "| {} | {} | {} | {} |",
                compared.network,
                compared.tap,
                compared.exchanges,
                rate(compared.equal_rate())
            )?;
        }
        Ok(())
    }

    fn arrangements(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n## Scenarios\n\n| scenario | asked for | services, the last one is asked | by |\n|---|---|---|---|"
        )?;
        for scenario in self.scenarios {
            let services: Vec<_> = scenario.services.iter().map(|service| service.to_string()).collect();
            let late =
                if scenario.attached_late { "; the tracer comes when connections are there" } else { "" };
            writeln!(
                text,
                "| {} | `{}` | {} | {}{late} |",
                scenario.name,
                scenario.path,
                services.join(", "),
                scenario.load
            )?;
        }
        Ok(())
    }
}

/// Not rounded up to 1.
fn rate(part: f64) -> String {
    if part < 1.0 { format!("{:.4}", (part * 1e4).floor() / 1e4) } else { "1".to_owned() }
}

/// Where and how it was measured.
fn circumstances() -> String {
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next()?.trim();
        Some(line.to_owned())
    };
    let programs = [
        ("/usr/bin/python3", "--version"),
        ("node", "--version"),
        ("java", "--version"),
        ("go", "version"),
        ("nginx", "-v"),
        ("haproxy", "-v"),
        ("redis-server", "--version"),
        ("openssl", "version"),
        ("curl", "--version"),
    ];
    let versions: Vec<_> = programs
        .iter()
        .filter_map(|(program, argument)| {
            let line = said(program, argument)?;
            Some(if *program == "node" { format!("Node.js {line}") } else { line })
        })
        .collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Measured on {} with Linux {}, {cores} cores. {}. Command line: `{}`.",
        said("date", "-uI").unwrap_or_default(),
        kernel.trim(),
        versions.join("; "),
        crate::report::command_line(std::env::args()),
    )
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn what_is_not_all_is_not_shown_as_all() {
        assert_eq!(rate(0.99999), "0.9999");
        assert_eq!(rate(1.0), "1");
        assert_eq!(rate(0.5), "0.5000");
    }
}

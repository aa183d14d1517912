//! A report as rows for people: what, now, possible, and what the plan would do.

use crate::machine::Machine;
use crate::plan::{Plan, Switch};
use crate::report::Report;
use crate::setting::on_off;
use crate::steps::{Step, Steps, features_of};
use serde::Serialize;

/// One line of `wirespan probe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it is about.
    pub what: String,
    /// How it is now.
    pub now: String,
    /// What could be.
    pub possible: String,
    /// What the plan would do; empty when nothing.
    pub plan: String,
}

impl Report {
    /// Rows for people, with what a plan would do; `workers` is how many queues `auto` wants.
    pub fn rows(&self, plan: &Plan, workers: u32) -> Vec<Row> {
        let steps = Steps::plan(self, plan, workers);
        let mut rows = facts(self);
        rows.extend(settings(self));
        rows.extend(capture(self));
        for row in &mut rows {
            row.plan = planned(&steps, &row.plan);
        }
        rows
    }
}

/// A row about something that no plan changes.
fn fact(what: &str, now: impl Into<String>, possible: impl Into<String>) -> Row {
    row(what, "", now, possible)
}

/// A row that belongs to an entry of a plan; the entry's name stands in `plan` until it is known what is planned.
fn row(what: &str, entry: &str, now: impl Into<String>, possible: impl Into<String>) -> Row {
    Row { what: what.to_owned(), now: now.into(), possible: possible.into(), plan: entry.to_owned() }
}

/// What the steps do for an entry, which may be followed by `/` and the one setting that is meant.
fn planned(steps: &Steps, entry: &str) -> String {
    let (entry, only) = entry.split_once('/').unwrap_or((entry, ""));
    let refused = steps.refused.iter().filter(|(name, why)| *name == entry && why.contains(only));
    let refused = refused
        .map(|(_, why)| format!("cannot: {}", why.split_once(": ").map_or(why.as_str(), |(_, why)| why)));
    let todo = steps.todo.iter().filter(|(name, _)| *name == entry).filter_map(|(_, step)| match step {
        Step::Promiscuous => Some("on".to_owned()),
        Step::Set(ways) if ways.first().is_some_and(|first| first.name().contains(only)) => {
            let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
            Some(ways.join(", else "))
        }
        Step::Set(_) => None,
    });
    todo.chain(refused).collect::<Vec<_>>().join("; ")
}

fn facts(report: &Report) -> Vec<Row> {
    let device = match (&report.link.kind, report.bus.as_str()) {
        (Some(kind), _) => format!("interface of kind {kind}"),
        (None, "") => "no device".to_owned(),
        (None, bus) => format!("device {bus}"),
    };
    let speed = match report.speed_mbps.told() {
        Ok(Some(speed)) => format!("{speed} Mb/s"),
        Ok(None) => "unknown".to_owned(),
        Err(no) => no,
    };
    let numa = report.numa_node.map_or("any".to_owned(), |node| node.to_string());
    let up = if report.link.up { "up" } else { "down" };
    let queues = report.rx_queues.told().map_or_else(|no| no, u32::to_string);
    let interrupts = report.interrupts.map_or(String::new(), |count| format!("{count} interrupts"));
    vec![
        fact("driver", report.driver.told().map_or_else(|no| no, Clone::clone), device),
        fact("link", format!("{up}, {speed}"), ""),
        fact("NUMA node", numa, ""),
        fact("receive queues", queues, interrupts),
    ]
}

fn settings(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let (now, possible) = match report.channels.told() {
        Ok(has) => (has.now.to_string(), format!("up to {}", has.max)),
        Err(no) => (String::new(), no),
    };
    rows.push(row("channels", "channels", now, possible));
    let (now, possible) = match report.rx_ring.told() {
        Ok(has) => (has.now.to_string(), format!("up to {}", has.max)),
        Err(no) => (String::new(), no),
    };
    rows.push(row("rx ring", "rx-ring", now, possible));
    let (now, possible) = match report.rss.told() {
        Ok(rss) if rss.key.is_empty() => (rss.to_string(), String::new()),
        Ok(rss) => (rss.to_string(), format!("a key of {} bytes", rss.key.len())),
        Err(no) => (String::new(), no),
    };
    rows.push(row("RSS", "rss", now, possible));
    for (of, fields) in &report.hash_fields {
        let what = format!("hash fields of {}", of.name());
        let (now, possible) = match fields.told() {
            Ok(fields) => (fields.to_string(), String::new()),
            Err(no) => (String::new(), no),
        };
        rows.push(row(&what, &format!("{}/{what}", Switch::TunnelHash.name()), now, possible));
    }
    let (now, possible) = match report.tunnel_ports.told() {
        Ok(has) => {
            let ports: Vec<String> = has.ports.iter().map(|(port, kind)| format!("{kind} {port}")).collect();
            (ports.join(", "), format!("{} ports of {}", has.room, has.kinds.join(", ")))
        }
        Err(no) => (String::new(), no),
    };
    rows.push(fact("UDP tunnel ports", now, possible));
    rows.push(row("promiscuous", Switch::Promiscuous.name(), on_off(report.link.promiscuity > 0), "on"));
    for switch in
        [Switch::Gro, Switch::Lro, Switch::GroHw, Switch::VlanStrip, Switch::Ntuple, Switch::TcOffload]
    {
        rows.extend(features_of(switch).iter().map(|name| feature(report, switch, name)));
    }
    let now = report.timestamps.told().map_or(String::new(), ToString::to_string);
    let possible = match (report.timestamp_filters.told(), report.timestamps.told()) {
        (Ok(filters), Ok(_)) if !filters.is_empty() => filters.join(", "),
        (_, Err(no)) | (Err(no), _) => no,
        _ => "none".to_owned(),
    };
    rows.push(row("hardware timestamps", Switch::HwTimestamps.name(), now, possible));
    let (now, possible) = match report.busy_poll.told() {
        Ok((defer, timeout)) => (format!("defer {defer}, timeout {timeout} ns"), String::new()),
        Err(no) => (String::new(), no),
    };
    rows.push(row("interrupts while polling", Switch::BusyPoll.name(), now, possible));
    let (now, possible) = match report.ntuple.told() {
        Ok(table) if table.room == 0 => (table.rules.to_string(), "unknown room".to_owned()),
        Ok(table) => (table.rules.to_string(), format!("room for {}", table.room)),
        Err(no) => (String::new(), no),
    };
    rows.push(fact("ntuple rules", now, possible));
    rows
}

fn feature(report: &Report, switch: Switch, name: &str) -> Row {
    let feature = report.feature(name);
    let possible = match (report.features.told(), feature.changeable) {
        (Err(no), _) => no,
        (_, true) => "on, off".to_owned(),
        (_, false) => "fixed".to_owned(),
    };
    row(name, &format!("{}/{name}", switch.name()), on_off(feature.on), possible)
}

fn capture(report: &Report) -> Vec<Row> {
    let attached = report.link.xdp_attached.unwrap_or("none").to_owned();
    let xdp = match report.xdp.told() {
        Ok(xdp) => xdp,
        Err(no) => {
            let untold = format!("Linux 6.3 and newer tell, capture tries ({no})");
            return vec![fact("XDP program", attached, untold)];
        }
    };
    let listed = |all: &[(bool, &str)]| {
        let some: Vec<&str> = all.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    let modes = [
        (xdp.native, "native"),
        (xdp.offload, "offload (not used)"),
        (xdp.redirect, "redirect"),
        (xdp.multi_buffer, "multi-buffer"),
        (true, "generic"),
    ];
    let hints = [(xdp.timestamp, "timestamp"), (xdp.hash, "hash"), (xdp.vlan_tag, "VLAN tag")];
    let sockets = match (xdp.zero_copy, xdp.redirect) {
        (true, _) if xdp.zero_copy_buffers > 1 => {
            format!("zero-copy, {} buffers a frame; copy; generic", xdp.zero_copy_buffers)
        }
        (true, _) => "zero-copy, copy, generic".to_owned(),
        (false, true) => "copy, generic".to_owned(),
        (false, false) => "generic".to_owned(),
    };
    vec![
        fact("XDP program", attached, listed(&modes)),
        fact("XDP hints", "", listed(&hints)),
        fact("AF_XDP", "", sockets),
    ]
}

impl Machine {
    /// Rows for people: what, and how it is.
    pub fn rows(&self) -> Vec<(String, String)> {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut rows = vec![
            ("kernel".to_owned(), self.kernel.clone()),
            ("CPUs".to_owned(), self.cpus.clone()),
            ("NUMA nodes".to_owned(), self.numa_nodes.clone()),
            ("BTF".to_owned(), yes_no(self.btf)),
            ("BPF compiled".to_owned(), yes_no(self.bpf_jit)),
            ("AF_XDP".to_owned(), yes_no(self.af_xdp)),
            ("capabilities".to_owned(), list(&self.capabilities)),
            ("missing capabilities".to_owned(), list(&self.missing_capabilities)),
        ];
        for pages in &self.huge_pages {
            let size = format!("huge pages of {} KiB", pages.kib);
            rows.push((size, format!("{} free of {}", pages.free, pages.total)));
        }
        let thp = self.transparent_huge_pages.clone().unwrap_or_else(|| "not in this kernel".to_owned());
        rows.push(("transparent huge pages".to_owned(), thp));
        rows
    }
}

fn list(words: &[&str]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

//! How replay prints: lines for people or for programs.

use super::Totals;
use clap::ValueEnum;
use serde_json::json;
use std::io::{self, BufWriter, Stdout, Write};
use std::net::SocketAddr;
use std::time::Duration;
use wirespan_dataplane::Taps;
use wirespan_records::{Endpoint, Flow, L7Protocol, Span, Text};

/// What can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// One line per request/response exchange
    Spans,
    /// One line per flow
    Flows,
    /// Totals at the end
    Stats,
}

/// Standard output in one of the formats.
pub struct Output {
    json: bool,
    stats: bool,
    headed: bool,
    taps: Taps,
    out: BufWriter<Stdout>,
}

impl Output {
    pub fn new(json: bool, emit: &[Emit], taps: Taps) -> Self {
        Self {
            json,
            stats: emit.contains(&Emit::Stats),
            headed: false,
            taps,
            out: BufWriter::with_capacity(1 << 16, io::stdout()),
        }
    }

    pub fn span(&mut self, span: &Span) -> io::Result<()> {
        if self.json {
            return self.record(span, span.tap);
        }
        self.head()?;
        let (client, server) = (address(span.client), address(span.server));
        let what = [&span.request_type, &span.request_domain, &span.request_resource];
        let what: Vec<&str> = what.into_iter().flatten().map(Text::as_str).collect();
        writeln!(
            self.out,
            "{} {:<6} {client:>21} -> {server:<21} {:<12} {:>5} {:>10} us  {}",
            clock(span.start_ns),
            span.l7_protocol.as_str(),
            span.response_status.as_str(),
            span.response_code.map(|code| code.to_string()).unwrap_or_default(),
            span.duration_us(),
            printable(&what.join(" "), 100),
        )
    }

    pub fn flow(&mut self, flow: &Flow) -> io::Result<()> {
        if self.json {
            return self.record(flow, flow.tap);
        }
        self.head()?;
        let m = &flow.metrics;
        let (client, server) = (address(flow.client), address(flow.server));
        writeln!(
            self.out,
            "{} {:<6} {client:>21} -> {server:<21} {:<20} {:>7} packets {:>10} bytes  rtt {:>6} us  retransmissions {}",
            clock(flow.start_ns),
            flow.protocol.as_str(),
            flow.close_type.as_str(),
            m.packets.tx + m.packets.rx,
            m.bytes.tx + m.bytes.rx,
            m.rtt.max_us,
            m.retrans.tx + m.retrans.rx,
        )
    }

    /// The totals, at the end.
    pub fn stats(&mut self, totals: &Totals, wall: Duration) -> io::Result<()> {
        if !self.stats {
            return Ok(());
        }
        let worker = &totals.worker;
        let spans: serde_json::Map<String, serde_json::Value> = L7Protocol::ALL
            .iter()
            .zip(totals.spans)
            .filter(|(_, count)| *count > 0)
            .map(|(protocol, count)| (protocol.as_str().to_owned(), count.into()))
            .collect();
        let seconds = wall.as_secs_f64();
        let rate = if seconds > 0.0 { (worker.frames as f64 / seconds).round() } else { 0.0 };
        let stats = json!({
            "kind": "stats",
            "packets": worker.frames,
            "bytes": worker.bytes,
            "decoded": worker.packets,
            "undecoded": worker.drops,
            "unreadable": totals.unreadable.iter().map(|(.., count)| count).sum::<u64>(),
            "events": totals.events,
            "events_unreadable": totals.events_unreadable,
            "flows": worker.flow.flows,
            "flows_evicted": worker.flow.evicted,
            "spans": spans,
            "gap_bytes": worker.l7.gap_bytes,
            "desyncs": worker.l7.desyncs,
            "unpaired": worker.l7.unpaired,
            "over_budget_bytes": worker.l7.over_budget_bytes,
            "wall_seconds": seconds,
            "packets_per_second": rate,
        });
        if self.json {
            return self.json(&stats);
        }
        let serde_json::Value::Object(fields) = stats else { return Ok(()) };
        for (name, value) in fields.iter().skip(1) {
            writeln!(self.out, "{name:<20} {value}")?;
        }
        Ok(())
    }

    pub fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A record; where there is a taps file, with the name of its tap.
    fn record(&mut self, record: &impl serde::Serialize, tap: u16) -> io::Result<()> {
        #[derive(serde::Serialize)]
        struct Named<'a, T: serde::Serialize> {
            #[serde(flatten)]
            record: &'a T,
            tap: Option<String>,
        }
        if self.taps.taps.is_empty() {
            return self.json(record);
        }
        let tap = self.taps.get(tap).map(|tap| tap.name.clone());
        self.json(&Named { record, tap })
    }

    fn json(&mut self, record: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, record).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }

    fn head(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.headed, true) {
            writeln!(
                self.out,
                "{:<15} {:<6} {:>21} -> {:<21} {:<12} {:>5} {:>13}  what",
                "time (UTC)", "proto", "client", "server", "status", "code", "duration"
            )?;
        }
        Ok(())
    }
}

/// As it is written in URLs: an IPv6 address in brackets.
fn address(end: Endpoint) -> String {
    SocketAddr::new(end.ip, end.port).to_string()
}

/// Time of day with microseconds.
fn clock(ns: u64) -> String {
    let us = ns / 1_000 % 86_400_000_000;
    let (s, us) = (us / 1_000_000, us % 1_000_000);
    format!("{:02}:{:02}:{:02}.{us:06}", s / 3600, s / 60 % 60, s % 60)
}

/// One line for a terminal: control characters shown as `.`, cut to `width` characters.
fn printable(text: &str, width: usize) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { '.' } else { c }).take(width).collect();
    if text.chars().nth(width).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_and_lines_for_a_terminal() {
        assert_eq!(clock(1_700_000_000_123_456_789), "22:13:20.123456");
        assert_eq!(printable("GET\r\n\u{1b}[2J", 6), "GET...…");
    }
}

//! One trace for the terminal: a line for each request with its place in time, one for its way, and the sum.

use crate::table::{duration, plain};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use wirespan_stitch::{Trace, TraceSpan};

/// Cells of the time axis, where there is room, and where there is little.
const CELLS: usize = 40;
const CELLS_MIN: usize = 12;
/// Characters between the time axis and a request's text.
const BETWEEN: usize = 22;
/// Most characters that a request's text gets, and the least, even if lines get longer than the terminal is wide.
const TEXT: usize = 64;
const TEXT_MIN: usize = 24;

/// A trace, to be shown.
pub struct Flame<'a> {
    trace: &'a Trace,
    exchanges: Vec<Exchange<'a>>,
    /// Of the terminal.
    columns: usize,
    /// Of the time axis.
    cells: usize,
}

/// A request at all the points that saw it.
struct Exchange<'a> {
    /// From the client to the server; not empty.
    points: Vec<&'a TraceSpan>,
    first: &'a TraceSpan,
    last: &'a TraceSpan,
    /// Requests above it.
    depth: usize,
    /// The exchanges that were made for it, by place in `Flame::exchanges`.
    children: Vec<usize>,
    /// From each point to the next.
    latencies: Vec<Option<i64>>,
}

impl<'a> Flame<'a> {
    /// For a terminal of this width, or for none.
    pub fn new(trace: &'a Trace, columns: Option<usize>) -> Self {
        let spans: HashMap<&str, &TraceSpan> =
            trace.spans.iter().map(|span| (span.row.id.as_str(), span)).collect();
        let mut exchanges: Vec<Exchange> = Vec::new();
        let mut place_of_path = HashMap::new();
        // Parents come before their children, so an exchange comes where its first point does.
        for span in &trace.spans {
            let Some(path) = trace.paths.get(span.path).filter(|_| !place_of_path.contains_key(&span.path))
            else {
                continue;
            };
            let points: Vec<&TraceSpan> =
                path.spans.iter().filter_map(|id| spans.get(id.as_str()).copied()).collect();
            let (Some(&first), Some(&last)) = (points.first(), points.last()) else { continue };
            let parent = first.parent_id.as_deref().and_then(|id| spans.get(id));
            let parent = parent.and_then(|parent| place_of_path.get(&parent.path)).copied();
            let place = exchanges.len();
            let depth = match parent.and_then(|parent: usize| exchanges.get_mut(parent)) {
                Some(parent) => {
                    parent.children.push(place);
                    parent.depth + 1
                }
                None => 0,
            };
            let latencies = path.hops.iter().map(|hop| hop.latency_us).collect();
            place_of_path.insert(span.path, place);
            exchanges.push(Exchange { points, first, last, depth, children: Vec::new(), latencies });
        }
        let columns = columns.unwrap_or(usize::MAX);
        let cells = (columns.saturating_sub(BETWEEN) / 3).clamp(CELLS_MIN, CELLS);
        Self { trace, exchanges, columns, cells }
    }

    /// Full where the request itself was worked on, half where it waited for others.
    fn bar(&self, exchange: &Exchange<'_>) -> String {
        let cells = self.cells as u64;
        let cell_ns = (self.trace.duration_us * 1000 / cells).max(1);
        let covers = |span: &TraceSpan, from_ns: u64| {
            // What is shorter than a cell fills the one in which it begins.
            let end_ns = span.row.end_ns.max(span.row.start_ns + 1);
            span.row.start_ns < from_ns + cell_ns && from_ns < end_ns
        };
        let cell = |cell: u64| {
            let from_ns = self.trace.start_ns + cell * cell_ns;
            let mut children = exchange.children.iter().filter_map(|child| self.exchanges.get(*child));
            match covers(exchange.first, from_ns) {
                false => ' ',
                true if children.any(|child| covers(child.first, from_ns)) => '▒',
                true => '█',
            }
        };
        (0..cells).map(cell).collect()
    }

    /// As much of a text as there is room for behind `used` characters.
    fn fitting(&self, text: &str, used: usize) -> String {
        let room = self.columns.saturating_sub(used).clamp(TEXT_MIN, TEXT);
        match text.char_indices().nth(room) {
            Some(_) => text.chars().take(room - 1).chain(['…']).collect(),
            None => text.to_owned(),
        }
    }
}

impl fmt::Display for Flame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = self.trace;
        let spans = trace.spans.len();
        let requests = self.exchanges.len();
        writeln!(
            f,
            "trace {}: {requests} requests, seen {spans} times, {}",
            trace.trace_id,
            duration(trace.duration_us)
        )?;
        let before = self.cells + BETWEEN;
        writeln!(f, "{:<1$} {2:>9} {3:>9}  request", "", self.cells, "duration", "self")?;
        let namespaces: HashSet<&str> = trace.spans.iter().filter_map(|span| span.row.netns()).collect();
        for exchange in &self.exchanges {
            let indent = "  ".repeat(exchange.depth);
            let proof = proof(exchange.first);
            let used = before + indent.len() + proof.chars().count();
            writeln!(
                f,
                "{} {:>9} {:>9}  {indent}{}{proof}{}",
                self.bar(exchange),
                duration(exchange.first.row.duration_us),
                duration(exchange.last.self_us),
                self.fitting(&plain(&request(exchange)), used),
                unseen(exchange),
            )?;
            if exchange.points.len() > 1 {
                let way = way(exchange, namespaces.len() > 1);
                // All of it is wanted: where it does not fit below the text, it begins further left.
                let room = self.columns.saturating_sub(way.chars().count());
                writeln!(f, "{:<1$}{way}", "", room.min(before + indent.len() + 2))?;
            }
        }
        writeln!(f, "\nwhere the time went:")?;
        let b = &trace.breakdown;
        let parts = [
            ("client processes", b.client_process_us),
            ("client hosts", b.client_node_us),
            ("network", b.network_us),
            ("server hosts", b.server_node_us),
            ("server processes", b.server_process_us),
            ("beyond what was seen", b.beyond_us),
        ];
        let sum = parts.iter().map(|(_, us)| us).sum::<u64>().max(1);
        for (name, us) in parts.into_iter().filter(|(_, us)| *us > 0) {
            let cells = us as usize * self.cells / sum as usize;
            let percent = us as f64 * 100.0 / sum as f64;
            writeln!(f, "  {name:<20} {:>9} {percent:>5.1} %  {}", duration(us), "█".repeat(cells))?;
        }
        for (clock, shift_us) in clocks(trace) {
            let way = if shift_us < 0 { "ahead" } else { "behind" };
            let by = duration(shift_us.unsigned_abs());
            writeln!(f, "the clock of {} was {by} {way}; its times are corrected", plain(&clock))?;
        }
        if let Some(sentence) = &trace.truncated {
            writeln!(f, "{}", plain(sentence))?;
        }
        Ok(())
    }
}

/// The clocks that were corrected, of hosts and of sites of taps, with what was added, us.
fn clocks(trace: &Trace) -> BTreeMap<String, i64> {
    let corrected = trace.spans.iter().filter(|span| span.clock_shift_us != 0);
    let clock = |span: &TraceSpan| match &span.row.tap_site {
        Some(site) if !site.is_empty() => format!("site {site}"),
        _ => format!("host {}", span.row.agent_id),
    };
    corrected.map(|span| (clock(span), span.clock_shift_us)).collect()
}

/// What was asked, how it ended, and who answered.
fn request(exchange: &Exchange<'_>) -> String {
    let row = &exchange.first.row;
    let what = row.endpoint.as_deref().or(row.request_resource.as_deref()).or(row.request_domain.as_deref());
    let verb = row.request_type.as_deref().filter(|verb| !says(what, verb));
    let words = [Some(row.l7_protocol.as_str()), verb, what];
    let status = match (row.response_code, row.response_status.as_str()) {
        (Some(code), _) if code != 0 => format!(" {code}"),
        (_, "ok" | "unknown") => String::new(),
        (_, status) => format!(" {status}"),
    };
    let words: Vec<&str> = words.into_iter().flatten().collect();
    format!("{}{status} by {}", words.join(" "), server(exchange))
}

/// That the trace cannot go on here: what a process says in TLS is not seen.
fn unseen(exchange: &Exchange<'_>) -> String {
    let unseen = exchange.points.iter().find_map(|point| point.row.tls_unseen());
    unseen.map(|sentence| format!("  ({})", plain(sentence))).unwrap_or_default()
}

/// Endpoints of some protocols begin with the verb, and with a statement the command that carries it says nothing.
fn says(what: Option<&str>, verb: &str) -> bool {
    what.is_some_and(|what| what.starts_with(verb) || verb.starts_with("COM_"))
}

fn server(exchange: &Exchange<'_>) -> String {
    let row = &exchange.last.row;
    let name = row.server_name.as_deref().unwrap_or(&row.server_ip);
    let address = match row.unix_name() {
        Some(name) => name.to_owned(),
        None => format!("{name}:{}", row.server_port),
    };
    match row.process.as_ref().filter(|_| row.observation_point == "s-p") {
        Some(process) => format!("{} ({address})", process.name),
        None => address,
    }
}

/// How the parent is known, where it was concluded.
fn proof(span: &TraceSpan) -> String {
    match (span.parent_rule, span.parent_confidence) {
        (Some(rule), Some(confidence)) => format!("  [{} {confidence:.2}]", rule.as_str()),
        _ => String::new(),
    }
}

/// The points that saw it, and the time between them, there and back; with the network namespaces of processes, where told.
fn way(exchange: &Exchange<'_>, tell_namespaces: bool) -> String {
    let mut way = String::new();
    for (place, point) in exchange.points.iter().enumerate() {
        if place > 0 {
            let latency = exchange.latencies.get(place - 1).copied().flatten();
            match latency {
                Some(us) if us < 0 => way.push_str(&format!(" -(-{})- ", duration(us.unsigned_abs()))),
                Some(us) => way.push_str(&format!(" -({})- ", duration(us.unsigned_abs()))),
                None => way.push_str(" - "),
            }
        }
        let row = &point.row;
        let name = match (&row.process, &row.tap) {
            (Some(process), _) => process.name.as_str(),
            (None, Some(tap)) => tap.as_str(),
            (None, None) => row.observation_point.as_str(),
        };
        way.push_str(&plain(name));
        if let Some(netns) = row.netns().filter(|_| tell_namespaces) {
            way.push_str(&format!(" (net {})", plain(netns)));
        }
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use wirespan_records::{Process, Rule};
    use wirespan_stitch::{Breakdown, Hop, Path, SpanRow};

    fn span(id: &str, (point, name): (&str, &str), (start_us, end_us): (u64, u64), path: usize) -> TraceSpan {
        let process = Process { name: name.into(), ..Process::default() };
        let row = SpanRow {
            id: id.into(),
            observation_point: point.into(),
            start_ns: start_us * 1000,
            end_ns: end_us * 1000,
            duration_us: end_us - start_us,
            server_ip: "10.0.0.9".into(),
            server_port: 80,
            l7_protocol: "HTTP".into(),
            request_type: Some("GET".into()),
            endpoint: Some("/api\n".into()),
            response_status: "ok".into(),
            response_code: Some(200),
            process: Some(process),
            ..SpanRow::default()
        };
        TraceSpan { row, path, ..TraceSpan::default() }
    }

    #[test]
    fn a_trace_is_a_line_for_each_request_and_one_for_its_way() {
        let child = |parent: &str, rule, span| TraceSpan {
            parent_id: Some(parent.into()),
            parent_rule: Some(rule),
            parent_confidence: Some(0.9),
            ..span
        };
        let mut outer = span("1", ("s-p", "nginx"), (0, 4000), 0);
        outer.self_us = 1000;
        let asking = child("1", Rule::Turn, span("2", ("c-p", "nginx"), (1000, 3000), 1));
        let mut answering = child("2", Rule::Path, span("3", ("s-p", "python3"), (1100, 2900), 1));
        answering.self_us = 1800;
        (answering.row.agent_id, answering.clock_shift_us) = (2, -4960);
        let hop = Hop { from: "2".into(), to: "3".into(), latency_us: Some(200), ..Hop::default() };
        let trace = Trace {
            trace_id: "00f0".into(),
            start_ns: 0,
            duration_us: 4000,
            spans: vec![outer, asking, answering],
            paths: vec![
                Path { spans: vec!["1".into()], hops: vec![] },
                Path { spans: vec!["2".into(), "3".into()], hops: vec![hop] },
            ],
            breakdown: Breakdown { network_us: 1000, server_process_us: 3000, ..Breakdown::default() },
            ..Trace::default()
        };
        let shown = Flame::new(&trace, None).to_string();
        let expected = "\
trace 00f0: 2 requests, seen 3 times, 4.0 ms
                                          duration      self  request
██████████▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒██████████    4.0 ms    1.0 ms  HTTP GET /api  200 by nginx (10.0.0.9:80)
          ████████████████████              2.0 ms    1.8 ms    HTTP GET /api  200 by python3 (10.0.0.9:80)  [turn 0.90]
                                                                  nginx -(200 us)- python3

where the time went:
  network                 1.0 ms  25.0 %  ██████████
  server processes        3.0 ms  75.0 %  ██████████████████████████████
the clock of host 2 was 5.0 ms ahead; its times are corrected
";
        assert_eq!(shown, expected);
        let narrow = Flame::new(&trace, Some(80)).to_string();
        let expected = "\
                     duration      self  request
████▒▒▒▒▒▒▒▒▒▒▒████    4.0 ms    1.0 ms  HTTP GET /api  200 by nginx (10.0.0.9:…
";
        assert!(narrow.contains(expected), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    }

    #[test]
    fn unix_sockets_are_shown_by_name_and_namespaces_where_there_are_several() {
        let with = |netns: &str, mut span: TraceSpan| {
            span.row.server_port = 0;
            let attributes = [("netns", netns), ("unix.name", "/run/app.sock")];
            span.row.attributes = attributes.map(|(name, value)| (name.into(), value.into())).into();
            span
        };
        let path = |ids: &[&str]| Path { spans: ids.iter().map(|id| (*id).into()).collect(), hops: vec![] };
        let shown = |of_second: &str| {
            let spans = vec![
                with("11", span("1", ("c-p", "nginx"), (0, 4000), 0)),
                with("11", span("2", ("s-p", "app"), (1000, 3000), 0)),
                with(of_second, span("3", ("s-p", "other"), (1000, 3000), 1)),
            ];
            let trace = Trace { spans, paths: vec![path(&["1", "2"]), path(&["3"])], ..Trace::default() };
            Flame::new(&trace, None).to_string()
        };
        assert!(shown("11").contains("200 by app (/run/app.sock)\n"), "{}", shown("11"));
        assert!(shown("11").contains("  nginx - app\n"), "{}", shown("11"));
        assert!(shown("12").contains("nginx (net 11) - app (net 11)\n"), "{}", shown("12"));
    }

    #[test]
    fn where_a_process_speaks_tls_that_is_not_seen_the_line_says_so() {
        let mut asking = span("1", ("c-p", "java"), (0, 4000), 0);
        asking.row.attributes.insert("tls.unseen".into(), "TLS of Java: contents not visible".into());
        let answering = span("2", ("s-p", "nginx"), (1000, 3000), 0);
        let paths = vec![Path { spans: vec!["1".into(), "2".into()], hops: vec![] }];
        let trace = Trace { spans: vec![asking, answering], paths, ..Trace::default() };
        let shown = Flame::new(&trace, None).to_string();
        assert!(shown.contains("by nginx (10.0.0.9:80)  (TLS of Java: contents not visible)\n"), "{shown}");
    }
}

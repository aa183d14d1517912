//! `wirespan trace`: recent traces, or one as a flame graph with the way of each request and where the time went.

mod flame;

use crate::api::{Api, ServerArgs, escape};
use crate::table::{Table, duration};
use anyhow::{Context, bail};
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use std::io::{Write, stdout};
use wirespan_stitch::{Trace, TraceSummary};

const UNWRITTEN: &str = "cannot write the output";

/// What `wirespan trace` is asked for.
#[derive(clap::Args)]
pub struct TraceArgs {
    /// Trace id of a header, or wirespan's own; without one, recent traces are listed
    #[arg(value_name = "ID", conflicts_with = "span", value_parser = NonEmptyStringValueParser::new())]
    id: Option<String>,

    /// Show the trace of this row of l7_log
    #[arg(long, value_name = "ROW_ID")]
    span: Option<u64>,

    /// The time that traces are listed of, such as 5m, 1h
    #[arg(long, default_value = "15m", value_name = "DURATION")]
    last: String,

    /// List traces that this server is part of: IP, IP:PORT, NAME, NAME:PORT, or what a UNIX socket is
    /// bound to, such as /run/app.sock
    #[arg(long, value_name = "SERVER")]
    service: Option<String>,

    /// List traces that took at least so many milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32))]
    slower_than: Option<u32>,

    /// Traces in the list at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
struct Traces {
    traces: Vec<TraceSummary>,
}

/// Runs the command.
pub fn run(args: &TraceArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.server);
    let path = match (&args.id, args.span) {
        (Some(id), _) => format!("/api/traces/{}", escape(id)),
        (None, Some(row)) => format!("/api/traces?span={row}"),
        (None, None) => {
            let answer: Traces = api.get(&list_path(args))?;
            return list(args, &answer.traces);
        }
    };
    let trace: Trace = api.get(&path)?;
    if trace.spans.is_empty() {
        bail!("there is no such trace; `wirespan trace` lists recent ones");
    }
    let columns = terminal_size::terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0));
    write!(stdout(), "{}", flame::Flame::new(&trace, columns)).context(UNWRITTEN)
}

fn list_path(args: &TraceArgs) -> String {
    let mut path = format!("/api/traces?last={}&limit={}", escape(&args.last), args.limit);
    if let Some(service) = &args.service {
        path.push_str(&format!("&service={}", escape(service)));
    }
    if let Some(ms) = args.slower_than {
        path.push_str(&format!("&min_duration_us={}", u64::from(ms) * 1000));
    }
    path
}

fn list(args: &TraceArgs, traces: &[TraceSummary]) -> anyhow::Result<()> {
    if traces.is_empty() {
        bail!("no trace of the last {} is like that; --last looks further back", args.last);
    }
    let words = ["trace", "first request", "server", "status"].map(|name| (name.to_owned(), false));
    let numbers = ["duration", "spans", "servers", "errors"].map(|name| (name.to_owned(), true));
    let mut table = Table::new(words.into_iter().chain(numbers));
    for trace in traces {
        let root = &trace.root;
        let what = [Some(root.l7_protocol.as_str()), root.request_type.as_deref(), root.endpoint.as_deref()];
        table.row([
            trace.trace_id.clone(),
            what.into_iter().flatten().collect::<Vec<_>>().join(" "),
            root.server.clone(),
            root.response_code.map_or_else(|| root.response_status.clone(), |code| code.to_string()),
            duration(trace.duration_us),
            trace.spans.to_string(),
            trace.services.len().to_string(),
            trace.errors.to_string(),
        ]);
    }
    writeln!(stdout(), "{table}`wirespan trace ID` shows one").context(UNWRITTEN)
}

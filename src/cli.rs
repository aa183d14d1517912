//! The command line.

use crate::{probe, query, replay, store, top, trace, up};
use clap::{Parser, Subcommand};

/// Packets and system calls in; request spans, traces, TCP and RED metrics and a service map out.
#[derive(Parser)]
#[command(version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch interfaces: agent, server, embedded store and web page in one process
    Up(Box<up::UpArgs>),
    /// Read capture files and event logs, and print what was in them
    Replay(replay::ReplayArgs),
    /// Ask a running wirespan in SQL
    Query(query::QueryArgs),
    /// Rate, errors and duration of every service, live
    Top(top::TopArgs),
    /// Recent traces, or one as a flame graph with hops and where the time went
    Trace(trace::TraceArgs),
    /// Show what NICs, kernel and machine can do for capture, what the system refuses of it, what `--offload` would change, and what
    /// can be traced
    Probe(probe::ProbeArgs),
    /// Run the embedded ClickHouse by itself (`up` does so on its own)
    Store(store::StoreArgs),
}

/// Runs the command that was asked for.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Up(args) => up::run(*args),
        Command::Replay(args) => replay::run(args),
        Command::Query(args) => query::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Store(args) => store::run(args),
    }
}

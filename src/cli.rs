//! The command line.

use crate::replay;
use clap::{Parser, Subcommand};

/// Packet analytics: turns packets into request spans, TCP and RED metrics and a service map.
#[derive(Parser)]
#[command(version, about)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read capture files and print what was in them
    Replay(replay::ReplayArgs),
}

/// Runs the command that was asked for.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Replay(args) => replay::run(args),
    }
}

//! The `wirespan` command: reads the command line and wires the crates together.

mod analysis;
mod api;
mod cli;
mod database;
mod probe;
mod query;
mod replay;
mod store;
mod table;
mod top;
mod trace;
mod up;

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = cli::Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WIRESPAN_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match cli::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        // `wirespan replay ... | head` has read enough; that is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wirespan: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The error and its causes, without those that a message before already quotes.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn no_cause_is_said_twice() {
        let quoted = anyhow::Error::new(std::io::Error::other("no room"));
        assert_eq!(
            sentence(&quoted.context("cannot write: no room; make some")),
            "cannot write: no room; make some"
        );
        let bare: anyhow::Result<()> = Err(std::io::Error::other("no room")).context("cannot write");
        assert_eq!(sentence(&bare.unwrap_err()), "cannot write: no room");
    }
}

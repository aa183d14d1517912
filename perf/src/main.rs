//! The benchmark suite: each measurement beside the physical or raw limit, taken in the same run on the same input.
//!
//! Takes in a capture (the project's fixture unless told); hands on one line per [`measure::Measurement`].
//!
//! | module | what |
//! |---|---|
//! | `measure` | measurements and how they are printed, clocks, the core they run on |
//! | `analysis` | how far packets go: the stages |
//! | `capture`, `split` | a long capture out of a short one; one for each protocol |
//! | `traffic` | made-up connections and repeated captures, sent from the kernel |
//! | `namespace`, `receiver`, `bisect` | a veth pair, a worker that receives from it, the highest rate without loss |
//! | `stage` | one pass over a capture as far as a stage, in a process of its own |
//! | `plot` | plots as SVG |
//!
//! | suite | what it measures |
//! |---|---|
//! | `limits` | memory, file system, empty receive loops |
//! | `generate` | the traffic by itself |
//! | `replay` | packets per second of each stage over a capture, memory |
//! | `live`, `latency` | packets per second without loss; time from frame to record |
//! | `elephant` | what counting flows in the kernel saves; that their totals are those of the frames made |
//! | `flows`, `memory` | cost of live flows; memory over time |
//! | `compare` | other programs on the same file |
//! | `requests`, `store` | requests per second into the embedded store, bytes per row, time of an answer |
//! | `accuracy` | whether calls of real services are linked with the requests for which they were made |
//! | `tracer` | what tracing system calls costs; events per second; nginx with and without it |
//! | `stitch` | spans per second that get the key of their trace; time of reading one trace |
//! | `instructions`, `callgrind` | instructions per packet, which CI compares |
//! | `report` | everything, written into `README.md` |

#[cfg(feature = "accuracy")]
mod accuracy;
mod analysis;
mod bisect;
mod callgrind;
mod capture;
mod compare;
#[cfg(feature = "dpdk")]
mod dpdk;
mod elephant;
mod flows;
mod generate;
mod instructions;
mod latency;
mod limits;
mod live;
mod measure;
mod memory;
mod namespace;
mod plot;
mod receiver;
mod replay;
mod report;
#[cfg(any(feature = "store", test))]
mod requests;
mod split;
mod stage;
#[cfg(feature = "store")]
mod stitch;
#[cfg(feature = "store")]
mod store;
mod tracer;
mod traffic;

use clap::{Parser, Subcommand};
use measure::Output;
use std::process::ExitCode;

/// Measures wirespan, each time beside the limit of the machine.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    /// One JSON object per measurement instead of a table
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// Packets per second of each stage over a long capture, on one core
    Replay(replay::ReplayArgs),
    /// Requests per second into the embedded store; fails when one is lost
    #[cfg(feature = "store")]
    Store(store::StoreArgs),
    /// Traces: spans per second that get a key, and the time of reading one out of many
    #[cfg(feature = "store")]
    Stitch(stitch::StitchArgs),
    /// Memory copy, file read, empty receive loops
    Limits(limits::LimitsArgs),
    /// Time per packet and memory per flow, from a thousand to ten million live flows
    Flows(flows::FlowsArgs),
    /// From a frame's time stamp to the request's record
    Latency(latency::LatencyArgs),
    /// Whether memory stays flat
    Memory(memory::MemoryArgs),
    /// Side by side with ndpiReader, tcpdump, tshark and nfstream
    Compare(compare::CompareArgs),
    /// Traffic out of an interface, or into a file
    Gen(generate::GenerateArgs),
    /// All of them
    All(report::ReportArgs),
    /// All of them, written into perf/README.md
    Report(report::ReportArgs),
    /// Links between requests of real services beside the truth
    #[cfg(feature = "accuracy")]
    Accuracy(accuracy::AccuracyArgs),
    /// What tracing system calls costs, and events per second without loss
    Tracer(tracer::TracerArgs),
    /// Loss-free rates over a veth pair, by backend and stage
    Live(live::LiveArgs),
    /// Packets per second of each stage over DPDK's net_ring
    #[cfg(feature = "dpdk")]
    Dpdk {
        /// How long each stage runs
        #[arg(long, default_value_t = 2.0, value_parser = measure::above_zero, value_name = "S")]
        seconds: f64,
    },
    /// Instructions per packet, beside those in perf/instructions.txt
    Instructions(instructions::InstructionArgs),
    /// One number of live flows: what `flows` runs as a process of its own
    #[command(hide = true)]
    FlowsOnce(flows::FlowsOnceArgs),
    /// One pass over a capture: what `replay` runs as a process of its own
    #[command(hide = true)]
    ReplayOnce(stage::StageArgs),
    /// The store process of `store`
    #[cfg(feature = "store")]
    #[command(hide = true)]
    ServeStore(store::ServeArgs),
}

fn main() -> ExitCode {
    let Args { json, suite } = Args::parse();
    let mut output = Output::new(json);
    let result = match suite {
        Suite::Replay(args) => replay::run(&args, &mut output),
        #[cfg(feature = "store")]
        Suite::Store(args) => store::run(&args, &mut output),
        Suite::Tracer(args) => tracer::run(&args, &mut output),
        #[cfg(feature = "store")]
        Suite::Stitch(args) => stitch::run(&args, &mut output),
        Suite::Gen(args) => generate::run(&args, &mut output),
        #[cfg(feature = "accuracy")]
        Suite::Accuracy(args) => accuracy::run(&args, json),
        Suite::Live(args) => live::run(&args, &mut output),
        #[cfg(feature = "dpdk")]
        Suite::Dpdk { seconds } => dpdk::run(seconds, &mut output),
        Suite::Instructions(args) => instructions::run(&args, &mut output),
        Suite::Limits(args) => limits::run(&args, &mut output),
        Suite::Flows(args) => flows::run(&args, &mut output),
        Suite::FlowsOnce(args) => flows::run_once(&args),
        Suite::Latency(args) => latency::run(&args, &mut output),
        Suite::Memory(args) => memory::run(&args, &mut output),
        Suite::Compare(args) => compare::run(&args, &mut output),
        Suite::All(args) => report::run_all(&args, &mut output),
        Suite::Report(args) => report::run(&args, &mut output),
        Suite::ReplayOnce(args) => stage::run(&args),
        #[cfg(feature = "store")]
        Suite::ServeStore(args) => store::serve(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wirespan-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_measure_nothing_is_refused() {
        let parse = |line: &str| Args::try_parse_from(format!("wirespan-perf {line}").split(' '));
        assert!(parse("latency --rate 1e5 --seconds 0.5").is_ok());
        for line in [
            "memory --seconds 0",
            "memory --flows 0",
            "live --seconds=-1",
            "latency --rate inf",
            "limits --seconds nan",
            "gen --seconds 1e300",
            "gen --packets 0",
            "replay --workers 0",
            "flows --flows 1000,0",
            "report --memory-seconds soon",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

//! Traffic by itself: out of an interface, or into a file.

use crate::measure::{Measurement, OneCore, Output, above_zero};
use crate::namespace::{VethPair, in_namespace};
use crate::traffic::TrafficArgs;
use crate::traffic::sender::Sender;
use crate::traffic::socket::SocketSender;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;
use wirespan_bpf::generate::Verdict;

/// What `wirespan-perf gen` is asked for.
#[derive(clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub traffic: TrafficArgs,

    /// Send out of this interface; unless told, into a veth pair of its own, as fast as it goes
    #[arg(short, long, value_name = "IF")]
    pub interface: Option<String>,

    /// How frames are made and sent
    #[arg(long, value_enum, default_value_t = Way::Xdp, conflicts_with = "out")]
    pub way: Way,

    /// Frames per second; unless told, as fast as it goes (in a file: 1000000)
    #[arg(long, value_parser = above_zero, value_name = "N")]
    pub rate: Option<f64>,

    /// How long to send
    #[arg(long, default_value_t = 2.0, value_parser = above_zero, value_name = "S")]
    pub seconds: f64,

    /// Write the traffic here as a capture instead
    #[arg(long, value_name = "FILE", conflicts_with = "interface")]
    pub out: Option<PathBuf>,

    /// Frames of that capture
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub packets: u64,
}

/// How frames come out of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// By an XDP program that the kernel runs on live frames (BPF_PROG_TEST_RUN); the driver has to take redirected frames
    Xdp,
    /// Through the transmit ring of an AF_XDP socket: zero-copy where the driver has it, else copied
    AfXdp,
}

const FILE_RATE: f64 = 1e6;

/// Runs the suite.
pub fn run(args: &GenerateArgs, output: &mut Output) -> anyhow::Result<()> {
    if let Some(out) = &args.out {
        return args.traffic.write(args.packets, args.rate.unwrap_or(FILE_RATE), out);
    }
    match &args.interface {
        Some(interface) => send(args, interface, output),
        None => in_namespace(|| {
            let veth = VethPair::new()?;
            let _taker = veth.take(Verdict::Drop)?;
            send(args, veth.sender(), output)
        }),
    }
}

fn send(args: &GenerateArgs, interface: &str, output: &mut Output) -> anyhow::Result<()> {
    let rate = args.rate.unwrap_or(f64::INFINITY);
    let _core = OneCore::first()?;
    let (new_rate, time) = (args.rate.unwrap_or(FILE_RATE), Duration::from_secs_f64(args.seconds));
    let before = frames_sent(interface);
    let (way, trial) = match args.way {
        Way::Xdp => ("XDP".to_owned(), Sender::new(&args.traffic, interface, new_rate)?.send(rate, time)?),
        Way::AfXdp => {
            let mut sender = SocketSender::new(&args.traffic, interface, new_rate)?;
            (format!("AF_XDP {}", sender.way()), sender.send(rate, time)?)
        }
    };
    if let (Some(before), Some(after)) = (before, frames_sent(interface)) {
        let (left, made) = (after - before.min(after), trial.sent.frames);
        if left < made / 2 {
            eprintln!(
                "{interface} counted {left} of {made} frames as sent: the others were dropped, unless its driver does not \
                 count such frames. The peer of a veth takes them while an XDP program is attached to it, or with GRO \
                 (`ethtool -K PEER gro on`); `--way af-xdp` goes with any NIC"
            );
        }
    }
    let variant = format!("{way}, {}", args.traffic.name());
    let gigabits = trial.rate * trial.sent.bytes as f64 * 8.0 / trial.sent.frames.max(1) as f64 / 1e9;
    output.push(Measurement::limit("gen", &variant, trial.rate, "packets/s"))?;
    output.push(Measurement::limit("gen", &variant, gigabits, "Gbit/s"))
}

/// What an interface of this network namespace has sent so far: the tenth number of its line in proc_pid_net_dev(5).
fn frames_sent(interface: &str) -> Option<u64> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line =
        devices.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        assert!(frames_sent("lo").is_some());
        assert_eq!(frames_sent("l"), None);
    }
}

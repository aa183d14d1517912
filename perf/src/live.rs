//! The highest rate of live frames that a worker takes without losing one, beside that of an empty loop.
//!
//! A generator in the kernel sends from the first core into a veth pair; the worker receives on the last. What the
//! kernel does for a received frame (the driver's poll, the XDP program, the copy) runs on the generator's core, as it
//! would run on another queue's core with a NIC: the worker's core pays for taking frames and for the analysis only.

use crate::analysis::Stage;
use crate::bisect::{self, Search};
use crate::elephant;
use crate::measure::{Measurement, OneCore, Output, above_zero};
use crate::namespace::{VethPair, in_namespace};
use crate::receiver::{self, Backend, Board, Received, Receiving};
use crate::traffic::TrafficArgs;
use crate::traffic::sender::Sender;
use anyhow::bail;
use std::time::Duration;
use wirespan_bpf::generate::Verdict;

/// What `wirespan-perf live` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct LiveArgs {
    #[command(flatten)]
    pub traffic: TrafficArgs,

    /// Where frames come from; all unless told
    #[arg(long, value_enum, value_name = "BACKEND")]
    pub backend: Vec<Backend>,

    /// How long each trial of a rate takes
    #[arg(long, default_value_t = 2.0, value_parser = above_zero, value_name = "S")]
    pub seconds: f64,

    /// Instead of stages: flows counted in the kernel, beside flows delivered; through AF_XDP, for instance with --flows 1
    /// --size 3278 --opaque. Only data that is not understood is ever counted so
    #[arg(long)]
    pub shunt: bool,
}

/// The part of the highest rate as which the answer is known.
const PRECISION: f64 = 0.02;

/// Runs the suite.
pub fn run(args: &LiveArgs, output: &mut Output) -> anyhow::Result<()> {
    if args.shunt {
        return elephant::run(args, output);
    }
    let all = Backend::ALL.to_vec();
    for backend in if args.backend.is_empty() { &all } else { &args.backend } {
        let bench = format!("live/{}", backend.name());
        let name = |what: &str| format!("{what}, {}", args.traffic.name());
        let empty = loss_free(*backend, Stage::Frames, args)?;
        output.push(Measurement::limit(&bench, &name("empty loop"), empty, "packets/s"))?;
        for stage in [Stage::L4, Stage::L7] {
            let rate = loss_free(*backend, stage, args)?;
            output.push(Measurement::new(&bench, &name(stage.name()), rate, "packets/s", empty))?;
        }
    }
    Ok(())
}

/// Packets per second of which none is lost.
pub fn loss_free(backend: Backend, stage: Stage, args: &LiveArgs) -> anyhow::Result<f64> {
    let receiving = Receiving { backend, stage, shunt: false, timed: false };
    with_receiver(receiving, |board, interface| search(board, interface, args)).map(|(rate, _)| rate)
}

/// Runs `send`, which gets the board and the interface to send out of, while a receiver receives; gives what that
/// has done too.
pub fn with_receiver<T: Send>(
    receiving: Receiving,
    send: impl FnOnce(&Board, &str) -> anyhow::Result<T> + Send,
) -> anyhow::Result<(T, Received)> {
    if std::thread::available_parallelism()?.get() < 2 {
        bail!("two cores are needed, one to send and one to receive");
    }
    in_namespace(|| {
        let veth = VethPair::new()?;
        // The receiver of AF_XDP brings a program of its own.
        let _taker =
            (receiving.backend == Backend::AfPacket).then(|| veth.take(Verdict::Pass)).transpose()?;
        let board = Board::default();
        std::thread::scope(|scope| {
            let receiver = receiver::start(scope, &board, receiving, veth.receiver())?;
            let result = send(&board, veth.sender());
            board.stop();
            let received = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((result?, received))
        })
    })
}

/// The highest rate of which the receiver loses nothing.
pub fn search(board: &Board, interface: &str, args: &LiveArgs) -> anyhow::Result<f64> {
    let _core = OneCore::first()?;
    let time = Duration::from_secs_f64(args.seconds);
    // As fast as it goes for a moment: all flows are there then, and more than this cannot be sent.
    let mut sender = Sender::new(&args.traffic, interface, 1e6)?;
    let highest = sender.send(f64::INFINITY, time / 2)?.rate;
    let search = Search { highest, precision: PRECISION, trials: 2 };
    bisect::highest(search, |rate| {
        let before = board.settled();
        let trial = sender.send(rate, time)?;
        let after = board.settled();
        let lost = trial.sent.frames.saturating_sub(after.received - before.received);
        Ok((lost == 0).then_some(trial.rate))
    })
}

//! What it saves to count elephant flows in the kernel instead of delivering them, and that nothing of them is missed.
//!
//! Without a NIC, the core that receives in the kernel also makes the frames, and shunting does not make that faster. So
//! beside the loss-free rates there is what one core could receive: from the kernel's time per frame at full speed, less that
//! when frames are dropped at once at the other end, and the worker's CPU time in the analysis.

use crate::analysis::{Counts, Stage};
use crate::live::{LiveArgs, search, with_receiver};
use crate::measure::{Measurement, OneCore, Output};
use crate::namespace::{VethPair, in_namespace};
use crate::receiver::{Backend, Board, Receiving};
use crate::traffic::TrafficArgs;
use crate::traffic::sender::Sender;
use anyhow::{bail, ensure};
use std::time::Duration;
use wirespan_bpf::generate::Verdict;
use wirespan_records::PerDirection;

const BENCH: &str = "live/shunt";
/// The best of these counts: other programs on the machine disturb.
const ROUNDS: u32 = 3;
const DELIVERED: Receiving =
    Receiving { backend: Backend::AfXdp, stage: Stage::L7, shunt: false, timed: true };
const SHUNTED: Receiving = Receiving { shunt: true, ..DELIVERED };

/// Runs the suite.
pub fn run(args: &LiveArgs, output: &mut Output) -> anyhow::Result<()> {
    ensure!(args.traffic.input.is_none(), "--shunt goes with made-up traffic; leave out --input");
    ensure!(
        args.traffic.opaque,
        "--shunt goes with --opaque: every request of HTTP is looked at, so its flows are never shunted"
    );
    let name = |what: &str| format!("{what}, {}", args.traffic.name());
    let rate = |receiving| with_receiver(receiving, |board, interface| search(board, interface, args));
    let [(delivered, _), (shunted, _)] = [rate(DELIVERED)?, rate(SHUNTED)?];
    output.push(Measurement::new(BENCH, &name("loss-free"), shunted, "packets/s", delivered))?;
    let pace = delivered.min(shunted) / 2.0;

    let made = made_ns(args)?;
    let [delivered, shunted] = [received_ns(DELIVERED, args)? - made, received_ns(SHUNTED, args)? - made];
    let rates = [shunted, delivered].map(|ns| 1e9 / ns.max(1.0));
    output.push(Measurement::limit(BENCH, &name("made and dropped"), 1e9 / made, "packets/s"))?;
    output.push(Measurement::new(BENCH, &name("received, per core"), rates[0], "packets/s", rates[1]))?;

    for (receiving, what) in [(DELIVERED, "in the flows, delivered"), (SHUNTED, "in the flows, shunted")] {
        let (packets, made) = same_totals(receiving, args, pace)?;
        output.push(Measurement::new(BENCH, &name(what), packets as f64, "packets", made as f64))?;
    }
    Ok(())
}

/// Nanoseconds of a core to make a frame and to drop it at once at the other end.
fn made_ns(args: &LiveArgs) -> anyhow::Result<f64> {
    in_namespace(|| {
        let veth = VethPair::new()?;
        let _taker = veth.take(Verdict::Drop)?;
        fastest_ns(veth.sender(), args)
    })
}

/// Nanoseconds of both cores to make a frame and to receive it.
fn received_ns(receiving: Receiving, args: &LiveArgs) -> anyhow::Result<f64> {
    let run = |board: &Board, interface: &str| {
        let kernel_ns = fastest_ns(interface, args)?;
        Ok((kernel_ns, board.settled().received))
    };
    let ((kernel_ns, frames), received) = with_receiver(receiving, run)?;
    Ok(kernel_ns + received.busy_s * 1e9 / frames.max(1) as f64)
}

/// Nanoseconds of the sender's core per frame, at full speed.
fn fastest_ns(interface: &str, args: &LiveArgs) -> anyhow::Result<f64> {
    let _core = OneCore::first()?;
    let mut sender = Sender::new(&args.traffic, interface, 1e6)?;
    let mut best: f64 = 0.0;
    for _ in 0..ROUNDS {
        best = best.max(sender.send(f64::INFINITY, Duration::from_secs_f64(args.seconds / 2.0))?.rate);
    }
    Ok(1e9 / best)
}

/// Packets in the flow records and packets made. Fails when packets or bytes of a direction are others.
fn same_totals(receiving: Receiving, args: &LiveArgs, rate: f64) -> anyhow::Result<(u64, u64)> {
    let time = Duration::from_secs_f64(args.seconds);
    for _ in 0..ROUNDS {
        let (lossless, received) = with_receiver(receiving, |board, interface| {
            let _core = OneCore::first()?;
            let sent = Sender::new(&args.traffic, interface, rate)?.send(rate, time)?.sent;
            Ok((board.settled().received == sent.frames).then_some(sent.frames))
        })?;
        let Some(frames) = lossless else { continue };
        let made = made(&args.traffic, rate, frames)?;
        let Counts { packets: lent, flow_packets, flow_bytes, .. } = received.counts;
        ensure!(
            !receiving.shunt || lent < frames / 2,
            "{lent} of {frames} frames were delivered though their flows are shunted; run it for longer (--seconds)"
        );
        ensure!(
            (flow_packets, flow_bytes) == made,
            "the flow records hold {flow_packets:?} packets and {flow_bytes:?} bytes; made were {made:?}"
        );
        return Ok((flow_packets.tx + flow_packets.rx, frames));
    }
    bail!(
        "frames were lost at {rate:.0} packets/s, half of what was loss-free before; run it on a quieter machine"
    )
}

/// Packets and bytes of the first `frames` frames, from clients and from servers.
fn made(
    traffic: &TrafficArgs,
    rate: f64,
    frames: u64,
) -> anyhow::Result<(PerDirection<u64>, PerDirection<u64>)> {
    let mut connections = traffic.connections_at(rate)?;
    let (mut packets, mut bytes) = (PerDirection::default(), PerDirection::default());
    let mut frame = Vec::new();
    for _ in 0..frames {
        let from_server = connections.next(&mut frame);
        let side = |pair: &mut PerDirection<u64>, more| {
            *(if from_server { &mut pair.rx } else { &mut pair.tx }) += more
        };
        side(&mut packets, 1);
        side(&mut bytes, frame.len() as u64);
    }
    Ok((packets, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_of_an_elephant_are_told_apart() {
        // SYN, SYN-ACK, ACK; client, server, client.
        let (packets, bytes) = made(&TrafficArgs::elephant(1_400), 1e6, 6).unwrap();
        assert_eq!((packets.tx, packets.rx), (4, 2));
        assert_eq!((bytes.tx, bytes.rx), (2 * 60 + 2 * 1_400, 60 + 1_400));
    }
}

//! Sends traffic out of an interface at a rate, through an AF_XDP socket: what a program in user space can do, also with a
//! NIC whose driver takes no redirected frames.

use super::sender::{BURST, Trial};
use super::{Frames, TrafficArgs};
use anyhow::ensure;
use std::time::{Duration, Instant};
use wirespan_bpf::generate::Sent;
use wirespan_capture::af_xdp::Transmitter;

/// Late by more than this, the frames that should have been sent are not made up for.
const LATE: Duration = Duration::from_millis(1);
/// Before a frame is due, this long is waited for awake: a thread does not wake up to the microsecond.
const NAP: Duration = Duration::from_micros(100);
/// A driver that has not sent a frame for so long never will.
const STUCK: Duration = Duration::from_secs(5);

/// Traffic that can be sent again and again; each time it goes on where it was.
pub struct SocketSender {
    frames: Frames,
    transmitter: Transmitter,
}

impl SocketSender {
    /// Traffic out of this interface of the caller's network namespace. Connections are replaced as if `rate` frames were
    /// sent in a second.
    pub fn new(traffic: &TrafficArgs, interface: &str, rate: f64) -> anyhow::Result<Self> {
        Ok(Self { frames: traffic.frames(rate)?, transmitter: Transmitter::open(interface)? })
    }

    /// How the frames come to the driver.
    pub fn way(&self) -> &'static str {
        if self.transmitter.is_zero_copy() { "zero-copy" } else { "copy" }
    }

    /// Sends for this long, and until all frames have left; `rate` in frames per second, infinite for as fast as it goes.
    pub fn send(&mut self, rate: f64, time: Duration) -> anyhow::Result<Trial> {
        let interval = Duration::from_secs_f64(f64::from(BURST) / rate);
        let start = Instant::now();
        let (mut due, mut last_sent) = (start, start);
        let mut sent = Sent::default();
        loop {
            let now = Instant::now();
            if now - start >= time {
                break;
            }
            if now < due {
                match (due - now).checked_sub(NAP) {
                    Some(pause) => std::thread::sleep(pause),
                    None => std::hint::spin_loop(),
                }
                continue;
            }
            let frames = self.transmitter.send(BURST as usize, |to| {
                let len = self.frames.write(to);
                sent.bytes += len as u64;
                len
            })?;
            if frames > 0 {
                sent.frames += frames as u64;
                last_sent = now;
                due = if now - due > LATE { now } else { due } + interval;
            }
            ensure!(now - last_sent < STUCK, "the interface sends nothing any more");
        }
        ensure!(self.transmitter.finish(STUCK)?, "the interface keeps frames that it was given");
        Ok(Trial { sent, rate: sent.frames as f64 / start.elapsed().as_secs_f64() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture;
    use crate::namespace::{VethPair, in_namespace};
    use crate::receiver::Backend;
    use crate::traffic::sender::Sender;
    use crate::traffic::tunnel::Tunnel;
    use wirespan_bpf::generate::Verdict;

    const TIME: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// All frames that arrive while `send` sends as many as it says.
    fn arrived(send: impl FnOnce(&str) -> anyhow::Result<u64> + Send) -> anyhow::Result<Vec<Vec<u8>>> {
        in_namespace(|| {
            let veth = VethPair::new()?;
            let _taker = veth.take(Verdict::Pass)?;
            let mut source = Backend::AfPacket.open(veth.receiver(), 0)?;
            let count = send(veth.sender())? as usize;
            let (mut frames, start) = (Vec::new(), Instant::now());
            while frames.len() < count && start.elapsed() < PATIENCE {
                if let Some(batch) = source.next_batch()? {
                    frames.extend(batch.frames().map(|frame| frame.data.to_vec()));
                }
            }
            assert_eq!(frames.len(), count);
            Ok(frames)
        })
    }

    #[test]
    fn the_same_frames_arrive_as_from_the_kernel() {
        let made_up = TrafficArgs { new_flows: 1_000, ..TrafficArgs::connections(300, 50) };
        let in_tunnel = TrafficArgs { tunnel: Tunnel::Erspan, ..made_up.clone() };
        for traffic in [made_up, in_tunnel, TrafficArgs::capture(&fixture())] {
            let rate = 50_000.0;
            let kernel = arrived(|interface| {
                Ok(Sender::new(&traffic, interface, rate)?.send(rate, TIME)?.sent.frames)
            });
            let kernel = match kernel {
                Ok(frames) => frames,
                Err(error) => {
                    assert!(std::env::var_os("CI").is_none(), "{error:#}");
                    return eprintln!("skipped: {error:#}");
                }
            };
            let socket = arrived(|interface| {
                let mut sender = SocketSender::new(&traffic, interface, rate)?;
                assert_eq!(sender.way(), "copy", "veth has no zero-copy");
                // In two parts, the second of which goes on where the first ended.
                let parts = [sender.send(rate, TIME)?.sent, sender.send(rate, TIME)?.sent];
                assert!(parts.iter().all(|sent| sent.frames > 0 && sent.bytes > sent.frames));
                Ok(parts[0].frames + parts[1].frames)
            });
            let socket = socket.unwrap();
            let both = kernel.len().min(socket.len());
            assert!(both > 100, "{} and {} frames", kernel.len(), socket.len());
            assert!(kernel[..both] == socket[..both], "{}", traffic.name());
        }
    }
}

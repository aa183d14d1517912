//! How many events per second come through the ring.

use super::calls::connection;
use super::{BENCH, traced};
use crate::bisect::{self, Search};
use crate::measure::{Measurement, OneCore, Output};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Events per second that must come through.
const RATE: f64 = 150_000.0;
/// Between two looks at the clock.
const AT_ONCE: u32 = 16;
const MESSAGE: usize = 512;

/// Runs this part of the suite.
pub fn run(time: Duration, output: &mut Output) -> anyhow::Result<()> {
    let (rate, lost) = trial(RATE, time)?;
    output.push(Measurement::new(BENCH, "events of 512 B, sent", rate, "events/s", RATE))?;
    output.push(Measurement::limit(BENCH, "events of 512 B, lost", lost as f64, "events"))?;
    let (fastest, _) = trial(f64::INFINITY, time)?;
    let search = Search { highest: fastest, precision: 0.05, trials: 2 };
    let highest = bisect::highest(search, |rate| {
        let rate = if rate >= fastest { f64::INFINITY } else { rate };
        let (reached, lost) = trial(rate, time)?;
        Ok((lost == 0).then_some(reached))
    })?;
    output.push(Measurement::new(BENCH, "events of 512 B, loss-free", highest, "events/s", fastest))
}

/// Sends and receives at a rate, and says which that was and how many events were lost.
fn trial(rate: f64, time: Duration) -> anyhow::Result<(f64, u64)> {
    let (mut client, mut server) = connection()?;
    let (reached, stats) = traced(|| {
        let _core = OneCore::first()?;
        let mut buffer = [b'x'; MESSAGE];
        let start = Instant::now();
        let mut events = 0_u64;
        while start.elapsed() < time {
            for _ in 0..AT_ONCE {
                client.write_all(&buffer)?;
                server.read_exact(&mut buffer)?;
                std::mem::swap(&mut client, &mut server);
            }
            events += u64::from(2 * AT_ONCE);
            while events as f64 / start.elapsed().as_secs_f64() > rate {
                std::hint::spin_loop();
            }
        }
        Ok((events, events as f64 / start.elapsed().as_secs_f64()))
    })?;
    let (made, reached) = reached;
    anyhow::ensure!(
        stats.events + stats.lost() >= made,
        "{made} calls were made, {} events came and {} were lost: some were lost without being counted",
        stats.events,
        stats.lost()
    );
    Ok((reached, stats.lost()))
}

//! Event logs: what a tracer saw, analysed as if it saw it now.

use super::{Emit, HAND_ON_RECORDS, ReplayArgs, Sink, Totals, print};
use super::{Output, Recorder};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use wirespan_host::{Host, HostConfig};
use wirespan_l7::Config;
use wirespan_syscalls::{EventSource, LogFile};

/// Prints and stores the spans of a log.
pub fn replay(
    file: &Path,
    args: &ReplayArgs,
    output: &Mutex<Output>,
    printed: &[Emit],
    recorder: Option<&Recorder>,
) -> anyhow::Result<Totals> {
    let mut source = LogFile::open(file)?;
    let worker = args.analysis.worker_config(0);
    let l7 = Config { obfuscate: args.obfuscate, ..worker.l7 };
    let mut host = Host::new(HostConfig { l7, ..HostConfig::default() });
    let mut sink = Sink::new(recorder, printed);
    let hand_on = |sink: &mut Sink| -> anyhow::Result<()> {
        print(&sink.pending, output, printed)?;
        if let Some(recorder) = recorder {
            return recorder.write(std::mem::take(&mut sink.pending));
        }
        sink.pending.clear();
        Ok(())
    };
    while let Some(now_ns) = source.next(Duration::ZERO, &mut |entry| host.entry(entry))? {
        host.advance(now_ns, &mut sink);
        if sink.pending.len() >= HAND_ON_RECORDS {
            hand_on(&mut sink)?;
        }
    }
    host.finish(&mut sink);
    hand_on(&mut sink)?;
    let stats = source.stats();
    let mut totals = Totals {
        events: stats.events,
        events_unreadable: stats.damaged + stats.cut,
        spans: sink.spans,
        ..Totals::default()
    };
    totals.worker.l7.unpaired = host.stats().unpaired;
    Ok(totals)
}

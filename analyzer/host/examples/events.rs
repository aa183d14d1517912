//! Reads event logs; says what became of the events and how long each took, and with `--spans` prints the spans.
//!
//! `cargo run --release -p wirespan-host --example events -- [--spans] [--times N] FILE...`
//!
//! Reading the file is not part of the time.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;
use wirespan_event::log::LogReader;
use wirespan_event::{Clock, Entry, Event, Header, ProcessKey};
use wirespan_host::{Host, HostConfig};
use wirespan_records::{Process, Span};

enum Kept {
    Clock(Clock),
    Process(ProcessKey, Arc<Process>),
    Event(Box<Header>, Vec<u8>),
    TlsUnseen(ProcessKey, Option<String>),
    Gap,
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut prints, mut times, mut files) = (false, 1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--spans" => prints = true,
            "--times" => times = arguments.next().ok_or("--times needs a number")?.parse()?,
            _ => files.push(argument),
        }
    }
    for file in files {
        let mut log = Vec::new();
        let mut reader = LogReader::new(File::open(&file)?)?;
        while let Some(entry) = reader.next_entry()? {
            log.push(match entry {
                Entry::Clock(clock) => Kept::Clock(clock),
                Entry::Process(key, process) => Kept::Process(key, Arc::clone(process)),
                Entry::Event(event) => Kept::Event(Box::new(*event.header), event.payload.to_vec()),
                Entry::TlsUnseen(key, library) => Kept::TlsUnseen(key, library.map(str::to_owned)),
                Entry::Gap => Kept::Gap,
            });
        }
        for time in 1..=times {
            let mut host = Host::new(HostConfig::default());
            let mut spans: Vec<Span> = Vec::new();
            let start = Instant::now();
            let mut advanced_ns = 0;
            for kept in &log {
                match kept {
                    Kept::Clock(clock) => host.entry(Entry::Clock(*clock)),
                    Kept::Process(key, process) => host.entry(Entry::Process(*key, process)),
                    Kept::TlsUnseen(key, library) => host.entry(Entry::TlsUnseen(*key, library.as_deref())),
                    Kept::Gap => host.gap(),
                    Kept::Event(header, payload) => {
                        host.event(&Event { header, payload });
                        if header.exit_ns > advanced_ns + 1_000_000 {
                            advanced_ns = header.exit_ns;
                            host.advance(advanced_ns, &mut spans);
                        }
                    }
                }
            }
            host.finish(&mut spans);
            let stats = host.stats();
            let ns = start.elapsed().as_nanos() / u128::from(stats.events.max(1));
            if prints && time == 1 {
                spans.iter().for_each(|span| println!("{span:?}"));
            }
            println!("{file}: {ns} ns per event, {} spans, {stats:?}", spans.len());
        }
    }
    Ok(())
}

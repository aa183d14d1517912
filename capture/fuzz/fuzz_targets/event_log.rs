//! Whatever the bytes of an event log are, reading it ends, and what was read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_event::Entry;
use wirespan_event::log::{LogReader, LogWriter};

fn copy(log: &[u8]) -> Option<(Vec<u8>, u64)> {
    let mut reader = LogReader::new(log).ok()?;
    let mut bytes = Vec::new();
    let mut writer = LogWriter::new(&mut bytes).expect("memory takes everything");
    while let Some(entry) = reader.next_entry().expect("memory can be read") {
        if let Entry::Event(event) = entry {
            assert_eq!(event.payload.len(), event.header.captured as usize);
        }
        writer.write(entry).expect("memory takes everything");
    }
    writer.flush().expect("memory takes everything");
    drop(writer);
    let stats = reader.stats();
    Some((bytes, stats.events + stats.processes))
}

fuzz_target!(|bytes: &[u8]| {
    // Most inputs would not get past the beginning.
    let log = [&empty()[..], bytes].concat();
    let (first, entries) = copy(&log).expect("it begins as a log does");
    assert_eq!(copy(&first), Some((first, entries)));
});

fn empty() -> Vec<u8> {
    let mut bytes = Vec::new();
    LogWriter::new(&mut bytes).expect("memory takes everything").flush().expect("memory takes everything");
    bytes
}

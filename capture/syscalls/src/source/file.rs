//! An event log as a source.

use super::{EventSource, SourceError};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wirespan_event::Entry;
use wirespan_event::log::{LogReader, LogStats, MAGIC};

/// Entries that are handed on at once; some milliseconds of a busy host.
const ENTRIES_AT_ONCE: usize = 1024;

/// Reads an event log, as fast as it can.
pub struct LogFile {
    path: PathBuf,
    log: LogReader<File>,
    latest_ns: u64,
}

impl LogFile {
    /// Opens a log.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let path = path.to_owned();
        let file = File::open(&path).map_err(|source| SourceError::Open { path: path.clone(), source })?;
        match LogReader::new(file) {
            Ok(log) => Ok(Self { path, log, latest_ns: 0 }),
            Err(source) => Err(SourceError::Log { path, source }),
        }
    }

    /// The file begins as event logs do.
    pub fn recognises(path: &Path) -> bool {
        let mut start = [0; MAGIC.len()];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == MAGIC
    }

    /// What was met so far.
    pub fn stats(&self) -> LogStats {
        self.log.stats()
    }
}

impl EventSource for LogFile {
    fn next(
        &mut self,
        _patience: Duration,
        each: &mut dyn FnMut(Entry<'_>),
    ) -> Result<Option<u64>, SourceError> {
        let Self { path, log, latest_ns } = self;
        for count in 0..ENTRIES_AT_ONCE {
            let entry = log.next_entry().map_err(|source| SourceError::Log { path: path.clone(), source })?;
            let Some(entry) = entry else { return Ok((count > 0).then_some(*latest_ns)) };
            if let Entry::Event(event) = &entry {
                *latest_ns = event.header.exit_ns.max(*latest_ns);
            }
            each(entry);
        }
        Ok(Some(*latest_ns))
    }
}

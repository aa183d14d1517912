//! `--record-events`: what a source hands on goes to an event log too.

use super::SourceError;
use std::fs::File;
use std::io;
use std::path::Path;
use wirespan_event::Entry;
use wirespan_event::log::LogWriter;

/// A recording, or none. One that fails ends; tracing goes on.
#[derive(Default)]
pub struct Recording {
    log: Option<LogWriter<File>>,
    failure: Option<io::Error>,
}

impl Recording {
    /// Begins a file; what was there is overwritten.
    pub fn begin(path: &Path) -> Result<Self, SourceError> {
        match File::create(path).and_then(LogWriter::new) {
            Ok(log) => Ok(Self { log: Some(log), failure: None }),
            Err(source) => Err(SourceError::Open { path: path.to_owned(), source }),
        }
    }

    pub fn write(&mut self, entry: Entry<'_>) {
        self.with(|log| log.write(entry));
    }

    /// Hands to the file what was written; gives why the recording ended, once.
    pub fn flush(&mut self) -> Option<io::Error> {
        self.with(LogWriter::flush);
        self.failure.take()
    }

    fn with(&mut self, act: impl FnOnce(&mut LogWriter<File>) -> io::Result<()>) {
        if let Some(Err(error)) = self.log.as_mut().map(act) {
            self.log = None;
            self.failure = Some(error);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wirespan_event::Clock;

    #[test]
    fn a_full_disk_ends_the_recording_and_nothing_else() {
        let mut recording = Recording::begin(Path::new("/dev/full")).unwrap();
        recording.write(Entry::Clock(Clock::default()));
        assert!(recording.flush().is_some());
        recording.write(Entry::Clock(Clock::default()));
        assert!(recording.flush().is_none());
        assert!(Recording::begin(Path::new("/proc/none/x.events")).is_err());
    }
}

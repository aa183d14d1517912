//! The read buffer: a window on the input that slides forward.

use std::io::{self, Read};

use crate::Unreadable;

/// What became of an attempt to have more bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refill {
    /// The window holds at least what was asked for.
    Enough,
    /// The input ended before that.
    Ended,
    /// The input cannot be read on.
    Failed(Unreadable),
}

/// Unread bytes lie in `buffer[start..end]`; frames that were lent lie before `start`.
pub(super) struct Window {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Window {
    pub fn new(input: Box<dyn Read + Send>, chunk_bytes: usize) -> Self {
        Self { input, buffer: vec![0; chunk_bytes], start: 0, end: 0 }
    }

    /// All that was read; descriptors count from its start.
    pub fn region(&self) -> &[u8] {
        self.buffer.get(..self.end).unwrap_or_default()
    }

    /// What was read and not consumed.
    pub fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Offset of the first unread byte in the region.
    pub fn position(&self) -> usize {
        self.start
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
    }

    /// Reads until `bytes` are unread. Moves what is unread to the front, so nothing may be lent at this time.
    pub fn refill(&mut self, bytes: usize) -> Refill {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        while self.end < bytes {
            match self.read() {
                Ok(0) => return Refill::Ended,
                Ok(_) => {}
                Err(reason) => return Refill::Failed(reason),
            }
        }
        Refill::Enough
    }

    /// Drops the next `bytes` of the input. Nothing may be lent at this time.
    pub fn skip(&mut self, bytes: u64) -> Refill {
        let mut left = bytes;
        loop {
            let unread = (self.end - self.start) as u64;
            if left <= unread {
                self.consume(left as usize);
                return Refill::Enough;
            }
            left -= unread;
            self.start = 0;
            self.end = 0;
            match self.read() {
                Ok(0) => return Refill::Ended,
                Ok(_) => {}
                Err(reason) => return Refill::Failed(reason),
            }
        }
    }

    fn read(&mut self) -> Result<usize, Unreadable> {
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.input.read(free) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(reason(&error)),
            }
        }
    }
}

fn reason(error: &io::Error) -> Unreadable {
    match error.kind() {
        // How flate2 reports a broken stream and a missing end.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Unreadable::CorruptGzip
        }
        _ => Unreadable::ReadFailed,
    }
}

//! The read buffer: a window on the input that slides forward.

use std::io::{self, Read};
use std::sync::Arc;

use crate::Unreadable;

/// The kernel copies fastest from page to page.
pub(super) const PAGE_BYTES: usize = 4096;
/// Room before a chunk for the record that the last one cut; a longer one gets a larger buffer.
const TAIL_BYTES: usize = 64 * 1024;

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

/// Memory that a file is read into. It is written to again when nobody else holds its `Arc`.
#[derive(Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// With room for `bytes` from the first whole page on.
    fn new(bytes: usize) -> Self {
        Self(vec![0; bytes + PAGE_BYTES])
    }

    /// All of it; descriptors count from its start.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where the first whole page begins.
    fn first_page(&self) -> usize {
        self.0.as_ptr().align_offset(PAGE_BYTES)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.first_page().checked_add(bytes).is_some_and(|end| end <= self.0.len())
    }
}

/// Unread bytes lie in `buffer[start..end]`; frames that were lent lie before `start`.
pub(super) struct Window {
    input: Box<dyn Read + Send>,
    chunk_bytes: usize,
    buffer: Arc<Buffer>,
    /// More buffers, for when the current one is still lent.
    spare: Vec<Arc<Buffer>>,
    /// So many buffers there may be in all.
    buffers_max: usize,
    start: usize,
    end: usize,
    /// Nothing is read beyond this, so that the next read can begin at a page of the file again.
    limit: usize,
}

impl Window {
    pub fn new(input: Box<dyn Read + Send>, chunk_bytes: usize) -> Self {
        Self {
            input,
            chunk_bytes,
            buffer: Arc::default(),
            spare: Vec::new(),
            buffers_max: 1,
            start: 0,
            end: 0,
            limit: 0,
        }
    }

    /// Lets buffers stay lent while others are read into, `most` in all; `chunk_bytes` are read at a time from now on.
    pub fn share_buffers(&mut self, most: usize, chunk_bytes: usize) {
        (self.buffers_max, self.chunk_bytes) = (most, chunk_bytes);
    }

    /// False when all buffers that there may be are lent.
    pub fn has_room(&mut self) -> bool {
        let is_free = |buffer: &mut Arc<Buffer>| Arc::get_mut(buffer).is_some();
        self.spare.len() + 1 < self.buffers_max
            || is_free(&mut self.buffer)
            || self.spare.iter_mut().rev().any(is_free)
    }

    /// The memory that descriptors count in.
    pub fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }

    /// What was read and not consumed.
    pub fn unread(&self) -> &[u8] {
        self.buffer.0.get(self.start..self.end).unwrap_or_default()
    }

    /// Offset of the first unread byte in the buffer.
    pub fn position(&self) -> usize {
        self.start
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
    }

    /// Reads until `bytes` are unread. Moves what is unread, so of a single buffer nothing may be lent at this time.
    pub fn refill(&mut self, bytes: usize) -> Refill {
        self.make_room(bytes);
        while self.end - self.start < bytes {
            match self.read() {
                Ok(0) => return Refill::Ended,
                Ok(_) => {}
                Err(reason) => return Refill::Failed(reason),
            }
        }
        Refill::Enough
    }

    /// Drops the next `bytes` of the input. Of a single buffer nothing may be lent at this time.
    pub fn skip(&mut self, bytes: u64) -> Refill {
        let mut left = bytes;
        loop {
            let unread = (self.end - self.start) as u64;
            if left <= unread {
                self.consume(left as usize);
                return Refill::Enough;
            }
            left -= unread;
            self.start = self.end;
            self.make_room(0);
            match self.read() {
                Ok(0) => return Refill::Ended,
                Ok(_) => {}
                Err(reason) => return Refill::Failed(reason),
            }
        }
    }

    /// Moves what is unread to the front of a buffer that is not lent, so that a chunk can be read behind it, and so many
    /// bytes that `bytes` are unread then. What is unread ends at a page: reads begin there.
    fn make_room(&mut self, bytes: usize) {
        let unread = self.end - self.start;
        let room = bytes.saturating_sub(unread).next_multiple_of(PAGE_BYTES).max(self.chunk_bytes);
        let before = unread.next_multiple_of(PAGE_BYTES);
        let from = self.start..self.end;
        if let Some(buffer) = Arc::get_mut(&mut self.buffer).filter(|buffer| buffer.has_room(before + room)) {
            self.end = buffer.first_page() + before;
            self.start = self.end - unread;
            buffer.0.copy_within(from, self.start);
        } else {
            let mut next = self.free_buffer(before + room);
            let moved = self.buffer.0.get(from).unwrap_or_default();
            self.end = next.first_page() + before;
            self.start = self.end - unread;
            if let Some(to) = Arc::get_mut(&mut next).and_then(|next| next.0.get_mut(self.start..self.end)) {
                to.copy_from_slice(moved);
            }
            let lent = std::mem::replace(&mut self.buffer, next);
            if self.spare.len() + 1 < self.buffers_max {
                self.spare.push(lent);
            }
        }
        self.limit = self.end + room;
    }

    /// A buffer that nobody else has, with room for `bytes`.
    fn free_buffer(&mut self, bytes: usize) -> Arc<Buffer> {
        let is_free =
            |buffer: &mut Arc<Buffer>| Arc::get_mut(buffer).is_some_and(|buffer| buffer.has_room(bytes));
        // The one that was lent last is most likely still in the cache.
        match self.spare.iter_mut().rposition(is_free) {
            Some(free) => self.spare.remove(free),
            None => Arc::new(Buffer::new(bytes.max(self.chunk_bytes + TAIL_BYTES))),
        }
    }

    fn read(&mut self) -> Result<usize, Unreadable> {
        let buffer = Arc::get_mut(&mut self.buffer);
        let free = buffer.and_then(|buffer| buffer.0.get_mut(self.end..self.limit)).unwrap_or_default();
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

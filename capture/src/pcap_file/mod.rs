//! Capture files: pcap and pcapng, plain or gzip, from a path, standard input or memory.
//!
//! Takes in bytes, hands on batches of up to [`BATCH_FRAMES`] frames that lie in the read buffer. The file is read in
//! chunks of [`CHUNK_BYTES`], page by page; a record that a chunk's end cuts is moved before the next one. What cannot
//! be read is counted by reason and never an error: a damaged capture ends early, but normally.
//!
//! - `window`: the read buffer
//! - `classic`: pcap records
//! - `ng`: pcapng blocks
//! - `order`: byte order of the writer
//! - [`writer`]: writes pcap files

mod classic;
mod ng;
mod order;
mod window;
pub mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use wirespan_frame::{Batch, Descriptor};

pub use writer::{Resolution, Writer};

use crate::{CaptureError, PacketSource, SourceStats, Unreadable};
pub(crate) use window::Buffer;
use window::{PAGE_BYTES, Refill, Window};

/// Most frames of one batch.
pub const BATCH_FRAMES: usize = 256;
/// Bytes that are read from the file at a time.
pub const CHUNK_BYTES: usize = 512 * 1024;
/// A longer frame does not exist: the largest that Linux hands to a capture (BIG TCP) has 512 KiB.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// A wire length that no real frame has is a damaged field: the captured length then stands for it.
fn plausible_wire_len(wire_len: u32, len: u32) -> u32 {
    if wire_len > FRAME_BYTES_MAX { len } else { wire_len.max(len) }
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What a file's interfaces are called by in descriptors. Numbers that would be too large are the largest.
#[derive(Default)]
enum Ports {
    /// Their places in the file.
    #[default]
    Counted,
    /// The place of an interface's name in a list, and `other` where it has none of these.
    Listed { names: Arc<[String]>, other: usize },
}

impl Ports {
    /// That of the interface at a place of the file, which goes by these names.
    fn get<'a>(&self, interface: usize, names: impl IntoIterator<Item = &'a [u8]>) -> u16 {
        let number = match self {
            Self::Counted => interface,
            Self::Listed { names: listed, other } => {
                let place = |name: &[u8]| listed.iter().position(|listed| listed.as_bytes() == name);
                names.into_iter().find_map(place).unwrap_or(*other)
            }
        };
        u16::try_from(number).unwrap_or(u16::MAX)
    }
}

/// A capture file as a source of frames.
pub struct PcapFile {
    window: Window,
    format: Format,
    descriptors: Vec<Descriptor>,
    ports: Ports,
    received: u64,
    unreadable: UnreadableCounts,
}

enum Format {
    Classic(classic::Capture),
    Ng(ng::Capture),
    /// Nothing more can be read.
    Ended,
}

/// Why a format's reader stopped within the window.
enum Step {
    /// The batch is full.
    BatchFull,
    /// The next record needs the window to hold this many unread bytes.
    Need(usize),
    /// These bytes of the input are of no interest, and too many to hold.
    Skip(u64),
    /// The place of the next record is lost.
    Lost(Unreadable),
}

#[derive(Default)]
struct UnreadableCounts([u64; Unreadable::ALL.len()]);

impl UnreadableCounts {
    fn count(&mut self, reason: Unreadable) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += 1;
        }
    }

    fn occurred(&self) -> Vec<(Unreadable, u64)> {
        Unreadable::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0).collect()
    }
}

impl PcapFile {
    /// Opens a capture file; `-` is standard input.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        if path.as_os_str() == "-" {
            return Self::from_reader(io::stdin(), &name);
        }
        let file =
            File::open(path).map_err(|source| CaptureError::OpenFile { path: name.clone(), source })?;
        Self::from_reader(file, &name)
    }

    /// Reads a capture from anywhere; `name` is what error texts call it.
    pub fn from_reader(mut reader: impl Read + Send + 'static, name: &str) -> Result<Self, CaptureError> {
        let start = read_start(&mut reader)
            .map_err(|source| CaptureError::OpenFile { path: name.to_owned(), source })?;
        let gzip = start.starts_with(&GZIP_MAGIC);
        let whole = io::Cursor::new(start).chain(reader);
        let input: Box<dyn Read + Send> =
            if gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        let mut capture = Self {
            window: Window::new(input, CHUNK_BYTES),
            format: Format::Ended,
            descriptors: Vec::with_capacity(BATCH_FRAMES),
            ports: Ports::default(),
            received: 0,
            unreadable: UnreadableCounts::default(),
        };
        capture.read_file_header(name)?;
        Ok(capture)
    }

    /// As one of several files: frames have for their number the place of their interface's name in `names`, or of its
    /// description (pcapng); those of other interfaces have the file's own, `place`.
    #[must_use]
    pub fn nth_of(mut self, place: usize, names: &Arc<[String]>) -> Self {
        self.ports = Ports::Listed { names: Arc::clone(names), other: place };
        self
    }

    fn read_file_header(&mut self, name: &str) -> Result<(), CaptureError> {
        let unreadable = match self.window.refill(classic::FILE_HEADER_BYTES) {
            Refill::Failed(reason) => Some(reason),
            Refill::Ended if self.window.unread().is_empty() => Some(Unreadable::EmptyFile),
            Refill::Ended | Refill::Enough => None,
        };
        if unreadable.is_some() {
            self.end(unreadable);
            return Ok(());
        }
        let bytes = self.window.unread();
        self.format = if ng::Capture::recognises(bytes) {
            Format::Ng(ng::Capture::default())
        } else if let Some(header) = bytes.first_chunk() {
            let capture = classic::Capture::from_header(header)
                .ok_or_else(|| CaptureError::NotACapture { path: name.to_owned() })?;
            self.window.consume(classic::FILE_HEADER_BYTES);
            Format::Classic(capture)
        } else if classic::Capture::recognises(bytes) {
            self.unreadable.count(Unreadable::Truncated);
            Format::Ended
        } else {
            return Err(CaptureError::NotACapture { path: name.to_owned() });
        };
        Ok(())
    }

    fn end(&mut self, reason: Option<Unreadable>) {
        if let Some(reason) = reason {
            self.unreadable.count(reason);
        }
        self.format = Format::Ended;
    }

    /// Lets up to `most` read buffers stay lent, where [`Self::describe`] is used, and reads `chunk_bytes` at a time.
    pub(crate) fn share_buffers(&mut self, most: usize, chunk_bytes: usize) {
        self.window.share_buffers(most, chunk_bytes);
    }

    /// False when as many buffers as there may be are lent.
    pub(crate) fn has_room(&mut self) -> bool {
        self.window.has_room()
    }

    /// Describes the next frames in `into`, and gives the buffer that they lie in. `None` is the end of the input.
    pub(crate) fn describe(&mut self, into: &mut Vec<Descriptor>) -> Option<&Arc<Buffer>> {
        into.clear();
        while into.is_empty() {
            let step = match &mut self.format {
                Format::Classic(capture) => capture.read(&mut self.window, into, &self.ports),
                Format::Ng(capture) => {
                    capture.read(&mut self.window, into, &self.ports, &mut self.unreadable)
                }
                Format::Ended => return None,
            };
            match step {
                Step::Lost(reason) => self.end(Some(reason)),
                // Before anything moves in the window, what was found in it is lent.
                _ if !into.is_empty() => {}
                Step::BatchFull => {}
                Step::Need(bytes) => self.refill(bytes),
                Step::Skip(bytes) => match self.window.skip(bytes) {
                    Refill::Enough => {}
                    Refill::Ended => self.end(Some(Unreadable::Truncated)),
                    Refill::Failed(reason) => self.end(Some(reason)),
                },
            }
        }
        self.received += into.len() as u64;
        Some(self.window.buffer())
    }

    fn refill(&mut self, bytes: usize) {
        match self.window.refill(bytes) {
            Refill::Enough => {}
            Refill::Ended if self.window.unread().is_empty() => self.end(None),
            Refill::Ended => self.end(Some(Unreadable::Truncated)),
            Refill::Failed(reason) => self.end(Some(reason)),
        }
    }
}

impl PacketSource for PcapFile {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        let mut descriptors = std::mem::take(&mut self.descriptors);
        let more = self.describe(&mut descriptors).is_some();
        self.descriptors = descriptors;
        Ok(more.then(|| Batch::new(self.window.buffer().bytes(), &self.descriptors)))
    }

    fn stats(&mut self) -> SourceStats {
        SourceStats {
            received: self.received,
            unreadable: self.unreadable.occurred(),
            ..SourceStats::default()
        }
    }
}

/// The first page: it tells gzip from the rest, and what is read after it begins at a page again.
fn read_start(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(PAGE_BYTES);
    reader.take(PAGE_BYTES as u64).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests;

//! Writes pcap files, for the benchmark suite and for tests.

use std::io::{self, Write};

use wirespan_frame::LinkType;

use super::classic::{MAGIC_MICROSECONDS, MAGIC_NANOSECONDS};
use crate::link_type;

/// What a record's second time field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Read by every program; the rest of a time stamp is cut off.
    Microseconds,
    /// Keeps time stamps as they are.
    Nanoseconds,
}

/// A pcap file being written, in the byte order of little-endian machines.
///
/// Writes two small pieces per frame, so `W` should buffer. Call [`finish`](Self::finish) at the end.
pub struct Writer<W> {
    output: W,
    resolution: Resolution,
}

impl<W: Write> Writer<W> {
    /// Begins a file: writes its header.
    pub fn new(mut output: W, link: LinkType, resolution: Resolution) -> io::Result<Self> {
        let magic = match resolution {
            Resolution::Microseconds => MAGIC_MICROSECONDS,
            Resolution::Nanoseconds => MAGIC_NANOSECONDS,
        };
        const VERSION_2_4: u32 = 2 | 4 << 16;
        let fields =
            [magic, VERSION_2_4, 0, 0, super::FRAME_BYTES_MAX, u32::from(link_type::to_number(link))];
        output.write_all(fields.map(u32::to_le_bytes).as_flattened())?;
        Ok(Self { output, resolution })
    }

    /// Appends a frame. Times after the year 2106 do not fit the format and end there.
    pub fn write(&mut self, ts_ns: u64, wire_len: u32, data: &[u8]) -> io::Result<()> {
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        let seconds = u32::try_from(ts_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let nanoseconds = (ts_ns % 1_000_000_000) as u32;
        let fraction = match self.resolution {
            Resolution::Microseconds => nanoseconds / 1_000,
            Resolution::Nanoseconds => nanoseconds,
        };
        self.output.write_all([seconds, fraction, len, wire_len].map(u32::to_le_bytes).as_flattened())?;
        self.output.write_all(data)
    }

    /// Flushes, and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

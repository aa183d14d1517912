//! The compressed protocol: packets inside of frames.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html>

use super::wire::Reader;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// Length of a frame's header: 3 bytes length, 1 byte sequence number, 3 bytes length before compression.
pub(super) const HEADER: usize = 7;

/// Bytes of a frame that are looked at, compressed; behind it the frame is passed over.
pub(super) const MAX_COMPRESSED: usize = 32 << 10;

/// Bytes of a frame that are looked at, decompressed.
const MAX_DECOMPRESSED: usize = 64 << 10;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes behind the header.
    pub length: usize,
    /// Counts the frames of one command.
    pub seq: u8,
    /// Length of the content before compression; zero when it is not compressed.
    pub original: usize,
}

impl Frame {
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let mut r = Reader(data);
        Some(Self { length: r.uint(3)? as usize, seq: r.u8()?, original: r.uint(3)? as usize })
    }

    /// Header and content.
    pub(super) fn total(self) -> usize {
        HEADER + self.length
    }

    /// Length of the packets inside.
    pub(super) fn content(self) -> usize {
        if self.original == 0 { self.length } else { self.original }
    }

    /// The content begins as compressed data does: a zlib header (RFC 1950) or a Zstandard frame (RFC 8878).
    pub(super) fn is_compressed(self, content: &[u8]) -> bool {
        let zlib = matches!(content, &[cmf, flg, ..]
            if cmf & 0x8f == 0x08 && flg & 0x20 == 0 && u16::from_be_bytes([cmf, flg]) % 31 == 0);
        self.original > self.length && (zlib || content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
    }
}

/// Decompresses one frame at a time.
#[derive(Default)]
pub(super) struct Inflater(DecompressorOxide);

impl Inflater {
    /// The beginning of what `compressed` was, at most `original` bytes, as far as it can be read.
    pub(super) fn inflate(&mut self, compressed: &[u8], original: usize) -> Vec<u8> {
        // Deflate does not shrink below 1/1032.
        let room = original.min(MAX_DECOMPRESSED).min(compressed.len().saturating_mul(1032));
        let mut out = vec![0; room];
        self.0.init();
        let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
            | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, _, written) = decompress(&mut self.0, compressed, &mut out, 0, flags);
        let failed = matches!(status, TINFLStatus::Failed | TINFLStatus::BadParam);
        out.truncate(if failed { 0 } else { written });
        out
    }
}

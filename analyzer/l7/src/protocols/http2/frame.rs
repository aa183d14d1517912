//! Frames (RFC 9113, sections 4 and 6).

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 0x01;
const END_STREAM: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const HAS_PRIORITY: u8 = 0x20;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Of what follows the header.
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    reserved: bool,
}

impl Frame {
    /// The header at the start of `data`.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = data.first_chunk::<HEADER>()?;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Some(Self {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind,
            flags,
            stream: stream & 0x7fff_ffff,
            reserved: stream >> 31 != 0,
        })
    }

    /// Bytes with the header.
    pub(super) fn total(&self) -> usize {
        HEADER + self.length
    }

    pub(super) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    pub(super) fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// Its length and stream are as they must be. What is not defined is to be ignored.
    pub(super) fn is_valid(&self) -> bool {
        let on_stream = self.stream != 0;
        match self.kind {
            DATA | HEADERS | CONTINUATION => on_stream,
            PRIORITY => on_stream && self.length == 5,
            RST_STREAM => on_stream && self.length == 4,
            SETTINGS => {
                !on_stream && self.length.is_multiple_of(6) && (self.length == 0 || self.flags & ACK == 0)
            }
            PUSH_PROMISE => on_stream && self.length >= 4,
            PING => !on_stream && self.length == 8,
            GOAWAY => !on_stream && self.length >= 8,
            WINDOW_UPDATE => self.length == 4,
            _ => true,
        }
    }

    /// Nothing about it is unusual, so that it may be taken for a frame where none is expected.
    pub(super) fn is_likely(&self) -> bool {
        let (defined, longest) = match self.kind {
            DATA => (END_STREAM | PADDED, 1 << 20),
            HEADERS => (END_STREAM | END_HEADERS | PADDED | HAS_PRIORITY, 64 << 10),
            SETTINGS => (ACK, 16 * 6),
            PUSH_PROMISE => (END_HEADERS | PADDED, 64 << 10),
            PING => (ACK, 8),
            GOAWAY => (0, 4 << 10),
            CONTINUATION => (END_HEADERS, 64 << 10),
            PRIORITY | RST_STREAM | WINDOW_UPDATE => (0, 5),
            _ => return false,
        };
        self.is_valid() && !self.reserved && self.flags & !defined == 0 && self.length <= longest
    }

    /// The part of a header block in `body`, which may be cut: without padding, priority and promised stream.
    pub(super) fn fragment<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        let is_first = self.kind != CONTINUATION;
        let mut start = 0;
        let mut padding = 0;
        if is_first && self.flags & PADDED != 0 {
            padding = usize::from(*body.first()?);
            start += 1;
        }
        start += match self.kind {
            HEADERS if self.flags & HAS_PRIORITY != 0 => 5,
            PUSH_PROMISE => 4,
            _ => 0,
        };
        let end = self.length.checked_sub(padding)?;
        body.get(start..end.min(body.len()))
    }
}

//! The pieces messages are made of: packet headers, integers, strings.

/// Length of a packet's header: 3 bytes length, 1 byte sequence number.
pub(super) const HEADER: usize = 4;

/// A packet of this length is continued by the next one.
pub(super) const MAX_PACKET: usize = 0xff_ffff;

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Payload bytes.
    pub length: usize,
    /// Counts the packets of one command, in both directions together, wrapping.
    pub seq: u8,
}

impl Header {
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let &[a, b, c, seq] = data.first_chunk()?;
        Some(Self { length: u32::from_le_bytes([a, b, c, 0]) as usize, seq })
    }

    /// Header and payload.
    pub(super) fn total(self) -> usize {
        HEADER + self.length
    }
}

/// Reads from the front of bytes; every read is `None` when they are too few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// Little-endian, of `n <= 8` bytes.
    pub(super) fn uint(&mut self, n: usize) -> Option<u64> {
        let bytes = self.take(n)?;
        Some(bytes.iter().rev().fold(0, |value, &b| value << 8 | u64::from(b)))
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.uint(2).map(|n| n as u16)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.uint(4).map(|n| n as u32)
    }

    /// A length-encoded integer.
    pub(super) fn lenenc(&mut self) -> Option<u64> {
        match self.u8()? {
            first @ 0..=0xfa => Some(u64::from(first)),
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.uint(8),
            _ => None,
        }
    }

    /// A string with a length-encoded length.
    pub(super) fn lenenc_str(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.lenenc()?).ok()?;
        self.take(length)
    }

    /// As [`Self::lenenc_str`], but what is there of it when the bytes end early.
    pub(super) fn lenenc_prefix(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.lenenc()?).unwrap_or(usize::MAX);
        self.take(length.min(self.0.len()))
    }

    /// A string that ends with a zero byte.
    pub(super) fn nul_str(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}

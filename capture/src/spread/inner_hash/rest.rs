//! What is left of a packet behind the headers read so far.

use super::Stop;

/// The captured bytes, and how many there were on the wire: never fewer than were captured.
#[derive(Clone, Copy)]
pub(super) struct Rest<'a> {
    pub data: &'a [u8],
    pub wire: usize,
}

impl<'a> Rest<'a> {
    #[inline]
    pub fn new(data: &'a [u8], wire: usize) -> Self {
        Self { data, wire: wire.max(data.len()) }
    }

    /// Takes a header of `N` bytes off the front.
    #[inline(always)]
    pub fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], Stop> {
        let (head, tail) = self.data.split_first_chunk().ok_or(Stop::Undecodable)?;
        self.data = tail;
        self.wire -= N;
        Ok(head)
    }

    /// Skips bytes that need not have been captured, such as options.
    #[inline]
    pub fn skip(&mut self, bytes: usize) -> Result<(), Stop> {
        self.wire = self.wire.checked_sub(bytes).ok_or(Stop::Undecodable)?;
        self.data = self.data.get(bytes..).unwrap_or_default();
        Ok(())
    }

    /// Cuts off what lies behind `bytes`: padding, or a trailer.
    #[inline]
    pub fn limit(&mut self, bytes: usize) {
        self.wire = self.wire.min(bytes);
        self.data = self.data.get(..bytes).unwrap_or(self.data);
    }

    /// Sets what an IP header says of the length, which may be more than the frame had on the wire.
    #[inline]
    pub fn set_len(&mut self, bytes: usize) {
        self.wire = bytes;
        self.data = self.data.get(..bytes).unwrap_or(self.data);
    }

    #[inline]
    pub fn first(&self) -> Result<u8, Stop> {
        self.data.first().copied().ok_or(Stop::Undecodable)
    }
}

/// Big-endian 16 bits.
#[inline(always)]
pub(super) fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

//! What is left of a packet behind the headers read so far.

use wirespan_records::DropReason;

/// The captured bytes, and how many there were on the wire: never fewer than were captured.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a> {
    /// What was captured.
    pub data: &'a [u8],
    /// Bytes that there were.
    pub wire: usize,
}

impl<'a> Rest<'a> {
    /// `wire` below the number of captured bytes is a lie of the source and is corrected.
    #[inline]
    pub fn new(data: &'a [u8], wire: usize) -> Self {
        Self { data, wire: wire.max(data.len()) }
    }

    /// Takes a header of `N` bytes off the front: the one bounds check of that header.
    ///
    /// # Errors
    /// [`DropReason::Truncated`]
    #[inline(always)]
    pub fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], DropReason> {
        let (head, tail) = self.data.split_first_chunk().ok_or(DropReason::Truncated)?;
        self.data = tail;
        self.wire -= N;
        Ok(head)
    }

    /// Skips bytes that need not have been captured, such as options.
    ///
    /// # Errors
    /// [`DropReason::Truncated`], when there were not so many
    #[inline]
    pub fn skip(&mut self, bytes: usize) -> Result<(), DropReason> {
        self.wire = self.wire.checked_sub(bytes).ok_or(DropReason::Truncated)?;
        self.data = self.data.get(bytes..).unwrap_or_default();
        Ok(())
    }

    /// Cuts off what lies behind `bytes`: padding, or a trailer of the outer packet.
    #[inline]
    pub fn limit(&mut self, bytes: usize) {
        self.wire = self.wire.min(bytes);
        self.data = self.data.get(..bytes).unwrap_or(self.data);
    }

    /// Sets what an IP header says of the length, and cuts off the padding. It may be more than the frame had on the
    /// wire: mirrors cut packets inside a tunnel, tools that cut capture files forget the length there was.
    #[inline]
    pub fn set_len(&mut self, bytes: usize) {
        self.wire = bytes;
        self.data = self.data.get(..bytes).unwrap_or(self.data);
    }

    /// The first byte, without taking it.
    ///
    /// # Errors
    /// [`DropReason::Truncated`]
    #[inline]
    pub fn first(&self) -> Result<u8, DropReason> {
        self.data.first().copied().ok_or(DropReason::Truncated)
    }
}

/// Big-endian 16 bits.
#[inline(always)]
pub fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_captured_and_wire_length_apart() {
        let mut rest = Rest::new(&[1, 2, 3, 4], 10);
        assert_eq!(rest.take::<2>().unwrap(), &[1, 2]);
        assert_eq!((rest.data, rest.wire), (&[3, 4][..], 8));
        rest.limit(6);
        assert_eq!((rest.data, rest.wire), (&[3, 4][..], 6));
        rest.skip(3).unwrap();
        assert_eq!((rest.data.len(), rest.wire), (0, 3));
        assert_eq!(rest.skip(4), Err(DropReason::Truncated));
        assert_eq!(rest.take::<1>(), Err(DropReason::Truncated));
    }

    #[test]
    fn a_wire_length_below_the_captured_one_is_corrected() {
        assert_eq!(Rest::new(&[1, 2, 3], 1).wire, 3);
    }
}

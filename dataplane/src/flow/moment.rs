//! Moments that latencies are measured from, in six bytes.

/// A time in nanoseconds modulo 2^48 (78 hours, longer than any time-out), or none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment([u16; 3]);

impl Moment {
    /// No moment.
    pub(crate) const NONE: Self = Self([0; 3]);

    /// That of a packet.
    #[inline]
    pub(crate) fn at(ts_ns: u64) -> Self {
        let moment = Self([ts_ns as u16, (ts_ns >> 16) as u16, (ts_ns >> 32) as u16]);
        // The nanosecond that would read as none is the next one instead.
        if moment == Self::NONE { Self([1, 0, 0]) } else { moment }
    }

    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Nanoseconds from this moment to `ts_ns`; none when there is no moment, or it is later.
    #[inline]
    pub(crate) fn until(self, ts_ns: u64) -> Option<u64> {
        let passed = ts_ns.wrapping_sub(self.bits()) & 0xffff_ffff_ffff;
        (!self.is_none() && passed < 1 << 47).then_some(passed)
    }

    /// Nanoseconds from `earlier` to this moment; none when one of them is none, or it is not the earlier.
    pub(crate) fn since(self, earlier: Self) -> Option<u64> {
        if self.is_none() { None } else { earlier.until(self.bits()) }
    }

    fn bits(self) -> u64 {
        let Self([low, middle, high]) = self;
        u64::from(low) | u64::from(middle) << 16 | u64::from(high) << 32
    }

    /// This moment, and none from now on.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_over_the_wrap_and_not_backwards() {
        for start in [1_700_000_000_123_456_789, (5 << 48) - 3, 5 << 48] {
            let moment = Moment::at(start);
            let one_off = u64::from(start & 0xffff_ffff_ffff == 0);
            assert_eq!(moment.until(start + 7), Some(7 - one_off));
            assert_eq!(moment.until(start - 7), None);
        }
        assert_eq!(Moment::NONE.until(7), None);
    }
}

//! ClickHouse's RowBinary format, read value by value. Every value is checked to be there; counts are not trusted.

use crate::StoreError;
use std::net::{IpAddr, Ipv6Addr};

/// An answer in RowBinary, or a row made by `formatRow('RowBinary', ...)`. Which values come in which order, the reader has to
/// know: it is what was selected.
#[derive(Clone, Copy, Debug)]
pub struct RowReader<'a> {
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// All values were read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (value, rest) = self.rest.split_at_checked(length).ok_or_else(|| bad("it ends early"))?;
        self.rest = rest;
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (value, rest) = self.rest.split_first_chunk().ok_or_else(|| bad("it ends early"))?;
        self.rest = rest;
        Ok(*value)
    }

    /// `UInt8`, `Bool`, the number of an `Enum8`.
    pub fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// `UInt16`
    pub fn u16(&mut self) -> Result<u16, StoreError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// `UInt32`
    pub fn u32(&mut self) -> Result<u32, StoreError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// `Int32`
    pub fn i32(&mut self) -> Result<i32, StoreError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// `UInt64`
    pub fn u64(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `Float32`
    pub fn f32(&mut self) -> Result<f32, StoreError> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// `DateTime64(9)`, ns since the epoch; 0 for times before it.
    pub fn nanos(&mut self) -> Result<u64, StoreError> {
        Ok(i64::from_le_bytes(self.array()?).try_into().unwrap_or(0))
    }

    /// `IPv6`; a mapped IPv4 address as such.
    pub fn ip(&mut self) -> Result<IpAddr, StoreError> {
        Ok(IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)).to_canonical())
    }

    /// The number of values of an `Array` or `Map`, which come next.
    pub fn count(&mut self) -> Result<u64, StoreError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(bad("a length has no end"))
    }

    /// `String` and `LowCardinality(String)`, any bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self.count()?;
        self.take(usize::try_from(length).map_err(|_| bad("it ends early"))?)
    }

    /// The same as text; what is no UTF-8 is replaced.
    pub fn text(&mut self) -> Result<String, StoreError> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    /// The same, `None` when it is empty.
    pub fn some_text(&mut self) -> Result<Option<String>, StoreError> {
        Ok(Some(self.text()?).filter(|text| !text.is_empty()))
    }

    /// `Nullable`: whether there is a value, then the value.
    pub fn nullable<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if self.u8()? == 0 { value(self).map(Some) } else { Ok(None) }
    }
}

fn bad(reason: &str) -> StoreError {
    StoreError::BadAnswer { format: "RowBinary", reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What ClickHouse answers to: SELECT toUInt8(7), 'ab', CAST(NULL, 'Nullable(UInt32)'), CAST(5, 'Nullable(UInt32)'),
    /// toIPv6('1.2.3.4'), map('a', 'b'), toDateTime64('1970-01-01 00:00:01', 9)
    const ANSWER: &[u8] = b"\x07\x02ab\x01\x00\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04\x01\x01a\x01b\x00\xca\x9a\x3b\0\0\0\0";

    #[test]
    fn values_are_read_in_order() {
        let mut row = RowReader::new(ANSWER);
        assert_eq!(row.u8().unwrap(), 7);
        assert_eq!(row.text().unwrap(), "ab");
        assert_eq!(row.nullable(RowReader::u32).unwrap(), None);
        assert_eq!(row.nullable(RowReader::u32).unwrap(), Some(5));
        assert_eq!(row.ip().unwrap(), IpAddr::from([1, 2, 3, 4]));
        assert_eq!(
            (row.count().unwrap(), row.text().unwrap(), row.some_text().unwrap()),
            (1, "a".into(), Some("b".into()))
        );
        assert_eq!(row.nanos().unwrap(), 1_000_000_000);
        assert!(row.is_empty());
        assert!(row.u8().unwrap_err().to_string().contains("ends early"));
    }

    #[test]
    fn lengths_are_not_trusted() {
        assert!(RowReader::new(&[0xff; 20]).bytes().unwrap_err().to_string().contains("no end"));
        assert!(RowReader::new(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7fa").bytes().is_err());
        assert_eq!(RowReader::new(b"\x80\x01").count().unwrap(), 128);
    }

    proptest! {
        /// Text and numbers come back as they were written.
        #[test]
        fn what_was_written_is_read(text: String, number: u64) {
            let mut bytes = Vec::new();
            crate::write::write_text(&mut bytes, &text);
            bytes.extend_from_slice(&number.to_le_bytes());
            let mut row = RowReader::new(&bytes);
            prop_assert_eq!((row.text().unwrap(), row.u64().unwrap()), (text, number));
            prop_assert!(row.is_empty());
        }
    }
}

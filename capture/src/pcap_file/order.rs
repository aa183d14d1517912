//! Byte order of the machine that wrote the capture.

/// Reads integers in the writer's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }

    /// A header of `N` 32-bit fields, if `bytes` hold one.
    pub fn u32s<const N: usize>(self, bytes: &[u8]) -> Option<[u32; N]> {
        let (fields, _) = bytes.as_chunks::<4>();
        Some(fields.first_chunk::<N>()?.map(|field| self.u32(field)))
    }
}

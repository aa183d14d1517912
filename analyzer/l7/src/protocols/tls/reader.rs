//! Reads numbers and length-prefixed vectors. A vector that is longer than what is there gives what is there.

pub(super) struct Reader<'a> {
    data: &'a [u8],
    /// Something was longer than what is there.
    pub cut: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, cut: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.data
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let Some((head, tail)) = self.data.split_at_checked(len) else {
            self.cut = true;
            return None;
        };
        self.data = tail;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        match self.data {
            [] => None,
            [high, low, tail @ ..] => {
                self.data = tail;
                Some(u16::from_be_bytes([*high, *low]))
            }
            [_] => {
                self.cut = true;
                None
            }
        }
    }

    pub(super) fn u24(&mut self) -> Option<usize> {
        let bytes = self.take(3)?;
        Some(bytes.iter().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    }

    /// A vector with its length in one byte.
    pub(super) fn vector8(&mut self) -> Self {
        let len = self.take(1).map_or(0, |len| usize::from(len[0]));
        self.vector(len)
    }

    /// A vector with its length in two bytes.
    pub(super) fn vector16(&mut self) -> Self {
        let len = self.u16().map_or(0, usize::from);
        self.vector(len)
    }

    /// A vector with its length in three bytes.
    pub(super) fn vector24(&mut self) -> Self {
        let len = self.u24().unwrap_or(0);
        self.vector(len)
    }

    fn vector(&mut self, len: usize) -> Self {
        let (head, tail) = self.data.split_at(len.min(self.data.len()));
        self.cut |= head.len() < len;
        self.data = tail;
        Self { data: head, cut: false }
    }

    /// All of it as 16-bit numbers.
    pub(super) fn numbers(self) -> Vec<u16> {
        self.data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }
}

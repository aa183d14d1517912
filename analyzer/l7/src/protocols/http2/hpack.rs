//! HPACK (RFC 7541) as an observer can decode it: of a connection that was seen from its middle on, a part of the dynamic
//! table is missing, and so are the fields that refer to it.
//!
//! Indices count from the newest entry. Entries that an encoder keeps longer or shorter than this table does therefore
//! never make a field wrong, only missing; the size that the peers agreed on need not be known.

use super::huffman;
use super::static_table::STATIC_TABLE;
use std::collections::VecDeque;

/// The size of a dynamic table that was not changed (RFC 9113, section 6.5.2).
const DEFAULT_SIZE: usize = 4096;

/// Larger tables are kept in part.
const MAX_SIZE: usize = 16 << 10;

/// What an entry counts for besides its texts (RFC 7541, section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Decodes the header blocks of one direction.
pub(super) struct Decoder {
    /// Newest first.
    table: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

struct Entry {
    /// `None` when it was given by an index into what is missing.
    name: Option<Box<[u8]>>,
    value: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.as_ref().map_or(0, |name| name.len()) + self.value.len() + ENTRY_OVERHEAD
    }
}

/// Why decoding stopped before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The block ends in the middle of a field.
    Cut,
    /// Not a header block.
    Invalid,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, max_size: DEFAULT_SIZE }
    }
}

impl Decoder {
    /// Hands the fields of a block to `field`, name and value, `None` for those that are not known.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(Option<(&[u8], &[u8])>),
    ) -> Result<(), Stop> {
        let (mut name_buffer, mut value_buffer) = (Vec::new(), Vec::new());
        let mut input = Input(block);
        while let Some(&first) = input.0.first() {
            if first & 0x80 != 0 {
                field(self.entry(input.integer(7)?)?);
            } else if first & 0xe0 == 0x20 {
                self.max_size = input.integer(5)?.min(MAX_SIZE);
                self.evict();
            } else {
                let is_indexed = first & 0x40 != 0;
                let name = match input.integer(if is_indexed { 6 } else { 4 })? {
                    0 => Some(input.string(&mut name_buffer)?),
                    index => self.name(index),
                };
                let value = input.string(&mut value_buffer)?;
                field(name.map(|name| (name, value)));
                if is_indexed {
                    let entry = Entry { name: name.map(Into::into), value: value.into() };
                    self.insert(entry);
                }
            }
        }
        Ok(())
    }

    /// Forgets the dynamic table: blocks were missed.
    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.size = 0;
    }

    fn entry(&self, index: usize) -> Result<Option<(&[u8], &[u8])>, Stop> {
        let before = index.checked_sub(1).ok_or(Stop::Invalid)?;
        if let Some(&entry) = STATIC_TABLE.get(before) {
            return Ok(Some(entry));
        }
        let entry = self.table.get(before - STATIC_TABLE.len());
        Ok(entry.and_then(|entry| Some((entry.name.as_deref()?, &*entry.value))))
    }

    fn name(&self, index: usize) -> Option<&[u8]> {
        self.entry(index).ok().flatten().map(|(name, _)| name)
    }

    fn insert(&mut self, entry: Entry) {
        self.size += entry.size();
        self.table.push_front(entry);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.max_size
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let (&first, rest) = self.0.split_first().ok_or(Stop::Cut)?;
        self.0 = rest;
        Ok(first)
    }

    /// An integer with a prefix of so many bits (section 5.1), up to 28 bits more.
    fn integer(&mut self, prefix: u32) -> Result<usize, Stop> {
        let mask = (1u8 << prefix) - 1;
        let first = self.byte()? & mask;
        let mut value = usize::from(first);
        if first < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Invalid)
    }

    /// A string (section 5.2), decoded into `buffer` if need be.
    fn string<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Stop>
    where
        'a: 'b,
    {
        let is_huffman = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Stop::Cut)?;
        self.0 = rest;
        if is_huffman {
            huffman::decode(text, buffer).ok_or(Stop::Invalid)?;
            return Ok(buffer);
        }
        Ok(text)
    }
}

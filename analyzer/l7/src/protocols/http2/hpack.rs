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

/// A field, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// Name and value.
    Whole(&'a [u8], &'a [u8]),
    /// The value of a field whose name is an index into what is missing.
    Unnamed(&'a [u8]),
    /// An index into what is missing.
    Missing,
}

impl<'a> Field<'a> {
    fn new(name: Option<&'a [u8]>, value: &'a [u8]) -> Self {
        name.map_or(Self::Unnamed(value), |name| Self::Whole(name, value))
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
    /// Hands the fields of a block to `field`.
    pub(super) fn decode(&mut self, block: &[u8], mut field: impl FnMut(Field<'_>)) -> Result<(), Stop> {
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
                field(Field::new(name, value));
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

    fn entry(&self, index: usize) -> Result<Field<'_>, Stop> {
        let before = index.checked_sub(1).ok_or(Stop::Invalid)?;
        if let Some(&(name, value)) = STATIC_TABLE.get(before) {
            return Ok(Field::Whole(name, value));
        }
        let entry = self.table.get(before - STATIC_TABLE.len());
        Ok(entry.map_or(Field::Missing, |entry| Field::new(entry.name.as_deref(), &entry.value)))
    }

    fn name(&self, index: usize) -> Option<&[u8]> {
        match self.entry(index) {
            Ok(Field::Whole(name, _)) => Some(name),
            _ => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        hex.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn decode_bytes(decoder: &mut Decoder, block: &[u8]) -> (String, Result<(), Stop>) {
        let mut fields = Vec::new();
        let end = decoder.decode(block, |field| {
            let (name, value): (&[u8], &[u8]) = match field {
                Field::Whole(name, value) => (name, value),
                Field::Unnamed(value) => (b"?", value),
                Field::Missing => return fields.push("?".to_owned()),
            };
            fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        });
        (fields.join("\n"), end)
    }

    fn decode(decoder: &mut Decoder, hex: &str) -> String {
        let (fields, end) = decode_bytes(decoder, &bytes(hex));
        assert_eq!(end, Ok(()), "{hex}");
        fields
    }

    /// The dynamic table, newest first, and its size.
    fn table(decoder: &Decoder) -> (Vec<String>, usize) {
        let show = |entry: &Entry| {
            let name = String::from_utf8_lossy(entry.name.as_deref().unwrap_or(b"?"));
            format!("{}: {}", name, String::from_utf8_lossy(&entry.value))
        };
        (decoder.table.iter().map(show).collect(), decoder.size)
    }

    #[test]
    fn reads_integers() {
        // RFC 7541, appendix C.1.
        assert_eq!(Input(&[0x0a]).integer(5), Ok(10));
        assert_eq!(Input(&[0x1f, 0x9a, 0x0a]).integer(5), Ok(1337));
        assert_eq!(Input(&[0x2a]).integer(8 - 1), Ok(42));
        assert_eq!(Input(&[0x1f, 0x9a]).integer(5), Err(Stop::Cut));
        assert_eq!(Input(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]).integer(7), Err(Stop::Invalid));
    }

    #[test]
    fn reads_single_fields() {
        // RFC 7541, appendix C.2.
        let mut decoder = Decoder::default();
        let literal = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
        assert_eq!(decode(&mut decoder, literal), "custom-key: custom-header");
        assert_eq!(table(&decoder), (vec!["custom-key: custom-header".to_owned()], 55));
        decoder.clear();
        assert_eq!(decode(&mut decoder, "040c 2f73 616d 706c 652f 7061 7468"), ":path: /sample/path");
        assert_eq!(decode(&mut decoder, "1008 7061 7373 776f 7264 0673 6563 7265 74"), "password: secret");
        assert_eq!(decode(&mut decoder, "82"), ":method: GET");
        assert_eq!(table(&decoder), (vec![], 0));
    }

    /// RFC 7541, appendices C.3 and C.4: the same requests without and with Huffman code.
    #[test]
    fn reads_the_requests_of_the_rfc() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let huffman = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::default();
            let [first, second, third] = blocks.map(|block| decode(&mut decoder, block));
            assert_eq!(first, ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com");
            assert_eq!(second, first.clone() + "\ncache-control: no-cache");
            assert_eq!(
                third,
                ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value"
            );
            let entries =
                ["custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"];
            assert_eq!(table(&decoder), (entries.map(str::to_owned).to_vec(), 164));
        }
    }

    /// RFC 7541, appendices C.5 and C.6: a table of 256 bytes, which evicts.
    #[test]
    fn reads_the_responses_of_the_rfc() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
             3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
             7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
             6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ];
        let huffman = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder { max_size: 256, ..Decoder::default() };
            let [first, second, third] = blocks.map(|block| decode(&mut decoder, block));
            let rest = "\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com";
            assert_eq!(first, format!(":status: 302{rest}"));
            assert_eq!(second, format!(":status: 307{rest}"));
            assert_eq!(
                third,
                ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
                 location: https://www.example.com\ncontent-encoding: gzip\n\
                 set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
            );
            let entries = [
                "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                "content-encoding: gzip",
                "date: Mon, 21 Oct 2013 20:13:22 GMT",
            ];
            assert_eq!(table(&decoder), (entries.map(str::to_owned).to_vec(), 215));
        }
    }

    #[test]
    fn what_refers_to_a_missing_entry_is_unknown_and_the_rest_is_not() {
        let mut decoder = Decoder::default();
        // Entry 64, a new entry under the name of entry 65, a new entry, then both by index.
        assert_eq!(
            decode(&mut decoder, "c0 7f02 0161 4001 6e01 76 be bf c0"),
            "?\n?: a\nn: v\nn: v\n?: a\n?"
        );
        assert_eq!(decode(&mut decoder, "be 82"), "n: v\n:method: GET");
    }

    #[test]
    fn a_size_update_evicts_and_does_not_exceed_the_limit() {
        let mut decoder = Decoder::default();
        decode(&mut decoder, "4001 6e01 76");
        decode(&mut decoder, "20");
        assert_eq!(table(&decoder), (vec![], 0));
        decode(&mut decoder, "3fe1 ff03");
        assert_eq!(decoder.max_size, MAX_SIZE);
    }

    #[test]
    fn a_cut_block_gives_what_is_whole() {
        let block = bytes("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d");
        for length in 4..block.len() {
            let (fields, end) = decode_bytes(&mut Decoder::default(), &block[..length]);
            assert_eq!((fields.as_str(), end), (":method: GET\n:scheme: http\n:path: /", Err(Stop::Cut)));
        }
        assert_eq!(decode_bytes(&mut Decoder::default(), &[0x80]).1, Err(Stop::Invalid));
    }

    /// Encodes fields as an encoder with a dynamic table does that nothing is evicted from.
    fn encode(table: &mut Vec<(u8, u8)>, fields: &[(u8, u8)]) -> Vec<u8> {
        let mut block = Vec::new();
        for &field in fields {
            let place =
                |found: Option<usize>| found.map(|at| (table.len() - 1 - at + STATIC_TABLE.len() + 1) as u8);
            if let Some(index) = place(table.iter().position(|entry| *entry == field)) {
                block.push(0x80 | index);
                continue;
            }
            match place(table.iter().position(|entry| entry.0 == field.0)) {
                // From 63 on, an index is more than its prefix of six bits holds.
                Some(index) if index >= 63 => block.extend([0x7f, index - 63]),
                Some(index) => block.push(0x40 | index),
                None => block.extend([0x40, 1, field.0]),
            }
            block.extend([1, field.1]);
            table.push(field);
        }
        block
    }

    proptest! {
        /// Who joins late knows less of a field, and never something else.
        #[test]
        fn nothing_wrong_is_read_from_the_middle_on(
            blocks in prop::collection::vec(prop::collection::vec((b'a'..b'e', b'0'..b'5'), 0..5), 1..12),
            start in 0..12usize,
        ) {
            let (mut table, mut whole, mut late) = (Vec::new(), Decoder::default(), Decoder::default());
            for (number, fields) in blocks.iter().enumerate() {
                let block = encode(&mut table, fields);
                let mut read = Vec::new();
                whole.decode(&block, |field| match field {
                    Field::Whole(name, value) => read.push((name[0], value[0])),
                    other => panic!("{other:?}"),
                }).unwrap();
                prop_assert_eq!(&read, fields);
                if number < start {
                    continue;
                }
                let mut told = fields.iter();
                late.decode(&block, |field| {
                    let (name, value) = told.next().unwrap();
                    match field {
                        Field::Whole(its_name, its_value) => assert_eq!((its_name, its_value), (&[*name][..], &[*value][..])),
                        Field::Unnamed(its_value) => assert_eq!(its_value, [*value]),
                        Field::Missing => {}
                    }
                }).unwrap();
                prop_assert!(told.next().is_none());
            }
        }
    }
}

//! The Huffman code of strings (RFC 7541, section 5.2 and appendix B).

/// Bits of the code of each byte. That is the whole code, for it is canonical: in the order of their lengths, and of the
/// bytes among equal lengths, codes count up. The end of string has the last one, and must not occur.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const MIN_BITS: usize = 5;
const MAX_BITS: usize = 30;

struct Code {
    /// The bytes in the order of their codes.
    bytes: [u8; 256],
    /// By the bits of a code: the first code of that length, and where its byte is.
    first: [(u32, usize); MAX_BITS + 1],
    /// By the bits of a code: what 32 bits that begin with it are less than.
    limit: [u32; MAX_BITS + 1],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut built = Self { bytes: [0; 256], first: [(0, 0); MAX_BITS + 1], limit: [0; MAX_BITS + 1] };
        let (mut code, mut index, mut bits) = (0u32, 0, 1);
        while bits <= MAX_BITS {
            code <<= 1;
            built.first[bits] = (code, index);
            let mut byte = 0;
            while byte < LENGTHS.len() {
                if LENGTHS[byte] as usize == bits {
                    built.bytes[index] = byte as u8;
                    index += 1;
                    code += 1;
                }
                byte += 1;
            }
            built.limit[bits] = code << (32 - bits);
            bits += 1;
        }
        built
    }

    /// The byte whose code these 32 bits begin with, and how long that is.
    fn next(&self, window: u32) -> Option<(u8, usize)> {
        let bits = (MIN_BITS..=MAX_BITS).find(|&bits| window < self.limit[bits])?;
        let (code, index) = self.first[bits];
        let nth = (window >> (32 - bits)).checked_sub(code)?;
        Some((*self.bytes.get(index + nth as usize)?, bits))
    }
}

/// Decodes a string into `out`, which is cleared; `None` when it is not in this code.
pub(super) fn decode(encoded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    // The newest `count` bits of `bits` are not decoded yet.
    let (mut bits, mut count) = (0u64, 0usize);
    for &byte in encoded {
        bits = bits << 8 | u64::from(byte);
        count += 8;
        while count >= MIN_BITS {
            let window = (bits << (64 - count) >> 32) as u32;
            match CODE.next(window) {
                Some((byte, length)) if length <= count => {
                    out.push(byte);
                    count -= length;
                }
                None if count >= MAX_BITS => return None,
                _ => break,
            }
        }
    }
    let padding = (1u64 << count) - 1;
    (count < 8 && bits & padding == padding).then_some(())
}

#[cfg(test)]
mod tests {
    use super::decode;

    fn decoded(encoded: &[u8]) -> Option<String> {
        let mut out = vec![1];
        decode(encoded, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn reads_the_examples_of_the_rfc() {
        let encoded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&encoded).as_deref(), Some("www.example.com"));
        assert_eq!(decoded(&[0x64, 0x02]).as_deref(), Some("302"));
        assert_eq!(decoded(&[]).as_deref(), Some(""));
        // Long codes: `\\` has 19 bits.
        assert_eq!(decoded(&[0xff, 0xfe, 0x1f]).as_deref(), Some("\\"));
    }

    #[test]
    fn refuses_wrong_padding_and_the_end_of_string() {
        assert_eq!(decoded(&[0xf1, 0xe3, 0xc2, 0xfe]), None);
        assert_eq!(decoded(&[0x64, 0x02, 0xff]), None);
        assert_eq!(decoded(&[0xff; 4]), None);
        assert_eq!(decoded(&[0xff; 1]), None);
    }
}

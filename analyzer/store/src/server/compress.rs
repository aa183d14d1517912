//! Compression on ClickHouse's HTTP interface: its own block format (`compress=1`, `decompress=1`) and HTTP content encodings.
//!
//! A block is a CityHash128 (v1.0.2) of what follows, a method byte, the compressed size with this 9-byte header (u32 LE),
//! the plain size (u32 LE), and the data. Methods: 0x82 LZ4, 0x90 ZSTD, 0x02 none. Source: ClickHouse's native protocol docs.

use std::io::{Read, Write};

const CHECKSUM: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
const NONE: u8 = 0x02;
/// What one block may hold when unpacked; ClickHouse itself refuses more.
const MAX_BLOCK: usize = 1 << 30;
/// Plain bytes per block that is written, as ClickHouse does.
const BLOCK: usize = 1 << 20;

/// Why compressed bytes were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompressError {
    /// The bytes end inside a block.
    #[error("a compressed block is cut off")]
    Truncated,
    /// The checksum is of other bytes.
    #[error("a compressed block does not match its checksum")]
    Checksum,
    /// A method byte that is not known.
    #[error("unknown compression method 0x{0:02x}")]
    Method(u8),
    /// Sizes that contradict the data, or data that does not unpack.
    #[error("a compressed block does not unpack: {0}")]
    Corrupt(String),
    /// More than the server takes.
    #[error("the unpacked request is larger than {0} bytes")]
    TooLarge(usize),
    /// A `Content-Encoding` that is not known.
    #[error("Content-Encoding {0} is not known: use gzip, deflate, lz4, zstd or none")]
    Encoding(String),
}

/// Unpacks a sequence of blocks onto the end of `out`, up to `limit` bytes in all.
pub fn decode_blocks(mut data: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), CompressError> {
    while !data.is_empty() {
        let (checksum, rest) = data.split_first_chunk::<CHECKSUM>().ok_or(CompressError::Truncated)?;
        let header: &[u8; HEADER] = rest.first_chunk().ok_or(CompressError::Truncated)?;
        let [method, c0, c1, c2, c3, p0, p1, p2, p3] = *header;
        let packed = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        let plain = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        if packed < HEADER {
            return Err(CompressError::Corrupt(format!("its size is {packed}")));
        }
        let (block, next) = rest.split_at_checked(packed).ok_or(CompressError::Truncated)?;
        if block_checksum(block).to_le_bytes() != *checksum {
            return Err(CompressError::Checksum);
        }
        if plain > MAX_BLOCK || out.len().saturating_add(plain) > limit {
            return Err(CompressError::TooLarge(limit));
        }
        unpack(method, block.get(HEADER..).unwrap_or_default(), plain, out)?;
        data = next;
    }
    Ok(())
}

fn unpack(method: u8, body: &[u8], plain: usize, out: &mut Vec<u8>) -> Result<(), CompressError> {
    let start = out.len();
    match method {
        NONE => out.extend_from_slice(body),
        LZ4 => {
            // LZ4 packs at most 255 to 1: a size beyond that lies, and would only cost memory.
            if plain > body.len().saturating_mul(255) {
                return Err(CompressError::Corrupt("its plain size cannot be".into()));
            }
            out.resize(start + plain, 0);
            let target = out.get_mut(start..).unwrap_or_default();
            let n = lz4_flex::block::decompress_into(body, target)
                .map_err(|e| CompressError::Corrupt(e.to_string()))?;
            out.truncate(start + n);
        }
        ZSTD => {
            let decoder = zstd::stream::read::Decoder::new(body).map_err(corrupt)?;
            decoder.take(plain as u64 + 1).read_to_end(out).map_err(corrupt)?;
        }
        other => return Err(CompressError::Method(other)),
    }
    let got = out.len() - start;
    if got == plain {
        Ok(())
    } else {
        Err(CompressError::Corrupt(format!("it holds {got} bytes instead of {plain}")))
    }
}

/// Packs `data` into LZ4 blocks.
pub fn encode_blocks(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 2 + 64);
    for chunk in data.chunks(BLOCK) {
        let start = out.len();
        out.resize(start + CHECKSUM, 0);
        let body = lz4_flex::block::compress(chunk);
        out.push(LZ4);
        // Both fit: a chunk is at most 1 MiB and LZ4 grows it by less than 1 %.
        out.extend_from_slice(&((body.len() + HEADER) as u32).to_le_bytes());
        out.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        out.extend_from_slice(&body);
        let (before, block) = out.split_at_mut(start + CHECKSUM);
        if let Some(checksum) = before.last_chunk_mut::<CHECKSUM>() {
            *checksum = block_checksum(block).to_le_bytes();
        }
    }
    out
}

fn block_checksum(block: &[u8]) -> u128 {
    cityhash_rs::cityhash_102_128(block).rotate_right(64)
}

/// HTTP content encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// zlib, RFC 1950.
    Deflate,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// From the name in a header.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The first encoding of an `Accept-Encoding` header that is known and not refused by `q=0`.
    pub fn accepted(header: &str) -> Option<Self> {
        header.split(',').find_map(|item| {
            let (name, q) = item.split_once(';').unwrap_or((item, ""));
            let refused = matches!(q.trim().strip_prefix("q="), Some(q) if q.parse::<f32>() == Ok(0.0));
            if refused { None } else { Self::from_name(name) }
        })
    }

    /// Unpacks `data`, up to `limit` bytes.
    pub fn decode(self, data: &[u8], limit: usize) -> Result<Vec<u8>, CompressError> {
        let mut out = Vec::new();
        let limited = limit as u64 + 1;
        match self {
            Self::Gzip => flate2::read::MultiGzDecoder::new(data).take(limited).read_to_end(&mut out),
            Self::Deflate => flate2::read::ZlibDecoder::new(data).take(limited).read_to_end(&mut out),
            Self::Lz4 => lz4_flex::frame::FrameDecoder::new(data).take(limited).read_to_end(&mut out),
            Self::Zstd => {
                zstd::stream::read::Decoder::new(data).and_then(|d| d.take(limited).read_to_end(&mut out))
            }
        }
        .map_err(corrupt)?;
        if out.len() > limit { Err(CompressError::TooLarge(limit)) } else { Ok(out) }
    }

    /// Packs `data`.
    pub fn encode(self, data: &[u8]) -> std::io::Result<Vec<u8>> {
        let out = Vec::with_capacity(data.len() / 4 + 64);
        match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(data)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(data)?;
                encoder.finish()
            }
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(data)?;
                encoder.finish().map_err(std::io::Error::other)
            }
            Self::Zstd => zstd::stream::encode_all(data, 1),
        }
    }
}

fn corrupt(e: std::io::Error) -> CompressError {
    CompressError::Corrupt(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 8 << 20;

    #[test]
    fn refuses_what_is_not_a_block() {
        let good = encode_blocks(b"some bytes, some bytes, some bytes");
        let mut out = Vec::new();
        assert_eq!(decode_blocks(&good[..20], &mut out, LIMIT), Err(CompressError::Truncated));
        assert_eq!(decode_blocks(&good[..good.len() - 1], &mut out, LIMIT), Err(CompressError::Truncated));
        let mut bad = good.clone();
        bad[30] ^= 1;
        assert_eq!(decode_blocks(&bad, &mut out, LIMIT), Err(CompressError::Checksum));
        assert_eq!(decode_blocks(&good, &mut out, 10), Err(CompressError::TooLarge(10)));
        assert!(out.is_empty());
    }

    /// A block with a right checksum and whatever sizes are claimed.
    fn forged(method: u8, plain: u32, body: &[u8]) -> Vec<u8> {
        let mut block = vec![method];
        block.extend_from_slice(&((body.len() + HEADER) as u32).to_le_bytes());
        block.extend_from_slice(&plain.to_le_bytes());
        block.extend_from_slice(body);
        [&block_checksum(&block).to_le_bytes()[..], &block].concat()
    }

    #[test]
    fn lying_sizes_are_refused_without_the_memory() {
        let mut out = Vec::new();
        let block = forged(LZ4, 1 << 29, b"\x10a");
        assert!(matches!(decode_blocks(&block, &mut out, usize::MAX), Err(CompressError::Corrupt(_))));
        assert!(out.capacity() < 1024);
        let zeros = zstd::stream::encode_all(&vec![0u8; 1 << 20][..], 1).unwrap();
        let block = forged(ZSTD, 100, &zeros);
        assert!(matches!(decode_blocks(&block, &mut out, usize::MAX), Err(CompressError::Corrupt(_))));
        assert!(out.capacity() < 4096);
        assert_eq!(decode_blocks(&forged(0x11, 0, b""), &mut out, LIMIT), Err(CompressError::Method(0x11)));
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_limit() {
        let bomb = Encoding::Gzip.encode(&vec![0u8; 4 << 20]).unwrap();
        assert_eq!(Encoding::Gzip.decode(&bomb, 1 << 20), Err(CompressError::TooLarge(1 << 20)));
    }

    #[test]
    fn picks_an_accepted_encoding() {
        assert_eq!(Encoding::accepted("br, gzip;q=0, zstd;q=0.5"), Some(Encoding::Zstd));
        assert_eq!(Encoding::accepted("identity"), None);
    }

    proptest! {
        #[test]
        fn blocks_and_encodings_give_back_what_was_packed(data in proptest::collection::vec(0u8..4, 0..5000)) {
            let mut out = Vec::new();
            decode_blocks(&encode_blocks(&data), &mut out, LIMIT).unwrap();
            prop_assert_eq!(&out, &data);
            for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Lz4, Encoding::Zstd] {
                let packed = encoding.encode(&data).unwrap();
                prop_assert_eq!(&encoding.decode(&packed, LIMIT).unwrap(), &data);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_unpacked(method in prop_oneof![Just(LZ4), Just(ZSTD), Just(NONE)],
            plain in 0u32..100_000, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            let _ = decode_blocks(&body, &mut out, LIMIT);
            let _ = decode_blocks(&forged(method, plain, &body), &mut out, LIMIT);
        }
    }
}

//! Compressed bodies: ClickHouse's blocks and the content encodings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_store::server::compress::{Encoding, decode_blocks};

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut out = Vec::new();
    let _ = decode_blocks(data, &mut out, LIMIT);
    assert!(out.len() <= LIMIT);
    for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Lz4, Encoding::Zstd] {
        if let Ok(plain) = encoding.decode(data, LIMIT) {
            assert!(plain.len() <= LIMIT);
        }
    }
});

//! Whatever the bytes of a capture file are, reading it ends, and every frame lies in the buffer.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use wirespan_capture::PacketSource;
use wirespan_capture::pcap_file::{BATCH_FRAMES, FRAME_BYTES_MAX, PcapFile};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut capture) = PcapFile::from_reader(Cursor::new(bytes.to_vec()), "fuzz") else {
        return;
    };
    let mut frames = 0;
    while let Some(batch) = capture.next_batch().expect("a damaged capture is no error") {
        assert!(!batch.is_empty() && batch.len() <= BATCH_FRAMES);
        for frame in batch.frames() {
            assert!(frame.data.len() <= FRAME_BYTES_MAX as usize);
            assert!(frame.wire_len as usize >= frame.data.len());
            frames += 1;
        }
    }
    assert_eq!(capture.stats().received, frames);
});

//! Any text as a taps file: refused with a sentence, or taps that a decoder takes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_dataplane::Taps;
use wirespan_dataplane::decode::{DecodeConfig, Decoder, MirrorConfig};
use wirespan_frame::{Frame, Hints, LinkType};

fuzz_target!(|text: &str| {
    let taps = match Taps::parse(text) {
        Ok(taps) => taps,
        Err(error) => {
            assert!(!error.to_string().contains('\n'));
            return;
        }
    };
    let mirror = MirrorConfig { taps: taps.clone(), interfaces: vec!["eth0".into()] };
    let mut decoder = Decoder::new(DecodeConfig { mirror, ..DecodeConfig::default() });
    let data = text.as_bytes();
    let frame = Frame {
        data,
        wire_len: data.len() as u32,
        ts_ns: 1,
        link: LinkType::Ethernet,
        port: 0,
        hints: Hints::default(),
    };
    if let Ok(packet) = decoder.decode(&frame) {
        assert!(packet.tap == 0 || taps.get(packet.tap).is_some());
    }
});

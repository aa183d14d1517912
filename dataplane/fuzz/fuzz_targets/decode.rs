//! A capture of any bytes through one decoder: a byte for the link type, then frames, each behind its length (1 byte).

#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_dataplane::decode::{DecodeConfig, Decoder, FragmentLimits};
use wirespan_frame::{Frame, Hints, LinkType};
use wirespan_records::{DropReason, Drops};

const LINKS: [LinkType; 7] = [
    LinkType::Ethernet,
    LinkType::RawIp,
    LinkType::Null,
    LinkType::Loop,
    LinkType::LinuxSll,
    LinkType::LinuxSll2,
    LinkType::Other(7),
];

fuzz_target!(|data: &[u8]| {
    let Some((&link, mut data)) = data.split_first() else { return };
    let limits = FragmentLimits { datagrams_max: 8, bytes_max: 16 << 10, ..FragmentLimits::default() };
    let mut decoder = Decoder::new(DecodeConfig { fragments: limits, ..DecodeConfig::default() });
    let (mut frames, mut packets, mut drops) = (0, 0, Drops::default());
    while let Some((&len, rest)) = data.split_first() {
        let (bytes, rest) = rest.split_at(rest.len().min(len as usize));
        data = rest;
        frames += 1;
        let frame = Frame {
            data: bytes,
            wire_len: bytes.len() as u32,
            ts_ns: frames * 1_000_000_000,
            link: LINKS[link as usize % LINKS.len()],
            port: 0,
            hints: Hints::default(),
        };
        match decoder.decode(&frame) {
            Ok(packet) => {
                packets += 1;
                assert!(packet.payload.len() <= packet.l4_len as usize);
                assert!(packet.l4_len <= packet.l3_len);
                assert!(packet.wire_len as usize >= bytes.len());
            }
            Err(reason) => drops.count(reason),
        }
    }
    decoder.finish();
    assert_eq!(frames, packets + drops.total());
    assert!(decoder.lost_fragments() <= drops.get(DropReason::Fragment));
});

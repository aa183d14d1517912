//! Whatever a frame's bytes are, finding its hash ends, and a flow always has one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_capture::spread::inner_hash;
use wirespan_capture::{Frame, Hints, LinkType};

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (link, cut, data) = input;
    let links = [
        LinkType::Ethernet,
        LinkType::RawIp,
        LinkType::LinuxSll,
        LinkType::LinuxSll2,
        LinkType::Null,
        LinkType::Loop,
        LinkType::Other(9),
    ];
    let link = links[usize::from(link) % links.len()];
    let wire_len = data.len() as u32 + u32::from(cut);
    let frame = Frame { data, wire_len, ts_ns: 1, link, port: 0, hints: Hints::default() };
    let found = inner_hash(&frame, 1);
    assert_eq!(found.hash != 0, found.is_flow);
    assert_eq!(inner_hash(&frame, 1), found);
});

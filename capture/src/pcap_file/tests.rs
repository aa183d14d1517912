use std::io::{Cursor, Write};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use wirespan_frame::LinkType;

use super::*;

/// A frame as read, for comparison.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    ts_ns: u64,
    wire_len: u32,
    link: LinkType,
    port: u16,
    data: Vec<u8>,
}

fn read_all(bytes: impl Into<Vec<u8>>) -> (Vec<Read>, Vec<(Unreadable, u64)>) {
    let mut capture = PcapFile::from_reader(Cursor::new(bytes.into()), "test").unwrap();
    let mut frames = Vec::new();
    while let Some(batch) = capture.next_batch().unwrap() {
        assert!(!batch.is_empty() && batch.len() <= BATCH_FRAMES);
        frames.extend(batch.frames().map(|frame| Read {
            ts_ns: frame.ts_ns,
            wire_len: frame.wire_len,
            link: frame.link,
            port: frame.port,
            data: frame.data.to_vec(),
        }));
    }
    let stats = capture.stats();
    assert_eq!(stats.received, frames.len() as u64);
    (frames, stats.unreadable)
}

fn ethernet(ts_ns: u64, data: &[u8]) -> Read {
    Read { ts_ns, wire_len: data.len() as u32, link: LinkType::Ethernet, port: 0, data: data.to_vec() }
}

fn written(link: LinkType, resolution: Resolution, frames: &[Read]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), link, resolution).unwrap();
    for frame in frames {
        writer.write(frame.ts_ns, frame.wire_len, &frame.data).unwrap();
    }
    writer.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Builds pcapng blocks in either byte order.
struct Blocks {
    big: bool,
    bytes: Vec<u8>,
}

impl Blocks {
    fn section(big: bool) -> Self {
        let mut blocks = Self { big, bytes: Vec::new() };
        blocks.begin_section();
        blocks
    }

    fn begin_section(&mut self) {
        let body = [self.u32(BYTE_ORDER_MAGIC).as_slice(), &self.u16(1), &self.u16(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body);
    }

    fn u16(&self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let padded = body.len().next_multiple_of(4);
        let len = self.u32(padded as u32 + 12);
        self.bytes.extend(self.u32(kind));
        self.bytes.extend(len);
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len() + padded - body.len(), 0);
        self.bytes.extend(len);
    }

    fn interface(&mut self, link: u16, snap_len: u32, options: &[(u16, &[u8])]) {
        let mut body = [self.u16(link), self.u16(0)].concat();
        body.extend(self.u32(snap_len));
        for (code, value) in options {
            body.extend(self.u16(*code));
            body.extend(self.u16(value.len() as u16));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body);
    }

    fn packet(&mut self, interface: u32, ticks: u64, wire_len: u32, data: &[u8]) {
        let fields = [interface, (ticks >> 32) as u32, ticks as u32, data.len() as u32, wire_len];
        let mut body: Vec<u8> = fields.iter().flat_map(|field| self.u32(*field)).collect();
        body.extend(data);
        self.block(6, &body);
    }
}

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

#[test]
fn reads_both_resolutions() {
    let frames = [ethernet(1_700_000_000_123_456_789, b"one"), ethernet(1_700_000_001_000_000_001, b"")];
    let (read, unreadable) = read_all(written(LinkType::Ethernet, Resolution::Nanoseconds, &frames));
    assert_eq!((read.as_slice(), unreadable), (frames.as_slice(), vec![]));
    let (read, _) = read_all(written(LinkType::Ethernet, Resolution::Microseconds, &frames));
    assert_eq!(read[0].ts_ns, 1_700_000_000_123_456_000);
}

#[test]
fn reads_a_big_endian_capture() {
    let mut bytes = Vec::new();
    for field in [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 65535, 0x0400_0000 | 101, 7, 5, 2, 60] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend([0x45, 0]);
    let (read, unreadable) = read_all(bytes);
    let expected =
        Read { ts_ns: 7_000_005_000, wire_len: 60, link: LinkType::RawIp, port: 0, data: vec![0x45, 0] };
    assert_eq!((read, unreadable), (vec![expected], vec![]));
}

#[test]
fn reads_the_modified_format() {
    let mut bytes = Vec::new();
    for field in [0xa1b2_cd34u32, 2 | 4 << 16, 0, 0, 65535, 1, 7, 5, 3, 3, 2, 0x0800] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(b"abc");
    assert_eq!(read_all(bytes), (vec![ethernet(7_000_005_000, b"abc")], vec![]));
}

#[test]
fn a_wire_length_below_the_captured_length_is_raised() {
    let mut frame = ethernet(0, b"abcd");
    frame.wire_len = 1;
    let (read, _) = read_all(written(LinkType::Ethernet, Resolution::Nanoseconds, &[frame]));
    assert_eq!(read, [ethernet(0, b"abcd")]);
}

#[test]
fn records_that_a_chunk_cuts_are_whole() {
    let frames: Vec<_> =
        (0..3000u64).map(|i| ethernet(i, &vec![i as u8; (i as usize * 37) % 1500])).collect();
    let bytes = written(LinkType::Ethernet, Resolution::Nanoseconds, &frames);
    assert!(bytes.len() > 3 * CHUNK_BYTES);
    assert_eq!(read_all(bytes), (frames, vec![]));
}

#[test]
fn a_frame_longer_than_a_chunk_is_whole() {
    let frames = [ethernet(1, b"a"), ethernet(2, &vec![7; FRAME_BYTES_MAX as usize]), ethernet(3, b"b")];
    let bytes = written(LinkType::Ethernet, Resolution::Nanoseconds, &frames);
    assert_eq!(read_all(bytes), (frames.to_vec(), vec![]));
}

#[test]
fn gzip_is_read_also_in_several_members() {
    let frames = [ethernet(1, b"one"), ethernet(2, b"two")];
    let bytes = written(LinkType::Ethernet, Resolution::Nanoseconds, &frames);
    let (head, tail) = bytes.split_at(30);
    let zipped = [gzip(head), gzip(tail)].concat();
    assert_eq!(read_all(zipped.as_slice()), (frames.to_vec(), vec![]));
    let (read, unreadable) = read_all(&zipped[..zipped.len() - 9]);
    assert!(frames.starts_with(&read));
    assert_eq!(unreadable, [(Unreadable::CorruptGzip, 1)]);
}

#[test]
fn pcapng_in_both_byte_orders_with_interfaces_and_sections() {
    for big in [false, true] {
        let mut blocks = Blocks::section(big);
        blocks.interface(1, 0, &[]);
        blocks.interface(101, 0, &[(2, b"eth0x"), (9, &[9])]);
        blocks.block(5, &[0; 12]);
        blocks.packet(1, 1_700_000_000_000_000_001, 90, &[0x45; 5]);
        blocks.packet(0, 1_700_000_000_000_001, 3, b"abc");
        blocks.big = !big;
        blocks.begin_section();
        blocks.interface(113, 0, &[]);
        blocks.packet(0, 4, 1, b"x");
        let (read, unreadable) = read_all(blocks.bytes);
        let expected = [
            Read {
                ts_ns: 1_700_000_000_000_000_001,
                wire_len: 90,
                link: LinkType::RawIp,
                port: 1,
                data: vec![0x45; 5],
            },
            ethernet(1_700_000_000_000_001_000, b"abc"),
            Read { ts_ns: 4_000, wire_len: 1, link: LinkType::LinuxSll, port: 2, data: b"x".to_vec() },
        ];
        assert_eq!((read.as_slice(), unreadable), (expected.as_slice(), vec![]));
    }
}

#[test]
fn interfaces_of_several_files_are_known_by_their_names() {
    for big in [false, true] {
        let mut blocks = Blocks::section(big);
        blocks.interface(1, 0, &[]);
        blocks.interface(1, 0, &[(9, &[9]), (2, b"eth1")]);
        blocks.interface(1, 0, &[(2, b"NPF_{4A5B}"), (3, b"core uplink")]);
        (0..3).for_each(|interface| blocks.packet(interface, 1, 1, b"x"));
        let ports = |place, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let file = PcapFile::from_reader(io::Cursor::new(blocks.bytes.clone()), "test").unwrap();
            let mut file = file.nth_of(place, &names);
            let batch = file.next_batch().unwrap().unwrap();
            batch.frames().map(|frame| frame.port).collect::<Vec<_>>()
        };
        assert_eq!(ports(0, &["a.pcapng"]), [0, 0, 0]);
        assert_eq!(ports(1, &["a.pcapng", "b.pcapng", "core uplink", "eth1"]), [1, 3, 2]);
        assert_eq!(ports(70_000, &[]), [u16::MAX; 3]);
    }
}

#[test]
fn pcapng_time_stamps_in_every_resolution() {
    let offset = 1_700_000_000i64.to_le_bytes();
    let hostile = i64::MIN.to_le_bytes();
    type Options<'a> = &'a [(u16, &'a [u8])];
    let cases: [(Options, u64, u64); 8] = [
        (&[(9, &[0])], 3, 3_000_000_000),
        (&[(9, &[3])], 3, 3_000_000),
        (&[(9, &[12])], 3_000, 3),
        (&[(9, &[127])], u64::MAX - 1, 0),
        (&[(9, &[0x80 | 10])], 1024 + 512, 1_500_000_000),
        (&[(9, &[0xff])], u64::MAX, 0),
        (&[(14, &offset)], 2, 1_700_000_000_000_002_000),
        (&[(14, &hostile)], 2, 0),
    ];
    for (options, ticks, expected) in cases {
        let mut blocks = Blocks::section(false);
        blocks.interface(1, 0, options);
        blocks.packet(0, ticks, 1, b"x");
        assert_eq!(read_all(blocks.bytes).0, [ethernet(expected, b"x")], "{options:?}");
    }
}

#[test]
fn pcapng_simple_and_obsolete_packets() {
    let mut blocks = Blocks::section(false);
    blocks.interface(1, 4, &[]);
    blocks.block(3, b"\x0a\0\0\0abcd");
    blocks.block(3, b"\x02\0\0\0ab");
    let mut obsolete = vec![0, 0, 9, 9];
    obsolete.extend([0u32, 5, 2, 3].iter().flat_map(|field| field.to_le_bytes()));
    obsolete.extend(b"xy");
    blocks.block(2, &obsolete);
    let (read, unreadable) = read_all(blocks.bytes);
    let cut = |ts_ns, wire_len, data| Read { wire_len, ..ethernet(ts_ns, data) };
    assert_eq!(read, [cut(0, 10, b"abcd"), cut(0, 2, b"ab"), cut(5_000, 3, b"xy")]);
    assert_eq!(unreadable, []);
}

#[test]
fn pcapng_damage_is_counted_and_passed_over() {
    let mut blocks = Blocks::section(false);
    blocks.packet(0, 1, 1, b"no interface");
    blocks.interface(1, 0, &[]);
    blocks.block(6, b"short");
    blocks.block(1, b"x");
    // An enhanced packet that states more bytes than its block holds.
    blocks.block(6, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 99, 0, 0, 0, 1]);
    blocks.packet(0, 0, 0, &vec![1; FRAME_BYTES_MAX as usize + 1]);
    blocks.packet(0, 0, 0, &vec![1; 8 << 20]);
    // Long, but of no interest.
    blocks.block(0x0bad, &vec![1; 8 << 20]);
    blocks.packet(0, 1, 1, b"x");
    let (read, unreadable) = read_all(blocks.bytes);
    assert_eq!(read, [ethernet(1_000, b"x")]);
    assert_eq!(
        unreadable,
        [(Unreadable::OversizedFrame, 2), (Unreadable::MalformedBlock, 3), (Unreadable::UnknownInterface, 1)]
    );
}

#[test]
fn an_interface_that_cannot_be_read_keeps_its_number() {
    for unreadable in [&b"x"[..], &vec![1; 8 << 20]] {
        let mut blocks = Blocks::section(false);
        blocks.interface(1, 0, &[]);
        blocks.block(1, unreadable);
        blocks.interface(101, 0, &[(9, &[9])]);
        (0..3).for_each(|interface| blocks.packet(interface, 5, 1, b"E"));
        let (read, counted) = read_all(blocks.bytes);
        let raw = Read { ts_ns: 5, wire_len: 1, link: LinkType::RawIp, port: 2, data: b"E".to_vec() };
        assert_eq!(read, [ethernet(5_000, b"E"), raw]);
        assert_eq!(counted, [(Unreadable::MalformedBlock, 1), (Unreadable::UnknownInterface, 1)]);
    }
}

#[test]
fn what_cannot_be_followed_ends_the_capture() {
    let mut classic = written(LinkType::Ethernet, Resolution::Nanoseconds, &[ethernet(1, b"x")]);
    classic.extend([0xff; 16]);
    assert_eq!(read_all(classic), (vec![ethernet(1, b"x")], vec![(Unreadable::AbsurdLength, 1)]));

    let mut blocks = Blocks::section(false);
    blocks.bytes.extend([6, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(read_all(blocks.bytes), (vec![], vec![(Unreadable::AbsurdLength, 1)]));

    let mut blocks = Blocks::section(false);
    blocks.block(0x0a0d_0d0a, &[9; 16]);
    assert_eq!(read_all(blocks.bytes), (vec![], vec![(Unreadable::UnknownSection, 1)]));
}

#[test]
fn a_cut_tail_is_counted_once() {
    let whole = written(LinkType::Ethernet, Resolution::Nanoseconds, &[ethernet(1, b"x"), ethernet(2, b"y")]);
    for len in 42..whole.len() {
        let (read, unreadable) = read_all(&whole[..len]);
        assert_eq!(read, [ethernet(1, b"x")]);
        assert_eq!(unreadable, [(Unreadable::Truncated, 1)]);
    }
    assert_eq!(read_all(&whole[..7]), (vec![], vec![(Unreadable::Truncated, 1)]));
    assert_eq!(read_all([]), (vec![], vec![(Unreadable::EmptyFile, 1)]));
    assert_eq!(read_all(gzip(&[])), (vec![], vec![(Unreadable::EmptyFile, 1)]));
}

#[test]
fn errors_say_what_to_do() {
    let text = |result: Result<PcapFile, CaptureError>| result.err().unwrap().to_string();
    insta::assert_snapshot!(
        text(PcapFile::from_reader(Cursor::new("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "notes.txt")),
        @"notes.txt is not a capture file; give a pcap or pcapng file (gzip is fine)"
    );
    insta::assert_snapshot!(
        text(PcapFile::from_reader(Cursor::new("x"), "notes.txt")),
        @"notes.txt is not a capture file; give a pcap or pcapng file (gzip is fine)"
    );
    insta::assert_snapshot!(
        text(PcapFile::open("no-such-folder/x.pcap")),
        @"cannot open the capture file no-such-folder/x.pcap: No such file or directory (os error 2); check the path and its permissions"
    );
}

fn drain(bytes: Vec<u8>) {
    if let Ok(mut capture) = PcapFile::from_reader(Cursor::new(bytes), "test") {
        while let Some(batch) = capture.next_batch().unwrap() {
            assert!(batch.frames().all(|frame| frame.wire_len as usize >= frame.data.len()));
        }
    }
}

proptest! {
    #[test]
    fn written_captures_read_back_equal(
        frames in prop::collection::vec((0..=u64::from(u32::MAX) * 1_000_000_000, 0..2000u32, prop::collection::vec(any::<u8>(), 0..300)), 0..600),
        zipped: bool,
    ) {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|(ts_ns, more, data)| Read { wire_len: data.len() as u32 + more, ..ethernet(ts_ns, &data) })
            .collect();
        let bytes = written(LinkType::Ethernet, Resolution::Nanoseconds, &frames);
        let bytes = if zipped { gzip(&bytes) } else { bytes };
        prop_assert_eq!(read_all(bytes), (frames, vec![]));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), start in 0..6usize) {
        let magics: [&[u8]; 6] = [
            b"",
            b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\xff\xff\0\0\x01\0\0\0",
            b"\xa1\xb2\xcd\x34\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\x01",
            b"\x0a\x0d\x0d\x0a",
            b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0",
            b"\x1f\x8b",
        ];
        drain([magics[start], bytes.as_slice()].concat());
    }

    #[test]
    fn a_damaged_pcapng_never_panics(at in 0..400usize, value: u8, cut in 0..400usize) {
        let mut blocks = Blocks::section(false);
        blocks.interface(1, 0, &[(9, &[9])]);
        for i in 0..6 {
            blocks.packet(0, i, 60, &[i as u8; 21]);
        }
        blocks.block(3, b"\x02\0\0\0ab");
        let mut bytes = blocks.bytes;
        let (at, len) = (at % bytes.len(), bytes.len());
        bytes[at] = value;
        bytes.truncate(len - cut % len);
        drain(bytes);
    }
}

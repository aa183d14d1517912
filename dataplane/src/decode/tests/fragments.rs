//! Fragments: put together, given up, overlapping.

use super::*;
use DropReason::{Fragment as Waits, FragmentLost as Lost, FragmentOverlap as Overlap, Malformed};

const SECOND: u64 = 1_000_000_000;

/// The UDP datagram that is cut into fragments: 40 bytes with its header.
fn datagram() -> Vec<u8> {
    udp(1000, 2000, b"0123456789abcdef0123456789ABCDEF")
}

/// An IPv4 fragment of `bytes` at `offset`.
fn v4(offset: u16, more: bool, bytes: &[u8]) -> Vec<u8> {
    ipv4_fragment(offset, more, 17, bytes)
}

/// An IPv6 fragment of `bytes` at `offset`.
fn v6(offset: u16, more: bool, bytes: &[u8]) -> Vec<u8> {
    ipv6_fragment(77, offset, more, 17, bytes)
}

/// How a fragment is built.
type Build = fn(u16, bool, &[u8]) -> Vec<u8>;

/// Destination port, wire length and payload of a packet.
type Told = (u16, u32, Vec<u8>);

/// A decoder and what it returned.
struct Seen {
    decoder: Decoder,
    results: Vec<Result<Told, DropReason>>,
}

impl Seen {
    fn new(limits: FragmentLimits) -> Self {
        let config = DecodeConfig { fragments: limits, ..DecodeConfig::default() };
        Self { decoder: Decoder::new(config), results: Vec::new() }
    }

    fn at(&mut self, ts_ns: u64, data: &[u8]) -> &mut Self {
        let frame = Frame { ts_ns, ..frame_of(LinkType::RawIp, data) };
        let result = self.decoder.decode(&frame);
        self.results.push(result.map(|p| (p.dst_port, p.wire_len, p.payload.to_vec())));
        self
    }

    fn fragments(build: Build, fragments: &[(u16, bool, &[u8])]) -> Self {
        let mut seen = Self::new(FragmentLimits::default());
        for &(offset, more, bytes) in fragments {
            seen.at(0, &build(offset, more, bytes));
        }
        seen
    }

    /// The packet that the last frame gave.
    fn packet(&self) -> &Told {
        self.results.last().unwrap().as_ref().unwrap()
    }

    /// Why no frame gave a packet.
    fn reasons(&self) -> Vec<DropReason> {
        self.results.iter().map(|result| *result.as_ref().unwrap_err()).collect()
    }

    fn lost(&mut self) -> u64 {
        self.decoder.finish();
        self.decoder.lost_fragments()
    }
}

#[test]
fn the_last_to_come_gives_the_packet() {
    let bytes = datagram();
    for (build, header) in [(v4 as Build, 20), (v6 as Build, 48)] {
        let mut seen = Seen::fragments(
            build,
            &[(32, false, &bytes[32..]), (0, true, &bytes[..16]), (16, true, &bytes[16..32])],
        );
        assert_eq!(seen.packet(), &(2000, 3 * header + 40, bytes[8..].to_vec()));
        assert_eq!(seen.results[..2], [Err(Waits), Err(Waits)]);
        assert_eq!(seen.lost(), 0);
    }
}

#[test]
fn a_datagram_put_together_may_carry_a_tunnel_with_fragments() {
    let bytes = datagram();
    let inner = [v4(0, true, &bytes[..24]), v4(24, false, &bytes[24..])];
    let mut seen = Seen::new(FragmentLimits::default());
    for inner in &inner {
        seen.at(0, &ipv4_fragment(0, true, 4, &inner[..32]));
        seen.at(0, &ipv4_fragment(32, false, 4, &inner[32..]));
    }
    assert_eq!(seen.packet().2, bytes[8..]);
    assert_eq!(seen.results[..3], [Err(Waits), Err(Waits), Err(Waits)]);
}

#[test]
fn only_fragments_of_the_same_datagram_belong_together() {
    let bytes = datagram();
    let mut other = v4(16, false, &bytes[16..]);
    other[5] = 0x35;
    let mut seen = Seen::new(FragmentLimits::default());
    seen.at(0, &v4(0, true, &bytes[..16])).at(0, &other);
    let mut other = v4(16, false, &bytes[16..]);
    other[15] = 9;
    seen.at(0, &other).at(0, &ipv4_fragment(16, false, 6, &bytes[16..]));
    assert_eq!(seen.reasons(), [Waits; 4]);
    assert_eq!(seen.lost(), 4);
}

#[test]
fn duplicates_are_absorbed() {
    let bytes = datagram();
    for build in [v4 as Build, v6] {
        let seen = Seen::fragments(
            build,
            &[
                (0, true, &bytes[..16]),
                (0, true, &bytes[..16]),
                (8, true, &bytes[8..16]),
                (16, false, &bytes[16..]),
            ],
        );
        assert_eq!(seen.packet().2, bytes[8..]);
        assert_eq!(seen.results[..3], [Err(Waits), Err(Waits), Err(Waits)]);
    }
}

#[test]
fn of_different_duplicates_the_first_stays() {
    let bytes = datagram();
    let seen =
        Seen::fragments(v4, &[(0, true, &bytes[..16]), (8, true, b"evasive!"), (16, false, &bytes[16..])]);
    assert_eq!(seen.results[1], Err(Overlap));
    assert_eq!(seen.packet().2, bytes[8..]);
}

#[test]
fn an_overlap_spoils_the_datagram() {
    let bytes = datagram();
    for build in [v4 as Build, v6] {
        let mut seen = Seen::fragments(
            build,
            &[
                (0, true, &bytes[..16]),
                (8, true, &bytes[8..24]),
                (24, false, &bytes[24..]),
                (16, true, &bytes[16..24]),
            ],
        );
        assert_eq!(seen.reasons(), [Waits, Overlap, Overlap, Overlap]);
        assert_eq!(seen.lost(), 1);
    }
}

#[test]
fn one_that_spans_a_hole_and_its_neighbours_overlaps() {
    let bytes = datagram();
    let mut seen =
        Seen::fragments(v4, &[(0, true, &bytes[..8]), (16, true, &bytes[16..24]), (0, true, &bytes[..24])]);
    assert_eq!(seen.reasons(), [Waits, Waits, Overlap]);
    assert_eq!(seen.lost(), 2);
}

#[test]
fn disagreeing_on_the_end_spoils_the_datagram() {
    let bytes = datagram();
    let ends: [&[(u16, bool, &[u8])]; 3] = [
        &[(16, false, &bytes[16..]), (16, false, &bytes[16..32])],
        &[(16, false, &bytes[16..32]), (32, true, &bytes[32..])],
        &[(32, true, &bytes[32..]), (16, false, &bytes[16..32])],
    ];
    for fragments in ends {
        assert_eq!(Seen::fragments(v4, fragments).reasons(), [Waits, Overlap]);
    }
}

#[test]
fn lengths_that_cannot_be_are_malformed() {
    for build in [v4 as Build, v6] {
        let seen = Seen::fragments(
            build,
            &[(8, false, b""), (0, true, b""), (0, true, b"not a multiple"), (65528, false, b"too far")],
        );
        assert_eq!(seen.reasons()[..3], [Malformed; 3]);
        assert_eq!(seen.reasons()[3], Waits);
        let beyond = Seen::fragments(build, &[(65528, false, b"much too far")]);
        assert_eq!(beyond.reasons(), [Malformed]);
    }
}

#[test]
fn a_cut_first_fragment_is_a_packet_of_its_own() {
    let bytes = datagram();
    for build in [v4 as Build, v6] {
        let first = build(0, true, &bytes[..32]);
        let last = build(32, false, &bytes[32..]);
        let mut seen = Seen::new(FragmentLimits::default());
        seen.at(0, &last[..last.len() - 1]).at(0, &first[..first.len() - 8]);
        assert_eq!(seen.packet(), &(2000, first.len() as u32 - 8, bytes[8..24].to_vec()));
        assert_eq!(seen.results[0], Err(Lost));
        assert_eq!(seen.lost(), 0);
    }
}

#[test]
fn gives_up_after_the_timeout_and_when_the_clock_jumps() {
    let bytes = datagram();
    let base = 100 * SECOND;
    for later in [base + 31 * SECOND, base - 31 * SECOND, u64::MAX, 0] {
        let mut seen = Seen::new(FragmentLimits::default());
        seen.at(base, &v4(0, true, &bytes[..16])).at(later, &v4(16, false, &bytes[16..]));
        assert_eq!(seen.reasons(), [Waits, Waits]);
        assert_eq!(seen.decoder.lost_fragments(), 1);
        assert_eq!(seen.decoder.lost_fragments(), 0);
        assert_eq!(seen.lost(), 1);
    }
    let mut seen = Seen::new(FragmentLimits::default());
    seen.at(base, &v4(0, true, &bytes[..16])).at(base - 5 * SECOND, &v4(16, false, &bytes[16..]));
    assert_eq!(seen.packet().2, bytes[8..]);
}

#[test]
fn the_oldest_make_room() {
    let bytes = datagram();
    let numbered = |id: u8, offset: u16, more: bool, bytes: &[u8]| {
        let mut data = v4(offset, more, bytes);
        data[5] = id;
        data
    };
    let few = FragmentLimits { datagrams_max: 2, ..FragmentLimits::default() };
    let small = FragmentLimits { bytes_max: 2000, ..FragmentLimits::default() };
    for limits in [few, small] {
        let mut seen = Seen::new(limits);
        for id in 0..4 {
            seen.at(0, &numbered(id, 0, true, &bytes[..16]));
        }
        assert!(seen.decoder.lost_fragments() >= 1);
        seen.at(0, &numbered(3, 16, false, &bytes[16..]));
        assert_eq!(seen.packet().2, bytes[8..]);
        seen.at(0, &numbered(0, 16, false, &bytes[16..]));
        assert_eq!(seen.results.last(), Some(&Err(Waits)));
    }
}

#[test]
fn bounds_the_pieces_of_a_datagram() {
    let mut seen = Seen::new(FragmentLimits::default());
    for piece in 0..2049 {
        seen.at(0, &v4(piece * 16, true, &[0; 8]));
    }
    assert_eq!(seen.results.last(), Some(&Err(Lost)));
    assert_eq!(seen.decoder.lost_fragments(), 2048);
}

//! Drives one parser with arbitrary segments and holes, for property tests and fuzz targets.

use crate::engine::{Chunk, Config, Engine, FlowContext, Side};
use crate::stream::Stream;
use wirespan_records::{Endpoint, L4Protocol, L7Counts, L7Protocol, ObservationPoint, Session, Signal, Span};

/// A connection between two made-up endpoints, client at side A.
pub fn flow(l4: L4Protocol) -> FlowContext {
    FlowContext {
        flow_id: 1,
        endpoints: [
            Endpoint { ip: [10, 0, 0, 1].into(), port: 40_000 },
            Endpoint { ip: [10, 0, 0, 2].into(), port: 80 },
        ],
        l4,
        tunnel: None,
        tap: 0,
        netns: 0,
        signal: Signal::Packet,
        observation_point: ObservationPoint::Rest,
        client: None,
    }
}

/// Reads `input` as a script (a control byte, then payload) and feeds it to the parser of `protocol`, or, when that is
/// `None`, to detection. Gives the spans and panics when an invariant of the engine does not hold.
pub fn script(protocol: Option<L7Protocol>, l4: L4Protocol, input: &[u8]) -> Vec<Span> {
    let config = Config { max_buffer: 4096, obfuscate: input.len() % 2 == 1, ..Config::default() };
    let limit = 2 * config.max_buffer;
    let mut engine = Engine::new(config);
    let flow = flow(l4);
    let (mut stream, mut counts, mut spans) = (Stream::default(), L7Counts::default(), Vec::new());
    if let Some(protocol) = protocol {
        engine.assume(&mut stream, protocol, Side::A);
    }
    let (mut rest, mut ts_ns, mut seq) = (input, 0u64, [0u32; 2]);
    while let Some((&control, tail)) = rest.split_first() {
        ts_ns += 1_000;
        let side = if control & 1 == 0 { Side::A } else { Side::B };
        // Lengths from 1 to 2048 in powers of two, so that short inputs still make many segments.
        let len = (1usize << (control >> 4 & 0xb)).min(tail.len());
        let (data, tail) = tail.split_at(len);
        if control & 2 != 0 && control & 4 != 0 {
            engine.gap(&mut stream, &flow, side, u64::from(control), &mut counts, &mut spans);
        }
        if !data.is_empty() {
            let chunk = Chunk { data, ts_ns, seq: Some(seq[side as usize]), stream_start: ts_ns == 1_000 };
            engine.data(&mut stream, &flow, side, chunk, &mut counts, &mut spans);
            seq[side as usize] = seq[side as usize].wrapping_add(len as u32);
        }
        assert!(engine.buffered() <= limit, "{} bytes buffered", engine.buffered());
        rest = tail;
    }
    engine.close(&mut stream, &flow, &mut counts, &mut spans);
    assert_eq!(engine.buffered(), 0, "bytes still buffered after close");
    let requests = spans.iter().filter(|span| span.session != Session::ResponseOnly).count();
    assert_eq!(counts.request as usize, requests);
    assert!(spans.iter().all(|span| span.end_ns >= span.start_ns));
    spans
}

/// Feeds whole segments in turn through detection: `(side, bytes)`, 1 ms apart. For tests of parsers.
pub fn segments(l4: L4Protocol, config: Config, segments: &[(Side, &[u8])]) -> Vec<Span> {
    segments_of(&flow(l4), config, segments)
}

/// Like [`segments`], on a flow of one's own.
pub fn segments_of(flow: &FlowContext, config: Config, segments: &[(Side, &[u8])]) -> Vec<Span> {
    let mut engine = Engine::new(config);
    let (mut stream, mut counts, mut spans) = (Stream::default(), L7Counts::default(), Vec::new());
    let mut seq = [1_000u32, 5_000];
    for (index, (side, data)) in segments.iter().enumerate() {
        let ts_ns = (index as u64 + 1) * 1_000_000;
        let stream_start = !segments[..index].iter().any(|(before, _)| before == side);
        let chunk = Chunk { data, ts_ns, seq: Some(seq[*side as usize]), stream_start };
        engine.data(&mut stream, flow, *side, chunk, &mut counts, &mut spans);
        seq[*side as usize] = seq[*side as usize].wrapping_add(data.len() as u32);
    }
    engine.close(&mut stream, flow, &mut counts, &mut spans);
    spans
}

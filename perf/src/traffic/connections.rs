//! TCP connections that never end: so many at the same time, visited in turn, replaced by new ones at a rate.
//!
//! Each connection is a handshake and then segments of client and server in turn, in order, with right checksums. Where
//! there is room, they are HTTP requests and responses, unless data is to be opaque; smaller ones are empty ACKs. `bpf/programs/generate.bpf.c` makes
//! the same frames in the kernel.

use super::tunnel::Tunnel;
use anyhow::bail;
use wirespan_bpf::generate::{FRAME_MAX, KINDS, STEPS, Settings, Template};

pub(super) const ETHERNET: usize = 14;
pub(super) const IP: usize = 20;
const TCP: usize = 20;
const HEADERS: usize = ETHERNET + IP + TCP;
/// Shortest Ethernet frame, without its checksum.
pub const FRAME_MIN: usize = 60;
/// With less room for payload, segments are empty.
const MESSAGE_MIN: usize = 64;

const FLAGS: [u8; KINDS] = [0x02, 0x12, 0x10, 0x18, 0x18];

/// What the connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a frame with data, as it is captured: without the Ethernet checksum, and without a tunnel's headers.
    pub size: usize,
    /// Connections at the same time.
    pub flows: u32,
    /// One is replaced by a new one on each Nth frame; 0 for never.
    pub new_every: u32,
    /// What they are in.
    pub tunnel: Tunnel,
    /// Data is nothing that is understood, as of a backup or a tunnel.
    pub opaque: bool,
}

/// An endless source of frames, the same in each run.
pub struct Connections {
    settings: Settings,
    templates: Box<[Template; KINDS]>,
    slots: Vec<Slot>,
    slot: u32,
    visited: u32,
    round: u32,
    next_flow: u32,
    until_new: u32,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    flow: u32,
    frames: u32,
}

impl Slot {
    /// Which of the [`KINDS`] comes next.
    fn kind(self) -> usize {
        (if self.frames < 3 { self.frames } else { 4 - self.frames % 2 }) as usize
    }
}

impl Connections {
    /// Connections of this shape.
    pub fn new(shape: Shape) -> anyhow::Result<Self> {
        let size_max = FRAME_MAX - shape.tunnel.bytes();
        if !(FRAME_MIN..=size_max).contains(&shape.size) || shape.flows == 0 {
            bail!("give a size of {FRAME_MIN} to {size_max} bytes, and one flow or more");
        }
        let payload = match shape.size - HEADERS {
            room if room >= MESSAGE_MIN || shape.opaque => room as u32,
            _ => 0,
        };
        let settings = Settings {
            flows: shape.flows,
            new_every: shape.new_every,
            ip: shape.tunnel.ip() as u32,
            outer_udp: shape.tunnel.outer_udp() as u32,
            payload: [payload; 2],
            alike: (shape.opaque && shape.tunnel == Tunnel::None).into(),
            steps: steps(shape.flows),
        };
        Ok(Self {
            templates: Box::new(std::array::from_fn(|kind| template(kind, shape, payload as usize))),
            settings,
            slots: vec![Slot::default(); shape.flows as usize],
            slot: 0,
            visited: 0,
            round: 0,
            next_flow: 0,
            until_new: 0,
        })
    }

    /// What the generator in the kernel makes the same frames from.
    pub fn for_kernel(&self) -> (&Settings, &[Template; KINDS]) {
        (&self.settings, &self.templates)
    }

    /// Gives the next frame. True when it comes from the server.
    pub fn next(&mut self, frame: &mut Vec<u8>) -> bool {
        let slot = self.visit();
        frame.clear();
        frame.extend_from_slice(self.template(slot));
        self.finish(slot, frame)
    }

    /// Writes the next frame where there is room for the longest, and gives its length.
    pub fn write(&mut self, to: &mut [u8]) -> usize {
        let slot = self.visit();
        let template = self.template(slot);
        let frame = &mut to[..template.len()];
        frame.copy_from_slice(template);
        self.finish(slot, frame);
        frame.len()
    }

    /// The frame that is due, without what differs from flow to flow.
    fn template(&self, slot: Slot) -> &[u8] {
        let Template { len, bytes, .. } = &self.templates[slot.kind()];
        &bytes[..*len as usize]
    }

    /// Makes it the flow's. True when it comes from the server.
    fn finish(&self, slot: Slot, frame: &mut [u8]) -> bool {
        let kind = slot.kind();
        let from_server = kind == 1 || kind == 4;
        address(frame, &self.settings, &self.templates[kind], slot, from_server);
        from_server
    }

    fn visit(&mut self) -> Slot {
        let Settings { flows, new_every, steps, .. } = self.settings;
        let mut fresh = self.round == 0;
        if new_every > 0 {
            fresh |= self.until_new == 0;
            self.until_new = self.until_new.checked_sub(1).unwrap_or(new_every - 1);
        }
        let slot = &mut self.slots[self.slot as usize];
        if fresh {
            *slot = Slot { flow: self.next_flow, frames: 0 };
            self.next_flow += 1;
        }
        let now = *slot;
        slot.frames += 1;
        self.slot = (self.slot + steps[self.round as usize % STEPS]) % flows;
        self.visited += 1;
        if self.visited == flows {
            self.visited = 0;
            self.round += 1;
        }
        now
    }
}

/// Distances spread over all flows, coprime to their number, so that each round is another order of all of them.
fn steps(flows: u32) -> [u32; STEPS] {
    const SEVENTEENTHS: [u64; STEPS] = [11, 5, 13, 7, 3, 15, 9, 2];
    SEVENTEENTHS.map(|part| {
        let from = (u64::from(flows) * part / 17) as u32;
        (from..flows).chain(1..from).find(|&step| gcd(step, flows) == 1).unwrap_or(0)
    })
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The frame of a kind, without what differs from flow to flow.
fn template(kind: usize, shape: Shape, payload: usize) -> Template {
    let data = kind >= 3;
    let payload = if data { payload } else { 0 };
    let inner_len = if data { shape.size } else { FRAME_MIN };
    let from_server = kind == 1 || kind == 4;
    let mut inner = vec![0; inner_len];
    inner[..12].copy_from_slice(&macs(from_server));
    inner[12..14].copy_from_slice(&[0x08, 0x00]);
    ip_header(&mut inner[ETHERNET..], IP + TCP + payload, 6);
    let tcp = &mut inner[ETHERNET + IP..];
    tcp[12] = (TCP as u8 / 4) << 4;
    tcp[13] = FLAGS[kind];
    tcp[14..16].copy_from_slice(&[0xff, 0xff]);
    let data = &mut tcp[TCP..TCP + payload];
    if shape.opaque {
        data.fill(0xa5)
    } else {
        message(data, from_server)
    }
    let segment = &inner[ETHERNET + IP..HEADERS + payload];
    let pseudo = [[0, 6], (segment.len() as u16).to_be_bytes()];
    let tcp_sum = sum(segment) + sum(pseudo.as_flattened());
    let ip_sum = sum(&inner[ETHERNET..ETHERNET + IP]);

    let frame = shape.tunnel.wrap(inner, IP + TCP + payload, from_server);
    let mut bytes = [0; FRAME_MAX];
    bytes[..frame.len()].copy_from_slice(&frame);
    Template { len: frame.len() as u32, ip_sum, tcp_sum, bytes }
}

/// Destination and source of a frame.
pub(super) fn macs(from_server: bool) -> [u8; 12] {
    let (client, server) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let [dst, src] = if from_server { [client, server] } else { [server, client] };
    std::array::from_fn(|at| if at < 6 { dst[at] } else { src[at - 6] })
}

/// An IPv4 header without addresses and checksum, RFC 791.
pub(super) fn ip_header(header: &mut [u8], total: usize, protocol: u8) {
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = protocol;
}

/// An HTTP request or response of exactly this length, or nothing.
fn message(to: &mut [u8], from_server: bool) {
    if to.is_empty() {
        return;
    }
    let text = if from_server {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: ";
        let body = to.len() - head.len() - "0000\r\n\r\n".len();
        format!("{head}{body:04}\r\n\r\n{}", "b".repeat(body))
    } else {
        let (head, tail) = ("GET /items/42 HTTP/1.1\r\nHost: shop\r\nX-Fill: ", "\r\n\r\n");
        format!("{head}{}{tail}", "f".repeat(to.len() - head.len() - tail.len()))
    };
    to.copy_from_slice(text.as_bytes());
}

/// Writes what differs from flow to flow and from frame to frame.
fn address(
    frame: &mut [u8],
    settings: &Settings,
    template: &Template,
    Slot { flow, frames }: Slot,
    from_server: bool,
) {
    let mixed = flow.wrapping_mul(0x9e37_79b1);
    if settings.outer_udp > 0 {
        let port = 0xc000 | (mixed >> 18) as u16;
        frame[settings.outer_udp as usize..][..2].copy_from_slice(&port.to_be_bytes());
    }
    let client = (0x0a00_0000 | flow & 0x00ff_ffff, 0x8000 | (flow >> 24) as u16);
    let server = (0xac10_0000 | mixed >> 20, 80);
    let (client_next, server_next) = match frames {
        0..3 => (u32::from(frames > 0), u32::from(frames > 1)),
        _ => (1 + (frames - 2) / 2 * settings.payload[0], 1 + (frames - 3) / 2 * settings.payload[1]),
    };
    let [(src, src_port), (dst, dst_port)] = if from_server { [server, client] } else { [client, server] };
    let (seq, ack) = if from_server { (server_next, client_next) } else { (client_next, server_next) };

    let ip = &mut frame[settings.ip as usize..];
    ip[12..16].copy_from_slice(&src.to_be_bytes());
    ip[16..20].copy_from_slice(&dst.to_be_bytes());
    ip[20..22].copy_from_slice(&src_port.to_be_bytes());
    ip[22..24].copy_from_slice(&dst_port.to_be_bytes());
    ip[24..28].copy_from_slice(&seq.to_be_bytes());
    ip[28..32].copy_from_slice(&ack.to_be_bytes());
    let ip_check = !folded(template.ip_sum + sum(&ip[12..20]));
    let tcp_check = !folded(template.tcp_sum + sum(&ip[12..32]));
    ip[10..12].copy_from_slice(&ip_check.to_ne_bytes());
    ip[36..38].copy_from_slice(&tcp_check.to_ne_bytes());
}

/// The sum of the 16-bit words of RFC 1071, in the byte order of memory.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

pub(super) fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    (once + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::{HashMap, HashSet};
    use wirespan_bpf::generate::Generator;
    use wirespan_capture::spread::inner_hash;
    use wirespan_capture::{Batch, Descriptor, Frame, Hints, LinkType};
    use wirespan_dataplane::{RecordSink, Worker, WorkerConfig};
    use wirespan_l7::SpanSink;
    use wirespan_records::{Flow, FlowTick, Span, TunnelKind};

    const SHAPE: Shape = Shape { size: 64, flows: 10, new_every: 0, tunnel: Tunnel::None, opaque: false };

    #[derive(Default)]
    struct Records {
        flows: Vec<Flow>,
        spans: Vec<Span>,
    }

    impl SpanSink for Records {
        fn span(&mut self, span: Span) {
            self.spans.push(span);
        }
    }

    impl RecordSink for Records {
        fn flow(&mut self, flow: Flow) {
            self.flows.push(flow);
        }

        fn tick(&mut self, _: FlowTick) {}
    }

    /// Frames of a shape, 1 us apart, through a worker.
    fn analysed(shape: Shape, frames: u64) -> Records {
        let mut connections = Connections::new(shape).unwrap();
        let (mut worker, mut records, mut frame) =
            (Worker::new(WorkerConfig::default()), Records::default(), Vec::new());
        for number in 0..frames {
            connections.next(&mut frame);
            checksums_are_right(&frame[shape.tunnel.ip()..]);
            let len = frame.len() as u32;
            let (ts_ns, link, hints) = (1 + number * 1_000, LinkType::Ethernet, Hints::default());
            let descriptor = Descriptor { offset: 0, len, wire_len: len, ts_ns, link, port: 0, hints };
            worker.batch(Batch::new(&frame, &[descriptor]), &mut records);
        }
        worker.finish(&mut records);
        assert_eq!(worker.stats().packets, frames, "{:?}", worker.stats().drops);
        records
    }

    fn checksums_are_right(ip: &[u8]) {
        assert_eq!(folded(sum(&ip[..IP])), 0xffff);
        let segment = &ip[IP..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
        let pseudo = [&ip[12..20], &[0, 6], &(segment.len() as u16).to_be_bytes()[..]].concat();
        assert_eq!(folded(sum(segment) + sum(&pseudo)), 0xffff);
    }

    #[test]
    fn as_many_flows_as_asked_for_each_whole() {
        let records = analysed(SHAPE, 10 * 9);
        assert_eq!(records.flows.len(), 10);
        for flow in &records.flows {
            let metrics = &flow.metrics;
            assert_eq!((metrics.packets.tx, metrics.packets.rx), (5, 4), "{flow:?}");
            assert_eq!((metrics.syn_count, metrics.synack_count), (1, 1));
            assert_eq!((metrics.retrans, metrics.ooo), Default::default());
        }
    }

    #[test]
    fn data_is_requests_and_responses_in_order_also_in_a_tunnel() {
        let ends = |records: &Records| {
            let mut ends: Vec<_> = records.flows.iter().map(|flow| (flow.client, flow.server)).collect();
            ends.sort();
            ends
        };
        let plain = ends(&analysed(Shape { size: 300, ..SHAPE }, 10 * (3 + 2 * 4)));
        for &tunnel in Tunnel::value_variants() {
            let records = analysed(Shape { size: 300, tunnel, ..SHAPE }, 10 * (3 + 2 * 4));
            assert_eq!(records.spans.len(), 10 * 4, "{tunnel:?}");
            assert!(records.spans.iter().all(|span| span.response_code == Some(200) && !span.truncated));
            assert_eq!(ends(&records), plain, "{tunnel:?}");
            let (kind, id) = match tunnel {
                Tunnel::None => (None, None),
                Tunnel::Vxlan => (Some(TunnelKind::Vxlan), Some(42)),
                Tunnel::Geneve => (Some(TunnelKind::Geneve), Some(42)),
                Tunnel::Gre => (Some(TunnelKind::Gre), Some(42)),
                Tunnel::Erspan => (Some(TunnelKind::Erspan), Some(42)),
                Tunnel::Ipip => (Some(TunnelKind::Ipip), Some(0)),
            };
            for flow in &records.flows {
                assert_eq!(
                    (flow.tunnel.map(|tunnel| tunnel.kind), flow.tunnel.map(|tunnel| tunnel.id)),
                    (kind, id)
                );
            }
        }
    }

    #[test]
    fn the_inner_hash_of_a_flow_is_the_same_in_every_tunnel() {
        let hashes = |size, tunnel| {
            let mut connections = Connections::new(Shape { size, tunnel, ..SHAPE }).unwrap();
            let mut frame = Vec::new();
            let hashes = (0..10 * 9).map(|_| {
                connections.next(&mut frame);
                let (wire_len, link, hints) = (frame.len() as u32, LinkType::Ethernet, Hints::default());
                let found = inner_hash(&Frame { data: &frame, wire_len, ts_ns: 1, link, port: 0, hints }, 7);
                assert!(found.is_flow && found.fragment.is_none(), "{tunnel:?}");
                found.hash
            });
            hashes.collect::<Vec<_>>()
        };
        for size in [64, 300] {
            let plain = hashes(size, Tunnel::None);
            assert_eq!(plain.iter().collect::<HashSet<_>>().len(), 10);
            for &tunnel in Tunnel::value_variants() {
                assert_eq!(hashes(size, tunnel), plain, "{tunnel:?}");
            }
        }
    }

    #[test]
    fn flows_are_replaced_at_the_rate_asked_for() {
        let records = analysed(Shape { new_every: 5, ..SHAPE }, 1_000);
        // 10 in the first round, two of them when one was due anyway, then one in five frames.
        assert_eq!(records.flows.len(), 10 + (1_000 - 10) / 5);
    }

    #[test]
    fn every_round_visits_every_flow_in_another_order() {
        for flows in [1, 2, 10, 1_000, 4_096] {
            let mut connections = Connections::new(Shape { flows, ..SHAPE }).unwrap();
            let mut orders = Vec::new();
            for round in 0..STEPS as u32 {
                let order: Vec<_> = (0..flows).map(|_| connections.visit()).collect();
                let mut seen: HashMap<_, _> = order.iter().map(|slot| (slot.flow, slot.frames)).collect();
                assert_eq!(seen.len() as u32, flows);
                assert!(seen.drain().all(|(_, frames)| frames == round));
                orders.push(order.iter().map(|slot| slot.flow).collect::<Vec<_>>());
            }
            orders.dedup();
            assert!(flows < 1_000 || orders.len() == STEPS);
        }
    }

    #[test]
    fn the_kernel_makes_the_same_frames() {
        let in_tunnel = Tunnel::value_variants().iter().flat_map(|&tunnel| {
            let long = Shape { size: 1_400, tunnel, ..SHAPE };
            [Shape { flows: 3, new_every: 11, ..long }, Shape { opaque: true, ..long }]
        });
        let alone = [
            SHAPE,
            Shape { size: 300, new_every: 7, ..SHAPE },
            Shape { opaque: true, ..SHAPE },
            Shape { size: 3_000, flows: 2, opaque: true, ..SHAPE },
        ];
        for shape in alone.into_iter().chain(in_tunnel) {
            let mut connections = Connections::new(shape).unwrap();
            let (settings, templates) = connections.for_kernel();
            let mut generator = match Generator::flows(1, settings, templates) {
                Ok(generator) => generator,
                Err(error) => {
                    assert!(std::env::var_os("CI").is_none(), "{error}");
                    return eprintln!("skipped: {error}");
                }
            };
            let mut frame = Vec::new();
            for number in 0..100 {
                connections.next(&mut frame);
                assert_eq!(generator.frame().unwrap(), frame, "frame {number} of {shape:?}");
            }
            assert_eq!(generator.sent().unwrap().frames, 100);
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let in_vxlan = Shape { tunnel: Tunnel::Vxlan, ..SHAPE };
        for (shape, size_max) in [
            (Shape { size: 59, ..SHAPE }, 3328),
            (Shape { flows: 0, ..SHAPE }, 3328),
            (Shape { size: 3279, ..in_vxlan }, 3278),
        ] {
            let error = Connections::new(shape).err().unwrap().to_string();
            assert!(error.starts_with(&format!("give a size of 60 to {size_max} bytes")), "{error}");
        }
    }
}

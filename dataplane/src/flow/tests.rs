use super::{FlowConfig, FlowTable, ShedPayload, Shedding};
use crate::packet::{Addresses, Packet, Tcp, flags};
use proptest::prelude::*;
use wirespan_frame::Mark;
use wirespan_l7::Engine;
use wirespan_records::{CloseType, DropReason, Flow, FlowMetrics, L4Protocol, Records, Text};

const MS: u64 = 1_000_000;
const T0: u64 = 1_700_000_000_000 * MS;

/// A TCP packet of 20 header bytes and no payload.
pub(crate) fn tcp(src: u128, dst: u128, src_port: u16, dst_port: u16) -> Packet<'static> {
    Packet {
        ts_ns: T0,
        wire_len: 54,
        addresses: Addresses { src, dst, v6: false },
        l4: L4Protocol::Tcp,
        src_port,
        dst_port,
        icmp_type: 0,
        tcp: Tcp::default(),
        vlan: None,
        tunnel: None,
        tap: 0,
        l3_len: 20,
        l4_len: 0,
        l4_wire: 0,
        payload: &[],
    }
}

/// One connection between a client (40000) and a server (9999) that sequence numbers 100 and 500 begin.
struct Connection {
    table: FlowTable,
    records: Records,
    ms: u64,
}

impl Connection {
    fn new() -> Self {
        Self::with(FlowConfig::default())
    }

    fn with(config: FlowConfig) -> Self {
        Self {
            table: FlowTable::new(config, Engine::new(Default::default())),
            records: Records::default(),
            ms: 0,
        }
    }

    fn send(&mut self, at_ms: u64, packet: Packet<'_>) -> &mut Self {
        self.ms = at_ms;
        self.table.packet(&Packet { ts_ns: T0 + at_ms * MS, ..packet }, &mut self.records);
        self
    }

    fn client(&mut self, at_ms: u64, flags: u8, seq: u32, ack: u32, data: &'static [u8]) -> &mut Self {
        self.send(at_ms, segment(tcp(1, 2, 40_000, 9_999), flags, seq, ack, data))
    }

    fn server(&mut self, at_ms: u64, flags: u8, seq: u32, ack: u32, data: &'static [u8]) -> &mut Self {
        self.send(at_ms, segment(tcp(2, 1, 9_999, 40_000), flags, seq, ack, data))
    }

    fn handshake(&mut self) -> &mut Self {
        self.client(0, flags::SYN, 100, 0, b"");
        self.server(4, flags::SYN | flags::ACK, 500, 101, b"");
        self.client(5, flags::ACK, 101, 501, b"")
    }

    /// Waits until time-outs are over and gives the flows.
    fn wait(&mut self, ms: u64) -> &[Flow] {
        self.table.advance(T0 + (self.ms + ms) * MS, &mut self.records);
        &self.records.flows
    }
}

fn segment(packet: Packet<'_>, flags: u8, seq: u32, ack: u32, data: &'static [u8]) -> Packet<'static> {
    let len = data.len() as u32;
    Packet {
        tcp: Tcp { seq, ack, flags, window: 1000 },
        l4_len: len,
        l4_wire: len,
        l3_len: 20 + len,
        wire_len: 54 + len,
        payload: data,
        tunnel: None,
        ..packet
    }
}

#[test]
fn a_whole_connection_has_its_metrics() {
    let mut connection = Connection::new();
    connection.handshake();
    connection.client(25, flags::ACK | flags::PSH, 101, 501, b"request");
    connection.server(27, flags::ACK, 501, 108, b"");
    connection.server(40, flags::ACK | flags::PSH, 501, 108, b"response");
    connection.client(41, flags::ACK, 108, 509, b"");
    connection.client(50, flags::ACK | flags::FIN, 108, 509, b"");
    connection.server(51, flags::ACK | flags::FIN, 509, 109, b"");
    connection.client(52, flags::ACK, 109, 510, b"");
    assert!(connection.wait(1_000).is_empty());
    let flow = connection.wait(3_000)[0].clone();
    let m = flow.metrics;
    assert_eq!((flow.client.port, flow.server.port), (40_000, 9_999));
    assert_eq!(flow.close_type, CloseType::Finish);
    assert_eq!((m.packets.tx, m.packets.rx), (6, 4));
    assert_eq!((m.l4_bytes.tx, m.l4_bytes.rx, m.bytes.tx), (7, 8, 6 * 54 + 7));
    assert_eq!((m.syn_count, m.synack_count, m.fin_count), (1, 1, 2));
    assert_eq!((m.rtt.max_us, m.rtt_server.max_us, m.rtt_client.max_us), (5_000, 4_000, 1_000));
    assert_eq!((m.srt.max_us, m.srt.count), (2_000, 1));
    assert_eq!((m.art.max_us, m.art.count), (15_000, 1));
    assert_eq!((m.cit.max_us, m.cit.count), (20_000, 1));
    assert_eq!((m.retrans.tx, m.retrans.rx, m.ooo.tx, m.zero_win.tx), (0, 0, 0, 0));
    assert_eq!(flow.tcp_flags.tx, flags::SYN | flags::ACK | flags::PSH | flags::FIN);
}

#[test]
fn repeated_and_late_segments_are_told_apart() {
    let mut connection = Connection::new();
    connection.client(0, flags::SYN, 100, 0, b"").client(1, flags::SYN, 100, 0, b"");
    connection.server(2, flags::SYN | flags::ACK, 500, 101, b"");
    connection.server(3, flags::SYN | flags::ACK, 500, 101, b"");
    connection.client(4, flags::ACK, 101, 501, b"abc").client(5, flags::ACK, 101, 501, b"abc");
    connection.server(6, flags::ACK, 504, 104, b"def").server(7, flags::ACK, 501, 104, b"abc");
    // A keep-alive is no retransmission.
    connection.client(8, flags::ACK, 103, 507, b"");
    connection.client(9, flags::ACK, 103, 507, b"x");
    connection.table.finish(&mut connection.records);
    let m = connection.records.flows[0].metrics;
    assert_eq!((m.retrans_syn, m.retrans_synack, m.retrans.tx, m.retrans.rx), (1, 1, 2, 1));
    assert_eq!((m.ooo.tx, m.ooo.rx), (0, 1));
    assert_eq!((m.rtt.count, m.rtt.max_us, m.rtt_server.max_us), (1, 4_000, 2_000));
    assert_eq!(connection.records.flows[0].close_type, CloseType::ForcedReport);
}

#[test]
fn a_keep_alive_is_no_request() {
    let mut connection = Connection::new();
    connection.handshake();
    connection.client(10, flags::ACK, 101, 501, b"poll").server(11, flags::ACK, 501, 105, b"");
    // While the request is worked on, both sides ask whether the other is there, as Windows does: with the last byte again.
    connection.client(5_000, flags::ACK, 104, 501, b"l").server(5_001, flags::ACK, 501, 105, b"");
    connection.server(6_000, flags::ACK, 500, 105, b"x").client(6_001, flags::ACK, 105, 501, b"");
    connection.server(8_010, flags::ACK, 501, 105, b"answer");
    connection.table.finish(&mut connection.records);
    let m = connection.records.flows[0].metrics;
    assert_eq!((m.art.count, m.art.max_us), (1, 8_000_000));
    assert_eq!((m.srt.count, m.srt.max_us), (1, 1_000));
    assert_eq!((m.retrans.tx, m.retrans.rx, m.cit.count), (0, 0, 1));
}

#[test]
fn data_before_the_handshake_is_complete_does_not_complete_it() {
    let mut connection = Connection::new();
    // TCP Fast Open: request and response are on their way before the client's ACK.
    connection.client(0, flags::SYN, 100, 0, b"hello");
    connection.server(2, flags::SYN | flags::ACK, 500, 106, b"").server(3, flags::ACK, 501, 106, b"world");
    connection.client(10, flags::ACK, 106, 506, b"");
    connection.table.finish(&mut connection.records);
    let m = connection.records.flows[0].metrics;
    assert_eq!((m.rtt_server.max_us, m.rtt_client.max_us, m.rtt.max_us), (2_000, 8_000, 10_000));
}

#[test]
fn what_comes_long_after_a_datagram_is_no_answer_to_it() {
    for l4 in [L4Protocol::Udp, L4Protocol::Icmp] {
        let mut connection = Connection::new();
        for (there_ms, back_ms) in [(0, 3), (1_000, 40_000), (41_000, 40_999)] {
            connection.send(there_ms, Packet { l4, icmp_type: 8, ..tcp(1, 2, 7, 7) });
            connection.send(back_ms, Packet { l4, icmp_type: 0, ..tcp(2, 1, 7, 7) });
        }
        connection.table.finish(&mut connection.records);
        let FlowMetrics { art, srt, .. } = connection.records.flows[0].metrics;
        let latency = if l4 == L4Protocol::Udp { art } else { srt };
        assert_eq!((latency.count, latency.max_us), (1, 3_000), "{l4:?}");
    }
}

#[test]
fn the_time_out_of_a_lost_syn_is_no_round_trip() {
    let mut connection = Connection::new();
    connection.client(0, flags::SYN, 100, 0, b"").client(1_000, flags::SYN, 100, 0, b"");
    connection.server(1_001, flags::SYN | flags::ACK, 500, 101, b"").client(1_002, flags::ACK, 101, 501, b"");
    // Two holes: one is filled within 3 ms, the other later.
    connection.server(1_010, flags::ACK, 504, 101, b"def").server(1_012, flags::ACK, 501, 101, b"abc");
    connection.server(1_020, flags::ACK, 510, 101, b"jkl").server(1_220, flags::ACK, 507, 101, b"ghi");
    connection.table.finish(&mut connection.records);
    let m = connection.records.flows[0].metrics;
    assert_eq!((m.retrans_syn, m.retrans.rx, m.ooo.rx), (1, 1, 1));
}

#[test]
fn a_hole_that_the_receiver_asked_for_is_filled_by_a_retransmission() {
    let mut connection = Connection::new();
    connection.handshake();
    connection.server(6, flags::ACK, 504, 101, b"def");
    for at_ms in 7..10 {
        connection.client(at_ms, flags::ACK, 101, 501, b"");
    }
    // Within the round trip of the handshake.
    connection.server(10, flags::ACK, 501, 101, b"abc");
    connection.server(11, flags::ACK, 510, 101, b"jkl").server(12, flags::ACK, 507, 101, b"ghi");
    connection.table.finish(&mut connection.records);
    let m = connection.records.flows[0].metrics;
    assert_eq!((m.retrans.rx, m.ooo.rx), (1, 1));
}

/// Every way a connection can end.
#[test]
fn close_types() {
    const A: u8 = flags::ACK;
    const S: u8 = flags::SYN;
    const R: u8 = flags::RST;
    const F: u8 = flags::FIN;
    type Play = fn(&mut Connection);
    let plays: &[(CloseType, Play)] = &[
        (CloseType::ServerSynMissing, |c| {
            c.client(0, S, 100, 0, b"").client(1_000, S, 100, 0, b"");
        }),
        (CloseType::ClientAckMissing, |c| {
            c.client(0, S, 100, 0, b"").server(1, S | A, 500, 101, b"").server(900, S | A, 500, 101, b"");
        }),
        (CloseType::ServerRefused, |c| {
            c.client(0, S, 100, 0, b"").server(1, R | A, 0, 101, b"");
        }),
        (CloseType::ClientPortReuse, |c| {
            c.client(0, S, 100, 0, b"").server(1, A, 7_000, 9_000, b"").client(2, R, 9_000, 0, b"");
        }),
        (CloseType::ClientHandshakeReset, |c| {
            c.client(0, S, 100, 0, b"").server(1, S | A, 500, 101, b"").client(2, R, 101, 0, b"");
        }),
        (CloseType::ServerHandshakeReset, |c| {
            c.client(0, S, 100, 0, b"").server(1, S | A, 500, 101, b"").server(2, R, 501, 0, b"");
        }),
        (CloseType::ServerReset, |c| {
            c.handshake().client(6, A, 101, 501, b"hello").server(7, R, 501, 0, b"");
        }),
        (CloseType::ClientReset, |c| {
            c.handshake().client(6, A, 101, 501, b"hello").client(7, R, 106, 0, b"");
        }),
        (CloseType::ClientResetRegular, |c| {
            c.handshake().client(7, R, 101, 0, b"");
        }),
        (CloseType::ClientHalfClose, |c| {
            c.handshake().client(7, A | F, 101, 501, b"").server(8, A, 501, 102, b"");
        }),
        (CloseType::ServerHalfClose, |c| {
            c.handshake().server(7, A | F, 501, 101, b"").client(8, A, 101, 502, b"");
        }),
        (CloseType::ServerQueueOverflow, |c| {
            c.handshake().server(1_000, S | A, 500, 101, b"").client(1_001, A, 101, 501, b"");
        }),
        (CloseType::Timeout, |c| {
            c.handshake().client(6, A, 101, 501, b"hello").server(7, A, 501, 106, b"world");
        }),
    ];
    for (expected, play) in plays {
        let mut connection = Connection::new();
        play(&mut connection);
        let flows = connection.wait(301_000);
        assert_eq!(flows.iter().map(|f| f.close_type).collect::<Vec<_>>(), [*expected]);
    }
}

#[test]
fn a_new_connection_on_the_same_ports_is_a_new_flow() {
    let mut connection = Connection::new();
    connection.handshake().client(6, flags::ACK, 101, 501, b"old");
    connection.client(10, flags::SYN, 9_000, 0, b"");
    connection.table.finish(&mut connection.records);
    let syns: Vec<_> =
        connection.records.flows.iter().map(|f| (f.metrics.syn_count, f.metrics.packets.tx)).collect();
    assert_eq!(syns, [(1, 3), (1, 1)]);
}

#[test]
fn what_is_spoken_corrects_who_is_the_client() {
    let mut connection = Connection::new();
    // The response is seen first, on ports that say nothing.
    let (client, server) = (tcp(1, 2, 40_000, 50_000), tcp(2, 1, 50_000, 40_000));
    let (ack, ok) = (flags::ACK, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    connection.send(0, segment(server, ack, 500, 100, ok));
    connection.send(1, segment(client, ack, 100, 540, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    connection.send(9, segment(server, ack, 500 + ok.len() as u32, 130, ok));
    connection.table.finish(&mut connection.records);
    let flow = &connection.records.flows[0];
    assert_eq!((flow.client.port, flow.server.port), (40_000, 50_000));
    assert_eq!((flow.metrics.packets.tx, flow.metrics.packets.rx), (1, 2));
    assert_eq!((flow.metrics.art.count, flow.metrics.art.max_us), (1, 8_000));
    assert_eq!(connection.records.spans.iter().filter(|s| s.client.port == 40_000).count(), 2);
}

#[test]
fn a_full_table_lets_the_least_wanted_leave() {
    let config = FlowConfig { max_flows: 2, ..FlowConfig::default() };
    let mut connection = Connection::with(config);
    connection.handshake();
    connection.send(10, segment(tcp(1, 2, 41_000, 9_999), flags::SYN, 1, 0, b""));
    connection.send(20, segment(tcp(1, 2, 42_000, 9_999), flags::SYN, 1, 0, b""));
    let left: Vec<_> = connection.records.flows.iter().map(|f| (f.client.port, f.close_type)).collect();
    assert_eq!(left, [(41_000, CloseType::Evicted)]);
    let stats = connection.table.stats();
    assert_eq!((stats.flows, stats.evicted, stats.live), (3, 1, 2));
}

#[test]
fn long_flows_are_reported_on_the_way() {
    let config = FlowConfig { report_interval_ms: Some(60_000), ..FlowConfig::default() };
    let mut connection = Connection::with(config);
    connection.handshake();
    connection.client(30_000, flags::ACK, 101, 501, b"a").client(61_000, flags::ACK, 102, 501, b"b");
    connection.client(70_000, flags::ACK, 103, 501, b"c");
    connection.table.finish(&mut connection.records);
    let reports: Vec<_> = connection
        .records
        .flows
        .iter()
        .map(|f| (f.is_new, f.metrics.packets.tx, f.metrics.syn_count))
        .collect();
    assert_eq!(reports, [(true, 4, 1), (false, 1, 0)]);
    assert_eq!(connection.records.flows[0].flow_id, connection.records.flows[1].flow_id);
}

fn sum<'a>(all: impl Iterator<Item = &'a FlowMetrics>) -> FlowMetrics {
    let mut total = FlowMetrics::default();
    all.for_each(|m| total.merge(m));
    total
}

proptest! {
    /// Whatever comes in is in the flows, and the seconds add up to the flows.
    #[test]
    fn nothing_is_lost_between_packets_ticks_and_flows(
        packets in proptest::collection::vec(
            (0u64..3_000, 0u8..64, 0u32..50, 0u32..50, 0u16..4, any::<bool>(), 0usize..20), 1..200),
        max_flows in 1usize..5,
    ) {
        let config = FlowConfig { max_flows, ticks: true, report_interval_ms: Some(2_000), ..FlowConfig::default() };
        let mut connection = Connection::with(config);
        let (mut at_ms, mut bytes) = (0, 0);
        for &(pause, flags, seq, ack, port, from_client, len) in &packets {
            at_ms += pause;
            let data = &b"GET / HTTP/1.1\r\n\r\n\r\n"[..len];
            let packet = if from_client { tcp(1, 2, 40_000 + port, 80) } else { tcp(2, 1, 80, 40_000 + port) };
            connection.send(at_ms, segment(packet, flags, seq, ack, data));
            bytes += len as u64;
        }
        connection.table.finish(&mut connection.records);
        let (flows, ticks) = (&connection.records.flows, &connection.records.ticks);
        let total = sum(flows.iter().map(|f| &f.metrics));
        prop_assert_eq!(total.packets.tx + total.packets.rx, packets.len() as u64);
        prop_assert_eq!(total.l4_bytes.tx + total.l4_bytes.rx, bytes);
        let seconds = sum(ticks.iter().map(|t| &t.metrics));
        prop_assert_eq!(seconds.packets.tx + seconds.packets.rx, packets.len() as u64);
        // A second may have been handed on before the roles turned out to be the other way round.
        let retrans = |m: &FlowMetrics| m.retrans.tx + m.retrans.rx;
        prop_assert_eq!((retrans(&seconds), seconds.l7), (retrans(&total), total.l7));
        prop_assert_eq!(total.l7.request + total.l7.response > 0, !connection.records.spans.is_empty());
        let stats = connection.table.stats();
        prop_assert_eq!(stats.live, 0);
        prop_assert_eq!(flows.iter().filter(|f| f.is_new).count() as u64, stats.flows);
        prop_assert_eq!(ticks.iter().filter(|t| t.is_new).count() as u64, stats.flows);
        let last_second = ((T0 + at_ms * MS) / 1_000_000_000) as u32;
        prop_assert!(ticks.iter().all(|t| (last_second - (at_ms / 1_000) as u32 - 1..=last_second).contains(&t.second)));
        prop_assert_eq!(connection.table.reassembly_bytes(), 0);
    }
}

#[test]
fn a_busy_worker_samples_new_flows_and_sheds_payload() {
    let mut connection = Connection::new();
    connection.handshake();
    connection.table.shed(Shedding { payload: ShedPayload::All, new_flows_one_in: Some(4) });
    connection.client(6, flags::ACK, 101, 501, b"GET / HTTP/1.1\r\n\r\n");
    for port in 1..=1000 {
        connection.send(10, segment(tcp(1, 2, port, 9_999), flags::SYN, 1, 0, b""));
        connection.send(11, segment(tcp(2, 1, 9_999, port), flags::SYN | flags::ACK, 1, 2, b""));
    }
    let stats = connection.table.stats();
    assert_eq!(stats.payload_shed, 1);
    let sampled_out = connection.table.refused().get(DropReason::SampledOut);
    // Both packets of a flow are in or out.
    assert_eq!((stats.flows - 1) * 2 + sampled_out, 2000);
    assert!((150..350).contains(&(stats.flows - 1)), "{}", stats.flows);
    connection.table.finish(&mut connection.records);
    assert!(connection.records.spans.is_empty());
}

#[test]
fn a_table_without_room_refuses_packets() {
    let mut connection = Connection::with(FlowConfig { max_flows: 0, ..FlowConfig::default() });
    connection.handshake();
    assert_eq!(connection.table.refused().get(DropReason::TableFull), 3);
    assert_eq!(connection.table.stats().flows, 0);
}

#[test]
fn a_flood_does_not_push_out_what_is_established() {
    let mut connection = Connection::with(FlowConfig { max_flows: 500, ..FlowConfig::default() });
    connection.handshake();
    for n in 0..20_000_u32 {
        connection
            .send(10 + u64::from(n) / 10, segment(tcp(9 + u128::from(n), 2, 5, 80), flags::SYN, 1, 0, b""));
    }
    connection.client(3_000, flags::ACK, 101, 501, b"x");
    let stats = connection.table.stats();
    assert_eq!((stats.flows, stats.evicted, stats.live), (20_001, 19_501, 500));
    assert!(connection.records.flows.iter().all(|flow| flow.client.port == 5));
}

#[test]
fn ports_used_again_without_a_handshake_leave_no_huge_gap() {
    let mut connection = Connection::new();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    connection.handshake();
    connection.client(6, flags::ACK, 101, 501, request);
    connection.client(9_000, flags::ACK, 0x7000_0000, 1, request);
    connection.client(9_001, flags::ACK, 0x7000_0000 + request.len() as u32, 1, request);
    connection.table.finish(&mut connection.records);
    assert_eq!(connection.table.l7_stats().gap_bytes, 0);
    assert_eq!(connection.records.spans.len(), 3);
    assert_eq!(connection.records.flows[0].metrics.retrans.tx, 0);
}

proptest! {
    /// Packets that come together make the records that they make one by one, with the times that pass between them.
    #[test]
    fn batches_change_nothing(
        packets in proptest::collection::vec(
            (0u64..3_000, 0u8..64, 0u32..50, 0u32..50, 0u16..4, any::<bool>(), 0usize..20), 1..200),
        marks in proptest::collection::vec(proptest::option::of(0u64..90_000), 200),
        together in 1usize..40,
    ) {
        let config = FlowConfig { max_flows: 3, ticks: true, report_interval_ms: Some(2_000), ..FlowConfig::default() };
        let mut at_ms = 0;
        let packets: Vec<Packet<'_>> = packets.iter().map(|&(pause, flags, seq, ack, port, from_client, len)| {
            at_ms += pause;
            let data = &b"GET / HTTP/1.1\r\n\r\n\r\n"[..len];
            let packet = if from_client { tcp(1, 2, 40_000 + port, 80) } else { tcp(2, 1, 80, 40_000 + port) };
            Packet { ts_ns: T0 + at_ms * MS, ..segment(packet, flags, seq, ack, data) }
        }).collect();
        let (mut single, mut batched) = (Connection::with(config.clone()), Connection::with(config));
        let marks = |from: usize, packets: &[Packet<'_>]| -> Vec<Mark> {
            let place = |(before, packet): (usize, &Packet<'_>)| {
                let ahead_ms = marks[from + before]?;
                Some(Mark { before, ns: packet.ts_ns + ahead_ms * MS })
            };
            packets.iter().enumerate().filter_map(place).collect()
        };
        for (index, packet) in packets.iter().enumerate() {
            for mark in marks(index, std::slice::from_ref(packet)) {
                single.table.advance(mark.ns, &mut single.records);
            }
            single.table.packet(packet, &mut single.records);
        }
        for (chunk, packets) in packets.chunks(together).enumerate() {
            let marks = marks(chunk * together, packets);
            batched.table.packets(packets, &marks, &mut batched.records);
        }
        single.table.finish(&mut single.records);
        batched.table.finish(&mut batched.records);
        prop_assert_eq!(single.records.flows, batched.records.flows);
        prop_assert_eq!(single.records.ticks, batched.records.ticks);
        prop_assert_eq!(single.records.spans, batched.records.spans);
    }
}

/// What is spoken in a connection to a web server, as (resource, code).
fn exchanges(connection: &mut Connection) -> Vec<(Text, Option<i32>)> {
    connection.table.finish(&mut connection.records);
    let spans = connection.records.spans.iter();
    spans.map(|span| (span.request_resource.clone().unwrap_or_default(), span.response_code)).collect()
}

const REQUESTS: [&[u8]; 3] =
    [b"GET /1 HTTP/1.1\r\n\r\n", b"GET /2 HTTP/1.1\r\n\r\n", b"GET /3 HTTP/1.1\r\n\r\n"];
const RESPONSES: [&[u8]; 3] = [
    b"HTTP/1.1 201 A\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 203 A\r\nContent-Length: 0\r\n\r\n",
];

/// Requests (even) and responses (odd) in this order, one a millisecond.
fn converse(connection: &mut Connection, order: &[usize]) {
    let [request, response] = [REQUESTS[0].len() as u32, RESPONSES[0].len() as u32];
    for (at_ms, &index) in order.iter().enumerate() {
        let (at_ms, turn) = (10 + at_ms as u64, index as u32 / 2);
        let (sent, received) = (101 + turn * request, 501 + turn * response);
        if index % 2 == 0 {
            connection.client(at_ms, flags::ACK, sent, received, REQUESTS[index / 2]);
        } else {
            connection.server(at_ms, flags::ACK, received, sent + request, RESPONSES[index / 2]);
        }
    }
}

fn answered(pairs: &[(&str, i32)]) -> Vec<(Text, Option<i32>)> {
    pairs.iter().map(|&(resource, code)| (resource.into(), Some(code))).collect()
}

#[test]
fn a_response_captured_before_its_request_answers_it() {
    for order in [[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4], [1, 0, 2, 3, 4, 5], [0, 2, 1, 3, 5, 4]] {
        let mut connection = Connection::new();
        converse(connection.handshake(), &order);
        assert_eq!(
            exchanges(&mut connection),
            answered(&[("/1", 201), ("/2", 202), ("/3", 203)]),
            "{order:?}"
        );
        assert_eq!(connection.table.l7_stats().gap_bytes, 0);
    }
}

#[test]
fn what_was_lost_is_not_waited_for() {
    // The first request is lost; then the second response.
    let mut connection = Connection::new();
    converse(connection.handshake(), &[1, 2, 3, 4, 5]);
    assert_eq!(exchanges(&mut connection), answered(&[("", 201), ("/2", 202), ("/3", 203)]));
    let mut connection = Connection::new();
    converse(connection.handshake(), &[0, 1, 2, 4, 5]);
    let mut expected = answered(&[("/1", 201), ("/3", 203)]);
    expected.insert(1, ("/2".into(), None));
    assert_eq!(exchanges(&mut connection), expected);
    // All that the server says is lost.
    let mut connection = Connection::new();
    converse(connection.handshake(), &[0, 2, 4]);
    assert_eq!(exchanges(&mut connection).len(), 3);
}

#[test]
fn a_syn_captured_after_what_follows_it_begins_no_other_connection() {
    let mut connection = Connection::new();
    connection.server(0, flags::SYN | flags::ACK, 500, 101, b"");
    connection.client(1, flags::SYN, 100, 0, b"").client(2, flags::ACK, 101, 501, b"");
    converse(&mut connection, &[0, 1]);
    assert_eq!(exchanges(&mut connection), answered(&[("/1", 201)]));
    assert_eq!(connection.records.flows.len(), 1);
    let m = connection.records.flows[0].metrics;
    assert_eq!((m.syn_count, m.synack_count, m.retrans.tx), (1, 1, 0));
}

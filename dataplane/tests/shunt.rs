//! Flows whose frames the source keeps back: a source that counts in place of delivering, as its contract says, and the
//! same frames without it, must come to the same totals.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use wirespan_dataplane::flow::ShuntPolicy;
use wirespan_dataplane::{Taps, Worker, WorkerConfig, WorkerStats};
use wirespan_frame::{Batch, Descriptor, Hints, LinkType, Shunt, ShuntCounters, ShuntKey, ShuntMode};
use wirespan_records::{Flow, FlowMetrics, Records};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// One frame, as a program in the kernel sees it.
#[derive(Clone, Debug)]
struct Sent {
    at_ms: u64,
    client_port: u16,
    by_server: bool,
    vlan: bool,
    flags: u8,
    seq: u32,
    window: u16,
    payload: u16,
}

impl Sent {
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if self.vlan {
            frame.extend([0x81, 0, 0, 7]);
        }
        let total = 40 + self.payload;
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (src, dst) = if self.by_server { (server, client) } else { (client, server) };
        let (sport, dport) =
            if self.by_server { (9_999, self.client_port) } else { (self.client_port, 9_999) };
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(src.iter().chain(&dst));
        frame.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
        frame.extend(self.seq.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0x50, self.flags]);
        frame.extend(self.window.to_be_bytes());
        frame.extend([0; 4]);
        frame.resize(frame.len() + self.payload as usize, 0xee);
        frame
    }

    fn key(&self) -> ShuntKey {
        let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
        ShuntKey {
            a: mapped(1),
            b: mapped(2),
            a_port: self.client_port,
            b_port: 9_999,
            protocol: 6,
            tunnel_kind: 0,
            vlan: if self.vlan { 7 | 1 << 12 } else { 0 },
            tunnel_id: 0,
        }
    }

    fn ts_ns(&self) -> u64 {
        1_700_000_000_000_000_000 + self.at_ms * 1_000_000
    }
}

/// Who keeps frames back, and what it can tell of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeper {
    Nobody,
    /// Reads headers.
    Program,
    /// Counts packets and bytes.
    Nic,
    /// Cuts frames behind their headers.
    Cutter,
}

/// The kernel's side of a shunt.
#[derive(Default)]
struct Kernel {
    /// Whether a flow's frames are kept back, and what was counted.
    flows: HashMap<ShuntKey, (bool, [ShuntCounters; 2])>,
    kept_back: u64,
    /// Frames that were cut.
    cut: u64,
}

impl Kernel {
    /// Leaves the headers of the frame alone, where its flow is treated so.
    fn cuts(&mut self, sent: &Sent, frame: &mut Vec<u8>) {
        let Some((active, _)) = self.flows.get_mut(&sent.key()) else { return };
        *active &= sent.flags & (FIN | SYN | RST) == 0;
        if *active {
            frame.truncate(frame.len() - sent.payload as usize);
            self.cut += 1;
        }
    }

    /// Counts the frame, or says that it is to be delivered.
    fn keeps_back(&mut self, sent: &Sent) -> bool {
        let Some((active, counters)) = self.flows.get_mut(&sent.key()) else { return false };
        *active &= sent.flags & (FIN | SYN | RST) == 0;
        if !*active {
            return false;
        }
        let side = &mut counters[usize::from(sent.by_server)];
        if side.packets == 0 {
            (side.first_ns, side.first_seq, side.next_seq) = (sent.ts_ns(), sent.seq, sent.seq);
        }
        let end = sent.seq.wrapping_add(sent.payload.into());
        if (end.wrapping_sub(side.next_seq) as i32) > 0 {
            side.next_seq = end;
        }
        side.packets += 1;
        side.bytes += sent.frame().len() as u64;
        side.l3_bytes += u64::from(sent.payload) + 20;
        side.l4_bytes += u64::from(sent.payload);
        side.last_ns = sent.ts_ns();
        side.zero_windows += u32::from(sent.window == 0);
        side.tcp_flags |= sent.flags;
        self.kept_back += 1;
        true
    }
}

struct Handle(Arc<Mutex<Kernel>>, Keeper);

impl Handle {
    fn told(&self, counters: &[ShuntCounters; 2]) -> [ShuntCounters; 2] {
        match self.1 {
            Keeper::Nic => counters.map(|all| ShuntCounters {
                first_seq: 0,
                next_seq: 0,
                last_ack: 0,
                zero_windows: 0,
                tcp_flags: 0,
                ..all
            }),
            _ => *counters,
        }
    }
}

impl Shunt for Handle {
    fn shunt(&mut self, key: &ShuntKey, mode: ShuntMode) -> bool {
        assert_eq!(mode == ShuntMode::Headers, self.1 == Keeper::Cutter);
        let mut kernel = self.0.lock().unwrap();
        if kernel.flows.len() >= 3 {
            return false;
        }
        kernel.flows.insert(*key, (true, Default::default())).is_none()
    }

    fn read(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        self.0.lock().unwrap().flows.get(key).map(|(_, counters)| self.told(counters))
    }

    fn end(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        self.0.lock().unwrap().flows.remove(key).map(|(_, counters)| self.told(&counters))
    }
}

/// Lets a worker have the frames, `together` at a time, through the kernel.
fn analyse(sent: &[Sent], keeper: Keeper, together: usize, ticks: bool) -> (Records, WorkerStats, u64) {
    analyse_tapped(sent, Taps::default(), keeper, together, ticks)
}

fn analyse_tapped(
    sent: &[Sent],
    taps: Taps,
    keeper: Keeper,
    together: usize,
    ticks: bool,
) -> (Records, WorkerStats, u64) {
    let kernel = Arc::new(Mutex::new(Kernel::default()));
    let mut config = WorkerConfig::default();
    (config.flow.l7, config.flow.ticks) = (false, ticks);
    config.flow.report_interval_ms = Some(60_000);
    let mode = if keeper == Keeper::Cutter { ShuntMode::Headers } else { ShuntMode::Count };
    config.shunt = Some(ShuntPolicy { bytes_min: 3_000, mode, entries_max: 100 });
    config.decode.mirror.taps = taps;
    let (mut worker, mut records) = (Worker::new(config), Records::default());
    if keeper != Keeper::Nobody {
        worker.set_shunt(Box::new(Handle(Arc::clone(&kernel), keeper)));
    }
    for sent in sent.chunks(together) {
        let (mut region, mut descriptors) = (Vec::new(), Vec::new());
        for sent in sent {
            let mut frame = sent.frame();
            let wire_len = frame.len() as u32;
            match keeper {
                Keeper::Cutter => kernel.lock().unwrap().cuts(sent, &mut frame),
                _ if kernel.lock().unwrap().keeps_back(sent) => continue,
                _ => {}
            }
            descriptors.push(Descriptor {
                offset: region.len(),
                len: frame.len() as u32,
                wire_len,
                ts_ns: sent.ts_ns(),
                link: LinkType::Ethernet,
                port: 0,
                hints: Hints::default(),
            });
            region.extend(frame);
        }
        worker.batch(Batch::new(&region, &descriptors), &mut records);
        worker.idle(sent.last().unwrap().ts_ns(), &mut records);
    }
    worker.finish(&mut records);
    let kernel = kernel.lock().unwrap();
    assert!(kernel.flows.is_empty(), "flows that are over are given back");
    (records, worker.stats(), kernel.kept_back.max(kernel.cut))
}

/// What must be the same: packets, bytes, flags of each direction, by ports of the client.
fn totals(flows: &[Flow]) -> BTreeMap<u16, (Vec<u64>, [u8; 2])> {
    let mut totals: BTreeMap<u16, (FlowMetrics, [u8; 2])> = BTreeMap::new();
    for flow in flows {
        let by_client = flow.server.port == 9_999;
        let port = if by_client { flow.client.port } else { flow.server.port };
        let (metrics, flags) = totals.entry(port).or_default();
        let mut m = flow.metrics;
        let mut own = [flow.tcp_flags.tx, flow.tcp_flags.rx];
        if !by_client {
            m.swap_roles();
            own.reverse();
        }
        metrics.merge(&m);
        (flags[0], flags[1]) = (flags[0] | own[0], flags[1] | own[1]);
    }
    let list = |m: FlowMetrics| {
        let pairs = [m.packets, m.bytes, m.l3_bytes, m.l4_bytes];
        let mut all: Vec<u64> = pairs.iter().flat_map(|pair| [pair.tx, pair.rx]).collect();
        all.extend([m.fin_count, m.syn_count].map(u64::from));
        all
    };
    totals.into_iter().map(|(port, (metrics, flags))| (port, (list(metrics), flags))).collect()
}

#[test]
fn an_elephant_is_counted_and_wakes_at_its_end() {
    let data = |n: u32| Sent {
        at_ms: u64::from(n) * 10,
        client_port: 40_000,
        by_server: n % 4 == 3,
        vlan: false,
        flags: 0x10,
        seq: if n % 4 == 3 { 1 } else { 100 + (n - n / 4) * 1000 },
        window: 1000,
        payload: if n % 4 == 3 { 0 } else { 1000 },
    };
    let mut sent: Vec<Sent> = (0..1000).map(data).collect();
    sent.push(Sent { flags: 0x11, ..data(1000) });
    let (records, stats, kept_back) = analyse(&sent, Keeper::Program, 1, true);
    let (plain, plain_stats, _) = analyse(&sent, Keeper::Nobody, 1, true);
    assert_eq!(totals(&records.flows), totals(&plain.flows));
    assert!(kept_back > 950);
    assert_eq!(stats.flow.shunt.packets, kept_back);
    assert_eq!((stats.flow.shunt.shunted, stats.flow.shunt.woken), (1, 1));
    assert_eq!(stats.packets + kept_back, plain_stats.packets);
    assert_eq!(stats.frames, stats.packets + stats.drops.total());
    let [flow] = &records.flows[..] else { panic!("one flow") };
    assert_eq!((flow.metrics.retrans.tx, flow.metrics.ooo.tx, flow.metrics.retrans.rx), (0, 0, 0));
    assert_eq!(flow.close_type, plain.flows[0].close_type);
    assert_eq!((flow.start_ns, flow.end_ns), (plain.flows[0].start_ns, plain.flows[0].end_ns));
    // The seconds too are those of the run without, but for the packet at which the worker learns of a new one.
    let seconds = |records: &Records| {
        records.ticks.iter().map(|t| (t.second, t.metrics.packets.tx)).collect::<Vec<_>>()
    };
    for ((second, packets), (plain_second, plain_packets)) in seconds(&records).iter().zip(seconds(&plain)) {
        assert_eq!(*second, plain_second);
        assert!(packets.abs_diff(plain_packets) <= 1);
    }
}

/// The `n`th frame of one side alone.
fn sent_by_client(n: u32, seq: u32) -> Sent {
    Sent {
        at_ms: u64::from(n) * 10,
        client_port: 40_000,
        by_server: false,
        vlan: false,
        flags: 0x10,
        seq,
        window: 1000,
        payload: 1000,
    }
}

#[test]
fn a_nic_that_reads_no_headers_leaves_the_sequence_open() {
    let data = |n: u32| sent_by_client(n, 0xf000_0000 + n * 1000);
    let mut sent: Vec<Sent> = (0..100).map(data).collect();
    sent.extend([Sent { flags: 0x11, ..data(100) }, Sent { flags: 0x10, payload: 0, ..data(101) }]);
    let (records, _, kept_back) = analyse(&sent, Keeper::Nic, 1, false);
    let [flow] = &records.flows[..] else { panic!("one flow") };
    assert!(kept_back > 90);
    assert_eq!((flow.metrics.packets.tx, flow.metrics.retrans.tx, flow.metrics.ooo.tx), (102, 0, 0));
}

#[test]
fn a_flow_whose_copies_are_dropped_is_not_counted_by_a_program_that_sees_each() {
    let data = |n: u32| sent_by_client(n, 100 + n * 1000);
    let sent: Vec<Sent> = (0..500).flat_map(|n| [data(n), data(n)]).collect();
    let taps = || Taps::parse("{dedup: true, taps: []}").unwrap();
    let (records, stats, kept_back) = analyse_tapped(&sent, taps(), Keeper::Program, 1, true);
    let (plain, ..) = analyse_tapped(&sent, taps(), Keeper::Nobody, 1, true);
    assert_eq!(totals(&records.flows), totals(&plain.flows));
    assert_eq!((records.flows[0].metrics.packets.tx, stats.drops.total()), (500, 500));
    assert_eq!((kept_back, stats.flow.shunt.shunted, stats.flow.shunt.refused), (0, 0, 1));
    let (cut, stats, _) = analyse_tapped(&sent, taps(), Keeper::Cutter, 1, true);
    assert_eq!((totals(&cut.flows), stats.flow.shunt.refused), (totals(&plain.flows), 1));
}

#[test]
fn flows_of_which_headers_come_have_the_same_records() {
    // Each tenth comes twice.
    let data = |n: u32| sent_by_client(n, 100 + (n - n / 10) * 1000);
    let mut sent: Vec<Sent> = (0..1000).map(data).collect();
    sent.extend([Sent { flags: 0x11, ..data(1000) }, data(1001)]);
    let (cut, stats, frames) = analyse(&sent, Keeper::Cutter, 1, true);
    let (plain, plain_stats, _) = analyse(&sent, Keeper::Nobody, 1, true);
    assert!(frames > 950, "{frames}");
    assert_eq!((stats.flow.shunt.shunted, stats.flow.shunt.woken, stats.flow.shunt.packets), (1, 1, 0));
    assert_eq!(stats.packets, plain_stats.packets);
    assert_eq!(cut.flows, plain.flows);
    assert_eq!(cut.ticks, plain.ticks);
    assert!(cut.flows[0].metrics.retrans.tx > 90, "{:?}", cut.flows[0].metrics);
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let flags = prop_oneof![20 => Just(0x10u8), 1 => Just(0x11), 1 => Just(0x04), 1 => Just(0x02)];
    let client_port = prop_oneof![6 => Just(40_000u16), 2 => Just(40_001), 1 => 40_002u16..40_010];
    (0u64..4_000, client_port, any::<bool>(), any::<bool>(), flags, 0u32..5_000, 0u16..3, 0u16..1_400)
        .prop_map(|(at_ms, client_port, by_server, vlan, flags, seq, window, payload)| Sent {
            at_ms,
            client_port,
            by_server,
            vlan: vlan && by_server,
            flags,
            seq,
            window,
            payload,
        })
}

proptest! {
    /// Whatever is sent, in whatever batches: nothing is counted twice and nothing is lost.
    #[test]
    fn totals_are_those_without_a_shunt(
        mut sent in proptest::collection::vec(any_sent(), 1..400),
        together in 1usize..20,
        ticks: bool,
    ) {
        let mut at_ms = 0;
        for sent in &mut sent {
            at_ms += sent.at_ms;
            sent.at_ms = at_ms;
        }
        let (records, stats, kept_back) = analyse(&sent, Keeper::Program, together, ticks);
        let (plain, plain_stats, _) = analyse(&sent, Keeper::Nobody, together, ticks);
        prop_assert_eq!(totals(&records.flows), totals(&plain.flows));
        prop_assert_eq!(stats.packets + kept_back, plain_stats.packets);
        prop_assert_eq!(stats.flow.shunt.packets, kept_back);
        prop_assert_eq!(stats.frames, stats.packets + stats.drops.total());
        let seconds: u64 = records.ticks.iter().map(|t| t.metrics.packets.tx + t.metrics.packets.rx).sum();
        prop_assert!(!ticks || seconds == plain_stats.packets);
    }
}

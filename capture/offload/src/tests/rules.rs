//! Flows that a NIC's own rules keep back, in conversations where kernel and driver accept those: from the worker that shunts
//! a flow, through the rules and their counters, to the flow's record.

use super::conversation::Replay;
use crate::nic::{Applied, restore_leftovers_as};
use crate::plan::Counting;
use crate::{HardwareFirst, Nic, Plan};
use std::net::Ipv6Addr;
use std::time::UNIX_EPOCH;
use wirespan_dataplane::flow::ShuntPolicy;
use wirespan_dataplane::{Worker, WorkerConfig};
use wirespan_frame::{Batch, Descriptor, Hints, LinkType, ShuntMode};
use wirespan_records::{CloseType, Flow, Records};

/// The report on the NIC, which is the same whatever is asked for.
fn report() -> &'static str {
    let (report, _) = include_str!("../../recordings/capable-nic.txt").split_once("# SET").unwrap();
    report
}

const FIN: u8 = 1;
const ACK: u8 = 0x10;

/// An Ethernet frame of TCP over IPv4 from one end to the other, each the last byte of its address and its port.
fn tcp(from: (u8, u16), to: (u8, u16), flags: u8, payload: u16) -> Vec<u8> {
    let mut frame = [[2; 12].as_slice(), &[8, 0, 0x45, 0]].concat();
    frame.extend((40 + payload).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, from.0, 10, 0, 0, to.0]);
    frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    frame.resize(frame.len() + usize::from(payload), 0xee);
    frame
}

/// The same of UDP over IPv6, from port 6000 of one host to port 5000 of another.
fn udp(payload: u16) -> Vec<u8> {
    let host = |last| Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]).octets();
    let mut frame = [[2; 12].as_slice(), &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend((8 + payload).to_be_bytes());
    frame.extend([17, 64]);
    frame.extend([host(1), host(2)].concat());
    frame.extend([6000, 5000, 8 + payload, 0].map(u16::to_be_bytes).concat());
    frame.resize(frame.len() + usize::from(payload), 0xee);
    frame
}

/// A worker that has the frames which the NIC lets through.
struct Watch {
    worker: Worker,
    records: Records,
    now_ns: u64,
}

impl Watch {
    fn new(shunt: HardwareFirst) -> Self {
        let mut config = WorkerConfig::default();
        (config.flow.l7, config.flow.ticks) = (false, true);
        config.shunt =
            Some(ShuntPolicy { bytes_min: 3_000, mode: ShuntMode::Count, ..ShuntPolicy::default() });
        let mut worker = Worker::new(config);
        worker.set_shunt(Box::new(shunt));
        // A second begins, so that it ends when it is waited for.
        let now_ns = UNIX_EPOCH.elapsed().unwrap().as_secs() * 1_000_000_000;
        Self { worker, records: Records::default(), now_ns }
    }

    fn sees(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            let len = frame.len() as u32;
            let descriptor = Descriptor {
                offset: 0,
                len,
                wire_len: len,
                ts_ns: self.now_ns,
                link: LinkType::Ethernet,
                port: 0,
                hints: Hints::default(),
            };
            self.worker.batch(Batch::new(frame, &[descriptor]), &mut self.records);
        }
    }

    fn waits(&mut self, seconds: u64) {
        self.now_ns += seconds * 1_000_000_000;
        self.worker.idle(self.now_ns, &mut self.records);
    }

    /// The end of the capture: every flow, by the client's port.
    fn ends(mut self) -> Vec<Flow> {
        self.worker.finish(&mut self.records);
        assert!(self.worker.stats().flow.shunt.shunted > 0);
        let mut flows = std::mem::take(&mut self.records.flows);
        flows.sort_by_key(|flow| flow.client.port);
        flows
    }
}

/// Packets and bytes of both directions.
fn totals(flow: &Flow) -> [(u64, u64); 2] {
    let m = &flow.metrics;
    [(m.packets.tx, m.bytes.tx), (m.packets.rx, m.bytes.rx)]
}

fn set_up(replay: &Replay, plan: &str, dir: &std::path::Path) -> Applied {
    let nic = Nic::through(Box::new(replay.clone()), "eth7").unwrap();
    let applied = nic.apply_as(&Plan::parse(plan).unwrap(), 1, dir, &boot()).unwrap();
    assert_eq!(applied.refused(), [""; 0]);
    applied
}

fn boot() -> (String, u64) {
    ("boot".to_owned(), 1)
}

/// The state file as a process leaves it that is killed now.
fn as_if_killed(dir: &std::path::Path) -> tempfile::TempDir {
    let killed = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), killed.path().join(file.file_name())).unwrap();
    }
    killed
}

/// What the next start does with it.
fn restores(killed: &std::path::Path, replay: &Replay) {
    let notes = restore_leftovers_as(killed, &boot(), || Ok(Box::new(replay.clone()))).unwrap();
    assert_eq!(notes, ["eth7: restored what a killed process had changed"]);
    assert!(replay.is_finished());
    assert_eq!(std::fs::read_dir(killed).unwrap().count(), 0);
}

#[test]
fn what_flower_rules_drop_is_counted_to_its_flow_and_the_rules_go_with_it() {
    let (kept, killed) = include_str!("../../recordings/flower.txt").split_once("# AFTER A CRASH").unwrap();
    let replay = Replay::new(&[report(), kept].concat());
    let dir = tempfile::tempdir().unwrap();
    let mut applied = set_up(&replay, "hw-shunt=counted", dir.path());
    let rules = applied.shunt_through(Box::new(replay.clone()), Counting::Counted, 4).unwrap();
    let mut watch = Watch::new(HardwareFirst::new(rules, None));
    let (client, server) = ((1, 40_000), (2, 9_999));
    let data = tcp(client, server, ACK, 1000);
    watch.sees(&[data.clone(), tcp(server, client, ACK, 0), data.clone(), data]);
    let crashed = as_if_killed(dir.path());
    watch.waits(1);
    watch.sees(&[tcp(client, server, FIN | ACK, 0), tcp(server, client, FIN | ACK, 0)]);
    watch.sees(&vec![udp(1000); 3]);
    watch.waits(1);
    watch.waits(120);
    watch.sees(&vec![tcp((1, 40_001), server, ACK, 1000); 3]);
    let flows = watch.ends();
    let [aged, woken, open] = &flows[..] else { panic!("three flows: {flows:?}") };
    const BEYOND_32_BITS: u64 = (1 << 32) + 5;
    assert_eq!(totals(woken), [(4 + 1600, 3 * 1054 + 54 + 1_686_400), (2 + 800, 2 * 54 + 43_200)]);
    assert_eq!(totals(aged), [(3 + BEYOND_32_BITS, (3 + BEYOND_32_BITS) * 1062), (0, 0)]);
    assert_eq!(totals(open), [(3 + 7, 3 * 1054 + 7 * 1054), (2, 108)]);
    assert_eq!(aged.metrics.l4_bytes.tx, (3 + BEYOND_32_BITS) * 1000);
    let closed = [aged, woken, open].map(|flow| flow.close_type);
    assert_eq!(closed, [CloseType::Finish, CloseType::Finish, CloseType::ForcedReport]);
    assert_eq!(applied.restore(), [""; 0]);
    assert!(replay.is_finished());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    restores(crashed.path(), &Replay::new(killed));
}

#[test]
fn what_ntuple_rules_drop_is_missing_and_the_rules_go_with_the_flow() {
    let (kept, killed) = include_str!("../../recordings/ntuple.txt").split_once("# AFTER A CRASH").unwrap();
    let replay = Replay::new(&[report(), kept].concat());
    let dir = tempfile::tempdir().unwrap();
    let mut applied = set_up(&replay, "hw-shunt=uncounted", dir.path());
    let rules = applied.shunt_through(Box::new(replay.clone()), Counting::Uncounted, 4).unwrap();
    let mut watch = Watch::new(HardwareFirst::new(rules, None));
    watch.sees(&vec![tcp((1, 40_000), (2, 9_999), ACK, 1000); 3]);
    let crashed = as_if_killed(dir.path());
    watch.waits(1);
    watch.waits(400);
    let flows = watch.ends();
    let [flow] = &flows[..] else { panic!("one flow: {flows:?}") };
    assert_eq!(totals(flow), [(3, 3 * 1054), (0, 0)]);
    assert_eq!(flow.close_type, CloseType::Timeout);
    assert_eq!(applied.restore(), [""; 0]);
    assert!(replay.is_finished());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    restores(crashed.path(), &Replay::new(killed));
}

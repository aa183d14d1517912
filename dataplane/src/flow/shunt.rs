//! Flows whose frames the source keeps back and counts. What it counted is added to the flow as if the packets had come:
//! each second, before a packet of the flow, and when the flow is looked at, reported or over.

use super::entry::{Entry, Facts};
use super::parts::Parts;
use crate::packet::Packet;
use crate::tap::Counted;
use std::collections::HashMap;
use std::net::IpAddr;
use wirespan_frame::{Shunt, ShuntCounters, ShuntKey, ShuntMode};
use wirespan_l7::Side;
use wirespan_records::{FlowMetrics, PerDirection, Tunnel, TunnelKind};

/// When a flow is shunted.
#[derive(Clone, Copy, Debug)]
pub struct ShuntPolicy {
    /// It has so many bytes on the wire, and its payload is not looked at (any more).
    pub bytes_min: u64,
    /// What the source does with its frames from then on.
    pub mode: ShuntMode,
    /// Kernel entries at the same time; a flow whose directions come in different tunnels or VLANs has two.
    pub entries_max: usize,
}

impl Default for ShuntPolicy {
    fn default() -> Self {
        Self { bytes_min: 10_000_000, mode: ShuntMode::Count, entries_max: 65_536 }
    }
}

/// What was counted about shunted flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShuntStats {
    /// Times a flow was shunted.
    pub shunted: u64,
    /// Of these, times that a packet woke it.
    pub woken: u64,
    /// Times a flow was not: the source had no room, or another tap may see the same flow.
    pub refused: u64,
    /// Packets that the source counted; they are not among the worker's frames.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
}

/// A moment on the clock for time-outs and on that of packets.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub ms: u64,
    pub packet_ns: u64,
}

/// The shunted flows of one table.
pub(super) struct Shunts {
    source: Box<dyn Shunt>,
    policy: ShuntPolicy,
    counted: Counted,
    /// By key, what was already added to its flow of what the source counted.
    added: HashMap<ShuntKey, [ShuntCounters; 2]>,
    /// Keys of each flow: its two directions may have different ones.
    keys: HashMap<u32, Vec<ShuntKey>>,
    stats: ShuntStats,
}

impl Shunts {
    pub(super) fn new(source: Box<dyn Shunt>, policy: ShuntPolicy, counted: Counted) -> Self {
        Self {
            source,
            policy,
            counted,
            added: HashMap::new(),
            keys: HashMap::new(),
            stats: ShuntStats::default(),
        }
    }

    pub(super) fn stats(&self) -> ShuntStats {
        self.stats
    }

    pub(super) fn policy(&self) -> &ShuntPolicy {
        &self.policy
    }

    /// Asks the source to keep back the frames that come as `packet` did.
    pub(super) fn begin(&mut self, number: u32, entry: &mut Entry, packet: &Packet<'_>) {
        let key = key_of(packet);
        if self.added.contains_key(&key) {
            return;
        }
        let tells_taps = self.counted.allows(self.policy.mode, packet);
        let has_room = self.added.len() < self.policy.entries_max;
        if !tells_taps || !has_room || !self.source.shunt(&key, self.policy.mode) {
            self.stats.refused += 1;
            entry.facts.set(Facts::NOT_SHUNTED);
            return;
        }
        self.stats.shunted += 1;
        entry.facts.set(match self.policy.mode {
            ShuntMode::Count => Facts::SHUNTED,
            ShuntMode::Headers => Facts::NOT_SHUNTED,
        });
        self.added.insert(key, Default::default());
        self.keys.entry(number).or_default().push(key);
    }

    /// Adds what the source counted since the last time.
    pub(super) fn read(&mut self, number: u32, entry: &mut Entry, now: Now, parts: &mut Parts) {
        for at in 0..self.keys.get(&number).map_or(0, Vec::len) {
            let key = self.keys[&number][at];
            if let Some(counters) = self.source.read(&key) {
                self.add(&key, counters, entry, now, parts);
            }
        }
    }

    /// The flow's frames are handed on again, because one of them came (`woken`) or the flow is over.
    pub(super) fn end(&mut self, number: u32, entry: &mut Entry, woken: bool, now: Now, parts: &mut Parts) {
        for key in self.keys.remove(&number).unwrap_or_default() {
            if let Some(counters) = self.source.end(&key) {
                self.add(&key, counters, entry, now, parts);
            }
            self.added.remove(&key);
            self.stats.woken += u64::from(woken);
        }
        entry.facts.take(Facts::SHUNTED | Facts::NOT_SHUNTED);
    }

    /// Whether the source treats the flow's frames otherwise.
    pub(super) fn has(&self, number: u32) -> bool {
        self.keys.contains_key(&number)
    }

    /// Numbers of the flows that are shunted.
    pub(super) fn flows(&self) -> Vec<u32> {
        self.keys.keys().copied().collect()
    }

    fn add(
        &mut self,
        key: &ShuntKey,
        counters: [ShuntCounters; 2],
        entry: &mut Entry,
        now: Now,
        parts: &mut Parts,
    ) {
        let Some(added) = self.added.get_mut(key) else { return };
        let mut metrics = FlowMetrics::default();
        for (side, (counted, added)) in [Side::A, Side::B].into_iter().zip(counters.iter().zip(&*added)) {
            let packets = counted.packets.saturating_sub(added.packets);
            if packets == 0 {
                continue;
            }
            let bytes = counted.bytes.saturating_sub(added.bytes);
            *of(&mut metrics.packets, side) = packets;
            *of(&mut metrics.bytes, side) = bytes;
            *of(&mut metrics.l3_bytes, side) = counted.l3_bytes.saturating_sub(added.l3_bytes);
            *of(&mut metrics.l4_bytes, side) = counted.l4_bytes.saturating_sub(added.l4_bytes);
            *of(&mut metrics.zero_win, side) = counted.zero_windows.saturating_sub(added.zero_windows);
            self.stats.packets += packets;
            self.stats.bytes += bytes;
            entry.passed_by(side, counted, now, parts);
        }
        *added = counters;
        if metrics != FlowMetrics::default() {
            entry.counts.add(&metrics, &mut parts.wide);
        }
    }
}

fn of<T>(pair: &mut PerDirection<T>, side: Side) -> &mut T {
    if side == Side::A { &mut pair.tx } else { &mut pair.rx }
}

/// The key by which a source finds a packet's flow.
fn key_of(packet: &Packet<'_>) -> ShuntKey {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let src = (octets(packet.addresses.src_ip()), packet.src_port);
    let dst = (octets(packet.addresses.dst_ip()), packet.dst_port);
    let (a, b) = if src <= dst { (src, dst) } else { (dst, src) };
    ShuntKey {
        a: a.0,
        b: b.0,
        a_port: a.1,
        b_port: b.1,
        protocol: packet.l4.ip_number(),
        tunnel_kind: packet.tunnel.as_ref().map_or(0, tunnel_kind),
        vlan: packet.vlan.map_or(0, |vlan| vlan & 0xfff | 1 << 12),
        tunnel_id: packet.tunnel.map_or(0, |tunnel| tunnel.id),
    }
}

fn tunnel_kind(tunnel: &Tunnel) -> u8 {
    match tunnel.kind {
        TunnelKind::Vxlan => 1,
        TunnelKind::Geneve => 2,
        TunnelKind::Gre => 3,
        TunnelKind::Erspan => 4,
        TunnelKind::Ipip => 5,
        TunnelKind::Gtpu => 6,
    }
}

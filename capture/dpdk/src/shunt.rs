//! Rules in the NIC that drop and count the frames of a flow which need not be delivered (DPDK's rte_flow).
//!
//! A NIC counts packets and bytes and nothing else. That tells all of a UDP flow, as every header of it that a rule
//! matches has the same length; of a TCP flow it tells neither payload nor sequence numbers, so TCP flows go on being
//! delivered, as do tunnelled ones and all flows of a NIC that refuses such rules.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::ptr;
use std::sync::Arc;

use wirespan_capture::{Shunt, ShuntCounters, ShuntKey, ShuntMode};

use crate::clock::now_ns;
use crate::error::errno_text;
use crate::port::Port;
use crate::{DpdkError, sys};

const UDP: u8 = 17;
const UDP_HEADER: u64 = 8;
/// Bit of [`ShuntKey::vlan`] that says there is a tag.
const TAGGED: u16 = 1 << 12;
/// [`sys::FlowKey::vlan`] of frames without a tag.
const UNTAGGED: u16 = 0xffff;

/// Tries with a rule whether the NIC drops and counts.
pub(crate) fn check(port: &Port) -> Result<(), DpdkError> {
    let mut why = [0; sys::TEXT_BYTES];
    // SAFETY: the port is started, and there is room for the reason.
    let result = unsafe { sys::ws_flow_check(port.id, &mut why) };
    if result >= 0 {
        return Ok(());
    }
    Err(DpdkError::Refused {
        action: "keep flows back in",
        port: port.info.name.clone(),
        reason: format!("{}: {}; they are delivered", sys::text(&why), errno_text(result)),
    })
}

/// The flows that a port's NIC keeps back.
pub(crate) struct DropRules {
    port: Arc<Port>,
    flows: HashMap<ShuntKey, [Option<Rule>; 2]>,
}

// SAFETY: rules are used by the one that has them, and DPDK serialises the calls of several.
unsafe impl Send for DropRules {}

/// One direction of a flow.
struct Rule {
    flow: sys::Flow,
    packets: u64,
    bytes: u64,
    first_ns: u64,
    last_ns: u64,
}

impl DropRules {
    pub(crate) fn new(port: &Arc<Port>) -> Self {
        Self { port: Arc::clone(port), flows: HashMap::new() }
    }
}

impl Rule {
    fn create(port: u16, key: &sys::FlowKey) -> Option<Self> {
        let mut flow = sys::Flow { rule: ptr::null_mut(), counter: ptr::null_mut() };
        // SAFETY: key and flow are complete.
        let result = unsafe { sys::ws_flow_create(port, key, &mut flow) };
        (result >= 0).then_some(Self { flow, packets: 0, bytes: 0, first_ns: 0, last_ns: 0 })
    }

    /// The NIC keeps no times: a reading that finds more says when.
    fn read(&mut self, port: u16, now_ns: u64) {
        let (mut packets, mut bytes) = (0, 0);
        // SAFETY: the counter exists as long as the rule is known.
        let result = unsafe { sys::ws_flow_read(port, &self.flow, &mut packets, &mut bytes) };
        if result >= 0 && packets > self.packets {
            self.first_ns = if self.packets == 0 { now_ns } else { self.first_ns };
            self.last_ns = now_ns;
            (self.packets, self.bytes) = (packets, bytes);
        }
    }

    fn end(mut self, port: u16, now_ns: u64) -> Self {
        // SAFETY: the rule exists. One that cannot be removed goes when the port closes.
        unsafe { sys::ws_flow_stop(port, &mut self.flow) };
        self.read(port, now_ns);
        // SAFETY: nothing uses the counter any more.
        unsafe { sys::ws_flow_forget(port, &mut self.flow) };
        self
    }

    fn counters(&self, key: &ShuntKey) -> ShuntCounters {
        let behind = |headers: u64| self.bytes.saturating_sub(self.packets.saturating_mul(headers));
        let l3 = l3_end(key);
        ShuntCounters {
            packets: self.packets,
            bytes: self.bytes,
            l3_bytes: behind(l3),
            l4_bytes: behind(l3 + UDP_HEADER),
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            ..ShuntCounters::default()
        }
    }
}

/// Bytes of Ethernet and IP headers in each frame that a rule of this flow matches.
fn l3_end(key: &ShuntKey) -> u64 {
    let tag = if key.vlan & TAGGED != 0 { 4 } else { 0 };
    let ip = if Ipv6Addr::from(key.a).to_ipv4_mapped().is_some() { 20 } else { 40 };
    14 + tag + ip
}

/// What both directions' rules match; `None` for flows of which a NIC cannot count everything.
fn rule_keys(key: &ShuntKey) -> Option<[sys::FlowKey; 2]> {
    if key.protocol != UDP || key.tunnel_kind != 0 {
        return None;
    }
    let ends = (Ipv6Addr::from(key.a).to_ipv4_mapped(), Ipv6Addr::from(key.b).to_ipv4_mapped());
    let (a, b, ipv6) = match ends {
        (Some(a), Some(b)) => (in_front(a.octets()), in_front(b.octets()), 0),
        (None, None) => (key.a, key.b, 1),
        _ => return None,
    };
    let vlan = if key.vlan & TAGGED != 0 { key.vlan & (TAGGED - 1) } else { UNTAGGED };
    let rule = |src, src_port, dst, dst_port| sys::FlowKey { src, dst, src_port, dst_port, vlan, ipv6 };
    Some([rule(a, key.a_port, b, key.b_port), rule(b, key.b_port, a, key.a_port)])
}

fn in_front(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(address) {
        *to = from;
    }
    bytes
}

impl Shunt for DropRules {
    /// With room for one direction only, the other's frames go on being delivered.
    fn shunt(&mut self, key: &ShuntKey, mode: ShuntMode) -> bool {
        if mode != ShuntMode::Count || self.flows.contains_key(key) {
            return false;
        }
        let Some(keys) = rule_keys(key) else { return false };
        let rules = keys.map(|key| Rule::create(self.port.id, &key));
        let any = rules.iter().any(Option::is_some);
        if any {
            self.flows.insert(*key, rules);
        }
        any
    }

    fn read(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        let rules = self.flows.get_mut(key)?;
        rules.iter_mut().flatten().for_each(|rule| rule.read(self.port.id, now_ns()));
        Some(
            rules
                .each_ref()
                .map(|rule| rule.as_ref().map_or_else(Default::default, |rule| rule.counters(key))),
        )
    }

    fn end(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        let rules = self.flows.remove(key)?;
        let ended = rules.map(|rule| rule.map(|rule| rule.end(self.port.id, now_ns())));
        Some(ended.map(|rule| rule.map_or_else(Default::default, |rule| rule.counters(key))))
    }
}

impl Drop for DropRules {
    fn drop(&mut self) {
        for (_, rules) in self.flows.drain() {
            for rule in rules.into_iter().flatten() {
                rule.end(self.port.id, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn key() -> ShuntKey {
        let address = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().octets();
        ShuntKey {
            a: address(1),
            b: address(2),
            a_port: 443,
            b_port: 5_000,
            protocol: UDP,
            tunnel_kind: 0,
            vlan: 0,
            tunnel_id: 0,
        }
    }

    fn rule(packets: u64, bytes: u64) -> Rule {
        let flow = sys::Flow { rule: ptr::null_mut(), counter: ptr::null_mut() };
        Rule { flow, packets, bytes, first_ns: 1, last_ns: 2 }
    }

    #[test]
    fn a_udp_flow_becomes_a_rule_for_each_direction() {
        let [there, back] = rule_keys(&key()).unwrap();
        assert_eq!((&there.src[..5], &there.dst[..4]), (&[10, 0, 0, 1, 0][..], &[10, 0, 0, 2][..]));
        assert_eq!((there.src_port, there.dst_port, there.vlan, there.ipv6), (443, 5_000, UNTAGGED, 0));
        assert_eq!((back.src, back.dst, back.src_port), (there.dst, there.src, 5_000));
        let ipv6 = ShuntKey { a: [1; 16], b: [2; 16], vlan: TAGGED | 7, ..key() };
        let [there, _] = rule_keys(&ipv6).unwrap();
        assert_eq!((there.src, there.vlan, there.ipv6), ([1; 16], 7, 1));
    }

    #[test]
    fn flows_that_a_nic_cannot_count_are_delivered() {
        assert!(rule_keys(&ShuntKey { protocol: 6, ..key() }).is_none());
        assert!(rule_keys(&ShuntKey { tunnel_kind: 1, tunnel_id: 5, ..key() }).is_none());
        assert!(rule_keys(&ShuntKey { b: [2; 16], ..key() }).is_none());
    }

    #[test]
    fn payload_follows_from_packets_and_bytes() {
        let counters = rule(3, 3 * (14 + 20 + 8) + 1_000).counters(&key());
        assert_eq!((counters.packets, counters.l3_bytes, counters.l4_bytes), (3, 1_024, 1_000));
        let tagged = ShuntKey { vlan: TAGGED | 7, a: [1; 16], b: [2; 16], ..key() };
        let counters = rule(2, 2 * (14 + 4 + 40 + 8) + 10).counters(&tagged);
        assert_eq!((counters.bytes, counters.l4_bytes, counters.first_ns, counters.last_ns), (142, 10, 1, 2));
    }
}

//! Flows are kept back by the NIC where it has room, else by the XDP program.

use std::collections::HashSet;
use wirespan_capture::{Shunt, ShuntCounters, ShuntKey, ShuntMode};
use wirespan_offload::{HardwareShunt, RuleCounters};

/// The NIC's rules first.
pub struct HardwareFirst {
    rules: HardwareShunt,
    program: Option<Box<dyn Shunt>>,
    in_hardware: HashSet<ShuntKey>,
}

impl HardwareFirst {
    pub fn new(rules: HardwareShunt, program: Option<Box<dyn Shunt>>) -> Self {
        Self { rules, program, in_hardware: HashSet::new() }
    }
}

impl Shunt for HardwareFirst {
    fn shunt(&mut self, key: &ShuntKey, mode: ShuntMode) -> bool {
        if mode == ShuntMode::Count && self.rules.add(key).is_ok() {
            self.in_hardware.insert(*key);
            return true;
        }
        self.program.as_mut().is_some_and(|program| program.shunt(key, mode))
    }

    fn read(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        if self.in_hardware.contains(key) {
            return Some(self.rules.read(key).unwrap_or_default().map(|rule| counters(key, rule)));
        }
        self.program.as_mut()?.read(key)
    }

    fn end(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        if self.in_hardware.remove(key) {
            return Some(self.rules.remove(key).unwrap_or_default().map(|rule| counters(key, rule)));
        }
        self.program.as_mut()?.end(key)
    }
}

/// A NIC counts packets and bytes only: headers are taken to be as long as they mostly are.
fn counters(key: &ShuntKey, rule: RuleCounters) -> ShuntCounters {
    const ETHERNET: u64 = 14;
    const TCP: u8 = 6;
    let is_v4 = key.a.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    // RFC 791 and 8200 without options; RFC 9293 with the timestamp option of RFC 7323; RFC 768.
    let (l3, l4) = (if is_v4 { 20 } else { 40 }, if key.protocol == TCP { 32 } else { 8 });
    let l3_bytes = rule.bytes.saturating_sub(rule.packets * (ETHERNET + l3));
    ShuntCounters {
        packets: rule.packets,
        bytes: rule.bytes,
        l3_bytes,
        l4_bytes: l3_bytes.saturating_sub(rule.packets * l4),
        ..ShuntCounters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_headers_are_taken_off() {
        let mut key = ShuntKey {
            a: [0; 16],
            b: [0; 16],
            a_port: 1,
            b_port: 2,
            protocol: 6,
            tunnel_kind: 0,
            vlan: 0,
            tunnel_id: 0,
        };
        let bytes = |key: &ShuntKey| {
            let counters = counters(key, RuleCounters { packets: 2, bytes: 2000 });
            (counters.packets, counters.bytes, counters.l3_bytes, counters.l4_bytes)
        };
        assert_eq!(bytes(&key), (2, 2000, 2000 - 2 * 54, 2000 - 2 * 86));
        key.a[10..12].fill(0xff);
        key.protocol = 17;
        assert_eq!(bytes(&key), (2, 2000, 2000 - 2 * 34, 2000 - 2 * 42));
    }
}

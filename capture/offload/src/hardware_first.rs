//! Flows are kept back by the NIC where it has room, else by the XDP program.

use crate::shunt::{HardwareShunt, RuleCounters};
use std::collections::HashMap;
use std::time::UNIX_EPOCH;
use wirespan_frame::{Shunt, ShuntCounters, ShuntKey, ShuntMode};

/// The NIC's rules first.
pub struct HardwareFirst {
    rules: HardwareShunt,
    program: Option<Box<dyn Shunt>>,
    /// What each flow's rules, side A's first, had dropped when they were read last.
    in_hardware: HashMap<ShuntKey, [Reading; 2]>,
}

impl HardwareFirst {
    /// Flows that the NIC has no rules for are the program's, where there is one.
    pub fn new(rules: HardwareShunt, program: Option<Box<dyn Shunt>>) -> Self {
        Self { rules, program, in_hardware: HashMap::new() }
    }
}

impl Shunt for HardwareFirst {
    fn shunt(&mut self, key: &ShuntKey, mode: ShuntMode) -> bool {
        if mode == ShuntMode::Count && self.rules.add(key).is_ok() {
            self.in_hardware.insert(*key, Default::default());
            return true;
        }
        self.program.as_mut().is_some_and(|program| program.shunt(key, mode))
    }

    fn read(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        if let Some(readings) = self.in_hardware.get_mut(key) {
            return Some(counters(key, readings, self.rules.read(key)));
        }
        self.program.as_mut()?.read(key)
    }

    fn end(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        if let Some(mut readings) = self.in_hardware.remove(key) {
            return Some(counters(key, &mut readings, self.rules.remove(key)));
        }
        self.program.as_mut()?.end(key)
    }
}

/// Takes new readings; none where the NIC does not count.
fn counters(
    key: &ShuntKey,
    readings: &mut [Reading; 2],
    rules: Option<[RuleCounters; 2]>,
) -> [ShuntCounters; 2] {
    let now_ns = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
    for (reading, rule) in readings.iter_mut().zip(rules.into_iter().flatten()) {
        reading.take(rule, now_ns);
    }
    readings.map(|reading| reading.counters(key))
}

/// What the rule of one direction dropped, and when that was noticed: a NIC keeps no times.
#[derive(Clone, Copy, Default)]
struct Reading {
    dropped: RuleCounters,
    first_ns: u64,
    last_ns: u64,
}

impl Reading {
    fn take(&mut self, dropped: RuleCounters, now_ns: u64) {
        if dropped.packets > self.dropped.packets {
            self.first_ns = if self.dropped.packets == 0 { now_ns } else { self.first_ns };
            self.last_ns = now_ns;
            self.dropped = dropped;
        }
    }

    /// A NIC counts packets and bytes only: headers are taken to be as long as they mostly are.
    fn counters(&self, key: &ShuntKey) -> ShuntCounters {
        const ETHERNET: u64 = 14;
        const TCP: u8 = 6;
        let RuleCounters { packets, bytes } = self.dropped;
        let is_v4 = key.a.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        // RFC 791 and 8200 without options; RFC 9293 with the timestamp option of RFC 7323; RFC 768.
        let (l3, l4) = (if is_v4 { 20 } else { 40 }, if key.protocol == TCP { 32 } else { 8 });
        let l3_bytes = bytes.saturating_sub(packets * (ETHERNET + l3));
        ShuntCounters {
            packets,
            bytes,
            l3_bytes,
            l4_bytes: l3_bytes.saturating_sub(packets * l4),
            first_ns: self.first_ns,
            last_ns: self.last_ns,
            ..ShuntCounters::default()
        }
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
            let dropped = RuleCounters { packets: 2, bytes: 2000 };
            let counters = Reading { dropped, ..Reading::default() }.counters(key);
            (counters.packets, counters.bytes, counters.l3_bytes, counters.l4_bytes)
        };
        assert_eq!(bytes(&key), (2, 2000, 2000 - 2 * 54, 2000 - 2 * 86));
        key.a[10..12].fill(0xff);
        key.protocol = 17;
        assert_eq!(bytes(&key), (2, 2000, 2000 - 2 * 34, 2000 - 2 * 42));
    }

    #[test]
    fn a_flow_is_as_fresh_as_the_reading_that_found_more() {
        let mut reading = Reading::default();
        for (packets, now_ns) in [(0, 5), (2, 10), (2, 20), (3, 30), (3, 40)] {
            reading.take(RuleCounters { packets, bytes: packets * 100 }, now_ns);
        }
        assert_eq!((reading.first_ns, reading.last_ns, reading.dropped.bytes), (10, 30, 300));
    }
}

//! Flows of a table whose source keeps frames back and counts them.

use super::FlowTable;
use crate::flow::RecordSink;
use crate::flow::entry::Facts;
use crate::flow::shunt::Now;
use crate::packet::{Packet, flags};
use wirespan_l7::Side;
use wirespan_records::L4Protocol;

impl FlowTable {
    /// A packet of a table whose source can keep frames back.
    #[inline(never)]
    pub(super) fn update_with_shunt(
        &mut self,
        number: u32,
        packet: &Packet<'_>,
        side: Side,
        sink: &mut dyn RecordSink,
    ) {
        let controls =
            packet.l4 == L4Protocol::Tcp && packet.tcp.flags & (flags::SYN | flags::FIN | flags::RST) != 0;
        if controls {
            self.wake(number);
        }
        self.update(number, packet, side, sink);
        let Self { shunts: Some(shunts), flows, parts, seconds, .. } = self else { return };
        let entry = &mut flows[number];
        if !controls
            && entry.facts.has(Facts::UNPARSED)
            && !entry.facts.has(Facts::NOT_SHUNTED)
            && entry.is_shuntable()
            && seconds.bytes_of(entry, parts) >= shunts.policy().bytes_min
        {
            shunts.begin(number, entry, packet);
        }
    }

    fn now(&self) -> Now {
        Now { ms: self.clock.now_ms(), packet_ns: self.clock.packet_ns() }
    }

    /// Adds to a shunted flow what its source counted.
    pub(super) fn read_shunt(&mut self, number: u32) {
        let now = self.now();
        let Self { shunts: Some(shunts), flows, parts, seconds, config, .. } = self else { return };
        let entry = &mut flows[number];
        if config.ticks {
            seconds.activate(number, entry, parts);
        }
        shunts.read(number, entry, now, parts);
    }

    /// A shunted flow ends to be one, because of a packet that the source let through or because it is over.
    pub(super) fn wake(&mut self, number: u32) {
        self.end_shunt(number, true);
    }

    pub(super) fn end_shunt(&mut self, number: u32, woken: bool) {
        let now = self.now();
        let Self { shunts: Some(shunts), flows, parts, seconds, config, .. } = self else { return };
        if shunts.has(number) {
            let entry = &mut flows[number];
            if config.ticks {
                seconds.activate(number, entry, parts);
            }
            shunts.end(number, entry, woken, now, parts);
        }
    }
}

//! The flow table of one worker: finds the flow of a packet, follows the connection, lets L7 have its bytes in order,
//! and hands on flow records when a flow ends, when a report is due, and for each second it was active.
//!
//! Packets come in batches and are worked on in small groups, three at a time: of the first, keys and hashes are made, and
//! the index's cache lines are asked for; of the second, the flows' lines; of the third, the flows are updated in the order
//! the packets came. A large table so costs little more than a small one, and the result is that of one packet at a time.
//!
//! | module | what |
//! |---|---|
//! | `table` | what becomes of a packet; how flows begin, are looked at and end |
//! | `key`, `index`, `slab`, `timers`, `clock`, `memory` | the table's parts |
//! | `entry`, `counts`, `moment`, `parts` | one flow |
//! | `seconds` | what flows do in the current second |
//! | `eviction` | who leaves when the table is full |
//! | `shunt` | flows whose frames the source keeps back |
//! | `role` | who is the client |
//! | `tcp`, `sequence`, `close` | TCP state, metrics, how it ended |
//! | `reassembly`, `answers`, `payload` | segments in order, and their way to L7 |

mod answers;
mod clock;
mod close;
mod counts;
mod entry;
mod eviction;
mod index;
mod key;
mod memory;
mod moment;
mod parts;
mod payload;
mod reassembly;
mod role;
mod seconds;
mod sequence;
mod shunt;
mod slab;
mod table;
mod tcp;
mod timers;

pub use entry::Timeouts;
pub use key::KeyScope;
pub use shunt::{ShuntPolicy, ShuntStats};
pub use table::FlowTable;

use std::net::IpAddr;
use wirespan_l7::SpanSink;
use wirespan_records::{Flow, FlowTick, Records};

/// Receives what a worker makes.
pub trait RecordSink: SpanSink {
    /// A flow ended, or a report of it is due.
    fn flow(&mut self, flow: Flow);
    /// What a flow did in one second.
    fn tick(&mut self, tick: FlowTick);
}

impl RecordSink for Records {
    fn flow(&mut self, flow: Flow) {
        self.flows.push(flow);
    }

    fn tick(&mut self, tick: FlowTick) {
        self.ticks.push(tick);
    }
}

/// Settings of a flow table.
#[derive(Clone, Debug)]
pub struct FlowConfig {
    /// Flows kept at the same time. When there are more, one that would be missed least leaves, and is counted.
    pub max_flows: usize,
    /// What is part of the key beside the 5-tuple.
    pub scope: KeyScope,
    /// Let the L7 engine have payload; without, flows and TCP metrics are all there is.
    pub l7: bool,
    /// Hand on [`FlowTick`]s.
    pub ticks: bool,
    /// Report flows that live longer than this each time it passes, in milliseconds.
    pub report_interval_ms: Option<u64>,
    /// How long flows live without a packet.
    pub timeouts: Timeouts,
    /// Goes into the high 16 bits of flow ids.
    pub worker: u16,
    /// Addresses of this host, sorted; they tell the observation point.
    pub local_addresses: Vec<IpAddr>,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_flows: 1 << 20,
            scope: KeyScope::default(),
            l7: true,
            ticks: false,
            report_interval_ms: None,
            timeouts: Timeouts::default(),
            worker: 0,
            local_addresses: Vec::new(),
        }
    }
}

/// What a flow table counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Flows begun.
    pub flows: u64,
    /// Flows that left because the table was full.
    pub evicted: u64,
    /// Flows in the table.
    pub live: u64,
    /// Packets whose payload was not looked at because the worker could not keep up.
    pub payload_shed: u64,
    /// Of shunted flows.
    pub shunt: ShuntStats,
    /// Memory in use.
    pub memory: FlowMemory,
}

/// Bytes that a flow table uses, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowMemory {
    /// One record per flow, and those kept for the next.
    pub flows: u64,
    /// From keys to flows.
    pub index: u64,
    /// The timer wheel, and what flows had counted before the current second.
    pub timers: u64,
    /// Parts that only some flows have: payload, tunnel, holes, large counters.
    pub parts: u64,
    /// Segments that came early.
    pub reassembly: u64,
}

impl FlowMemory {
    /// All together.
    pub fn total(&self) -> u64 {
        self.flows + self.index + self.timers + self.parts + self.reassembly
    }
}

/// What is left out because the worker cannot keep up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shedding {
    /// Payload of these flows is not looked at.
    pub payload: ShedPayload,
    /// Of new flows only one in so many is taken in.
    pub new_flows_one_in: Option<u32>,
}

/// Flows whose payload is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShedPayload {
    /// None: all payload is looked at.
    #[default]
    None,
    /// Those of which it is not known what they speak.
    Unknown,
    /// All.
    All,
}

#[cfg(test)]
pub(crate) mod tests;

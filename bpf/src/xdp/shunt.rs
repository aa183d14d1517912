//! Flows whose frames the kernel counts instead of delivering them (`programs/shunt.h`).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wirespan_frame::{Shunt, ShuntCounters, ShuntKey, ShuntMode};

use super::stats::Statistics;
use crate::sys::{self, Map, Plain};

/// What one CPU counted in one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets: u64,
    bytes: u64,
    l3_bytes: u64,
    l4_bytes: u64,
    /// CLOCK_MONOTONIC_COARSE: milliseconds late at most.
    first_ns: u64,
    last_ns: u64,
    first_seq: u32,
    next_seq: u32,
    last_ack: u32,
    zero_windows: u32,
    tcp_flags: u64,
}

/// A flow on one CPU: the number of its mode, and what was counted in each direction.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Flow {
    key: ShuntKey,
    zero: u32,
    number: u32,
    reserved: u32,
    directions: [Counters; 2],
}

// SAFETY: integers without padding.
unsafe impl Plain for Flow {}

/// `SHUNT_NONE`: frames are delivered.
const AWAKE: u32 = 0;

/// The shunted flows of one interface. Clones share them: one for each worker.
///
/// **Exact**: the kernel throws out no flow for another's sake, but there is room for no more than was asked for.
/// [`Shunt::end`] wakes the flow, waits for the CPUs that had found it asleep, and only then reads what they counted. A flow
/// is awake when it is entered and falls asleep after a wait too: a CPU may hold memory of the map that was another flow's.
///
/// **Delivered nonetheless**: IP fragments, since only the whole datagram says how many packets they are; and frames that the
/// program cannot decode. A flow that was woken stays so until it is shunted anew, and its counters stay until `end`.
///
/// **Headers**: frames are cut behind the L4 header only where the driver has room for a [`Stamp`](super::Stamp), which
/// says their length on the wire; elsewhere they are delivered whole.
#[derive(Clone, Debug)]
pub struct ShuntMap {
    /// By [`hash`] of their keys.
    flows: Arc<Map>,
    modes: Arc<Map>,
    /// Numbers that no flow has. Asked for when a flow begins or ends, never for a frame.
    free: Arc<Mutex<Vec<u32>>>,
    statistics: Statistics,
}

impl ShuntMap {
    /// The map of the flows, that of as many modes, and the counters that say where CPUs are.
    pub(super) fn new(flows: Arc<Map>, modes: Arc<Map>, statistics: Statistics) -> Self {
        let free = (0..modes.max_entries()).rev().collect();
        Self { flows, modes, free: Arc::new(Mutex::new(free)), statistics }
    }

    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn per_cpu(&self, key: &ShuntKey) -> io::Result<Option<(u32, Vec<Flow>)>> {
        let flows = self.flows.get_per_cpu::<_, Flow>(&hash(key))?;
        Ok(flows.and_then(|per_cpu| {
            let number = per_cpu.first().filter(|flow| flow.key == *key)?.number;
            Some((number, per_cpu))
        }))
    }

    fn try_shunt(&self, key: &ShuntKey, mode: ShuntMode) -> io::Result<bool> {
        // A flow that was woken is there already; it goes on counting where it was.
        let number = match self.per_cpu(key)? {
            Some((number, _)) => number,
            None => {
                let Some(number) = self.free().pop() else { return Ok(false) };
                let directions = [Counters::default(); 2];
                let flow = Flow { key: *key, zero: 0, number, reserved: 0, directions };
                if let Err(error) = self.flows.set(&hash(key), &flow, sys::NO_EXIST) {
                    self.free().push(number);
                    return Err(error);
                }
                self.statistics.wait_for_cpus()?;
                number
            }
        };
        let mode: u32 = match mode {
            ShuntMode::Count => 1,
            ShuntMode::Headers => 2,
        };
        self.modes.set(&number, &mode, 0).map(|()| true)
    }

    fn try_read(&self, key: &ShuntKey) -> io::Result<Option<[ShuntCounters; 2]>> {
        Ok(self.per_cpu(key)?.map(|(_, per_cpu)| {
            let epoch_ns =
                sys::clock_ns(libc::CLOCK_REALTIME).saturating_sub(sys::clock_ns(libc::CLOCK_MONOTONIC));
            let direction = |side: usize| fold(per_cpu.iter().map(|cpu| &cpu.directions[side]), epoch_ns);
            [direction(0), direction(1)]
        }))
    }

    fn try_end(&self, key: &ShuntKey) -> io::Result<Option<[ShuntCounters; 2]>> {
        let Some((number, _)) = self.per_cpu(key)? else { return Ok(None) };
        self.modes.set(&number, &AWAKE, 0)?;
        self.statistics.wait_for_cpus()?;
        let counters = self.try_read(key)?;
        if self.flows.remove(&hash(key))? {
            self.free().push(number);
        }
        Ok(counters)
    }
}

impl Shunt for ShuntMap {
    fn shunt(&mut self, key: &ShuntKey, mode: ShuntMode) -> bool {
        self.try_shunt(key, mode).unwrap_or(false)
    }

    fn read(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        self.try_read(key).ok().flatten()
    }

    fn end(&mut self, key: &ShuntKey) -> Option<[ShuntCounters; 2]> {
        self.try_end(key).ok().flatten()
    }
}

/// `shunt_hash` of `programs/shunt.h`. The second of two flows with one hash finds no room.
pub(super) fn hash(key: &ShuntKey) -> u64 {
    const FACTORS: [u64; 6] = [
        0x9e37_79b9_7f4a_7c15,
        0xd6e8_feb8_6659_fd93,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
    ];
    let half = |address: [u8; 16], shift: u32| (u128::from_be_bytes(address) >> shift) as u64;
    let others = u64::from(key.a_port)
        | u64::from(key.b_port) << 16
        | u64::from(key.protocol) << 32
        | u64::from(key.tunnel_kind) << 40
        | u64::from(key.vlan) << 48;
    let words =
        [half(key.a, 64), half(key.a, 0), half(key.b, 64), half(key.b, 0), others, key.tunnel_id.into()];
    let products = words.into_iter().zip(FACTORS).map(|(word, factor)| word.wrapping_mul(factor));
    products.fold(0, u64::wrapping_add)
}

/// One direction, of what each CPU counted. `epoch_ns` is when CLOCK_MONOTONIC began.
fn fold<'a>(per_cpu: impl Iterator<Item = &'a Counters>, epoch_ns: u64) -> ShuntCounters {
    let mut sum = ShuntCounters::default();
    for cpu in per_cpu.filter(|cpu| cpu.packets != 0) {
        let (first_ns, last_ns) = (epoch_ns + cpu.first_ns, epoch_ns + cpu.last_ns);
        let begins = sum.packets == 0;
        if begins || (cpu.next_seq.wrapping_sub(sum.next_seq) as i32) > 0 {
            sum.next_seq = cpu.next_seq;
        }
        // CPUs that say the same time are told apart by the sequence numbers.
        let is_after = |seq: u32, other: u32| (seq.wrapping_sub(other) as i32) > 0;
        if begins || (first_ns, is_after(cpu.first_seq, sum.first_seq)) < (sum.first_ns, true) {
            (sum.first_ns, sum.first_seq) = (first_ns, cpu.first_seq);
        }
        if begins || (last_ns, is_after(cpu.last_ack, sum.last_ack)) > (sum.last_ns, false) {
            (sum.last_ns, sum.last_ack) = (last_ns, cpu.last_ack);
        }
        sum.packets += cpu.packets;
        sum.bytes += cpu.bytes;
        sum.l3_bytes += cpu.l3_bytes;
        sum.l4_bytes += cpu.l4_bytes;
        sum.zero_windows = sum.zero_windows.wrapping_add(cpu.zero_windows);
        sum.tcp_flags |= cpu.tcp_flags as u8;
    }
    sum
}

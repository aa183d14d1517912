//! What the program did with the frames, by reason.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys::{Map, Plain};

/// A frame takes a CPU less than a microsecond.
const WAIT_MAX: Duration = Duration::from_millis(10);

/// Frames since the program was attached. `received` is the sum of all others but `shunted_bytes`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Seen by the program.
    pub received: u64,
    /// Handed to a socket. Those that the socket had no room for are in its own statistics (`XDP_STATISTICS`).
    pub delivered: u64,
    /// Left to the network stack, since their queue has no socket.
    pub passed: u64,
    /// Dropped by a rule on the IP protocol.
    pub filtered_protocol: u64,
    /// Dropped by a rule on addresses.
    pub filtered_network: u64,
    /// Dropped by a rule on ports.
    pub filtered_port: u64,
    /// Dropped by a rule on the VLAN.
    pub filtered_vlan: u64,
    /// Dropped by a rule on the tunnel's id.
    pub filtered_tunnel_id: u64,
    /// Dropped since their flow is not in the sample.
    pub sampled_out: u64,
    /// Counted for their flow instead of delivered.
    pub shunted: u64,
    /// L2 bytes of those.
    pub shunted_bytes: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Counters {}

impl Counters {
    /// Dropped by any rule.
    pub fn filtered(&self) -> u64 {
        [
            self.filtered_protocol,
            self.filtered_network,
            self.filtered_port,
            self.filtered_vlan,
            self.filtered_tunnel_id,
        ]
        .into_iter()
        .fold(0, u64::wrapping_add)
    }

    /// What became of the frames that were seen; the same as `received` while no frame is being handled.
    pub fn handled(&self) -> u64 {
        [self.delivered, self.passed, self.filtered(), self.sampled_out, self.shunted]
            .into_iter()
            .fold(0, u64::wrapping_add)
    }

    fn add(&mut self, other: &Self) {
        self.received = self.received.wrapping_add(other.received);
        self.delivered = self.delivered.wrapping_add(other.delivered);
        self.passed = self.passed.wrapping_add(other.passed);
        self.filtered_protocol = self.filtered_protocol.wrapping_add(other.filtered_protocol);
        self.filtered_network = self.filtered_network.wrapping_add(other.filtered_network);
        self.filtered_port = self.filtered_port.wrapping_add(other.filtered_port);
        self.filtered_vlan = self.filtered_vlan.wrapping_add(other.filtered_vlan);
        self.filtered_tunnel_id = self.filtered_tunnel_id.wrapping_add(other.filtered_tunnel_id);
        self.sampled_out = self.sampled_out.wrapping_add(other.sampled_out);
        self.shunted = self.shunted.wrapping_add(other.shunted);
        self.shunted_bytes = self.shunted_bytes.wrapping_add(other.shunted_bytes);
    }
}

/// The counters of all CPUs.
#[derive(Clone, Debug)]
pub(super) struct Statistics(pub Arc<Map>);

impl Statistics {
    pub fn per_cpu(&self) -> io::Result<Vec<Counters>> {
        Ok(self.0.get_per_cpu(&0u32)?.unwrap_or_default())
    }

    pub fn sum(&self) -> io::Result<Counters> {
        let mut sum = Counters::default();
        self.per_cpu()?.iter().for_each(|cpu| sum.add(cpu));
        Ok(sum)
    }

    /// Waits until no CPU is any more where it was in the program when this was called.
    ///
    /// A CPU counts a frame as received when it begins with it, and otherwise when it is done with it.
    pub fn wait_for_cpus(&self) -> io::Result<()> {
        let (before, started) = (self.per_cpu()?, Instant::now());
        let mut now = before.clone();
        // The bound is for CPUs that a hypervisor has stopped.
        while started.elapsed() < WAIT_MAX
            && before.iter().zip(&now).any(|(before, now)| busy_since(before, now))
        {
            std::hint::spin_loop();
            now = self.per_cpu()?;
        }
        Ok(())
    }
}

/// Whether a CPU may still be at the frame that it was at. `received` is copied first, so others may be ahead of it.
fn busy_since(before: &Counters, now: &Counters) -> bool {
    let behind = |counters: &Counters| (counters.handled().wrapping_sub(counters.received) as i64) < 0;
    behind(before) && behind(now) && now.received == before.received
}

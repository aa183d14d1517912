//! Sums what flows did in one second to rows of `net_metrics_1s`.
//!
//! A row waits a little for the ticks of other workers. A tick that comes later makes a second row with the same key,
//! which the table adds up: late ticks cost a row, never a wrong sum.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::net::IpAddr;
use wirespan_records::{FlowTick, L4Protocol, ObservationPoint, TunnelKind};
use wirespan_store::NetMetrics;

/// Seconds of data time that a row waits for ticks of other workers.
const LAG_SECONDS: u32 = 2;

/// Rows that wait at most; with more, all are handed on early.
const MAX_ROWS: usize = 100_000;

/// What a row is about: one second of all flows from one client address to one server port.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct NetKey {
    second: u32,
    client_ip: IpAddr,
    server_ip: IpAddr,
    server_port: u16,
    protocol: L4Protocol,
    observation_point: ObservationPoint,
    tunnel: Option<(TunnelKind, u32)>,
    tap: u16,
}

/// Rows that are being summed.
#[derive(Default)]
pub struct NetAggregator {
    rows: HashMap<NetKey, NetMetrics, RandomState>,
    newest_second: u32,
    ticks_since_drain: bool,
}

impl NetAggregator {
    /// Adds one tick.
    pub fn add(&mut self, tick: &FlowTick) {
        self.newest_second = self.newest_second.max(tick.second);
        self.ticks_since_drain = true;
        match self.rows.entry(key_of(tick)) {
            Entry::Occupied(mut row) => row.get_mut().add(tick),
            Entry::Vacant(row) => {
                row.insert(NetMetrics::of(tick));
            }
        }
    }

    /// Rows whose second is over, and all rows when there are too many or when no tick came since the last call.
    pub fn drain_finished(&mut self) -> Vec<NetMetrics> {
        let had_ticks = std::mem::take(&mut self.ticks_since_drain);
        if self.is_full() || !had_ticks {
            return self.drain_all();
        }
        let open_from = self.newest_second.saturating_sub(LAG_SECONDS);
        self.rows.extract_if(|key, _| key.second < open_from).map(|(_, row)| row).collect()
    }

    /// Every row.
    pub fn drain_all(&mut self) -> Vec<NetMetrics> {
        self.rows.drain().map(|(_, row)| row).collect()
    }

    /// It is time to call [`Self::drain_finished`].
    pub fn is_full(&self) -> bool {
        self.rows.len() >= MAX_ROWS
    }
}

fn key_of(tick: &FlowTick) -> NetKey {
    NetKey {
        second: tick.second,
        client_ip: tick.client.ip,
        server_ip: tick.server.ip,
        server_port: tick.server.port,
        protocol: tick.protocol,
        observation_point: tick.observation_point,
        tunnel: tick.tunnel.map(|t| (t.kind, t.id)),
        tap: tick.tap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wirespan_records::{CloseType, Endpoint, FlowMetrics, Latency};

    fn tick(second: u32, client: u8, packets: u64) -> FlowTick {
        let endpoint = |last, port| Endpoint { ip: IpAddr::from([10, 0, 0, last]), port };
        let mut metrics = FlowMetrics::default();
        metrics.packets.tx = packets;
        metrics.rtt.add(u32::from(client) * 10);
        FlowTick {
            second,
            observation_point: ObservationPoint::Rest,
            client: endpoint(client, 40_000),
            server: endpoint(200, 80),
            protocol: L4Protocol::Tcp,
            tunnel: None,
            tap: 0,
            metrics,
            is_new: true,
            closed: None,
        }
    }

    #[test]
    fn flows_of_one_second_and_client_become_one_row() {
        let mut net = NetAggregator::default();
        net.add(&tick(100, 1, 5));
        net.add(&FlowTick { closed: Some(CloseType::ServerRefused), ..tick(100, 1, 7) });
        net.add(&FlowTick { closed: Some(CloseType::ForcedReport), ..tick(100, 1, 1) });
        let rows = net.drain_all();
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.metrics.packets.tx, row.new_flows, row.closed_flows()), (13, 3, 1));
        assert_eq!(row.closed(CloseType::ServerRefused), 1);
        assert_eq!(row.metrics.rtt, Latency { max_us: 10, count: 3, sum_us: 30 });
    }

    #[test]
    fn a_second_is_handed_on_when_it_is_over_and_late_ticks_make_a_second_row() {
        let mut net = NetAggregator::default();
        net.add(&tick(100, 1, 1));
        assert!(net.drain_finished().is_empty());
        net.add(&tick(103, 1, 1));
        assert_eq!(net.drain_finished().iter().map(|r| r.second).collect::<Vec<_>>(), [100]);
        net.add(&tick(100, 1, 4));
        let late = net.drain_finished();
        assert_eq!((late.len(), late[0].metrics.packets.tx), (1, 4));
    }

    #[test]
    fn rows_do_not_wait_for_ever_when_the_traffic_ends() {
        let mut net = NetAggregator::default();
        net.add(&tick(100, 1, 1));
        assert!(net.drain_finished().is_empty());
        assert_eq!(net.drain_finished().len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_the_order(ticks in prop::collection::vec((90u32..110, 0u8..4, 0u64..1000, any::<bool>()), 0..200)) {
            let mut net = NetAggregator::default();
            let mut rows = Vec::new();
            for &(second, client, packets, drain) in &ticks {
                net.add(&tick(second, client, packets));
                if drain {
                    rows.extend(net.drain_finished());
                }
            }
            rows.extend(net.drain_all());
            let total: u64 = rows.iter().map(|r| r.metrics.packets.tx).sum();
            prop_assert_eq!(total, ticks.iter().map(|t| t.2).sum::<u64>());
            prop_assert_eq!(rows.iter().map(|r| r.new_flows as usize).sum::<usize>(), ticks.len());
        }
    }
}

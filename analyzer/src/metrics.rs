//! Sums what flows did in one second to rows of `net_metrics_1s`.
//!
//! A row waits a little for the ticks of other workers. A tick that comes later makes a second row with the same key,
//! which the table adds up: late ticks cost a row, never a wrong sum.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::net::IpAddr;
use wirespan_records::{
    CloseType, FlowMetrics, FlowTick, L4Protocol, Latency, ObservationPoint, PerDirection, TunnelKind,
};

/// Seconds of data time that a row waits for ticks of other workers.
const LAG_SECONDS: u32 = 2;

/// Rows that wait at most; with more, all are handed on early.
const MAX_ROWS: usize = 100_000;

/// What a row is about: one second of all flows from one client address to one server port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetKey {
    /// Seconds since the epoch.
    pub second: u32,
    /// Who opened the flows.
    pub client_ip: IpAddr,
    /// Who was connected to.
    pub server_ip: IpAddr,
    /// The server's port.
    pub server_port: u16,
    /// L4 protocol.
    pub protocol: L4Protocol,
    /// Where they were seen.
    pub observation_point: ObservationPoint,
    /// Kind and id of the innermost tunnel.
    pub tunnel: Option<(TunnelKind, u32)>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetSums {
    /// Packets, bytes, TCP metrics and requests.
    pub metrics: FlowMetrics,
    /// Flows that began.
    pub new_flows: u32,
    /// Flows that ended.
    pub closed_flows: u32,
    /// Of these, never established by the client's fault.
    pub client_establish_fail: u32,
    /// Of these, never established by the server's fault.
    pub server_establish_fail: u32,
    /// Of these, broken after they were established.
    pub transfer_fail: u32,
}

impl NetSums {
    fn add(&mut self, tick: &FlowTick) {
        add_metrics(&mut self.metrics, &tick.metrics);
        self.new_flows += u32::from(tick.is_new);
        let Some(close) = tick.closed.filter(|&c| c != CloseType::ForcedReport) else { return };
        self.closed_flows += 1;
        match close.establish_failure_by_client() {
            Some(true) => self.client_establish_fail += 1,
            Some(false) => self.server_establish_fail += 1,
            None => self.transfer_fail += u32::from(close.is_transfer_failure()),
        }
    }
}

/// One row of `net_metrics_1s`.
#[derive(Clone, Debug, PartialEq)]
pub struct NetRow {
    /// What it is about.
    pub key: NetKey,
    /// What was counted.
    pub sums: NetSums,
}

/// Rows that are being summed.
#[derive(Default)]
pub struct NetAggregator {
    rows: HashMap<NetKey, NetSums, RandomState>,
    newest_second: u32,
    ticks_since_drain: bool,
}

impl NetAggregator {
    /// Adds one tick.
    pub fn add(&mut self, tick: &FlowTick) {
        self.newest_second = self.newest_second.max(tick.second);
        self.ticks_since_drain = true;
        self.rows.entry(key_of(tick)).or_default().add(tick);
    }

    /// Rows whose second is over, and all rows when there are too many or when no tick came since the last call.
    pub fn drain_finished(&mut self) -> Vec<NetRow> {
        let had_ticks = std::mem::take(&mut self.ticks_since_drain);
        if self.is_full() || !had_ticks {
            return self.drain_all();
        }
        let open_from = self.newest_second.saturating_sub(LAG_SECONDS);
        self.rows
            .extract_if(|key, _| key.second < open_from)
            .map(|(key, sums)| NetRow { key, sums })
            .collect()
    }

    /// Every row.
    pub fn drain_all(&mut self) -> Vec<NetRow> {
        self.rows.drain().map(|(key, sums)| NetRow { key, sums }).collect()
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
    }
}

fn add_metrics(sum: &mut FlowMetrics, m: &FlowMetrics) {
    for (sum, m) in [
        (&mut sum.packets, &m.packets),
        (&mut sum.bytes, &m.bytes),
        (&mut sum.l3_bytes, &m.l3_bytes),
        (&mut sum.l4_bytes, &m.l4_bytes),
    ] {
        sum.tx = sum.tx.saturating_add(m.tx);
        sum.rx = sum.rx.saturating_add(m.rx);
    }
    for (sum, m) in [(&mut sum.retrans, &m.retrans), (&mut sum.ooo, &m.ooo), (&mut sum.zero_win, &m.zero_win)]
    {
        add_pair(sum, m);
    }
    for (sum, m) in [
        (&mut sum.syn_count, m.syn_count),
        (&mut sum.synack_count, m.synack_count),
        (&mut sum.fin_count, m.fin_count),
        (&mut sum.retrans_syn, m.retrans_syn),
        (&mut sum.retrans_synack, m.retrans_synack),
        (&mut sum.l7.request, m.l7.request),
        (&mut sum.l7.response, m.l7.response),
        (&mut sum.l7.client_error, m.l7.client_error),
        (&mut sum.l7.server_error, m.l7.server_error),
        (&mut sum.l7.timeout, m.l7.timeout),
    ] {
        *sum = sum.saturating_add(m);
    }
    for (sum, m) in [
        (&mut sum.rtt, &m.rtt),
        (&mut sum.rtt_client, &m.rtt_client),
        (&mut sum.rtt_server, &m.rtt_server),
        (&mut sum.srt, &m.srt),
        (&mut sum.art, &m.art),
        (&mut sum.cit, &m.cit),
        (&mut sum.l7.rrt, &m.l7.rrt),
    ] {
        add_latency(sum, m);
    }
}

fn add_pair(sum: &mut PerDirection<u32>, m: &PerDirection<u32>) {
    sum.tx = sum.tx.saturating_add(m.tx);
    sum.rx = sum.rx.saturating_add(m.rx);
}

fn add_latency(sum: &mut Latency, m: &Latency) {
    sum.max_us = sum.max_us.max(m.max_us);
    sum.count = sum.count.saturating_add(m.count);
    sum.sum_us = sum.sum_us.saturating_add(m.sum_us);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wirespan_records::Endpoint;

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
        let sums = &rows[0].sums;
        assert_eq!((sums.metrics.packets.tx, sums.new_flows, sums.closed_flows), (13, 3, 1));
        assert_eq!((sums.server_establish_fail, sums.client_establish_fail, sums.transfer_fail), (1, 0, 0));
        assert_eq!(sums.metrics.rtt, Latency { max_us: 10, count: 3, sum_us: 30 });
    }

    #[test]
    fn a_second_is_handed_on_when_it_is_over_and_late_ticks_make_a_second_row() {
        let mut net = NetAggregator::default();
        net.add(&tick(100, 1, 1));
        assert!(net.drain_finished().is_empty());
        net.add(&tick(103, 1, 1));
        assert_eq!(net.drain_finished().iter().map(|r| r.key.second).collect::<Vec<_>>(), [100]);
        net.add(&tick(100, 1, 4));
        let late = net.drain_finished();
        assert_eq!((late.len(), late[0].sums.metrics.packets.tx), (1, 4));
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
            let total: u64 = rows.iter().map(|r| r.sums.metrics.packets.tx).sum();
            prop_assert_eq!(total, ticks.iter().map(|t| t.2).sum::<u64>());
            prop_assert_eq!(rows.iter().map(|r| r.sums.new_flows as usize).sum::<usize>(), ticks.len());
        }
    }
}

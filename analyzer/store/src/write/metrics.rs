//! Rows that are made for the store only.

use std::net::IpAddr;
use wirespan_records::{CloseType, FlowMetrics, FlowTick, L4Protocol, ObservationPoint, Tunnel};

/// One row of `net_metrics_1s`: the flows of one path in one second, added up.
#[derive(Clone, Debug, PartialEq)]
pub struct NetMetrics {
    /// Seconds since the epoch.
    pub second: u32,
    /// Where it was seen.
    pub observation_point: ObservationPoint,
    /// Who opened the flows.
    pub client_ip: IpAddr,
    /// Who was connected to.
    pub server_ip: IpAddr,
    /// Where.
    pub server_port: u16,
    /// L4 protocol.
    pub protocol: L4Protocol,
    /// The innermost tunnel; its type and id make the path, its outer addresses do not.
    pub tunnel: Option<Tunnel>,
    /// The tap that saw it.
    pub tap: u16,
    /// Sums, and maxima of latencies.
    pub metrics: FlowMetrics,
    /// Flows whose first packet is in this second.
    pub new_flows: u64,
    /// Flows that ended in this second, by [`CloseType`].
    closed: [u32; CloseType::Evicted as usize + 1],
}

impl NetMetrics {
    /// The row that `tick` begins.
    pub fn of(tick: &FlowTick) -> Self {
        let mut row = Self {
            second: tick.second,
            observation_point: tick.observation_point,
            client_ip: tick.client.ip,
            server_ip: tick.server.ip,
            server_port: tick.server.port,
            protocol: tick.protocol,
            tunnel: tick.tunnel,
            tap: tick.tap,
            metrics: FlowMetrics::default(),
            new_flows: 0,
            closed: Default::default(),
        };
        row.add(tick);
        row
    }

    /// Adds a tick of the same path and second.
    pub fn add(&mut self, tick: &FlowTick) {
        let (sum, more) = (&mut self.metrics, &tick.metrics);
        for (sum, more) in [
            (&mut sum.packets, &more.packets),
            (&mut sum.bytes, &more.bytes),
            (&mut sum.l3_bytes, &more.l3_bytes),
            (&mut sum.l4_bytes, &more.l4_bytes),
        ] {
            sum.tx += more.tx;
            sum.rx += more.rx;
        }
        for (sum, more) in [
            (&mut sum.retrans, &more.retrans),
            (&mut sum.ooo, &more.ooo),
            (&mut sum.zero_win, &more.zero_win),
        ] {
            sum.tx = sum.tx.saturating_add(more.tx);
            sum.rx = sum.rx.saturating_add(more.rx);
        }
        for (sum, more) in [
            (&mut sum.syn_count, more.syn_count),
            (&mut sum.synack_count, more.synack_count),
            (&mut sum.fin_count, more.fin_count),
            (&mut sum.retrans_syn, more.retrans_syn),
            (&mut sum.retrans_synack, more.retrans_synack),
            (&mut sum.l7.request, more.l7.request),
            (&mut sum.l7.response, more.l7.response),
            (&mut sum.l7.client_error, more.l7.client_error),
            (&mut sum.l7.server_error, more.l7.server_error),
            (&mut sum.l7.timeout, more.l7.timeout),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in [
            (&mut sum.rtt, &more.rtt),
            (&mut sum.rtt_client, &more.rtt_client),
            (&mut sum.rtt_server, &more.rtt_server),
            (&mut sum.srt, &more.srt),
            (&mut sum.art, &more.art),
            (&mut sum.cit, &more.cit),
            (&mut sum.l7.rrt, &more.l7.rrt),
        ] {
            sum.merge(more);
        }
        self.new_flows += u64::from(tick.is_new);
        if let Some(count) = tick.closed.and_then(|how| self.closed.get_mut(how as usize)) {
            *count += 1;
        }
    }

    /// Flows that ended so.
    pub fn closed(&self, how: CloseType) -> u64 {
        self.closed.get(how as usize).map_or(0, |&n| u64::from(n))
    }

    /// Flows that ended; a report in the middle of a flow is no end.
    pub fn closed_flows(&self) -> u64 {
        self.closed.iter().map(|&n| u64::from(n)).sum::<u64>() - self.closed(CloseType::ForcedReport)
    }
}

/// One row of `agent_stats`: a counter or gauge.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// Such as `wirespan_drops_total`.
    pub name: String,
    /// Such as the reason of a drop.
    pub labels: Vec<(&'static str, wirespan_records::Text)>,
    /// The counter's total since the process began, or the gauge's value.
    pub value: f64,
}

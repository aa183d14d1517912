//! One bidirectional 5-tuple with its metrics. Definitions of the metrics are those of ARCHITECTURE.md, "Metrics".

use crate::net::{Endpoint, L4Protocol, NO_TAP, ObservationPoint, Tunnel};
use crate::span::L7Protocol;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// A value for each direction: tx is client to server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerDirection<T> {
    /// Client to server.
    pub tx: T,
    /// Server to client.
    pub rx: T,
}

impl<T> PerDirection<T> {
    /// Swaps the directions, when client and server turn out to be the other way round.
    pub fn swap(&mut self) {
        std::mem::swap(&mut self.tx, &mut self.rx);
    }
}

/// Sum, count and maximum of a latency in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Largest sample.
    pub max_us: u32,
    /// Number of samples.
    pub count: u32,
    /// Sum of the samples.
    pub sum_us: u64,
}

impl Latency {
    /// Adds one sample.
    pub fn add(&mut self, us: u32) {
        self.max_us = self.max_us.max(us);
        self.count += 1;
        self.sum_us += u64::from(us);
    }

    /// Adds the samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.max_us = self.max_us.max(other.max_us);
        self.count += other.count;
        self.sum_us += other.sum_us;
    }
}

/// Requests seen inside a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L7Counts {
    /// Requests.
    pub request: u32,
    /// Responses.
    pub response: u32,
    /// Exchanges that ended with a client error.
    pub client_error: u32,
    /// Exchanges that ended with a server error.
    pub server_error: u32,
    /// Requests that were not answered.
    pub timeout: u32,
    /// Response time of the complete exchanges.
    pub rrt: Latency,
}

impl L7Counts {
    /// Client and server errors together.
    pub fn error(&self) -> u32 {
        self.client_error + self.server_error
    }

    /// Adds what was counted in `other`.
    pub fn merge(&mut self, other: &Self) {
        self.request += other.request;
        self.response += other.response;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
        self.timeout += other.timeout;
        self.rrt.merge(&other.rrt);
    }
}

/// Everything that is counted on a flow; a delta in a [`FlowTick`], the total in a [`Flow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowMetrics {
    /// Packets.
    pub packets: PerDirection<u64>,
    /// L2 frame bytes on the wire.
    pub bytes: PerDirection<u64>,
    /// Bytes behind the (inner) L3 header.
    pub l3_bytes: PerDirection<u64>,
    /// Bytes behind the L4 header.
    pub l4_bytes: PerDirection<u64>,
    /// SYN segments without ACK.
    pub syn_count: u32,
    /// SYN-ACK segments.
    pub synack_count: u32,
    /// FIN segments.
    pub fin_count: u32,
    /// Segments whose sequence range was seen before, SYNs included.
    pub retrans: PerDirection<u32>,
    /// Repeated SYNs.
    pub retrans_syn: u32,
    /// Repeated SYN-ACKs.
    pub retrans_synack: u32,
    /// Segments that fill a hole below the highest sequence seen and were not seen before.
    pub ooo: PerDirection<u32>,
    /// Segments with a window of zero once the connection is established.
    pub zero_win: PerDirection<u32>,
    /// First SYN to the ACK of the SYN-ACK; one sample per connection.
    pub rtt: Latency,
    /// First SYN-ACK to its ACK.
    pub rtt_client: Latency,
    /// First SYN to the SYN-ACK.
    pub rtt_server: Latency,
    /// Client data to the server's pure ACK.
    pub srt: Latency,
    /// Client data to the server's first data.
    pub art: Latency,
    /// Previous server packet (or end of the handshake) to the next client data.
    pub cit: Latency,
    /// Requests.
    pub l7: L7Counts,
}

impl FlowMetrics {
    /// Adds what was counted in `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.packets, &other.packets),
            (&mut self.bytes, &other.bytes),
            (&mut self.l3_bytes, &other.l3_bytes),
            (&mut self.l4_bytes, &other.l4_bytes),
        ] {
            mine.tx += theirs.tx;
            mine.rx += theirs.rx;
        }
        for (mine, theirs) in [
            (&mut self.retrans, &other.retrans),
            (&mut self.ooo, &other.ooo),
            (&mut self.zero_win, &other.zero_win),
        ] {
            mine.tx += theirs.tx;
            mine.rx += theirs.rx;
        }
        self.syn_count += other.syn_count;
        self.synack_count += other.synack_count;
        self.fin_count += other.fin_count;
        self.retrans_syn += other.retrans_syn;
        self.retrans_synack += other.retrans_synack;
        self.rtt.merge(&other.rtt);
        self.rtt_client.merge(&other.rtt_client);
        self.rtt_server.merge(&other.rtt_server);
        self.srt.merge(&other.srt);
        self.art.merge(&other.art);
        self.cit.merge(&other.cit);
        self.l7.merge(&other.l7);
    }

    /// Client and server turn out to be the other way round. Latencies measured in the wrong sense are void.
    pub fn swap_roles(&mut self) {
        self.packets.swap();
        self.bytes.swap();
        self.l3_bytes.swap();
        self.l4_bytes.swap();
        self.retrans.swap();
        self.ooo.swap();
        self.zero_win.swap();
        self.srt = Latency::default();
        self.art = Latency::default();
        self.cit = Latency::default();
    }
}

/// How a flow ended. Names in records are snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseType {
    /// None of the others.
    #[default]
    Unknown,
    /// FIN from both sides; the end of a flow that is not TCP.
    Finish,
    /// RST by the server after data was possible.
    ServerReset,
    /// RST by the client after data was possible.
    ClientReset,
    /// No packet for the time-out of an established flow.
    Timeout,
    /// Still alive: a report in the middle of a long flow, or at the end of the input.
    ForcedReport,
    /// SYNs without an answer.
    ServerSynMissing,
    /// The server sent FIN, the client did not.
    ServerHalfClose,
    /// The client sent FIN, the server did not.
    ClientHalfClose,
    /// SYN-ACKs without an ACK.
    ClientAckMissing,
    /// SYN answered by a bare ACK, then RST by the client: the source port is still in use at the server.
    ClientPortReuse,
    /// RST as the answer to the SYN.
    ServerRefused,
    /// SYN-ACK repeated after the handshake: the server's accept queue is full.
    ServerQueueOverflow,
    /// Another RST by the client during the handshake.
    ClientHandshakeReset,
    /// Another RST by the server during the handshake.
    ServerHandshakeReset,
    /// RST by the client as its regular way to end (health checks).
    ClientResetRegular,
    /// The flow table was full and this flow was chosen to leave.
    Evicted,
}

impl CloseType {
    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Finish => "finish",
            Self::ServerReset => "server_reset",
            Self::ClientReset => "client_reset",
            Self::Timeout => "timeout",
            Self::ForcedReport => "forced_report",
            Self::ServerSynMissing => "server_syn_missing",
            Self::ServerHalfClose => "server_half_close",
            Self::ClientHalfClose => "client_half_close",
            Self::ClientAckMissing => "client_ack_missing",
            Self::ClientPortReuse => "client_port_reuse",
            Self::ServerRefused => "server_refused",
            Self::ServerQueueOverflow => "server_queue_overflow",
            Self::ClientHandshakeReset => "client_handshake_reset",
            Self::ServerHandshakeReset => "server_handshake_reset",
            Self::ClientResetRegular => "client_reset_regular",
            Self::Evicted => "evicted",
        }
    }
}

/// One bidirectional 5-tuple at its end, at the end of input, or at a minute's report.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Unique in one run: worker number in the high 16 bits, a count below.
    pub flow_id: u64,
    /// First packet, ns since the epoch.
    pub start_ns: u64,
    /// Last packet, ns since the epoch.
    pub end_ns: u64,
    /// Where it was seen.
    pub observation_point: ObservationPoint,
    /// Who opened it.
    pub client: Endpoint,
    /// Who was connected to.
    pub server: Endpoint,
    /// L4 protocol.
    pub protocol: L4Protocol,
    /// The innermost tunnel.
    pub tunnel: Option<Tunnel>,
    /// The tap that saw it; see [`NO_TAP`].
    pub tap: u16,
    /// VLAN id of the inner frame's outermost tag.
    pub vlan: Option<u16>,
    /// All TCP flags seen.
    pub tcp_flags: PerDirection<u8>,
    /// What was counted since the flow's last report.
    pub metrics: FlowMetrics,
    /// How it ended.
    pub close_type: CloseType,
    /// True in the first record of this flow.
    pub is_new: bool,
    /// What it spoke.
    pub l7_protocol: Option<L7Protocol>,
}

/// What a flow did in one second (the time slot `second`), for the metrics tables.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowTick {
    /// Seconds since the epoch.
    pub second: u32,
    /// Where it was seen.
    pub observation_point: ObservationPoint,
    /// Who opened it.
    pub client: Endpoint,
    /// Who was connected to.
    pub server: Endpoint,
    /// L4 protocol.
    pub protocol: L4Protocol,
    /// The innermost tunnel.
    pub tunnel: Option<Tunnel>,
    /// The tap that saw it; see [`NO_TAP`].
    pub tap: u16,
    /// What was counted in this second.
    pub metrics: FlowMetrics,
    /// The flow's first packet is in this second.
    pub is_new: bool,
    /// The flow ended in this second, and how.
    pub closed: Option<CloseType>,
}

impl Serialize for Flow {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let m = &self.metrics;
        let mut o = s.serialize_struct("Flow", 59)?;
        o.serialize_field("kind", "flow")?;
        o.serialize_field("flow_id", &self.flow_id)?;
        o.serialize_field("start_ns", &self.start_ns)?;
        o.serialize_field("end_ns", &self.end_ns)?;
        o.serialize_field("observation_point", &self.observation_point)?;
        o.serialize_field("client_ip", &self.client.ip)?;
        o.serialize_field("client_port", &self.client.port)?;
        o.serialize_field("server_ip", &self.server.ip)?;
        o.serialize_field("server_port", &self.server.port)?;
        o.serialize_field("protocol", &self.protocol)?;
        o.serialize_field("tunnel", &self.tunnel)?;
        o.serialize_field("tap_id", &(self.tap != NO_TAP).then_some(self.tap))?;
        o.serialize_field("vlan", &self.vlan)?;
        o.serialize_field("packet_tx", &m.packets.tx)?;
        o.serialize_field("packet_rx", &m.packets.rx)?;
        o.serialize_field("byte_tx", &m.bytes.tx)?;
        o.serialize_field("byte_rx", &m.bytes.rx)?;
        o.serialize_field("l3_byte_tx", &m.l3_bytes.tx)?;
        o.serialize_field("l3_byte_rx", &m.l3_bytes.rx)?;
        o.serialize_field("l4_byte_tx", &m.l4_bytes.tx)?;
        o.serialize_field("l4_byte_rx", &m.l4_bytes.rx)?;
        o.serialize_field("tcp_flags_tx", &self.tcp_flags.tx)?;
        o.serialize_field("tcp_flags_rx", &self.tcp_flags.rx)?;
        o.serialize_field("syn_count", &m.syn_count)?;
        o.serialize_field("synack_count", &m.synack_count)?;
        o.serialize_field("fin_count", &m.fin_count)?;
        o.serialize_field("retrans_tx", &m.retrans.tx)?;
        o.serialize_field("retrans_rx", &m.retrans.rx)?;
        o.serialize_field("retrans_syn", &m.retrans_syn)?;
        o.serialize_field("retrans_synack", &m.retrans_synack)?;
        o.serialize_field("ooo_tx", &m.ooo.tx)?;
        o.serialize_field("ooo_rx", &m.ooo.rx)?;
        o.serialize_field("zero_win_tx", &m.zero_win.tx)?;
        o.serialize_field("zero_win_rx", &m.zero_win.rx)?;
        o.serialize_field("rtt_us", &first_sample(&m.rtt))?;
        o.serialize_field("rtt_client_us", &first_sample(&m.rtt_client))?;
        o.serialize_field("rtt_server_us", &first_sample(&m.rtt_server))?;
        for (latency, [max, sum, count]) in [
            (&m.srt, ["srt_us_max", "srt_us_sum", "srt_count"]),
            (&m.art, ["art_us_max", "art_us_sum", "art_count"]),
            (&m.cit, ["cit_us_max", "cit_us_sum", "cit_count"]),
        ] {
            o.serialize_field(max, &latency.max_us)?;
            o.serialize_field(sum, &latency.sum_us)?;
            o.serialize_field(count, &latency.count)?;
        }
        o.serialize_field("close_type", &self.close_type)?;
        o.serialize_field("l7_protocol", &self.l7_protocol)?;
        o.serialize_field("l7_request", &m.l7.request)?;
        o.serialize_field("l7_response", &m.l7.response)?;
        o.serialize_field("l7_error", &m.l7.error())?;
        o.serialize_field("l7_timeout", &m.l7.timeout)?;
        o.end()
    }
}

/// The largest sample, or `null` when the handshake was not seen.
fn first_sample(latency: &Latency) -> Option<u32> {
    (latency.count > 0).then_some(latency.max_us)
}

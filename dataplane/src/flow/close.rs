//! How a flow ended, told from what was seen of it.

use super::tcp::{Phase, Tcp};
use wirespan_l7::Side;
use wirespan_records::{CloseType, L7Counts};

/// Why a flow leaves the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// No packet for the time-out of its phase, or the ports began another connection.
    Over,
    /// A report of a flow that goes on, or the end of the input.
    StillAlive,
    /// The table is full.
    Evicted,
}

/// The close type of a flow that is not TCP.
pub(crate) fn datagram_close_type(leaves: Leaves) -> CloseType {
    match leaves {
        Leaves::Over => CloseType::Finish,
        Leaves::StillAlive => CloseType::ForcedReport,
        Leaves::Evicted => CloseType::Evicted,
    }
}

/// The close type of a TCP flow; `requests` were seen since its last record.
pub(crate) fn tcp_close_type(tcp: &Tcp, client: Side, requests: &L7Counts, leaves: Leaves) -> CloseType {
    if leaves == Leaves::Evicted {
        return CloseType::Evicted;
    }
    let server = client.other();
    if let Some((by, phase)) = tcp.reset {
        return reset_close_type(tcp, by == client, phase, client, requests);
    }
    match tcp.phase {
        Phase::Closed => CloseType::Finish,
        _ if leaves == Leaves::StillAlive => CloseType::ForcedReport,
        Phase::Closing if tcp.sent_fin(client) => CloseType::ClientHalfClose,
        Phase::Closing if tcp.sent_fin(server) => CloseType::ServerHalfClose,
        Phase::SynSent | Phase::SynChallenged => CloseType::ServerSynMissing,
        Phase::SynReceived => CloseType::ClientAckMissing,
        _ if tcp.has_late_synack() && !tcp.sent_data(server) => CloseType::ServerQueueOverflow,
        _ => CloseType::Timeout,
    }
}

fn reset_close_type(
    tcp: &Tcp,
    by_client: bool,
    phase: Phase,
    client: Side,
    requests: &L7Counts,
) -> CloseType {
    let any_data = tcp.sent_data(Side::A) || tcp.sent_data(Side::B);
    match (phase, by_client) {
        (Phase::Closed, _) => CloseType::Finish,
        (Phase::SynSent, false) => CloseType::ServerRefused,
        (Phase::SynChallenged, true) => CloseType::ClientPortReuse,
        (Phase::SynSent | Phase::SynReceived, true) => CloseType::ClientHandshakeReset,
        (Phase::SynReceived | Phase::SynChallenged, false) => CloseType::ServerHandshakeReset,
        (_, false) => CloseType::ServerReset,
        // Health checks end a connection that carried nothing, or whose answer came, with RST.
        (_, true) if !any_data && tcp.isn(client).is_some() => CloseType::ClientResetRegular,
        (_, true) if requests.response > 0 && requests.error() == 0 && requests.timeout == 0 => {
            CloseType::ClientResetRegular
        }
        (_, true) => CloseType::ClientReset,
    }
}

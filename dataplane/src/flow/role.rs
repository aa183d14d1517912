//! Who is the client: by the handshake, by what is spoken, by ports, by who spoke first.

use crate::packet::{Packet, flags};
use wirespan_l7::Side;
use wirespan_records::L4Protocol;

/// How sure it is which side is the client, least sure first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Certainty {
    /// By who was seen to send first.
    FirstPacket,
    /// By a port that servers use.
    Port,
    /// By what is spoken.
    L7,
    /// By the handshake.
    Handshake,
}

/// Ports above 1023 on which servers of the protocols that wirespan meets listen (IANA registry).
const SERVER_PORTS: &[u16] = &[
    1433, 1521, 1883, 2181, 2379, 3000, 3306, 4222, 5000, 5432, 5601, 5672, 6379, 6443, 7000, 8000, 8080,
    8081, 8086, 8123, 8443, 8500, 8883, 8888, 9000, 9042, 9090, 9092, 9200, 9300, 11211, 15672, 26379, 27017,
    50051, 61616,
];

fn looks_like_server(port: u16) -> bool {
    (1..1024).contains(&port) || SERVER_PORTS.binary_search(&port).is_ok()
}

/// First guess from one packet that `side` sent.
pub(crate) fn guess(packet: &Packet<'_>, side: Side) -> (Side, Certainty) {
    match packet.l4 {
        L4Protocol::Tcp if packet.tcp.flags & flags::SYN != 0 => {
            let client = if packet.tcp.flags & flags::ACK == 0 { side } else { side.other() };
            return (client, Certainty::Handshake);
        }
        // Echo reply, RFC 792 and 4443; every other kind is sent unasked.
        L4Protocol::Icmp if packet.icmp_type == 0 => return (side.other(), Certainty::Handshake),
        L4Protocol::Icmpv6 if packet.icmp_type == 129 => return (side.other(), Certainty::Handshake),
        L4Protocol::Icmp | L4Protocol::Icmpv6 => return (side, Certainty::Handshake),
        _ => {}
    }
    match (looks_like_server(packet.src_port), looks_like_server(packet.dst_port)) {
        (true, false) => (side.other(), Certainty::Port),
        (false, true) => (side, Certainty::Port),
        _ => (side, Certainty::FirstPacket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::tcp;

    #[test]
    fn server_ports_are_sorted_for_the_search() {
        assert!(SERVER_PORTS.is_sorted());
    }

    #[test]
    fn handshake_beats_ports_and_ports_beat_order() {
        let mut packet = tcp(1, 2, 80, 40_000);
        assert_eq!(guess(&packet, Side::A), (Side::B, Certainty::Port));
        packet.tcp.flags = flags::SYN;
        assert_eq!(guess(&packet, Side::A), (Side::A, Certainty::Handshake));
        packet.tcp.flags = flags::SYN | flags::ACK;
        assert_eq!(guess(&packet, Side::A), (Side::B, Certainty::Handshake));
        assert_eq!(guess(&tcp(1, 2, 40_001, 40_000), Side::B), (Side::B, Certainty::FirstPacket));
    }
}

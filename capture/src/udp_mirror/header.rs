//! The outer headers of a datagram, which the kernel took off.
//!
//! Decoding tells a tunnel by the whole outer packet, so an IP and a UDP header are put before the payload again, as far as
//! anything reads them: addresses, ports and lengths. Checksums are 0.

use std::net::{IpAddr, SocketAddr};

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const HOPS: u8 = 64;

/// Room that must be left before a payload.
pub(super) const HEADROOM: usize = IPV6_BYTES + UDP_BYTES;

/// Writes the headers of a datagram of `payload` bytes so that they end where `room` does; returns how many bytes they have.
pub(super) fn write(room: &mut [u8; HEADROOM], from: SocketAddr, to: SocketAddr, payload: usize) -> usize {
    let (ip, udp) = room.split_at_mut(IPV6_BYTES);
    let udp_len = payload + UDP_BYTES;
    // 0 for what is longer than the field can say: it reaches to the end.
    let len = |bytes: usize| u16::try_from(bytes).unwrap_or(0).to_be_bytes();
    put(udp, 0, &from.port().to_be_bytes());
    put(udp, 2, &to.port().to_be_bytes());
    put(udp, 4, &len(udp_len));
    put(udp, 6, &[0; 2]);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = ip.get_mut(IPV6_BYTES - IPV4_BYTES..).unwrap_or_default();
            put(ip, 0, &[0x45, 0]);
            put(ip, 2, &len(udp_len + IPV4_BYTES));
            put(ip, 4, &[0, 0, 0, 0, HOPS, PROTOCOL_UDP, 0, 0]);
            put(ip, 12, &from.octets());
            put(ip, 16, &to.octets());
            IPV4_BYTES + UDP_BYTES
        }
        (from, to) => {
            put(ip, 0, &[0x60, 0, 0, 0]);
            put(ip, 4, &len(udp_len));
            put(ip, 6, &[PROTOCOL_UDP, HOPS]);
            put(ip, 8, &v6(from));
            put(ip, 24, &v6(to));
            HEADROOM
        }
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn put(header: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = header.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_end_where_the_payload_begins() {
        let mut room = [0xff; HEADROOM];
        let bytes = write(&mut room, "10.0.0.1:5000".parse().unwrap(), "10.0.0.2:4789".parse().unwrap(), 100);
        assert_eq!(bytes, 28);
        assert_eq!(
            room[HEADROOM - 28..],
            [
                0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, 0x12, 0xb5,
                0, 108, 0, 0
            ]
        );
        let bytes =
            write(&mut room, "[fd00::1]:9".parse().unwrap(), "[fd00::2]:6081".parse().unwrap(), 70_000);
        assert_eq!((bytes, room[0], &room[4..8], room[23], room[39]), (48, 0x60, &[0, 0, 17, 64][..], 1, 2));
        assert_eq!(room[40..], [0, 9, 0x17, 0xc1, 0, 0, 0, 0]);
    }
}

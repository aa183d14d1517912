//! Datagrams through real sockets on loopback.

#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::{as_nobody, in_namespace};
use wirespan_capture::spread::{self, Sharing};
use wirespan_capture::udp_mirror::{Config, Encapsulation, UdpMirror};
use wirespan_capture::{CaptureError, LinkType, Note, PacketSource};

const TIMEOUT: Duration = Duration::from_millis(200);

/// A port that nobody uses.
fn free_port(ip: &str) -> SocketAddr {
    UdpSocket::bind(format!("{ip}:0")).unwrap().local_addr().unwrap()
}

fn config(listen: &[(SocketAddr, Encapsulation)]) -> Config {
    Config { listen: listen.to_vec(), poll_timeout: TIMEOUT }
}

/// An inner packet of a flow with this port, behind a VXLAN header with VNI 42.
fn vxlan(port: u16) -> Vec<u8> {
    let [p0, p1] = port.to_be_bytes();
    let mut datagram = vec![8, 0, 0, 0, 0, 0, 42, 0];
    datagram.extend([2; 12]);
    datagram.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    datagram.extend([p0, p1, 0, 53, 0, 8, 0, 0]);
    datagram
}

fn receive(source: &mut dyn PacketSource, frames: usize) -> Vec<(LinkType, u64, u32, Vec<u8>)> {
    let mut received = Vec::new();
    let mut patience = 10;
    while received.len() < frames && patience > 0 {
        let batch = source.next_batch().unwrap().unwrap();
        patience -= u32::from(batch.is_empty());
        received.extend(batch.frames().map(|f| (f.link, f.ts_ns, f.wire_len, f.data.to_vec())));
    }
    received
}

#[test]
fn datagrams_come_with_their_outer_headers() {
    for (ip, encapsulation, port) in
        [("127.0.0.1", Encapsulation::Vxlan, 4789u16), ("[::1]", Encapsulation::Geneve, 6081)]
    {
        let address = free_port(ip);
        let mut mirror = UdpMirror::open(&config(&[(address, encapsulation)])).unwrap();
        let sender = UdpSocket::bind(format!("{ip}:0")).unwrap();
        let payload = vxlan(7);
        sender.send_to(&payload, address).unwrap();
        let frames = receive(&mut mirror, 1);
        let (link, ts_ns, wire_len, data) = &frames[0];
        let headers = if address.is_ipv4() { 28 } else { 48 };
        assert_eq!(
            (*link, *wire_len as usize, data.len()),
            (LinkType::RawIp, headers + payload.len(), headers + payload.len())
        );
        assert_eq!(data[headers..], payload);
        let ports = &data[headers - 8..headers - 4];
        assert_eq!(ports[..2], sender.local_addr().unwrap().port().to_be_bytes());
        assert_eq!(
            ports[2..],
            port.to_be_bytes(),
            "as decoding knows the tunnel, whatever the socket's port"
        );
        if address.is_ipv4() {
            assert_eq!(data[12..20], [127, 0, 0, 1, 127, 0, 0, 1]);
        } else {
            assert_eq!((data[0], data[23], data[39]), (0x60, 1, 1));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(Duration::from_nanos(*ts_ns)) < Duration::from_secs(60));
        assert_eq!(mirror.stats().received, 1);
    }
}

#[test]
fn the_destination_is_told_also_when_listening_on_all_addresses() {
    let port = free_port("127.0.0.1").port();
    let mut mirror =
        UdpMirror::open(&config(&[(SocketAddr::from(([0, 0, 0, 0], port)), Encapsulation::Vxlan)])).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(&vxlan(7), ("127.0.0.9", port)).unwrap();
    assert_eq!(receive(&mut mirror, 1)[0].3[16..20], [127, 0, 0, 9]);
}

#[test]
fn many_datagrams_and_a_long_one_on_two_sockets() {
    let addresses = [free_port("127.0.0.1"), free_port("127.0.0.2")];
    let mut mirror = UdpMirror::open(&config(&addresses.map(|a| (a, Encapsulation::Vxlan)))).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..60u16 {
        for number in 0..100 {
            sender.send_to(&vxlan(round * 100 + number), addresses[usize::from(number % 2)]).unwrap();
        }
        assert_eq!(receive(&mut mirror, 100).len(), 100, "round {round}");
    }
    sender.send_to(&[8; 20_000], addresses[0]).unwrap();
    let (_, _, wire_len, data) = receive(&mut mirror, 1).remove(0);
    assert_eq!(wire_len, 20_028);
    assert!((9_000..20_000).contains(&data.len()));
    assert_eq!((mirror.stats().received, mirror.stats().cut), (6_001, 1));
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let address = free_port("127.0.0.1");
    let mut mirror = UdpMirror::open(&config(&[(address, Encapsulation::Vxlan)])).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let payload = vec![0; 60_000];
    let sent = 4_000;
    for _ in 0..sent {
        sender.send_to(&payload, address).unwrap();
    }
    let received = receive(&mut mirror, sent).len() as u64;
    let stats = mirror.stats();
    assert_eq!(stats.received, received);
    assert_eq!(stats.received + stats.kernel_drops, sent as u64);
    assert!(stats.kernel_drops > 0);
}

#[test]
fn what_an_administrator_may_change_is_said_once() {
    let limit: usize =
        std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
    let address = free_port("127.0.0.1");
    let mut mirror = as_nobody(|| UdpMirror::open(&config(&[(address, Encapsulation::Vxlan)])).unwrap());
    let said = mirror.notes();
    assert!(
        matches!(said[..], [Note::SmallReceiveBuffer { bytes, .. }] if bytes == limit) || limit >= 64 << 20,
        "{said:?}"
    );
    assert_eq!(mirror.notes(), []);
}

#[test]
fn refusals_say_what_to_do() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let open = |address| UdpMirror::open(&config(&[(address, Encapsulation::Vxlan)])).err().unwrap();
    let busy = open(taken.local_addr().unwrap());
    assert!(
        matches!(busy, CaptureError::AddressBusy { .. }) && busy.to_string().contains("ss -lunp"),
        "{busy}"
    );
    let foreign = open("192.0.2.1:4789".parse().unwrap());
    assert!(matches!(foreign, CaptureError::NotOurAddress { .. }), "{foreign}");
    // Elsewhere, an administrator may have let everybody use low ports.
    in_namespace(|| {
        let refused = as_nobody(|| open("127.0.0.1:53".parse().unwrap()).to_string());
        assert!(refused.contains("setcap cap_net_bind_service+ep"), "{refused}");
    });
}

/// Both directions of a mirrored flow go to one worker, whatever their outer ports.
#[test]
fn several_workers_share_one_socket_by_inner_flow() {
    let address = free_port("127.0.0.1");
    let mirror = UdpMirror::open(&config(&[(address, Encapsulation::Vxlan)])).unwrap();
    let sharing = Sharing { workers: 2, seed: 0, poll_timeout: TIMEOUT, symmetric: false };
    let mut ends = spread::live(vec![Box::new(mirror)], &sharing).unwrap();
    let senders = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
    let mut seen = [[0u32; 2]; 64];
    for _ in 0..20 {
        for flow in 0..64 {
            senders.iter().for_each(|sender| {
                sender.send_to(&vxlan(flow), address).unwrap();
            });
        }
        let (mut got, mut patience) = (0, 50);
        while got < 128 && patience > 0 {
            for (worker, end) in ends.iter_mut().enumerate() {
                let batch = end.next_batch().unwrap().unwrap();
                patience -= u32::from(batch.is_empty()).min(patience);
                for frame in batch.frames() {
                    let port = &frame.data[28 + 8 + 14 + 20..][..2];
                    seen[usize::from(u16::from_be_bytes([port[0], port[1]]))][worker] += 1;
                    got += 1;
                }
            }
        }
        assert_eq!(got, 128);
    }
    assert!(seen.iter().all(|workers| workers.contains(&40) && workers.contains(&0)), "{seen:?}");
    assert!((0..2).all(|worker| seen.iter().filter(|workers| workers[worker] > 0).count() > 10));
    let received: u64 = ends.iter_mut().map(|end| end.stats().received).sum();
    assert_eq!(received, 20 * 128);
}

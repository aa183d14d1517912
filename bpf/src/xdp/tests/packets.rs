//! Frames, built from the inside out.

use std::net::IpAddr;

use crate::flow_hash;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// One direction of a flow.
#[derive(Clone, Copy)]
pub struct Way {
    pub src: (IpAddr, u16),
    pub dst: (IpAddr, u16),
}

impl Way {
    pub fn new(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Self {
        Self { src: (src.parse().unwrap(), src_port), dst: (dst.parse().unwrap(), dst_port) }
    }

    pub fn back(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }

    pub fn hash(&self, seed: u64, protocol: u8) -> u32 {
        flow_hash(seed, self.src, self.dst, protocol).get()
    }

    /// An IP packet.
    pub fn ip(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.src.0, self.dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let len = (20 + payload.len() as u16).to_be_bytes();
                let mut ip = vec![0x45, 0, len[0], len[1], 0, 1, 0, 0, 64, protocol, 0, 0];
                ip.extend(src.octets().into_iter().chain(dst.octets()));
                [ip, payload.to_vec()].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let len = (payload.len() as u16).to_be_bytes();
                let mut ip = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
                ip.extend(src.octets().into_iter().chain(dst.octets()));
                [ip, payload.to_vec()].concat()
            }
            _ => panic!("addresses of two versions"),
        }
    }

    fn ports(&self) -> Vec<u8> {
        [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat()
    }

    pub fn tcp(&self, flags: u8, seq: u32, ack: u32, payload: usize) -> Vec<u8> {
        let rest = [0x50, flags, 0x10, 0, 0, 0, 0, 0];
        let header = [self.ports(), seq.to_be_bytes().to_vec(), ack.to_be_bytes().to_vec(), rest.to_vec()];
        self.ip(6, &[header.concat(), vec![7; payload]].concat())
    }

    pub fn udp(&self, payload: &[u8]) -> Vec<u8> {
        self.ip(
            17,
            &[self.ports(), (8 + payload.len() as u16).to_be_bytes().to_vec(), vec![0; 2], payload.to_vec()]
                .concat(),
        )
    }

    /// A fragment of a UDP datagram, at an offset in units of 8 bytes.
    pub fn fragment(&self, offset: u16, more: bool) -> Vec<u8> {
        let mut ip = self.udp(&[0; 64]);
        let bits = (offset | if more { 0x2000 } else { 0 }).to_be_bytes();
        ip[6..8].copy_from_slice(&bits);
        ip
    }
}

pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], ethertype.to_be_bytes().as_slice(), payload].concat()
}

/// An Ethernet frame with an IP packet.
pub fn frame(ip: &[u8]) -> Vec<u8> {
    ethernet(if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, ip)
}

/// The frame with a VLAN tag in front of its EtherType.
pub fn tagged(mut frame: Vec<u8>, tpid: u16, id: u16) -> Vec<u8> {
    frame.splice(12..12, [tpid.to_be_bytes(), id.to_be_bytes()].concat());
    frame
}

fn outer() -> Way {
    Way::new("192.0.2.1", 50000, "192.0.2.2", 0)
}

fn over_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut way = outer();
    way.dst.1 = port;
    frame(&way.udp(payload))
}

fn vni(id: u32) -> [u8; 4] {
    (id << 8).to_be_bytes()
}

pub fn vxlan(id: u32, inner: &[u8]) -> Vec<u8> {
    over_udp(4789, &[&[8, 0, 0, 0], vni(id).as_slice(), inner].concat())
}

pub fn geneve(id: u32, inner: &[u8]) -> Vec<u8> {
    over_udp(6081, &[&[2, 0, 0x65, 0x58], vni(id).as_slice(), &[1, 2, 3, 1, 9, 9, 9, 9], inner].concat())
}

pub fn gtpu(teid: u32, ip: &[u8]) -> Vec<u8> {
    let len = (ip.len() as u16 + 8).to_be_bytes();
    over_udp(
        2152,
        &[&[0x34, 255, len[0], len[1]], teid.to_be_bytes().as_slice(), &[0, 0, 0, 0x85, 1, 0, 0, 0], ip]
            .concat(),
    )
}

pub fn gre(key: u32, inner: &[u8]) -> Vec<u8> {
    frame(&outer().ip(47, &[&[0x20, 0, 0x65, 0x58], key.to_be_bytes().as_slice(), inner].concat()))
}

pub fn gre_ip(ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    frame(&outer().ip(47, &[&[0, 0], ethertype.as_slice(), ip].concat()))
}

pub fn erspan_i(inner: &[u8]) -> Vec<u8> {
    frame(&outer().ip(47, &[&[0, 0, 0x88, 0xbe], inner].concat()))
}

pub fn erspan_ii(session: u16, inner: &[u8]) -> Vec<u8> {
    let session = session.to_be_bytes();
    let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 5, session[0], session[1], 0, 0, 0, 0];
    frame(&outer().ip(47, &[&header, inner].concat()))
}

pub fn erspan_iii(session: u16, inner: &[u8]) -> Vec<u8> {
    let session = session.to_be_bytes();
    let header = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 5, session[0], session[1], 0, 0, 0, 0, 0, 0, 0, 1];
    frame(&outer().ip(47, &[&header, [0; 8].as_slice(), inner].concat()))
}

pub fn ipip(ip: &[u8]) -> Vec<u8> {
    frame(&outer().ip(if ip[0] >> 4 == 4 { 4 } else { 41 }, ip))
}

pub fn mpls(ip: &[u8]) -> Vec<u8> {
    ethernet(0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64], ip].concat())
}

pub fn pppoe(ip: &[u8]) -> Vec<u8> {
    let len = (ip.len() as u16 + 2).to_be_bytes();
    ethernet(0x8864, &[&[0x11, 0, 0, 1, len[0], len[1], 0, 0x21], ip].concat())
}

/// IEEE 802.3 with LLC and SNAP.
pub fn snap(ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    ethernet(ip.len() as u16 + 8, &[&[0xaa, 0xaa, 3, 0, 0, 0], ethertype.as_slice(), ip].concat())
}

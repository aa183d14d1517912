//! Builds headers.

/// Addresses of what [`ipv4`] and [`ipv6`] build.
pub const V4: (u128, u128) = (0x0a00_0001, 0x0a00_0002);
pub const V6: (u128, u128) = (0xfd00 << 112 | 1, 0xfd00 << 112 | 2);

/// Headers one behind the other.
pub fn layers(layers: &[&[u8]]) -> Vec<u8> {
    layers.concat()
}

pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    layers(&[&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ethertype.to_be_bytes(), payload])
}

pub fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(&[], 0, protocol, payload)
}

/// With options, and the 16 bits of flags and fragment offset.
pub fn ipv4_with(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + options.len() + payload.len()) as u16;
    layers(&[
        &[0x45 + options.len() as u8 / 4, 0],
        &len.to_be_bytes(),
        &[0x12, 0x34],
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &(V4.0 as u32).to_be_bytes(),
        &(V4.1 as u32).to_be_bytes(),
        options,
        payload,
    ])
}

pub fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u16;
    layers(&[
        &[0x60, 0, 0, 0],
        &len.to_be_bytes(),
        &[next, 64],
        &V6.0.to_be_bytes(),
        &V6.1.to_be_bytes(),
        payload,
    ])
}

/// An IPv4 fragment.
pub fn ipv4_fragment(offset: u16, more: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(&[], (offset / 8) | (u16::from(more) << 13), protocol, payload)
}

/// An IPv6 fragment header and its payload.
pub fn ipv6_fragment(id: u32, offset: u16, more: bool, next: u8, payload: &[u8]) -> Vec<u8> {
    let offset = offset | u16::from(more);
    ipv6(44, &layers(&[&[next, 0], &offset.to_be_bytes(), &id.to_be_bytes(), payload]))
}

/// Sequence number 7, acknowledgment 9, window 256, PSH and ACK.
pub fn tcp(src: u16, dst: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = (5 + options.len() as u8 / 4) << 4;
    layers(&[
        &src.to_be_bytes(),
        &dst.to_be_bytes(),
        &[0, 0, 0, 7, 0, 0, 0, 9, offset, 0x18, 1, 0, 0, 0, 0, 0],
        options,
        payload,
    ])
}

pub fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    layers(&[&src.to_be_bytes(), &dst.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload])
}

/// A small UDP datagram in IPv4, to be carried by what is tested.
pub fn sample() -> Vec<u8> {
    ipv4(17, &udp(1000, 2000, b"sample"))
}

/// As [`sample`], in IPv6.
pub fn sample_v6() -> Vec<u8> {
    ipv6(17, &udp(1000, 2000, b"sample"))
}

//! The symmetric hash of a flow, as the eBPF programs compute it (`programs/flow_hash.h`).

use std::net::IpAddr;
use std::num::NonZeroU32;

/// Hash of the innermost addresses, ports and IP protocol of a packet, the same for both directions.
///
/// IP fragments have port 0, all of them: later ones do not carry the ports. The ports of ICMP echo are its identifier,
/// those of other ICMP and of protocols without ports are 0.
///
/// With all numbers 64 bits wide and unsigned, wrapping, and addresses read in network byte order:
///
/// ```text
/// mix(x)        = x1 ^ x1 >> 32  where x1 = x0 * 0xd6e8feb86659fd93,
///                                      x0 = x' ^ x' >> 32,  x' = x * 0x9e3779b97f4a7c15
/// end(v4, port) = mix(seed ^ (v4 << 16 | port))
/// end(v6, port) = mix(mix(mix(seed ^ upper half of v6) ^ lower half of v6) ^ port)
/// hash          = upper 32 bits of mix((end(src) + end(dst)) ^ protocol), or 1 if they are 0
/// ```
#[inline]
pub fn flow_hash(seed: u64, src: (IpAddr, u16), dst: (IpAddr, u16), protocol: u8) -> NonZeroU32 {
    let both = end(seed, src).wrapping_add(end(seed, dst));
    NonZeroU32::new((mix(both ^ u64::from(protocol)) >> 32) as u32).unwrap_or(NonZeroU32::MIN)
}

#[inline(always)]
fn end(seed: u64, (address, port): (IpAddr, u16)) -> u64 {
    let port = u64::from(port);
    match address {
        IpAddr::V4(v4) => mix(seed ^ (u64::from(v4.to_bits()) << 16 | port)),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            mix(mix(mix(seed ^ (bits >> 64) as u64) ^ bits as u64) ^ port)
        }
    }
}

#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn spreads_the_flows_of_one_subnet_evenly_and_both_directions_alike() {
        const BUCKETS: usize = 7;
        let mut counts = [0u32; BUCKETS];
        for flow in 0..70_000u32 {
            let client =
                (IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + flow % 250)), (flow / 250) as u16 + 1024);
            let server = (IpAddr::from([10, 1, 0, 1]), 443);
            let hash = flow_hash(42, client, server, 6);
            assert_eq!(hash, flow_hash(42, server, client, 6));
            counts[hash.get() as usize % BUCKETS] += 1;
        }
        assert!(counts.iter().all(|&count| (9_500..10_500).contains(&count)), "{counts:?}");
    }

    #[test]
    fn depends_on_the_seed() {
        let (a, b) = ((IpAddr::from([10, 0, 0, 1]), 1), (IpAddr::from([10, 0, 0, 2]), 2));
        assert_ne!(flow_hash(1, a, b, 6), flow_hash(2, a, b, 6));
    }
}

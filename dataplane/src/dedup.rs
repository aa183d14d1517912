//! Removes packets that a mirror delivered twice: ingress and egress of a switch, both VLANs of a routed packet, two ports
//! that feed one tap.
//!
//! Two packets are the same when their innermost IP packets are, but for what a hop changes: TTL or hop limit, DSCP and
//! ECN, header checksum and options, flow label; MACs, tags and tunnels lie outside. IP identification, addresses and the
//! first [`HASHED`] bytes behind the IP header count, and the length; the L4 checksum among them speaks for the rest.
//! [`Dedup`] remembers a seeded 64-bit hash of each packet of the last milliseconds, per tap.
//!
//! A segment that TCP sends again is another packet, because its IP identification or its timestamp option is. Where
//! there is neither (IPv6 or identification 0, and no timestamps), it is told from a copy by the time alone: the window
//! is far below the shortest retransmission time-out, but a fast retransmission or a repeated bare acknowledgment within it
//! counts as a duplicate.
//!
//! Memory is fixed: [`Dedup::MEMORY`] bytes for [`Dedup::PACKETS`] packets. With more packets than that in one
//! window, the oldest are forgotten early, which is counted, and their copies then pass.

use foldhash::quality::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Bytes behind the IP header that count: the longest TCP header, and 68 of payload.
pub const HASHED: usize = 128;

/// Packets that are found at the same place.
const WAYS: usize = 8;
const BUCKETS: usize = 1 << 14;

/// The packets of a place: the hashes in one cache line, the times in the next.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    hashes: [u64; WAYS],
    seen_ns: [u64; WAYS],
}

/// The packets of the last milliseconds.
#[derive(Debug)]
pub struct Dedup {
    seed: RandomState,
    buckets: Box<[Bucket]>,
    forgotten: u64,
}

impl Default for Dedup {
    fn default() -> Self {
        Self::new()
    }
}

impl Dedup {
    /// Packets that are remembered at most.
    pub const PACKETS: usize = BUCKETS * WAYS;
    /// Bytes of memory.
    pub const MEMORY: usize = BUCKETS * size_of::<Bucket>();

    /// Nothing seen yet.
    pub fn new() -> Self {
        let empty = Bucket { hashes: [0; WAYS], seen_ns: [0; WAYS] };
        Self { seed: RandomState::default(), buckets: vec![empty; BUCKETS].into(), forgotten: 0 }
    }

    /// True when the IP packet that `ip` begins with was seen on this tap at most `window_ns` ago. Else it is remembered.
    #[inline]
    pub fn is_duplicate(&mut self, tap: u16, ip: &[u8], now_ns: u64, window_ns: u64) -> bool {
        self.hash(tap, ip).is_some_and(|hash| self.seen(hash, now_ns, window_ns))
    }

    /// Packets that were forgotten before their window was over.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What makes the packet itself, as a number that is never 0; `None` where there is no whole IP header.
    #[inline]
    fn hash(&self, tap: u16, ip: &[u8]) -> Option<u64> {
        let mut hasher = self.seed.build_hasher();
        let [tap0, tap1] = tap.to_be_bytes();
        let (header, body_len) = match ip.first()? >> 4 {
            4 => {
                let &[version_len, _, l0, l1, id0, id1, f0, f1, _, protocol, _, _, ref addresses @ ..] =
                    ip.first_chunk::<20>()?;
                hasher.write_u64(u64::from_be_bytes([tap0, tap1, 4, protocol, id0, id1, f0, f1]));
                hasher.write_u64(u64::from_be_bytes(*addresses));
                let header = usize::from(version_len & 0x0f) * 4;
                (header, usize::from(u16::from_be_bytes([l0, l1])).saturating_sub(header))
            }
            6 => {
                let &[_, _, _, _, l0, l1, next, _, ref addresses @ ..] = ip.first_chunk::<40>()?;
                hasher.write_u64(u64::from_be_bytes([tap0, tap1, 6, next, 0, 0, 0, 0]));
                hasher.write(addresses);
                (40, usize::from(u16::from_be_bytes([l0, l1])))
            }
            _ => return None,
        };
        let body = ip.get(header..)?;
        // 0 stands for a length that the field cannot say.
        let body = if body_len == 0 { body } else { body.get(..body_len).unwrap_or(body) };
        hasher.write_usize(body_len);
        hasher.write(body.get(..HASHED).unwrap_or(body));
        Some(hasher.finish() | 1)
    }

    #[inline]
    fn seen(&mut self, hash: u64, now_ns: u64, window_ns: u64) -> bool {
        // The lowest bit is always set.
        let Some(bucket) = self.buckets.get_mut((hash >> 1) as usize % BUCKETS) else { return false };
        let mut oldest = (u64::MAX, 0);
        for way in 0..WAYS {
            if bucket.hashes[way] == hash {
                if now_ns.abs_diff(bucket.seen_ns[way]) <= window_ns {
                    return true;
                }
                bucket.seen_ns[way] = now_ns;
                return false;
            }
            oldest = oldest.min((bucket.seen_ns[way], way));
        }
        let (seen_ns, way) = oldest;
        self.forgotten += u64::from(bucket.hashes[way] != 0 && now_ns.abs_diff(seen_ns) <= window_ns);
        bucket.hashes[way] = hash;
        bucket.seen_ns[way] = now_ns;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const WINDOW: u64 = 10_000_000;

    /// A UDP packet over IPv4.
    fn ipv4(id: u16, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let len = (28 + payload.len()) as u16;
        let mut ip =
            vec![0x45, 0, (len >> 8) as u8, len as u8, (id >> 8) as u8, id as u8, 0x40, 0, ttl, 17, 9, 9];
        ip.extend([10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 0, 0, 0, 0]);
        ip.extend(payload);
        ip
    }

    #[test]
    fn what_a_hop_changes_does_not_tell_packets_apart() {
        let mut dedup = Dedup::new();
        let first = ipv4(7, 64, b"data");
        let mut hop = ipv4(7, 63, b"data");
        (hop[1], hop[10], hop[11]) = (3, 1, 2);
        hop.extend(b"padding");
        assert!(!dedup.is_duplicate(1, &first, 0, WINDOW));
        assert!(dedup.is_duplicate(1, &hop, WINDOW, WINDOW));
        assert!(!dedup.is_duplicate(2, &hop, WINDOW, WINDOW), "another tap is another observation");
        assert!(!dedup.is_duplicate(1, &hop, WINDOW + 1, WINDOW), "beyond the window of the first copy");
    }

    #[test]
    fn what_the_sender_changes_tells_packets_apart() {
        let mut dedup = Dedup::new();
        let mut longer = ipv4(7, 64, &[1; 300]);
        for packet in
            [ipv4(7, 64, b"data"), ipv4(8, 64, b"data"), ipv4(7, 64, b"Data"), ipv4(7, 64, &[1; 299])]
        {
            assert!(!dedup.is_duplicate(1, &packet, 5, WINDOW));
        }
        assert!(!dedup.is_duplicate(1, &longer, 5, WINDOW));
        longer[19] = 3;
        assert!(!dedup.is_duplicate(1, &longer, 5, WINDOW));
    }

    #[test]
    fn ipv6_and_what_is_no_ip_packet() {
        let mut dedup = Dedup::new();
        let mut ip = vec![0x60, 0, 0, 0, 0, 4, 58, 64];
        ip.extend([1; 36]);
        assert!(!dedup.is_duplicate(0, &ip, 5, WINDOW));
        (ip[1], ip[3], ip[7]) = (0x0f, 1, 63);
        assert!(dedup.is_duplicate(0, &ip, 6, WINDOW));
        ip[30] = 2;
        assert!(!dedup.is_duplicate(0, &ip, 7, WINDOW));
        for other in [&[][..], &[0x45; 19], &[0x60; 39], &[0x15; 60]] {
            assert!(!dedup.is_duplicate(0, other, 8, WINDOW) && !dedup.is_duplicate(0, other, 8, WINDOW));
        }
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_counts_it() {
        let mut dedup = Dedup::new();
        for id in 0..Dedup::PACKETS as u32 * 2 {
            assert!(!dedup.is_duplicate(0, &ipv4(id as u16, 64, &id.to_be_bytes()), 5, WINDOW));
        }
        assert!(dedup.forgotten() >= Dedup::PACKETS as u64, "{}", dedup.forgotten());
    }

    proptest! {
        #[test]
        fn drops_no_first_copy_and_keeps_no_second_within_the_window(
            packets in prop::collection::vec((0u16..6, 0u16..3, 1u8..255, 0u64..WINDOW), 1..200),
        ) {
            let mut dedup = Dedup::new();
            let mut kept = HashMap::new();
            let mut now_ns = 1_700_000_000_000_000_000;
            for (id, tap, ttl, later) in packets {
                now_ns += later;
                let first = kept.get(&(id, tap)).is_none_or(|&seen| now_ns - seen > WINDOW);
                prop_assert_eq!(dedup.is_duplicate(tap, &ipv4(id, ttl, b"x"), now_ns, WINDOW), !first);
                if first {
                    kept.insert((id, tap), now_ns);
                }
            }
            prop_assert_eq!(dedup.forgotten(), 0);
        }
    }
}

//! Puts IP fragments together, in bounded memory and time.
//!
//! Overlaps are treated as Linux treats them, for IPv4 and IPv6 alike: a fragment that lies within bytes that are
//! there already is a duplicate and the first bytes stay; one that overlaps in part, or disagrees on where the
//! datagram ends, spoils the datagram, and its later fragments with it (RFC 5722, RFC 8200 section 4.5).
//!
//! A fragment that the snap length cut cannot be put together: the first one, which has the ports, is a packet on its
//! own, later ones are lost.
//!
//! Time is that of the packets, which jumps in joined captures: a datagram is given up when the clock is more than the
//! timeout away from its first fragment, in either direction.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};
use wirespan_headers::{Addresses, Fragment};
use wirespan_records::{DropReason, TunnelKind};

/// Longest payload that an IP datagram can be put together to.
const MAX_LEN: usize = 65535;

/// Most pieces of a datagram: enough for 64 KiB in IPv4's smallest MTU.
const MAX_PIECES: usize = 2048;

/// What a datagram costs beside its bytes, in the memory bound.
const OVERHEAD: usize = 512;

/// Bounds on fragments that wait for the others.
#[derive(Clone, Copy, Debug)]
pub struct FragmentLimits {
    /// Datagrams that are incomplete.
    pub datagrams_max: usize,
    /// Bytes of memory for them.
    pub bytes_max: usize,
    /// Packet time since the first fragment, ns.
    pub timeout_ns: u64,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self { datagrams_max: 1024, bytes_max: 8 << 20, timeout_ns: 30_000_000_000 }
    }
}

/// Where datagrams with the same identification are different ones nonetheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub addresses: Addresses,
    /// Tap and VLAN.
    pub scope: u64,
    pub tunnel: Option<(TunnelKind, u32)>,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It completed a datagram, which is in the buffer.
    Complete { protocol: u8, wire_len: u32 },
    /// There is no packet, for this reason.
    Absent(DropReason),
}

/// RFC 791 tells datagrams apart by protocol too, RFC 8200 does not.
type Key = (Place, u32, Option<u8>);

/// The datagrams that wait for fragments.
#[derive(Debug)]
pub(super) struct Reassembly {
    limits: FragmentLimits,
    datagrams: HashMap<Key, Datagram>,
    /// Keys by age: the serial number of the datagram.
    ages: BTreeMap<u64, Key>,
    next_serial: u64,
    bytes: usize,
    lost: u64,
}

#[derive(Debug, Default)]
struct Datagram {
    serial: u64,
    started_ns: u64,
    /// Frames that were absorbed, and their wire length.
    frames: u64,
    wire_len: u32,
    /// Protocol in the first fragment, which is the one that counts.
    protocol: u8,
    /// Known once the last fragment was seen.
    len: Option<usize>,
    /// Bytes of the pieces in the order they came.
    data: Vec<u8>,
    /// In the order of their offsets, without overlap.
    pieces: Vec<Piece>,
    /// Overlapped: later fragments are dropped too.
    spoilt: bool,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u32,
    end: u32,
    /// Where its bytes lie in the data.
    at: u32,
}

/// What became of a piece.
enum Added {
    Placed,
    Duplicate,
    /// Other bytes than are there already: these are dropped, those stay.
    Differs,
    Spoils,
    TooManyPieces,
}

impl Reassembly {
    pub fn new(limits: FragmentLimits) -> Self {
        Self { limits, datagrams: HashMap::new(), ages: BTreeMap::new(), next_serial: 0, bytes: 0, lost: 0 }
    }

    /// Frames lost since the last call.
    #[inline]
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Gives up every datagram.
    pub fn give_up_all(&mut self) {
        while let Some((_, key)) = self.ages.pop_first() {
            self.give_up(&key);
        }
    }

    /// Takes in the fragment with payload `data` of a frame of `wire_len` bytes; a complete datagram is put into `buffer`.
    pub fn add(
        &mut self,
        place: Place,
        fragment: Fragment,
        data: &[u8],
        now_ns: u64,
        wire_len: u32,
        buffer: &mut Vec<u8>,
    ) -> Outcome {
        let end = fragment.offset + data.len();
        if data.is_empty() || end > MAX_LEN || (fragment.more && !data.len().is_multiple_of(8)) {
            return Outcome::Absent(DropReason::Malformed);
        }
        let key = (place, fragment.id, Some(fragment.protocol).filter(|_| !place.addresses.v6));
        self.expire(&key, now_ns);

        let datagram = match self.datagrams.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let serial = self.next_serial;
                self.next_serial += 1;
                self.ages.insert(serial, key);
                self.bytes += OVERHEAD;
                entry.insert(Datagram { serial, started_ns: now_ns, ..Datagram::default() })
            }
        };
        if datagram.spoilt {
            return Outcome::Absent(DropReason::FragmentOverlap);
        }
        let before = datagram.cost();
        let added = datagram.add(&fragment, data);
        match added {
            Added::Differs => return Outcome::Absent(DropReason::FragmentOverlap),
            Added::Spoils => {
                self.lost += datagram.spoil();
                self.bytes -= before;
                return Outcome::Absent(DropReason::FragmentOverlap);
            }
            Added::TooManyPieces => {
                self.give_up(&key);
                return Outcome::Absent(DropReason::FragmentLost);
            }
            Added::Placed | Added::Duplicate => {}
        }
        datagram.frames += 1;
        datagram.wire_len = datagram.wire_len.saturating_add(wire_len);
        self.bytes += datagram.cost() - before;
        if datagram.len == Some(datagram.data.len()) {
            datagram.write(buffer);
            let outcome = Outcome::Complete { protocol: datagram.protocol, wire_len: datagram.wire_len };
            self.remove(&key);
            return outcome;
        }
        self.make_room();
        // Also when that gave up this datagram: its frames are among the lost.
        Outcome::Absent(DropReason::Fragment)
    }

    /// Gives up the oldest datagrams as long as they are out of time, and that of `key` if it is.
    fn expire(&mut self, key: &Key, now_ns: u64) {
        let timeout = self.limits.timeout_ns;
        let expired = |datagram: &Datagram| now_ns.abs_diff(datagram.started_ns) > timeout;
        while let Some((_, oldest)) = self.ages.first_key_value()
            && self.datagrams.get(oldest).is_some_and(expired)
        {
            let oldest = *oldest;
            self.give_up(&oldest);
        }
        if self.datagrams.get(key).is_some_and(expired) {
            self.give_up(key);
        }
    }

    /// Gives up the oldest datagrams until the rest is within the limits.
    fn make_room(&mut self) {
        while self.datagrams.len() > self.limits.datagrams_max || self.bytes > self.limits.bytes_max {
            let Some((_, &oldest)) = self.ages.first_key_value() else { return };
            self.give_up(&oldest);
        }
    }

    fn give_up(&mut self, key: &Key) {
        self.lost += self.remove(key).map_or(0, |datagram| datagram.frames);
    }

    fn remove(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.ages.remove(&datagram.serial);
        self.bytes -= datagram.cost() + OVERHEAD;
        Some(datagram)
    }
}

impl Datagram {
    /// Bytes of memory, without the overhead.
    fn cost(&self) -> usize {
        self.data.capacity() + self.pieces.capacity() * size_of::<Piece>()
    }

    /// Drops what is there; returns the number of frames that are lost with it.
    fn spoil(&mut self) -> u64 {
        self.spoilt = true;
        self.data = Vec::new();
        self.pieces = Vec::new();
        std::mem::take(&mut self.frames)
    }

    /// Puts a fragment in its place.
    fn add(&mut self, fragment: &Fragment, data: &[u8]) -> Added {
        let (start, end) = (fragment.offset, fragment.offset + data.len());
        let reached = self.pieces.last().map_or(0, |piece| piece.end as usize);
        let ends_otherwise = match self.len {
            Some(len) => end > len || (!fragment.more && end != len),
            None => !fragment.more && end < reached,
        };
        if ends_otherwise {
            return Added::Spoils;
        }
        let next = self.pieces.partition_point(|piece| piece.end as usize <= start);
        if self.pieces.get(next).is_some_and(|piece| (piece.start as usize) < end) {
            return self.overlap(next, start, end, data);
        }
        if self.pieces.len() == MAX_PIECES {
            return Added::TooManyPieces;
        }
        let piece = Piece { start: start as u32, end: end as u32, at: self.data.len() as u32 };
        self.pieces.insert(next, piece);
        self.data.extend_from_slice(data);
        if !fragment.more {
            self.len = Some(end);
        }
        if start == 0 {
            self.protocol = fragment.protocol;
        }
        Added::Placed
    }

    /// A fragment that reaches into the pieces from `next` on.
    fn overlap(&self, next: usize, start: usize, end: usize, data: &[u8]) -> Added {
        let mut at = start;
        let mut same = true;
        for piece in self.pieces.iter().skip(next) {
            let (piece_start, piece_end) = (piece.start as usize, piece.end as usize);
            if piece_start > at {
                return Added::Spoils;
            }
            let upto = piece_end.min(end);
            let held = self.bytes(piece).get(at - piece_start..upto - piece_start);
            same &= held == data.get(at - start..upto - start);
            at = upto;
            if at == end {
                return if same { Added::Duplicate } else { Added::Differs };
            }
        }
        Added::Spoils
    }

    /// The bytes of a piece.
    fn bytes(&self, piece: &Piece) -> &[u8] {
        let end = piece.at + (piece.end - piece.start);
        self.data.get(piece.at as usize..end as usize).unwrap_or_default()
    }

    /// Writes the pieces one behind the other.
    fn write(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        for piece in &self.pieces {
            buffer.extend_from_slice(self.bytes(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn memory_is_bounded_and_accounted_for(
            fragments in prop::collection::vec((0u32..8, 0usize..40, 1usize..9, any::<bool>(), 0u64..40), 1..200),
        ) {
            let limits = FragmentLimits { datagrams_max: 5, bytes_max: 4000, timeout_ns: 30 };
            let addresses = Addresses { src: 1, dst: 2, v6: true };
            let place = Place { addresses, scope: 0, tunnel: None };
            let mut reassembly = Reassembly::new(limits);
            let (mut waiting, mut lost) = (0, 0);
            for (id, offset, units, more, now_ns) in fragments {
                let fragment = Fragment { id, protocol: 17, offset: offset * 8, more };
                let data = vec![0; units * 8];
                match reassembly.add(place, fragment, &data, now_ns, 1, &mut Vec::new()) {
                    Outcome::Absent(DropReason::Fragment) => waiting += 1,
                    Outcome::Complete { wire_len, .. } => waiting -= i64::from(wire_len) - 1,
                    Outcome::Absent(_) => {}
                }
                lost += reassembly.take_lost() as i64;
                let held = |datagram: &Datagram| datagram.cost() + OVERHEAD;
                prop_assert_eq!(reassembly.bytes, reassembly.datagrams.values().map(held).sum::<usize>());
                prop_assert!(reassembly.bytes <= limits.bytes_max);
                prop_assert!(reassembly.datagrams.len() <= limits.datagrams_max);
                prop_assert_eq!(reassembly.datagrams.len(), reassembly.ages.len());
            }
            reassembly.give_up_all();
            prop_assert_eq!(waiting, lost + reassembly.take_lost() as i64);
            prop_assert_eq!(reassembly.bytes, 0);
        }
    }
}

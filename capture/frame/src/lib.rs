//! The shape of what a packet source lends to a worker.
//!
//! A source owns one region of memory (a file buffer, an AF_PACKET ring, an AF_XDP UMEM) and lends frames in it as
//! (offset, length) descriptors, so that a batch costs no copy and no allocation. The frames of a batch are valid until
//! the source is asked for the next one.
//!
//! Takes in nothing; hands on [`Batch`]es of [`Frame`]s. Everything that reads packets depends on this crate and on
//! no backend. The other way, [`Shunt`] lets a worker tell its source which flows need not be delivered, and [`Filter`] says
//! which packets are wanted at all.

mod filter;
mod prefetch;
mod shunt;

use std::num::NonZeroU32;

pub use filter::{Filter, Network, NotANetwork, Rules};
pub use prefetch::prefetch;
pub use shunt::{Shunt, ShuntCounters, ShuntKey, ShuntMode};

/// What the first byte of a frame is (names as in the pcap LINKTYPE registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LinkType {
    /// IEEE 802.3 Ethernet, LINKTYPE 1.
    #[default]
    Ethernet,
    /// BSD loopback: a 4-byte address family in host order of the writer, LINKTYPE 0.
    Null,
    /// OpenBSD loopback: a 4-byte address family in network order, LINKTYPE 108.
    Loop,
    /// Raw IPv4 or IPv6, told by the version nibble, LINKTYPE 101, 228, 229 and the DLT values 12 and 14.
    RawIp,
    /// Linux cooked capture v1, LINKTYPE 113.
    LinuxSll,
    /// Linux cooked capture v2, LINKTYPE 276.
    LinuxSll2,
    /// A link type that wirespan does not decode, with its registry number.
    Other(u16),
}

/// What the NIC or kernel already knows of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// RSS hash computed by the NIC; 0 counts as none.
    pub rx_hash: Option<NonZeroU32>,
    /// Hash of the innermost addresses, ports and protocol, the same for both directions; 0 counts as none.
    pub flow_hash: Option<NonZeroU32>,
    /// 802.1Q tag control information that was stripped from the frame (AF_PACKET, VLAN offload).
    pub vlan_tci: Option<u16>,
}

/// Where a frame lies in its batch's region.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Offset of the first byte in the region.
    pub offset: usize,
    /// Bytes that were captured.
    pub len: u32,
    /// Bytes that were on the wire, but for a tag that was stripped; more than `len` when a snap length cut the frame.
    pub wire_len: u32,
    /// Nanoseconds since the epoch.
    pub ts_ns: u64,
    /// What the first byte is.
    pub link: LinkType,
    /// Number of the interface (a capture file: its place among the blocks; several: that of the file or of a name; live: the
    /// source's number).
    pub port: u16,
    /// What the NIC or kernel already knows.
    pub hints: Hints,
}

// A batch of descriptors is read once for every batch of frames.
const _: () = assert!(size_of::<Descriptor>() <= 48);

/// One frame as lent by a source.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The captured bytes.
    pub data: &'a [u8],
    /// Bytes that were on the wire, but for a tag that was stripped.
    pub wire_len: u32,
    /// Nanoseconds since the epoch.
    pub ts_ns: u64,
    /// What the first byte is.
    pub link: LinkType,
    /// Index of the interface.
    pub port: u16,
    /// What the NIC or kernel already knows.
    pub hints: Hints,
}

impl Frame<'_> {
    /// Bytes of the frame on the wire, with the VLAN tag that was stripped from it.
    #[inline]
    pub fn wire_bytes(&self) -> u32 {
        const VLAN_TAG_BYTES: u32 = 4;
        let tag = if self.hints.vlan_tci.is_some() { VLAN_TAG_BYTES } else { 0 };
        self.wire_len.max(self.data.len() as u32) + tag
    }
}

/// A point in packet time that a worker hears of although the frame is another worker's, so that flows time out in all
/// workers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// It comes before this frame of the batch.
    pub before: usize,
    /// Nanoseconds since the epoch.
    pub ns: u64,
}

/// Frames that a source lends until it is asked for the next batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    region: &'a [u8],
    descriptors: &'a [Descriptor],
    marks: &'a [Mark],
}

impl<'a> Batch<'a> {
    /// A batch of the frames that `descriptors` place in `region`.
    pub fn new(region: &'a [u8], descriptors: &'a [Descriptor]) -> Self {
        Self { region, descriptors, marks: &[] }
    }

    /// The same, with the times that pass between the frames, in their order.
    pub fn with_marks(self, marks: &'a [Mark]) -> Self {
        Self { marks, ..self }
    }

    /// Times that pass between the frames.
    pub fn marks(&self) -> &'a [Mark] {
        self.marks
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// True when no frame was ready; time may have passed all the same.
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// The frames in the order they were captured. A descriptor that lies outside the region gives an empty frame.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'a>> + use<'a> {
        let region = self.region;
        self.descriptors.iter().map(move |d| Frame {
            data: region.get(d.offset..d.offset.saturating_add(d.len as usize)).unwrap_or_default(),
            wire_len: d.wire_len,
            ts_ns: d.ts_ns,
            link: d.link,
            port: d.port,
            hints: d.hints,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(offset: usize, len: u32) -> Descriptor {
        Descriptor {
            offset,
            len,
            wire_len: len,
            ts_ns: 7,
            link: LinkType::Ethernet,
            port: 0,
            hints: Hints::default(),
        }
    }

    #[test]
    fn lends_the_bytes_where_the_descriptor_says() {
        let region = [1u8, 2, 3, 4, 5];
        let descriptors = [descriptor(0, 2), descriptor(2, 3)];
        let frames: Vec<_> = Batch::new(&region, &descriptors).frames().map(|f| f.data.to_vec()).collect();
        assert_eq!(frames, [vec![1, 2], vec![3, 4, 5]]);
    }

    #[test]
    fn a_descriptor_outside_the_region_lends_nothing() {
        let region = [1u8, 2];
        let descriptors = [descriptor(1, 9), descriptor(usize::MAX, 1)];
        assert!(Batch::new(&region, &descriptors).frames().all(|f| f.data.is_empty()));
    }
}

//! The pcap format (draft-ietf-opsawg-pcap, and the "modified" format of Alexey Kuznetzov's libpcap).

use wirespan_frame::{Descriptor, Hints, LinkType};

use super::order::Order;
use super::window::Window;
use super::{BATCH_FRAMES, FRAME_BYTES_MAX, Ports, Step};
use crate::{Unreadable, link_type};

pub(super) const FILE_HEADER_BYTES: usize = 24;

pub(super) const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
pub(super) const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const MAGIC_MODIFIED: u32 = 0xa1b2_cd34;

const RECORD_HEADER_BYTES: usize = 16;
/// The modified format adds interface index, protocol and packet type to each record.
const MODIFIED_RECORD_HEADER_BYTES: usize = 24;

/// What a pcap file's header says of its records.
pub(super) struct Capture {
    order: Order,
    record_header_bytes: usize,
    fraction_ns: u64,
    link: LinkType,
}

impl Capture {
    /// True when `bytes` begin with one of the magic numbers.
    pub fn recognises(bytes: &[u8]) -> bool {
        bytes.first_chunk().is_some_and(|magic| Self::from_magic(*magic).is_some())
    }

    /// What the file header says; `None` when it is none of this format.
    pub fn from_header(header: &[u8; FILE_HEADER_BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, .., l0, l1, l2, l3] = *header;
        let mut capture = Self::from_magic([m0, m1, m2, m3])?;
        // The upper half tells the length of the frame check sequence.
        let number = capture.order.u32([l0, l1, l2, l3]) & 0xffff;
        capture.link = link_type::from_number(number as u16);
        Some(capture)
    }

    fn from_magic(magic: [u8; 4]) -> Option<Self> {
        [Order::Little, Order::Big].into_iter().find_map(|order| {
            let (record_header_bytes, fraction_ns) = match order.u32(magic) {
                MAGIC_MICROSECONDS => (RECORD_HEADER_BYTES, 1_000),
                MAGIC_NANOSECONDS => (RECORD_HEADER_BYTES, 1),
                MAGIC_MODIFIED => (MODIFIED_RECORD_HEADER_BYTES, 1_000),
                _ => return None,
            };
            Some(Self { order, record_header_bytes, fraction_ns, link: LinkType::Ethernet })
        })
    }

    /// Describes the records in the window until the batch is full or the window's end cuts one.
    pub fn read(&self, window: &mut Window, descriptors: &mut Vec<Descriptor>, ports: &Ports) -> Step {
        let port = ports.get(0, []);
        let first = window.position();
        let mut rest = window.unread();
        let unread = rest.len();
        let step = loop {
            if descriptors.len() == BATCH_FRAMES {
                break Step::BatchFull;
            }
            let Some([seconds, fraction, len, wire_len]) = self.order.u32s(rest) else {
                break Step::Need(self.record_header_bytes);
            };
            if len > FRAME_BYTES_MAX {
                break Step::Lost(Unreadable::AbsurdLength);
            }
            let record_bytes = self.record_header_bytes + len as usize;
            let Some((_, tail)) = rest.split_at_checked(record_bytes) else {
                break Step::Need(record_bytes);
            };
            descriptors.push(Descriptor {
                offset: first + (unread - rest.len()) + self.record_header_bytes,
                len,
                wire_len: super::plausible_wire_len(wire_len, len),
                ts_ns: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.fraction_ns,
                link: self.link,
                port,
                hints: Hints::default(),
            });
            rest = tail;
        };
        let consumed = unread - rest.len();
        window.consume(consumed);
        step
    }
}

//! The TPACKET_V3 ring: blocks of frames that change hands between the kernel and us
//! (Documentation/networking/packet_mmap.rst of the kernel).

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, Ordering};

use wirespan_frame::{Descriptor, Hints, LinkType};

use crate::sys::{self, Mapping};

const BLOCK_HEADER: usize = offset_of!(libc::tpacket_block_desc, hdr);
const STATUS: usize = BLOCK_HEADER + offset_of!(libc::tpacket_hdr_v1, block_status);
const FRAMES: usize = BLOCK_HEADER + offset_of!(libc::tpacket_hdr_v1, num_pkts);
const FIRST_FRAME: usize = BLOCK_HEADER + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt);

/// Reads block after block.
pub(super) struct Ring {
    mapping: Mapping,
    block_bytes: usize,
    blocks: usize,
    /// The block that is read, or will be as soon as the kernel hands it over.
    current: usize,
    /// Frames of the current block that were not described yet, and where the next of them lies.
    frames_left: u32,
    next_frame: usize,
    held: bool,
}

impl Ring {
    pub fn new(mapping: Mapping, block_bytes: usize) -> Self {
        let blocks = mapping.len() / block_bytes;
        Self { mapping, block_bytes, blocks, current: 0, frames_left: 0, next_frame: 0, held: false }
    }

    /// Gives a block back whose frames were all lent, and takes the next one if the kernel has filled it.
    pub fn advance(&mut self) -> bool {
        if self.held && self.frames_left == 0 {
            self.status().inspect(|status| status.store(libc::TP_STATUS_KERNEL, Ordering::Release));
            self.current = (self.current + 1) % self.blocks;
            self.held = false;
        }
        if !self.held {
            let status = self.status().map_or(0, |status| status.load(Ordering::Acquire));
            if status & libc::TP_STATUS_USER == 0 {
                return false;
            }
            self.held = true;
            self.frames_left = self.block_field(FRAMES);
            self.next_frame = self.block_field(FIRST_FRAME) as usize;
        }
        true
    }

    /// Describes the next frames of the current block, up to the capacity of `descriptors`.
    pub fn describe(&mut self, descriptors: &mut Vec<Descriptor>, link: LinkType, port: u16) {
        while self.frames_left > 0 && descriptors.len() < descriptors.capacity() {
            let header = self.block().get(self.next_frame..).and_then(sys::read_plain::<libc::tpacket3_hdr>);
            let Some(header) = header else {
                self.frames_left = 0;
                return;
            };
            descriptors.push(describe(&header, self.next_frame, link, port));
            self.next_frame += header.tp_next_offset as usize;
            self.frames_left -= 1;
        }
    }

    /// The current block, where descriptors count from.
    pub fn block(&self) -> &[u8] {
        if !self.held {
            return &[];
        }
        // SAFETY: the kernel leaves a block alone until `advance` hands it back, which needs `&mut self`.
        unsafe { self.mapping.slice(self.current * self.block_bytes, self.block_bytes) }
    }

    fn block_field(&self, offset: usize) -> u32 {
        let field = self.block().get(offset..).and_then(<[u8]>::first_chunk);
        field.map_or(0, |field| u32::from_ne_bytes(*field))
    }

    fn status(&self) -> Option<&AtomicU32> {
        let status = self.mapping.pointer(self.current * self.block_bytes + STATUS)?;
        // SAFETY: an aligned integer in the mapping that both sides access atomically.
        Some(unsafe { AtomicU32::from_ptr(status.as_ptr()) })
    }
}

fn describe(header: &libc::tpacket3_hdr, at: usize, link: LinkType, port: u16) -> Descriptor {
    let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
    Descriptor {
        offset: at + usize::from(header.tp_mac),
        len: header.tp_snaplen,
        wire_len: header.tp_len.max(header.tp_snaplen),
        ts_ns: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
        link,
        port,
        hints: Hints { vlan_tci: tagged.then_some(header.hv1.tp_vlan_tci as u16), ..Hints::default() },
    }
}

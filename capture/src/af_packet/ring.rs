//! The TPACKET_V3 ring: blocks of frames that change hands between the kernel and us
//! (Documentation/networking/packet_mmap.rst of the kernel).

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wirespan_frame::{Descriptor, Hints, LinkType};

use crate::sys::{self, Mapping};

const BLOCK_HEADER: usize = offset_of!(libc::tpacket_block_desc, hdr);
const STATUS: usize = BLOCK_HEADER + offset_of!(libc::tpacket_hdr_v1, block_status);
const FRAMES: usize = BLOCK_HEADER + offset_of!(libc::tpacket_hdr_v1, num_pkts);
const FIRST_FRAME: usize = BLOCK_HEADER + offset_of!(libc::tpacket_hdr_v1, offset_to_first_pkt);

/// Reads block after block.
pub(super) struct Ring {
    mapping: Arc<Mapping>,
    block_bytes: usize,
    /// For each block, its frames that are lent, and one more while it is read. The kernel gets a block back when
    /// the last of them is gone.
    holds: Vec<u32>,
    /// The block that is read, or will be as soon as the kernel hands it over.
    current: usize,
    /// Frames of the current block that were not described yet, and where in it the next of them lies.
    frames_left: u32,
    next_frame: usize,
}

impl Ring {
    pub fn new(mapping: Mapping, block_bytes: usize) -> Self {
        let holds = vec![0; mapping.len() / block_bytes];
        Self { mapping: Arc::new(mapping), block_bytes, holds, current: 0, frames_left: 0, next_frame: 0 }
    }

    /// All blocks; descriptors count from its start.
    pub fn memory(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Describes up to `most` frames that the kernel has handed over, and lends them.
    pub fn describe(&mut self, most: usize, into: &mut Vec<Descriptor>, link: LinkType, port: u16) -> usize {
        let before = into.len();
        while into.len() - before < most && self.find_frame() {
            let start = self.current * self.block_bytes;
            // SAFETY: the kernel leaves a block alone while there are holds on it.
            let block = unsafe { self.mapping.slice(start, self.block_bytes) };
            let header = block.get(self.next_frame..).and_then(sys::read_plain::<libc::tpacket3_hdr>);
            let Some(header) = header else {
                self.frames_left = 0;
                continue;
            };
            into.push(describe(&header, start + self.next_frame, link, port));
            self.hold(self.current);
            self.next_frame += header.tp_next_offset as usize;
            self.frames_left -= 1;
        }
        into.len() - before
    }

    /// Ends the lending of a frame.
    pub fn give_back(&mut self, offset: usize) {
        self.let_go(offset / self.block_bytes);
    }

    /// True when there is a frame to describe.
    pub fn is_ready(&mut self) -> bool {
        self.find_frame()
    }

    /// The part of the blocks that are full and were not begun.
    pub fn backlog(&self) -> f32 {
        let blocks = self.holds.len();
        let first = self.current + usize::from(self.next_frame > 0);
        // From there on, full ones come before the others.
        let (mut full, mut end) = (0, blocks);
        while full < end {
            let middle = full.midpoint(end);
            if self.is_full((first + middle) % blocks) {
                full = middle + 1;
            } else {
                end = middle;
            }
        }
        full as f32 / blocks as f32
    }

    /// Goes on to the next block where the current one has no frame left. False when the kernel has not filled it.
    fn find_frame(&mut self) -> bool {
        loop {
            if self.frames_left > 0 {
                return true;
            }
            if self.next_frame > 0 {
                self.let_go(self.current);
                self.current = (self.current + 1) % self.holds.len();
                self.next_frame = 0;
            }
            if !self.is_full(self.current) {
                return false;
            }
            self.hold(self.current);
            self.frames_left = self.field(FRAMES);
            self.next_frame = self.field(FIRST_FRAME) as usize;
        }
    }

    fn hold(&mut self, block: usize) {
        if let Some(holds) = self.holds.get_mut(block) {
            *holds += 1;
        }
    }

    fn let_go(&mut self, block: usize) {
        let Some(holds) = self.holds.get_mut(block) else { return };
        if *holds == 1 {
            *holds = 0;
            self.status(block).inspect(|status| status.store(libc::TP_STATUS_KERNEL, Ordering::Release));
        } else {
            *holds = holds.saturating_sub(1);
        }
    }

    /// True when the kernel has filled the block, and nothing of it was taken.
    fn is_full(&self, block: usize) -> bool {
        let status = self.status(block).map_or(0, |status| status.load(Ordering::Acquire));
        status & libc::TP_STATUS_USER != 0 && self.holds.get(block) == Some(&0)
    }

    fn field(&self, offset: usize) -> u32 {
        // SAFETY: the kernel has handed the current block over.
        let field = unsafe { self.mapping.slice(self.current * self.block_bytes + offset, 4) };
        field.first_chunk().map_or(0, |field| u32::from_ne_bytes(*field))
    }

    fn status(&self, block: usize) -> Option<&AtomicU32> {
        let status = self.mapping.pointer(block * self.block_bytes + STATUS)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: usize = 4096;
    const FRAME_BYTES: u32 = 256;

    /// Plays the kernel.
    fn fill(ring: &Ring, block: usize, frames: u32) {
        let start = block * BLOCK_BYTES;
        let put = |offset: usize, value: u32| {
            // SAFETY: nobody reads meanwhile.
            unsafe { ring.mapping.pointer::<u32>(start + offset).unwrap().write(value) };
        };
        put(FRAMES, frames);
        put(FIRST_FRAME, FRAME_BYTES);
        for frame in 1..=frames {
            let at = (frame * FRAME_BYTES) as usize;
            put(at + offset_of!(libc::tpacket3_hdr, tp_next_offset), FRAME_BYTES);
            put(at + offset_of!(libc::tpacket3_hdr, tp_len), frame);
        }
        ring.status(block).unwrap().store(libc::TP_STATUS_USER, Ordering::Release);
    }

    fn ring(blocks: usize) -> Ring {
        Ring::new(Mapping::anonymous(blocks * BLOCK_BYTES, false, None).unwrap().0, BLOCK_BYTES)
    }

    fn is_kernels(ring: &Ring, block: usize) -> bool {
        ring.status(block).unwrap().load(Ordering::Acquire) == libc::TP_STATUS_KERNEL
    }

    fn take(ring: &mut Ring, most: usize) -> Vec<usize> {
        let mut frames = Vec::new();
        ring.describe(most, &mut frames, LinkType::Ethernet, 0);
        frames.iter().map(|frame| frame.offset).collect()
    }

    #[test]
    fn a_block_goes_back_when_its_last_frame_does() {
        let mut ring = ring(3);
        fill(&ring, 0, 3);
        fill(&ring, 1, 2);
        let first = take(&mut ring, 2);
        assert_eq!(first.len(), 2);
        first.iter().for_each(|&frame| ring.give_back(frame));
        assert!(!is_kernels(&ring, 0), "one frame was not taken yet");
        let rest = take(&mut ring, 9);
        assert_eq!(rest.len(), 3);
        ring.give_back(rest[1]);
        ring.give_back(rest[2]);
        assert!(!is_kernels(&ring, 0), "one frame is lent");
        assert!(take(&mut ring, 9).is_empty());
        assert!(is_kernels(&ring, 1), "the later block goes back first");
        ring.give_back(rest[0]);
        assert!(is_kernels(&ring, 0));
        ring.give_back(rest[0]);
        assert!(is_kernels(&ring, 0), "giving back twice does nothing");
    }

    #[test]
    fn a_lent_block_is_not_read_again() {
        let mut ring = ring(2);
        fill(&ring, 0, 1);
        fill(&ring, 1, 1);
        let lent = take(&mut ring, 9);
        assert_eq!(lent.len(), 2);
        assert!(take(&mut ring, 9).is_empty());
        lent.iter().for_each(|&frame| ring.give_back(frame));
        fill(&ring, 0, 1);
        assert_eq!(take(&mut ring, 9).len(), 1);
    }

    #[test]
    fn an_empty_block_is_passed_over() {
        let mut ring = ring(2);
        fill(&ring, 0, 0);
        fill(&ring, 1, 1);
        assert_eq!(take(&mut ring, 9).len(), 1);
        assert!(is_kernels(&ring, 0));
    }

    #[test]
    fn the_backlog_is_what_waits_behind_the_current_block() {
        let mut ring = ring(4);
        assert_eq!(ring.backlog(), 0.0);
        (0..3).for_each(|block| fill(&ring, block, 1));
        assert_eq!(ring.backlog(), 0.75);
        take(&mut ring, 1);
        assert_eq!(ring.backlog(), 0.5);
    }
}

//! Events wait here until those that happened before them have come: the rings of several CPUs are read one after the other,
//! and a call is told of when it ends, though a send counts from when it began.
//!
//! Events are copied once, into chunks that are used again; a list of their times, nearly sorted already, keeps the order.

use std::collections::VecDeque;
use wirespan_event::{Event, Header};

/// Bytes of one chunk; longer events have one of their own.
const CHUNK: usize = 256 << 10;
/// Empty chunks that are kept.
const SPARE: usize = 8;

/// Events that wait, in order of time.
#[derive(Default)]
pub(crate) struct Order {
    slots: VecDeque<Slot>,
    chunks: Vec<Chunk>,
    /// The chunk that is being filled.
    open: Option<usize>,
    /// Chunks without an event.
    free: Vec<usize>,
    bytes: usize,
}

/// An event that waits, or is taken out.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    time_ns: u64,
    chunk: u32,
    offset: u32,
    len: u32,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    events: usize,
}

impl Order {
    /// Bytes of the events that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an event that counts from `time_ns` on; of the same time, the one that was added first is first.
    pub(crate) fn push(&mut self, time_ns: u64, event: &Event<'_>) {
        let len = size_of::<Header>() + event.payload.len();
        let index = self.chunk_with_room(len);
        let chunk = &mut self.chunks[index];
        let slot = Slot { time_ns, chunk: index as u32, offset: chunk.bytes.len() as u32, len: len as u32 };
        chunk.bytes.extend_from_slice(event.header.as_bytes());
        chunk.bytes.extend_from_slice(event.payload);
        chunk.events += 1;
        self.bytes += len;
        match self.slots.back() {
            Some(last) if last.time_ns > time_ns => {
                let at = self.slots.partition_point(|slot| slot.time_ns <= time_ns);
                self.slots.insert(at, slot);
            }
            _ => self.slots.push_back(slot),
        }
    }

    /// Takes out the first event, if it counts from `until_ns` or before.
    pub(crate) fn pop(&mut self, until_ns: u64) -> Option<Slot> {
        self.slots.pop_front_if(|slot| slot.time_ns <= until_ns)
    }

    /// Header and payload of an event that was taken out.
    pub(crate) fn get(&self, slot: Slot) -> Option<(Header, &[u8])> {
        let start = slot.offset as usize;
        let bytes = self.chunks.get(slot.chunk as usize)?.bytes.get(start..start + slot.len as usize)?;
        Some((Header::read(bytes)?, bytes.get(size_of::<Header>()..)?))
    }

    /// The event that was taken out is not needed any more.
    pub(crate) fn release(&mut self, slot: Slot) {
        let index = slot.chunk as usize;
        self.bytes -= slot.len as usize;
        let Some(chunk) = self.chunks.get_mut(index) else { return };
        chunk.events -= 1;
        if chunk.events == 0 {
            chunk.bytes.clear();
            if self.open != Some(index) {
                if self.free.len() >= SPARE {
                    chunk.bytes = Vec::new();
                }
                self.free.push(index);
            }
        }
    }

    fn chunk_with_room(&mut self, len: usize) -> usize {
        if let Some(open) = self.open
            && self.chunks[open].bytes.len() + len <= CHUNK.max(len)
        {
            return open;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.chunks.len() - 1
        });
        let chunk = &mut self.chunks[index];
        chunk.bytes.reserve(CHUNK.max(len));
        self.open = Some(index);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(order: &mut Order, time_ns: u64, payload: &[u8]) {
        let header = Header { enter_ns: time_ns, ..Header::default() };
        order.push(time_ns, &Event { header: &header, payload });
    }

    fn pop(order: &mut Order, until_ns: u64) -> Option<(u64, usize)> {
        let slot = order.pop(until_ns)?;
        let (header, payload) = order.get(slot).unwrap();
        let found = (header.enter_ns, payload.len());
        order.release(slot);
        Some(found)
    }

    #[test]
    fn events_come_out_in_order_of_time_and_not_too_early() {
        let mut order = Order::default();
        for (time_ns, len) in [(30, 1), (10, 2), (20, 3), (10, 4)] {
            push(&mut order, time_ns, &vec![0; len]);
        }
        assert_eq!(pop(&mut order, 9), None);
        assert_eq!(pop(&mut order, 20), Some((10, 2)));
        assert_eq!(pop(&mut order, 20), Some((10, 4)));
        assert_eq!(pop(&mut order, 20), Some((20, 3)));
        assert_eq!(pop(&mut order, 20), None);
        assert_eq!(pop(&mut order, u64::MAX), Some((30, 1)));
        assert_eq!(order.bytes(), 0);
    }

    #[test]
    fn chunks_are_used_again() {
        let mut order = Order::default();
        let long = vec![0; 2 * CHUNK];
        for round in 0..100 {
            for n in 0..20 {
                push(&mut order, round * 100 + n, &vec![0; 60_000]);
            }
            push(&mut order, round * 100 + 50, &long);
            for n in 0..20 {
                assert_eq!(pop(&mut order, u64::MAX), Some((round * 100 + n, 60_000)));
            }
            assert_eq!(pop(&mut order, u64::MAX), Some((round * 100 + 50, long.len())));
        }
        assert!(order.chunks.len() <= 8, "{} chunks", order.chunks.len());
        assert_eq!(order.bytes(), 0);
    }
}

//! The ring in which parcels come to one worker, and how the worker sleeps until one comes.

use std::hint;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::parcel::Parcel;
use crate::sys::Bell;

/// How often a worker looks again before it sleeps: going to sleep and being woken costs more.
const LOOKS: u32 = 2_000;

pub(super) struct Inbox<M> {
    ring: ArrayQueue<Parcel<M>>,
    /// The worker is gone.
    closed: AtomicBool,
    /// What the worker listens to while it has nothing to do.
    pub bell: Bell,
}

impl<M> Inbox<M> {
    pub fn new(parcels: usize) -> io::Result<Self> {
        Ok(Self { ring: ArrayQueue::new(parcels), closed: AtomicBool::new(false), bell: Bell::new()? })
    }

    /// Hands a parcel over; gives it back when the ring is full or the worker is gone.
    pub fn put(&self, parcel: Parcel<M>) -> Result<(), Parcel<M>> {
        if self.is_closed() {
            return Err(parcel);
        }
        self.ring.push(parcel)?;
        self.bell.ring();
        Ok(())
    }

    pub fn take(&self) -> Option<Parcel<M>> {
        self.ring.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The part of the ring that is used.
    pub fn fill(&self) -> f32 {
        self.ring.len() as f32 / self.ring.capacity() as f32
    }

    /// Parcels that wait.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Sleeps until there is something or the bell rings, at most so long. False when that time went by.
    pub fn sleep(&self, at_most: Duration) -> io::Result<bool> {
        for _ in 0..LOOKS {
            if !self.is_empty() {
                return Ok(true);
            }
            hint::spin_loop();
        }
        let listening = self.bell.listen();
        if self.is_empty() {
            listening.wait(at_most)?;
        }
        Ok(listening.has_rung() || !self.is_empty())
    }
}

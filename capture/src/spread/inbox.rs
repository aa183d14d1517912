//! The ring in which parcels come to one worker, and how the worker sleeps until one comes.

use std::hint;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::parcel::Parcel;

/// How often a worker looks again before it sleeps: going to sleep and being woken costs more.
const LOOKS: u32 = 2_000;

pub(super) struct Inbox<M> {
    ring: ArrayQueue<Parcel<M>>,
    /// The worker is gone.
    closed: AtomicBool,
    asleep: AtomicBool,
    /// The worker that sleeps.
    sleeper: Mutex<Option<Thread>>,
}

impl<M> Inbox<M> {
    pub fn new(parcels: usize) -> Self {
        Self {
            ring: ArrayQueue::new(parcels),
            closed: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            sleeper: Mutex::new(None),
        }
    }

    /// Hands a parcel over; gives it back when the ring is full or the worker is gone.
    pub fn put(&self, parcel: Parcel<M>) -> Result<(), Parcel<M>> {
        if self.is_closed() {
            return Err(parcel);
        }
        self.ring.push(parcel)?;
        self.wake();
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

    /// Wakes the worker if it sleeps.
    pub fn wake(&self) {
        // What was done before must be visible to a worker that is about to sleep, or its flag to us.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::AcqRel)
            && let Ok(sleeper) = self.sleeper.lock()
            && let Some(thread) = &*sleeper
        {
            thread.unpark();
        }
    }

    /// Sleeps until woken, at most so long. False when that time went by.
    pub fn sleep(&self, at_most: Duration) -> bool {
        let is_over = || !self.ring.is_empty();
        for _ in 0..LOOKS {
            if is_over() {
                return true;
            }
            hint::spin_loop();
        }
        if let Ok(mut sleeper) = self.sleeper.lock() {
            *sleeper = Some(thread::current());
        }
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_over() {
            thread::park_timeout(at_most);
        }
        !self.asleep.swap(false, Ordering::AcqRel) || is_over()
    }
}

//! Decides which worker a frame goes to, and makes parcels.

use std::collections::VecDeque;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wirespan_frame::{Descriptor, Mark};

use super::clock::{Clock, Times};
use super::followers::{Followers, TIMEOUT_NS};
use super::inner_hash::{Fragment, InnerHash, is_plainly_bare, plain_hash, walk};
use super::parcel::{Memory, Parcel};

/// Later fragments that may wait for their first.
const HELD_MAX: usize = 64;

/// Parcels for each worker, filled in the order of the frames.
pub(super) struct Router<M> {
    seed: u64,
    /// Gets what lies in no tunnel.
    home: Option<usize>,
    /// Being filled, one for each worker.
    open: Vec<Parcel<M>>,
    /// To be delivered, oldest first, for each worker.
    pub full: Vec<VecDeque<Parcel<M>>>,
    /// Parcels that came back.
    pub free: Vec<Parcel<M>>,
    /// Those of all queues, as a datagram's fragments may come on several.
    followers: Arc<Mutex<Followers>>,
    held: VecDeque<Held<M>>,
    /// Set where workers have no other time than that of packets.
    clock: Option<Clock>,
    memory: Option<M>,
    /// Memories seen.
    memories: u64,
}

/// A later fragment that came before the first.
struct Held<M> {
    memory: M,
    descriptor: Descriptor,
    /// Where it goes if the first does not come.
    worker: usize,
    fragment: Fragment,
    /// When, in memories.
    since: u64,
}

impl<M: Memory> Router<M> {
    /// For one of several queues: frames that lie in no tunnel go to `home`, if there is one.
    pub fn live(workers: usize, seed: u64, home: Option<usize>, followers: Arc<Mutex<Followers>>) -> Self {
        Self {
            seed,
            home,
            open: (0..workers).map(|_| Parcel::new()).collect(),
            full: (0..workers).map(|_| VecDeque::new()).collect(),
            free: Vec::new(),
            followers,
            held: VecDeque::new(),
            clock: None,
            memory: None,
            memories: 0,
        }
    }

    /// For frames that are the only clock: each worker hears of the times of the others' too.
    pub fn with_clock(workers: usize, seed: u64) -> Self {
        Self { clock: Some(Clock::default()), ..Self::live(workers, seed, None, Arc::default()) }
    }

    /// Hands frames that lie in `memory` to their workers.
    pub fn route(&mut self, memory: &M, descriptors: &[Descriptor]) {
        self.release_known();
        self.release_old(memory, descriptors);
        for (frame, descriptor) in memory.batch(descriptors).frames().zip(descriptors) {
            if let Some(home) = self.home {
                match is_plainly_bare(descriptor.link, frame.data) {
                    true => self.route_packet(memory, descriptor, home),
                    false => self.route_other(memory, descriptor),
                }
                continue;
            }
            let plain = match descriptor.hints.flow_hash {
                Some(hash) => Some(hash.get()),
                None => plain_hash(descriptor.link, frame.data, self.seed),
            };
            match plain {
                Some(hash) => self.route_packet(memory, descriptor, self.worker(hash)),
                None => self.route_other(memory, descriptor),
            }
        }
    }

    /// A frame with a whole packet.
    #[inline(always)]
    fn route_packet(&mut self, memory: &M, descriptor: &Descriptor, worker: usize) {
        // Flow tables hear of whole packets' times only.
        self.tell_time(descriptor.ts_ns, worker);
        self.push(worker, memory, descriptor);
    }

    /// A frame of which more must be read to know where it goes.
    #[inline(never)]
    fn route_other(&mut self, memory: &M, descriptor: &Descriptor) {
        for frame in memory.batch(slice::from_ref(descriptor)).frames() {
            let found = walk(&frame, self.seed);
            let worker = self.worker_of(&found);
            match &found.fragment {
                Some(fragment) => self.place(memory, descriptor, worker, fragment),
                None if found.is_flow => self.route_packet(memory, descriptor, worker),
                None => self.push(worker, memory, descriptor),
            }
        }
    }

    fn worker_of(&self, found: &InnerHash) -> usize {
        self.home.filter(|_| found.is_bare).unwrap_or_else(|| self.worker(found.hash))
    }

    /// Nothing more comes: fragments that wait are given up, and all parcels closed.
    pub fn finish(&mut self) {
        self.release(self.held.len());
        self.memory = None;
        self.flush();
    }

    /// Closes all parcels.
    pub fn flush(&mut self) {
        (0..self.open.len()).for_each(|worker| self.close(worker));
    }

    /// Closes the parcel of a worker.
    pub fn close(&mut self, worker: usize) {
        let (Some(open), Some(full)) = (self.open.get_mut(worker), self.full.get_mut(worker)) else { return };
        if !open.is_empty() {
            let next = self.free.pop().unwrap_or_else(Parcel::new);
            full.push_back(std::mem::replace(open, next));
        }
    }

    /// A fragment.
    #[inline(never)]
    fn place(&mut self, memory: &M, descriptor: &Descriptor, worker: usize, fragment: &Fragment) {
        let worker = match fragment.follows {
            None => worker,
            Some(datagram) => match self.followed(datagram, descriptor.ts_ns) {
                Some(worker) => worker,
                None => return self.hold(memory, descriptor, worker, fragment),
            },
        };
        for datagram in fragment.leads.into_iter().flatten() {
            self.followers().insert(datagram, worker, descriptor.ts_ns);
            self.release_known();
        }
        self.push(worker, memory, descriptor);
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the datagram's first fragment went.
    fn followed(&self, datagram: u64, ts_ns: u64) -> Option<usize> {
        self.followers().get(datagram, ts_ns)
    }

    /// Equal parts of all hashes.
    fn worker(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.open.len() as u64) >> 32) as usize
    }

    #[inline]
    fn push(&mut self, worker: usize, memory: &M, descriptor: &Descriptor) {
        let is_there = |open: &Parcel<M>| open.memory.as_ref().is_some_and(|other| other.is(memory));
        if !self.open.get(worker).is_some_and(is_there) {
            self.enter(worker, memory);
        }
        let Some(open) = self.open.get_mut(worker) else { return };
        open.descriptors.push(*descriptor);
        if open.is_full() {
            self.close(worker);
        }
    }

    /// From now on the worker's parcel is of this memory.
    #[inline(never)]
    fn enter(&mut self, worker: usize, memory: &M) {
        if self.open.get(worker).is_some_and(|open| open.memory.is_some()) {
            self.close(worker);
        }
        if let Some(open) = self.open.get_mut(worker) {
            open.memory = Some(memory.clone());
        }
    }

    /// Lets all workers know of a packet's time when it matters; `owner` gets the packet.
    #[inline]
    fn tell_time(&mut self, ts_ns: u64, owner: usize) {
        if let Some(times) = self.clock.as_mut().and_then(|clock| clock.observe(ts_ns)) {
            self.tell(&times, owner);
        }
    }

    #[inline(never)]
    fn tell(&mut self, times: &Times, owner: usize) {
        for worker in 0..self.open.len() {
            let Some(open) = self.open.get_mut(worker) else { return };
            let before = open.descriptors.len();
            let now = (worker != owner).then_some(times.now);
            open.marks.extend(times.before.into_iter().chain(now).map(|ns| Mark { before, ns }));
            if open.is_full() {
                self.close(worker);
            }
        }
    }

    fn hold(&mut self, memory: &M, descriptor: &Descriptor, worker: usize, fragment: &Fragment) {
        if self.held.len() == HELD_MAX {
            self.release(1);
        }
        let (memory, since) = (memory.clone(), self.memories);
        self.held.push_back(Held { memory, descriptor: *descriptor, worker, fragment: *fragment, since });
    }

    /// Fragments whose first has come, be it on another queue, go their way.
    fn release_known(&mut self) {
        let is_known = |router: &Self, held: &Held<M>| {
            let datagram = held.fragment.follows;
            datagram.is_some_and(|datagram| router.followed(datagram, held.descriptor.ts_ns).is_some())
        };
        while let Some(index) = self.held.iter().position(|held| is_known(self, held))
            && let Some(held) = self.held.remove(index)
        {
            self.place(&held.memory, &held.descriptor, held.worker, &held.fragment);
        }
    }

    /// Gives up fragments that have waited too long: so that memory is not kept from being used again, and as decoding
    /// does.
    fn release_old(&mut self, memory: &M, descriptors: &[Descriptor]) {
        if !self.memory.as_ref().is_some_and(|last| last.is(memory)) {
            self.memory = Some(memory.clone());
            self.memories += 1;
        }
        let Some(now) = descriptors.first() else { return };
        let is_old = |held: &Held<M>| {
            held.since + 1 < self.memories || now.ts_ns.abs_diff(held.descriptor.ts_ns) > TIMEOUT_NS
        };
        let old = self.held.iter().take_while(|held| is_old(held)).count();
        self.release(old);
    }

    /// The oldest fragments that wait go by their addresses.
    fn release(&mut self, count: usize) {
        for _ in 0..count {
            let Some(held) = self.held.pop_front() else { return };
            let fragment = Fragment { follows: None, ..held.fragment };
            self.place(&held.memory, &held.descriptor, held.worker, &fragment);
        }
    }
}

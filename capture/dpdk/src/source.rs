//! The frames of one queue.

use std::num::NonZeroU32;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wirespan_capture::{
    Batch, CaptureError, Descriptor, Hints, LinkType, Listening, Loss, PacketSource, Shunt, SourceStats,
};

use crate::clock::{Clock, now_ns};
use crate::lending::Lending;
use crate::pool::Pool;
use crate::port::{Port, PortInfo, PortOptions};
use crate::shunt::{self, DropRules};
use crate::{PortStats, sys, thread as dpdk_thread};

/// Most frames of one batch.
pub(crate) const BATCH_FRAMES: usize = 256;
/// Polls of an empty queue between two looks at the clock.
const POLLS_PER_LOOK: u32 = 64;
/// Polls of an empty queue before the source sleeps, where it may: some 10 microseconds.
const POLLS_BEFORE_SLEEP: u32 = 512;

/// The received frames of one queue of a port.
///
/// It may be polled by one thread at a time; the thread is made known to DPDK by its first call.
pub struct DpdkSource {
    pub(crate) rx: sys::Rx,
    pub(crate) mbufs: Box<[*mut sys::Mbuf; BATCH_FRAMES]>,
    pub(crate) frames: Box<[sys::Frame; BATCH_FRAMES]>,
    /// Mbufs below were given back, or are lent for longer than a batch.
    pub(crate) given_back: usize,
    /// Mbufs below are lent; those from there on wait, as the spare memory is full.
    pub(crate) lent: usize,
    /// Mbufs below were received.
    pub(crate) count: usize,
    descriptors: Vec<Descriptor>,
    pub(crate) clock: Clock,
    pub(crate) received: u64,
    pub(crate) copied: u64,
    /// Where frames are lent for longer than a batch.
    pub(crate) lending: Lending,
    poll_timeout: Duration,
    idle_sleep: Option<Duration>,
    number: u16,
    pub(crate) port: Arc<Port>,
}

// SAFETY: the mbufs are the source's alone, and DPDK lets any one thread at a time poll a queue.
unsafe impl Send for DpdkSource {}

impl DpdkSource {
    pub(crate) fn new(port: &Arc<Port>, queue: u16, clock: Clock, options: &PortOptions) -> Self {
        let (base, len) = port.pools.get(usize::from(queue)).map_or((ptr::null_mut(), 0), |pool| {
            let raw = pool.raw();
            (raw.base, raw.len)
        });
        let mut rx = sys::Rx { base, len, stamp_flag: 0, stamp_offset: 0, port: port.id, queue };
        if !matches!(clock, Clock::Software) {
            // SAFETY: the port is started.
            unsafe { sys::ws_rx_stamps(&mut rx) };
        }
        Self {
            rx,
            mbufs: Box::new([ptr::null_mut(); BATCH_FRAMES]),
            frames: Box::new([sys::Frame::default(); BATCH_FRAMES]),
            given_back: 0,
            lent: 0,
            count: 0,
            descriptors: Vec::with_capacity(BATCH_FRAMES),
            clock,
            received: 0,
            copied: 0,
            lending: Lending::default(),
            poll_timeout: options.poll_timeout,
            idle_sleep: options.idle_sleep,
            number: options.port,
            port: Arc::clone(port),
        }
    }

    /// The queue whose frames these are.
    pub fn queue(&self) -> u16 {
        self.rx.queue
    }

    /// How the port was set up.
    pub fn info(&self) -> &PortInfo {
        &self.port.info
    }

    /// Frames that were copied, as they did not lie in one buffer.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// What the port counted, all queues together.
    pub fn port_stats(&self) -> PortStats {
        self.port.stats()
    }

    /// The driver's own counters by name, all queues together.
    pub fn extended_stats(&self) -> Vec<(String, u64)> {
        self.port.extended_stats()
    }

    /// Why the NIC cannot keep flows back, when it cannot.
    pub fn check_shunt(&self) -> Result<(), crate::DpdkError> {
        shunt::check(&self.port)
    }

    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.port.pools.get(usize::from(self.rx.queue))
    }

    fn give_back(&mut self) {
        self.descriptors.clear();
        if let Some(read) = self.mbufs.get_mut(self.given_back..self.lent)
            && !read.is_empty()
        {
            // SAFETY: these were received, and their batch is not in use any more.
            unsafe { sys::ws_free(read.as_mut_ptr(), read.len() as u32) };
        }
        self.given_back = self.lent;
    }

    /// Takes what is in the queue. False when it is empty.
    pub(crate) fn receive(&mut self) -> bool {
        let (mbufs, frames) = (self.mbufs.as_mut_ptr(), self.frames.as_mut_ptr());
        // SAFETY: there is room for as many, and this thread alone polls the queue.
        let count = unsafe { sys::ws_receive(&self.rx, mbufs, frames, BATCH_FRAMES as u16) };
        (self.given_back, self.lent, self.count) = (0, 0, usize::from(count).min(BATCH_FRAMES));
        count > 0
    }

    /// Polls until something comes, the bell rings or the time is over.
    ///
    /// # Errors
    /// Nothing came, and the device is gone.
    pub(crate) fn poll(
        &mut self,
        timeout: Duration,
        bell: Option<&Listening<'_>>,
    ) -> Result<(), CaptureError> {
        // SAFETY: the port was opened.
        if !self.polled(timeout, bell) && unsafe { sys::ws_port_removed(self.port.id) } == 1 {
            return Err(CaptureError::InterfaceGone { interface: self.port.info.name.clone() });
        }
        Ok(())
    }

    /// False when nothing came.
    fn polled(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> bool {
        if self.receive() {
            return true;
        }
        let deadline = Instant::now() + timeout;
        for polls in 1u32.. {
            match self.idle_sleep {
                Some(sleep) if polls > POLLS_BEFORE_SLEEP => thread::sleep(sleep),
                // SAFETY: no memory is involved.
                _ => unsafe { sys::ws_pause() },
            }
            if self.receive() {
                return true;
            }
            let looks = self.idle_sleep.is_some() || polls.is_multiple_of(POLLS_PER_LOOK);
            if looks && (Instant::now() >= deadline || bell.is_some_and(Listening::has_rung)) {
                break;
            }
        }
        false
    }

    /// Describes the received frames, as many as the spare memory allows.
    fn lend(&mut self) {
        let now_ns = now_ns();
        self.clock.tick(now_ns);
        let mut descriptors = std::mem::take(&mut self.descriptors);
        let (mut spare, mut copied) = (0, 0);
        if let Some(pool) = self.pool() {
            for (&mbuf, frame) in self.mbufs.iter().zip(self.frames.iter()).take(self.count).skip(self.lent) {
                let (mut offset, mut len) = (frame.offset as usize, frame.len);
                if frame.flags & sys::COPY != 0 {
                    if spare > 0 && frame.len as usize > pool.spare_bytes() - spare {
                        break;
                    }
                    // SAFETY: the mbuf is ours until it is given back, and the last batch is not in use any more.
                    len = unsafe { pool.copy(mbuf, spare) };
                    offset = pool.spare_offset() + spare;
                    spare += len as usize;
                    copied += 1;
                }
                descriptors.push(self.describe(frame, offset, len, now_ns));
            }
        }
        self.copied += copied;
        self.lent += descriptors.len();
        self.received += descriptors.len() as u64;
        self.descriptors = descriptors;
    }

    /// A received frame, of which so many bytes lie at this offset.
    pub(crate) fn describe(&self, frame: &sys::Frame, offset: usize, len: u32, now_ns: u64) -> Descriptor {
        let stamped = frame.flags & sys::STAMP != 0;
        Descriptor {
            offset,
            len,
            wire_len: frame.len,
            ts_ns: stamped.then(|| self.clock.real_ns(frame.stamp)).flatten().unwrap_or(now_ns),
            link: LinkType::Ethernet,
            port: self.number,
            hints: Hints {
                rx_hash: if frame.flags & sys::HASH != 0 { NonZeroU32::new(frame.hash) } else { None },
                flow_hash: None,
                vlan_tci: (frame.flags & sys::VLAN != 0).then_some(frame.vlan),
            },
        }
    }
}

impl PacketSource for DpdkSource {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        dpdk_thread::register();
        self.give_back();
        if self.lent == self.count {
            self.poll(self.poll_timeout, None)?;
        }
        self.lend();
        // SAFETY: the device and other threads leave the lent frames alone, and a batch reads nothing else.
        let region = self.pool().map_or(&[][..], |pool| unsafe { pool.region() });
        Ok(Some(Batch::new(region, &self.descriptors)))
    }

    /// What the NIC dropped is counted by port, not by queue: the first queue's source answers for all.
    fn stats(&mut self) -> SourceStats {
        let mut stats = SourceStats { received: self.received, ..SourceStats::default() };
        if self.rx.queue == 0 {
            let PortStats { missed, no_mbuf, errors, .. } = self.port.stats();
            stats.lose(Loss::RingFull, missed);
            stats.lose(Loss::NoFreeFrame, no_mbuf);
            stats.lose(Loss::Damaged, errors);
        }
        stats
    }

    fn backlog(&mut self) -> f32 {
        // SAFETY: the queue was set up.
        let waiting = unsafe { sys::ws_waiting(self.rx.port, self.rx.queue) };
        (waiting.max(0) as f32 / f32::from(self.port.info.descriptors.max(1))).min(1.0)
    }

    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        self.check_shunt().ok()?;
        Some(Box::new(DropRules::new(&self.port)))
    }
}

impl Drop for DpdkSource {
    fn drop(&mut self) {
        self.lent = self.count;
        self.give_back();
    }
}

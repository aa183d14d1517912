//! Mirrored traffic that is sent to this machine: VXLAN and GENEVE datagrams on UDP sockets, without any privilege.
//!
//! This is how clouds mirror (VPC traffic mirroring, GENEVE from gateways). Takes in datagrams on the addresses and ports it is
//! given, and on no others; hands on frames that begin with the outer IP header again ([`LinkType::RawIp`]), so that the same
//! decoder tells tunnel, VNI and tap from them.
//!
//! One source serves all workers through [`spread::live`](crate::spread::live): several sockets on one port would share the
//! datagrams by their outer ports, which differ for the two directions of a mirrored flow.
//!
//! - `socket`: the socket and its counters
//! - `message`: many datagrams in one system call
//! - `header`: outer headers that the kernel took off

mod header;
mod message;
mod socket;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use wirespan_frame::{Batch, Descriptor, Hints, LinkType};

use crate::sys::{self, Listening, Mapping};
use crate::{CaptureError, LendingSource, Loss, Note, PacketSource, Region, SourceStats};
use header::HEADROOM;
use message::{Messages, Received};
use socket::Socket;

/// Most frames of one batch, and of one system call.
const BATCH_FRAMES: usize = 128;
/// Frames that can be lent.
const SLOTS: usize = 8192;
/// Room for one frame: jumbo frames with all outer headers. An odd number of cache lines, so that the beginnings of the
/// frames do not compete for the same lines of the cache.
const SLOT_BYTES: usize = 64 * 151;
/// Longest payload that is not cut.
const PAYLOAD_BYTES_MAX: usize = SLOT_BYTES - HEADROOM;

/// What a mirror sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

impl Encapsulation {
    /// IANA's port, by which decoding tells the tunnel.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Vxlan => 4789,
            Self::Geneve => 6081,
        }
    }
}

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses of this machine (`0.0.0.0` and `::` are all) with the ports, which may be others than the default ones.
    pub listen: Vec<(SocketAddr, Encapsulation)>,
    /// How long to wait for frames.
    pub poll_timeout: Duration,
}

/// UDP sockets as one source of frames.
pub struct UdpMirror {
    sockets: Vec<Socket>,
    /// The sockets, and what else may end a wait.
    polled: Vec<libc::pollfd>,
    messages: Messages,
    memory: Arc<Mapping>,
    /// Offsets of slots that are not lent; the one used last is on top, as it is still in the cache.
    free: Vec<usize>,
    poll_timeout: Duration,
    /// Of the current batch.
    lent: Vec<Descriptor>,
    received: u64,
    /// Datagrams that were longer than any jumbo frame.
    cut: u64,
    notes: Vec<Note>,
}

impl UdpMirror {
    /// Listens on all of the addresses, or on none if one of them is refused.
    pub fn open(config: &Config) -> Result<Self, CaptureError> {
        let open = |&(address, encapsulation): &(SocketAddr, Encapsulation)| {
            Socket::open(address, encapsulation.default_port())
        };
        let sockets: Vec<Socket> = config.listen.iter().map(open).collect::<Result<_, _>>()?;
        let memory = Mapping::anonymous(SLOTS * SLOT_BYTES, false, None)
            .map_err(|source| CaptureError::system("have memory for datagrams", "UDP", source))?;
        let polled = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        Ok(Self {
            polled: sockets.iter().map(Socket::fd).chain([-1]).map(polled).collect(),
            notes: sockets.iter().filter_map(Socket::note).collect(),
            sockets,
            messages: Messages::new(BATCH_FRAMES),
            memory: Arc::new(memory.0),
            free: (0..SLOTS).rev().map(|slot| slot * SLOT_BYTES).collect(),
            poll_timeout: config.poll_timeout,
            lent: Vec::with_capacity(BATCH_FRAMES),
            received: 0,
            cut: 0,
        })
    }

    /// Takes what is ready on one socket; returns how many frames.
    fn take_from(
        &mut self,
        socket: usize,
        most: usize,
        into: &mut Vec<Descriptor>,
    ) -> Result<usize, CaptureError> {
        let Some(socket) = self.sockets.get(socket) else { return Ok(0) };
        let first = self.free.len().saturating_sub(most.min(BATCH_FRAMES));
        let slots = self.free.get(first..).unwrap_or_default();
        let place = |&slot: &usize| self.memory.pointers::<u8>(slot + HEADROOM, PAYLOAD_BYTES_MAX);
        let places = slots.iter().rev().map_while(place).map(ptr::NonNull::as_ptr);
        // SAFETY: these slots are free, so that nobody reads them.
        let count = unsafe { self.messages.receive(socket.fd(), places, PAYLOAD_BYTES_MAX) }
            .map_err(|source| CaptureError::system("receive", &socket.address.to_string(), source))?;
        let (address, tunnel_port) = (socket.address, socket.tunnel_port);
        for index in 0..count {
            let Some(slot) = self.free.pop() else { break };
            match self.messages.get(index) {
                Some(received) => {
                    let to = SocketAddr::new(received.to.unwrap_or(address.ip()), tunnel_port);
                    into.push(self.describe(slot, &received, to));
                }
                // Of no address family that was asked for: no frame.
                None => self.free.insert(0, slot),
            }
        }
        Ok(count)
    }

    /// Completes the frame in a slot whose payload was received.
    fn describe(&mut self, slot: usize, received: &Received, to: SocketAddr) -> Descriptor {
        let payload = received.bytes.min(PAYLOAD_BYTES_MAX);
        self.cut += u64::from(payload < received.bytes);
        let mut room = [0; HEADROOM];
        let headers = header::write(&mut room, received.from, to, received.bytes);
        if let Some(place) = self.memory.pointer::<[u8; HEADROOM]>(slot) {
            // SAFETY: the slot is within the memory and not lent, so that nobody else reads or writes it.
            unsafe { place.as_ptr().write(room) };
        }
        Descriptor {
            offset: slot + HEADROOM - headers,
            len: (headers + payload) as u32,
            wire_len: (headers + received.bytes) as u32,
            ts_ns: received.ts_ns.unwrap_or_else(|| sys::clock_ns(libc::CLOCK_REALTIME)),
            link: LinkType::RawIp,
            port: 0,
            hints: Hints::default(),
        }
    }
}

impl PacketSource for UdpMirror {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        let mut lent = std::mem::take(&mut self.lent);
        self.free.extend(lent.iter().map(|frame| slot_of(frame.offset)));
        lent.clear();
        let mut taken = self.take(BATCH_FRAMES, &mut lent);
        if taken.is_ok() && lent.is_empty() {
            taken = self.wait(self.poll_timeout, None).and_then(|()| self.take(BATCH_FRAMES, &mut lent));
        }
        self.lent = lent;
        taken?;
        // SAFETY: only lent slots are read, and they are written to again after the next call at the earliest.
        let region = unsafe { self.memory.slice(0, self.memory.len()) };
        Ok(Some(Batch::new(region, &self.lent)))
    }

    fn stats(&mut self) -> SourceStats {
        let mut stats = SourceStats { received: self.received, cut: self.cut, ..SourceStats::default() };
        stats.lose(Loss::RingFull, self.sockets.iter_mut().map(Socket::drops).sum());
        stats
    }

    fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

impl LendingSource for UdpMirror {
    fn region(&self) -> Region {
        Region::new(Arc::clone(&self.memory))
    }

    fn take(&mut self, most: usize, into: &mut Vec<Descriptor>) -> Result<(), CaptureError> {
        let before = into.len();
        for socket in 0..self.sockets.len() {
            loop {
                let left = most.saturating_sub(into.len() - before);
                if left == 0 || self.take_from(socket, left, into)? < left.min(BATCH_FRAMES) {
                    break;
                }
            }
        }
        self.received += (into.len() - before) as u64;
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        if let Some(last) = self.polled.last_mut() {
            // A negative descriptor is left out.
            last.fd = bell.map_or(-1, |bell| bell.fd().as_raw_fd());
        }
        sys::poll(&mut self.polled, timeout)
            .map_err(|source| CaptureError::system("wait for datagrams", "UDP", source))
    }

    fn give_back(&mut self, offsets: &[usize]) {
        self.free.extend(offsets.iter().map(|&offset| slot_of(offset)));
    }
}

/// The slot that a frame's first byte lies in.
fn slot_of(offset: usize) -> usize {
    offset / SLOT_BYTES * SLOT_BYTES
}

//! AF_XDP: frames from the driver's receive queues, before the network stack. For mirror ports.
//!
//! **The frames are taken away from the system**: what the XDP program redirects, the network stack never sees. Use this
//! on an interface that receives mirrored traffic and has no other purpose; on any other, [`af_packet`](crate::af_packet).
//!
//! Takes in the received frames of one interface; hands on batches that lie in the memory shared with the driver.
//! Frames are lent until the next call and then go back to the driver together. Needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and
//! CAP_IPC_LOCK. A frame may have 3840 bytes; longer ones are counted as dropped.
//!
//! - `socket`: a socket, its memory and how it is set up
//! - `ring`: the rings between the socket and the kernel
//! - `clock`: from the XDP program's clock to the time of day

mod clock;
mod ring;
mod socket;

use std::fmt;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use wirespan_bpf::xdp_redirect::{self, Counters, QUEUES_MAX, Stamp, XdpRedirect};
use wirespan_frame::{Batch, Descriptor, Hints, LinkType};

use crate::interface::Interface;
use crate::sys;
use crate::{CaptureError, PacketSource, SourceStats};
use clock::Clock;
use socket::Socket;

/// Most frames of one batch.
const BATCH_FRAMES: usize = 256;
/// Memory of a frame: the page that the kernel wants, with its headroom of 256 bytes.
const FRAME_BYTES: usize = 4096;

/// How to capture on an interface.
#[derive(Clone, Debug)]
pub struct Options {
    /// Frames of 4 KiB that a queue can hold; rounded up to a power of two.
    pub frames_per_queue: u32,
    /// Also frames that are addressed to others, as they are on a mirror port.
    pub promiscuous: bool,
    /// How long a call waits for a frame before it gives an empty batch.
    pub poll_timeout: Duration,
    /// What the frames' descriptors say of where they were seen.
    pub port: u16,
}

impl Default for Options {
    /// 16 MiB a queue.
    fn default() -> Self {
        Self { frames_per_queue: 4096, promiscuous: true, poll_timeout: Duration::from_millis(100), port: 0 }
    }
}

/// How the frames come from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Where the XDP program runs.
    pub program: xdp_redirect::Mode,
    /// The NIC writes into our memory; else the kernel copies.
    pub zero_copy: bool,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.program {
            xdp_redirect::Mode::Native => "native XDP",
            xdp_redirect::Mode::Generic => "generic XDP",
        })?;
        f.write_str(if self.zero_copy { ", zero-copy" } else { ", copy" })
    }
}

/// What the sources of one interface have in common; the last one that goes detaches the program.
struct Attachment {
    program: XdpRedirect,
    /// The interface is promiscuous as long as this socket is open.
    _promiscuous: Option<OwnedFd>,
}

/// The received frames of one queue of an interface, **taken from the network stack**.
pub struct AfXdp {
    socket: Socket,
    attachment: Arc<Attachment>,
    interface: Interface,
    queue: u32,
    clock: Clock,
    descriptors: Vec<Descriptor>,
    received: u64,
    options: Options,
}

impl AfXdp {
    /// Starts to capture on an interface of the caller's network namespace: one source for each of its queues.
    /// **The interface's other users will receive nothing more** until the last of the sources is dropped.
    pub fn open(interface: &str, options: Options) -> Result<Vec<Self>, CaptureError> {
        let interface = Interface::find(interface)?;
        if interface.link_type() != LinkType::Ethernet {
            return Err(CaptureError::NotEthernet { interface: interface.name });
        }
        // Drivers set their queues up anew for a program, so it comes before the sockets.
        let mut program = XdpRedirect::attach(&interface.name)?;
        let _promiscuous = options.promiscuous.then(|| interface.hold_promiscuous()).transpose()?;
        let try_zero_copy = program.mode() == xdp_redirect::Mode::Native;
        let frames = options.frames_per_queue.clamp(64, 1 << 20).next_power_of_two();
        let mut sockets = Vec::new();
        for queue in 0..interface.rx_queues.min(QUEUES_MAX) {
            let socket = Socket::open(&interface, queue, frames, try_zero_copy)?;
            program.set_socket(queue, &socket.fd())?;
            sockets.push(socket);
        }
        let attachment = Arc::new(Attachment { program, _promiscuous });
        let source = |(queue, socket)| Self {
            socket,
            attachment: Arc::clone(&attachment),
            interface: interface.clone(),
            queue,
            clock: Clock::new(),
            descriptors: Vec::with_capacity(BATCH_FRAMES),
            received: 0,
            options: options.clone(),
        };
        Ok((0..).zip(sockets).map(source).collect())
    }

    /// How the frames come from the driver.
    pub fn mode(&self) -> Mode {
        Mode { program: self.attachment.program.mode(), zero_copy: self.socket.zero_copy }
    }

    /// The queue whose frames these are.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// What the XDP program did with the frames of all queues.
    pub fn program_counters(&self) -> Result<Counters, CaptureError> {
        Ok(self.attachment.program.counters()?)
    }

    /// Gives the frames of the last batch back to the driver.
    fn recycle(&mut self) -> std::io::Result<()> {
        if !self.descriptors.is_empty() {
            let frame_start = |lent: Descriptor| (lent.offset - lent.offset % FRAME_BYTES) as u64;
            self.socket.fill.give(self.descriptors.drain(..).map(frame_start));
        }
        if self.socket.fill.needs_wakeup() { self.socket.wait(Duration::ZERO) } else { Ok(()) }
    }

    fn take(&mut self) {
        let now_ns = self.clock.tick();
        let (umem, clock, port) = (&self.socket.umem, &self.clock, self.options.port);
        self.socket.rx.take(BATCH_FRAMES as u32, |received| {
            let offset = received.addr as usize;
            self.descriptors.push(Descriptor {
                offset,
                len: received.len,
                wire_len: received.len,
                ts_ns: take_stamp(umem, offset).map_or(now_ns, |boot_ns| clock.real_ns(boot_ns)),
                link: LinkType::Ethernet,
                port,
                hints: Hints::default(),
            });
        });
        self.received += self.descriptors.len() as u64;
    }

    fn error(&self, source: std::io::Error) -> CaptureError {
        match source.raw_os_error() {
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) if !self.interface.exists() => {
                CaptureError::InterfaceGone { interface: self.interface.name.clone() }
            }
            _ => CaptureError::system("wait for frames", &self.interface.name, source),
        }
    }
}

/// Reads the time that the XDP program wrote before a frame, and removes it: the next frame here may come without.
fn take_stamp(umem: &sys::Mapping, frame: usize) -> Option<u64> {
    let place = frame.checked_sub(size_of::<Stamp>())?;
    // SAFETY: the kernel has handed this frame over.
    let stamp: Stamp = sys::read_plain(unsafe { umem.slice(place, size_of::<Stamp>()) })?;
    let magic = umem.pointer::<u32>(place + offset_of!(Stamp, magic))?;
    // SAFETY: as above, and no slice of it is alive.
    unsafe { magic.write(0) };
    (stamp.magic == Stamp::MAGIC).then_some(stamp.boot_ns)
}

impl PacketSource for AfXdp {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        self.recycle().map_err(|source| self.error(source))?;
        self.take();
        if self.descriptors.is_empty() {
            self.socket.wait(self.options.poll_timeout).map_err(|source| self.error(source))?;
            self.take();
        }
        let umem = &self.socket.umem;
        // SAFETY: descriptors point to frames that the kernel has handed over and does not write to before `recycle`.
        Ok(Some(Batch::new(unsafe { umem.slice(0, umem.len()) }, &self.descriptors)))
    }

    fn stats(&mut self) -> SourceStats {
        let mut stats = SourceStats { received: self.received, ..SourceStats::default() };
        if let Ok(kernel) = self.socket.statistics() {
            stats.kernel_drops = kernel.rx_dropped + kernel.rx_ring_full;
            stats.ring_full = kernel.rx_fill_ring_empty_descs + kernel.rx_ring_full;
        }
        stats
    }
}

//! AF_XDP: frames from the driver's receive queues, before the network stack. For mirror ports.
//!
//! **The frames are taken away from the system**: what the XDP program redirects, the network stack never sees. Use this
//! on an interface that receives mirrored traffic and has no other purpose; on any other, [`af_packet`](crate::af_packet).
//!
//! Takes in the received frames of one interface; hands on batches that lie in the memory shared with the driver.
//! Frames are lent until the next call, or as long as a [`LendingSource`] lends them, and then go back to the driver
//! together. Needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK. What a driver cannot do is done in the next
//! best way, and said in [`PacketSource::notes`].
//!
//! - `open`: program and sockets of an interface
//! - `socket`: a socket, its memory and how it is set up
//! - `ring`: the rings between the socket and the kernel
//! - `spare`: frames that came in parts
//! - `busy_poll`: receiving without interrupts
//! - `transmit`: sending, for what makes traffic
//! - `clock`: from the XDP program's clock to the time of day

mod busy_poll;
mod clock;
mod open;
mod ring;
mod socket;
mod spare;
mod transmit;

use std::fmt;
use std::mem::offset_of;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wirespan_bpf::xdp::{self, Counters, Stamp, XdpOptions};
use wirespan_frame::{Batch, Descriptor, Filter, Hints, LinkType};

use crate::interface::Interface;
use crate::sys::{self, Listening};
use crate::{CaptureError, KeptBack, LendingSource, Loss, Note, PacketSource, Region, Shunt, SourceStats};
use busy_poll::Effect;
use clock::{Clock, NicClock};
use open::Attachment;
use socket::Socket;
use spare::Spares;
pub use transmit::Transmitter;

/// Most frames of one batch.
const BATCH_FRAMES: usize = 256;
/// Memory of a frame: a page, which every driver can receive into.
const FRAME_BYTES: usize = 4096;
/// What the kernel leaves free before a frame, XDP_PACKET_HEADROOM of linux/bpf.h.
const KERNEL_HEADROOM: usize = 256;
/// With so much more, a frame's stamp and its headers lie in one pair of cache lines.
const HEADROOM: u32 = size_of::<Stamp>() as u32;
/// Bytes of a frame in one buffer.
const FRAME_CAPACITY: usize = FRAME_BYTES - KERNEL_HEADROOM - HEADROOM as usize;
/// Under load the next frames come sooner than a thread falls asleep and wakes up, so it looks for them for so long.
const LOOK_FOR: Duration = Duration::from_micros(20);

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
    /// The first way to try; those below it follow.
    pub first_mode: Mode,
    /// The worker's CPU runs the driver's receive path. For NICs with more traffic than interrupts can bring: the
    /// worker never sleeps then. The interface's interrupts are to be held back meanwhile, which is a setting of the
    /// NIC (`busy-poll` of wirespan-offload).
    pub busy_poll: bool,
    /// Lay the frames in huge pages.
    pub huge_pages: bool,
    /// What the XDP program does beside handing frames over.
    pub program: XdpOptions,
}

impl Default for Options {
    /// 64 MiB a queue: a million frames a second can wait for 16 ms while a worker does not get its CPU.
    fn default() -> Self {
        Self {
            frames_per_queue: 16_384,
            promiscuous: true,
            poll_timeout: Duration::from_millis(100),
            port: 0,
            first_mode: Mode::ZeroCopy,
            busy_poll: false,
            huge_pages: true,
            program: XdpOptions::default(),
        }
    }
}

impl Options {
    fn frames(&self) -> u32 {
        self.frames_per_queue.clamp(64, 1 << 20).next_power_of_two()
    }
}

/// How the frames come from the driver, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The NIC writes into our memory.
    ZeroCopy,
    /// The XDP program runs in the driver, and the kernel copies.
    Copy,
    /// The XDP program runs in the network stack, and the kernel copies: for drivers that know no XDP.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "native XDP, zero-copy",
            Self::Copy => "native XDP, copy",
            Self::Generic => "generic XDP, copy",
        })
    }
}

/// The received frames of one queue of an interface, **taken from the network stack**.
pub struct AfXdp {
    socket: Socket,
    attachment: Arc<Attachment>,
    interface: Interface,
    queue: u32,
    clock: Clock,
    nic_clock: NicClock,
    spares: Spares,
    /// The frames of the last batch.
    descriptors: Vec<Descriptor>,
    /// Present while the queue is busy-polled.
    busy_poll: Option<Effect>,
    /// The last wait found nothing.
    idle: bool,
    received: u64,
    joined: u64,
    notes: Vec<Note>,
    options: Options,
}

impl AfXdp {
    /// Starts to capture on an interface of the caller's network namespace: one source for each of its queues.
    /// **The interface's other users will receive nothing more** until the last of the sources is dropped.
    pub fn open(interface: &str, options: Options) -> Result<Vec<Self>, CaptureError> {
        open::open(interface, &options)
    }

    /// How the frames come from the driver.
    pub fn mode(&self) -> Mode {
        match self.attachment.mode() {
            xdp::Mode::Generic => Mode::Generic,
            xdp::Mode::Native if self.socket.bound.zero_copy => Mode::ZeroCopy,
            xdp::Mode::Native => Mode::Copy,
        }
    }

    /// The queue whose frames these are.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Frames that came in parts and were copied together.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// What the XDP program did with the frames of all queues. Frames on the wire are those that were lent, those that were
    /// [dropped](SourceStats::drops), and those that the program filtered, did not sample, shunted or passed on.
    pub fn program_counters(&self) -> Result<Counters, CaptureError> {
        self.attachment.counters()
    }

    /// Describes up to `most` frames that are ready.
    fn describe_ready(&mut self, most: usize, into: &mut Vec<Descriptor>) {
        let ready = self.socket.rx.ready();
        if ready == 0 {
            return;
        }
        if let Some(effect) = &mut self.busy_poll {
            effect.before_asking(self.socket.rx.produced());
            let verdict = effect.verdict();
            self.judge(verdict);
        }
        self.idle = false;
        let now_ns = self.clock.tick();
        let mut used = 0;
        let mut frames = 0;
        while used < ready && frames < most {
            let first = self.socket.rx.peek(used);
            if first.options & libc::XDP_PKT_CONTD == 0 {
                let place = first.addr as usize;
                let stamp = take_stamp(&self.socket.memory, place);
                into.push(self.describe(stamp, place, first.len, now_ns));
                used += 1;
            } else {
                let Some(parts) = self.join(used, ready, now_ns, into) else { break };
                used += parts;
            }
            frames += 1;
        }
        self.socket.rx.release(used);
        self.received += frames as u64;
    }

    fn describe(&mut self, stamp: Option<Stamp>, offset: usize, len: u32, now_ns: u64) -> Descriptor {
        let mut descriptor = Descriptor {
            offset,
            len,
            wire_len: len,
            ts_ns: now_ns,
            link: LinkType::Ethernet,
            port: self.options.port,
            hints: Hints::default(),
        };
        if let Some(stamp) = stamp {
            descriptor.ts_ns = self.clock.real_ns(stamp.boot_ns);
            // 0 where it is not set.
            descriptor.hints.flow_hash = NonZeroU32::new(stamp.flow_hash);
            if stamp.has(Stamp::RX_HASH) {
                descriptor.hints.rx_hash = NonZeroU32::new(stamp.rx_hash);
            }
            if let Some(wire_len) = stamp.cut_from() {
                descriptor.wire_len = wire_len;
            }
            if stamp.has(Stamp::VLAN) {
                descriptor.hints.vlan_tci = Some(stamp.vlan_tci);
            }
            if stamp.has(Stamp::RX_TIME) {
                descriptor.ts_ns = self.nic_clock.real_ns(stamp.rx_ns, descriptor.ts_ns);
            }
        }
        descriptor
    }

    /// Puts a frame together whose first part is `ahead` in the ring, and says how many parts it has. `None` while its end
    /// or a buffer is missing: it waits in the ring then.
    fn join(&mut self, ahead: u32, ready: u32, now_ns: u64, into: &mut Vec<Descriptor>) -> Option<u32> {
        let Socket { rx, fill, memory, .. } = &mut self.socket;
        let last = (ahead..ready).find(|&index| rx.peek(index).options & libc::XDP_PKT_CONTD == 0)?;
        let parts = || (ahead..=last).map(|index| rx.peek(index));
        let (place, len) =
            self.spares.join(memory, parts().map(|part| (part.addr as usize, part.len as usize)))?;
        let stamp = take_stamp(memory, rx.peek(ahead).addr as usize);
        fill.give(parts().map(|part| part.addr - part.addr % FRAME_BYTES as u64));
        into.push(self.describe(stamp, place, len as u32, now_ns));
        self.joined += 1;
        Some(last - ahead + 1)
    }

    /// Gives frames back to the driver, and spare buffers to the others.
    fn give(&mut self, offsets: impl Iterator<Item = usize>) {
        let spares = &mut self.spares;
        let of_driver = offsets.filter(|&offset| !spares.give_back(offset));
        self.socket.fill.give(of_driver.map(|offset| (offset - offset % FRAME_BYTES) as u64));
    }

    /// Tells a driver that waits for free frames that there are some.
    fn wake_driver(&self) -> Result<(), CaptureError> {
        if self.socket.fill.needs_wakeup() {
            sys::drive_receive(self.socket.fd()).map_err(|source| self.error(source))?;
        }
        Ok(())
    }

    /// Runs the driver's receive path until it has brought frames.
    fn poll_driver(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        let start = Instant::now();
        while let Some(effect) = &mut self.busy_poll {
            let rx = &self.socket.rx;
            effect.before_asking(rx.produced());
            let asked = sys::drive_receive(self.socket.fd());
            effect.after_asking(rx.produced());
            let verdict = effect.verdict();
            asked.map_err(|source| self.error(source))?;
            self.judge(verdict);
            if self.socket.rx.ready() > 0 {
                return Ok(());
            }
            if start.elapsed() >= timeout || bell.is_some_and(Listening::has_rung) {
                break;
            }
        }
        self.sleep(Duration::ZERO, None)
    }

    /// Gives busy polling up where it has no effect.
    fn judge(&mut self, effective: Option<bool>) {
        let reason = match effective {
            None => return,
            Some(true) => {
                self.busy_poll = Some(Effect::starting_at(self.socket.rx.produced()));
                return;
            }
            Some(false) if busy_poll::has_napi(self.socket.fd()) => {
                "interrupts bring the frames before they are asked for"
            }
            Some(false) => "the driver does not tell which of its queues they come from",
        };
        self.busy_poll = None;
        let interface = self.interface.name.clone();
        self.notes.push(Note::BusyPollWithoutEffect { interface, reason });
    }

    fn sleep(&self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        sys::wait_readable(self.socket.fd(), bell, timeout)
            .and_then(|()| sys::take_error(self.socket.fd()))
            .map_err(|source| self.error(source))
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

/// Reads what the XDP program wrote before a frame, and removes it: the next frame here may come without.
fn take_stamp(memory: &sys::Mapping, frame: usize) -> Option<Stamp> {
    let place = memory.pointer::<Stamp>(frame.checked_sub(size_of::<Stamp>())?)?;
    // SAFETY: the kernel has handed this frame over, and no slice of what lies before it is alive.
    unsafe {
        let stamp = place.read();
        place.byte_add(offset_of!(Stamp, magic)).cast::<u32>().write(0);
        (stamp.magic == Stamp::MAGIC).then_some(stamp)
    }
}

impl PacketSource for AfXdp {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        let mut descriptors = std::mem::take(&mut self.descriptors);
        if !descriptors.is_empty() {
            self.give(descriptors.drain(..).map(|lent| lent.offset));
        }
        self.wake_driver()?;
        self.describe_ready(BATCH_FRAMES, &mut descriptors);
        if descriptors.is_empty() {
            self.wait(self.options.poll_timeout, None)?;
            self.describe_ready(BATCH_FRAMES, &mut descriptors);
        }
        self.descriptors = descriptors;
        let memory = &self.socket.memory;
        // SAFETY: descriptors point to frames that the kernel has handed over and gets back on the next call.
        Ok(Some(Batch::new(unsafe { memory.slice(0, memory.len()) }, &self.descriptors)))
    }

    fn stats(&mut self) -> SourceStats {
        let mut stats = SourceStats { received: self.received, ..SourceStats::default() };
        if let Ok(kernel) = self.socket.statistics() {
            // The kernel counts each time that it finds the fill ring empty; what it drops then is in `rx_dropped` too, together
            // with frames that it has no room for.
            let no_free_frame = kernel.rx_fill_ring_empty_descs.min(kernel.rx_dropped);
            stats.ring_full = kernel.rx_fill_ring_empty_descs + kernel.rx_ring_full;
            stats.lose(Loss::RingFull, kernel.rx_ring_full);
            stats.lose(Loss::NoFreeFrame, no_free_frame);
            stats.lose(Loss::DoesNotFit, kernel.rx_dropped - no_free_frame);
        }
        // The program counts for all queues.
        if self.queue == 0
            && let Ok(program) = self.attachment.counters()
        {
            let reasons = [
                (KeptBack::FilteredProtocol, program.filtered_protocol),
                (KeptBack::FilteredNetwork, program.filtered_network),
                (KeptBack::FilteredPort, program.filtered_port),
                (KeptBack::FilteredVlan, program.filtered_vlan),
                (KeptBack::FilteredTunnel, program.filtered_tunnel_id),
                (KeptBack::SampledOut, program.sampled_out),
                (KeptBack::Shunted, program.shunted),
                (KeptBack::Passed, program.passed),
            ];
            stats.kept_back.extend(reasons.into_iter().filter(|&(_, frames)| frames > 0));
        }
        stats
    }

    fn set_filter(&mut self, filter: &Filter) -> Result<bool, CaptureError> {
        self.attachment.set_filter(filter)
    }

    fn backlog(&mut self) -> f32 {
        self.socket.rx.ready() as f32 / self.socket.rx.entries() as f32
    }

    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        Some(Box::new(self.attachment.shunt()?))
    }

    fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

impl LendingSource for AfXdp {
    fn region(&self) -> Region {
        Region::new(Arc::clone(&self.socket.memory))
    }

    fn take(&mut self, most: usize, into: &mut Vec<Descriptor>) -> Result<(), CaptureError> {
        self.wake_driver()?;
        self.describe_ready(most, into);
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        if self.busy_poll.is_some() {
            return self.poll_driver(timeout, bell);
        }
        if !self.idle {
            let start = Instant::now();
            while start.elapsed() < LOOK_FOR.min(timeout) {
                if self.socket.rx.ready() > 0 {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        self.idle = true;
        self.sleep(timeout, bell)
    }

    fn give_back(&mut self, offsets: &[usize]) {
        self.give(offsets.iter().copied());
    }
}

//! AF_PACKET with a TPACKET_V3 ring: works on every Linux interface, and leaves the traffic to the system.
//!
//! Takes in the frames of one interface, both directions; hands on batches that lie in the ring's blocks. A block goes
//! back to the kernel when its last frame is no longer lent. Needs CAP_NET_RAW; CAP_BPF too for sharing tunnelled traffic
//! among workers.
//!
//! - `ring`: the blocks

mod ring;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wirespan_bpf::fanout::FanoutProgram;
use wirespan_bpf::xdp::XdpOptions;
use wirespan_frame::{Batch, Descriptor, LinkType};

use crate::interface::Interface;
use crate::sys::{self, Listening, Mapping};
use crate::{CaptureError, LendingSource, Loss, Note, PacketSource, Region, SourceStats};
use ring::Ring;

/// Most frames of one batch.
const BATCH_FRAMES: usize = 256;
/// How often to look for frames while the latest block is lent.
const LENT_PAUSE: Duration = Duration::from_millis(1);
/// The kernel wants a power of two that is a multiple of its alignment; the frames of a V3 ring are as long as they are.
const RING_FRAME_BYTES: u32 = 2048;

/// How to capture on an interface.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes to capture of a frame; the wire length stays known.
    pub snap_len: u32,
    /// Also frames that are addressed to others, as on a mirror port.
    pub promiscuous: bool,
    /// Sources of one group share the interface's traffic among them, both directions of a flow to the same one.
    pub fanout: Option<Fanout>,
    /// Bytes of one block: a multiple of the page size, and more than the longest frame.
    pub block_bytes: u32,
    /// Blocks of the ring.
    pub blocks: u32,
    /// A block that is not full is handed over after this time. So even at a low rate, the ring is full after `blocks`
    /// times this time without a call.
    pub block_timeout: Duration,
    /// How long a call waits for a frame before it gives an empty batch.
    pub poll_timeout: Duration,
    /// What the frames' descriptors say of where they were seen.
    pub port: u16,
}

impl Default for Options {
    /// Whole frames, and a ring of 32 MiB: a quarter of a second of a busy gigabit link, 5 seconds of a quiet one.
    fn default() -> Self {
        Self {
            snap_len: 256 * 1024,
            promiscuous: true,
            fanout: None,
            block_bytes: 128 * 1024,
            blocks: 256,
            block_timeout: Duration::from_millis(20),
            poll_timeout: Duration::from_millis(100),
            port: 0,
        }
    }
}

/// A group of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Its number, which must be free on this machine.
    pub group: u16,
    /// Seed of the hash by which flows are spread; the same for the whole group.
    pub seed: u64,
}

/// The frames of one interface.
///
/// What the interface sends is captured too, save on the loopback interface, where each packet that is sent
/// comes in as well and would be seen twice.
pub struct AfPacket {
    // The ring is unmapped before the socket is closed.
    ring: Ring,
    socket: OwnedFd,
    interface: Interface,
    link: LinkType,
    options: Options,
    descriptors: Vec<Descriptor>,
    received: u64,
    /// Of them, longer than the snap length or a block.
    cut: u64,
    dropped: u64,
    frozen: u64,
    notes: Vec<Note>,
}

impl AfPacket {
    /// Starts to capture on an interface of the caller's network namespace.
    pub fn open(interface: &str, options: Options) -> Result<Self, CaptureError> {
        let interface = Interface::find(interface)?;
        let link = interface.link_type();
        let setup = Setup::new(&interface, link)?;
        let ring = setup.ring(&options)?;
        setup.filter(&options)?;
        setup.bind()?;
        let notes = setup.join(&options)?;
        let socket = setup.socket;
        Ok(Self {
            ring,
            socket,
            link,
            descriptors: Vec::with_capacity(BATCH_FRAMES),
            received: 0,
            cut: 0,
            dropped: 0,
            frozen: 0,
            notes,
            interface,
            options,
        })
    }
}

impl AfPacket {
    /// An interface that goes down may come up again; one that was removed does not.
    fn sleep(&self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        let waited = sys::wait_readable(self.socket.as_fd(), bell, timeout)
            .and_then(|()| sys::take_error(self.socket.as_fd()));
        match waited {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                if self.interface.exists() {
                    Ok(())
                } else {
                    Err(CaptureError::InterfaceGone { interface: self.interface.name.clone() })
                }
            }
            Err(source) => Err(CaptureError::system("wait for frames", &self.interface.name, source)),
        }
    }
}

impl PacketSource for AfPacket {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        let mut descriptors = std::mem::take(&mut self.descriptors);
        descriptors.drain(..).for_each(|lent| self.ring.give_back(lent.offset));
        self.take(BATCH_FRAMES, &mut descriptors)?;
        if descriptors.is_empty() {
            self.wait(self.options.poll_timeout, None)?;
            self.take(BATCH_FRAMES, &mut descriptors)?;
        }
        self.descriptors = descriptors;
        let memory = self.ring.memory();
        // SAFETY: descriptors point to frames that the kernel has handed over and gets back on the next call.
        Ok(Some(Batch::new(unsafe { memory.slice(0, memory.len()) }, &self.descriptors)))
    }

    fn stats(&mut self) -> SourceStats {
        // The kernel counts from the last time it was asked.
        let fresh = sys::get_option::<libc::tpacket_stats_v3>(
            self.socket.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
        );
        if let Ok(fresh) = fresh {
            self.dropped += u64::from(fresh.tp_drops);
            self.frozen += u64::from(fresh.tp_freeze_q_cnt);
        }
        let mut stats = SourceStats {
            received: self.received,
            cut: self.cut,
            ring_full: self.frozen,
            ..SourceStats::default()
        };
        stats.lose(Loss::RingFull, self.dropped);
        stats
    }

    fn backlog(&mut self) -> f32 {
        self.ring.backlog()
    }

    fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

impl LendingSource for AfPacket {
    fn region(&self) -> Region {
        Region::new(Arc::clone(self.ring.memory()))
    }

    fn take(&mut self, most: usize, into: &mut Vec<Descriptor>) -> Result<(), CaptureError> {
        let first = into.len();
        self.received += self.ring.describe(most, into, self.link, self.options.port) as u64;
        let fresh = into.get(first..).unwrap_or_default();
        self.cut += fresh.iter().filter(|frame| frame.len < frame.wire_len).count() as u64;
        Ok(())
    }

    fn wait(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError> {
        let start = Instant::now();
        loop {
            self.sleep(timeout.saturating_sub(start.elapsed()), bell)?;
            let has_rung = bell.is_some_and(Listening::has_rung);
            if self.ring.is_ready() || has_rung || start.elapsed() >= timeout {
                return Ok(());
            }
            // The kernel takes a lent block for one that nobody has read yet, and lets nobody sleep.
            std::thread::sleep(LENT_PAUSE);
        }
    }

    fn give_back(&mut self, offsets: &[usize]) {
        offsets.iter().for_each(|&offset| self.ring.give_back(offset));
    }
}

/// The steps that make a socket capture, in the order in which the kernel wants them.
struct Setup<'a> {
    socket: OwnedFd,
    interface: &'a Interface,
}

impl<'a> Setup<'a> {
    /// A socket that receives nothing before it is bound.
    fn new(interface: &'a Interface, link: LinkType) -> Result<Self, CaptureError> {
        // Without an Ethernet header, "cooked" gives the packet from its network header on.
        let kind = if link == LinkType::Ethernet { libc::SOCK_RAW } else { libc::SOCK_DGRAM };
        let socket = sys::socket(libc::AF_PACKET, kind)
            .map_err(|source| CaptureError::system("open a packet socket", &interface.name, source))?;
        Ok(Self { socket, interface })
    }

    fn ring(&self, options: &Options) -> Result<Ring, CaptureError> {
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        self.set(libc::PACKET_VERSION, &version, "use TPACKET_V3 (Linux 3.2)")?;
        let request = libc::tpacket_req3 {
            tp_block_size: options.block_bytes,
            tp_block_nr: options.blocks,
            tp_frame_size: RING_FRAME_BYTES,
            tp_frame_nr: (options.block_bytes / RING_FRAME_BYTES).saturating_mul(options.blocks),
            tp_retire_blk_tov: options.block_timeout.as_millis().try_into().unwrap_or(u32::MAX),
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        self.set(libc::PACKET_RX_RING, &request, "make the ring (fewer or smaller blocks may fit)")?;
        let bytes = options.block_bytes as usize * options.blocks as usize;
        let mapping = Mapping::shared(self.socket.as_fd(), bytes, 0)
            .map_err(|source| self.error("map the ring (fewer or smaller blocks may fit)", source))?;
        Ok(Ring::new(mapping, options.block_bytes as usize))
    }

    /// A V3 ring knows no snap length, but a filter's verdict is one.
    fn filter(&self, options: &Options) -> Result<(), CaptureError> {
        let accept = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: options.snap_len.max(1),
        };
        sys::attach_filter(self.socket.as_fd(), &mut [accept])
            .map_err(|source| self.error("set the snap length", source))
    }

    fn bind(&self) -> Result<(), CaptureError> {
        if self.interface.is_loopback() {
            let on: libc::c_int = 1;
            self.set(libc::PACKET_IGNORE_OUTGOING, &on, "ignore what loopback sends (Linux 4.20)")?;
        }
        let mut address: libc::sockaddr_ll = sys::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = self.interface.index as libc::c_int;
        sys::bind(self.socket.as_fd(), &address).map_err(|source| self.error("bind to the interface", source))
    }

    /// Joins what can only be joined by a bound socket.
    ///
    /// The group does not let the kernel put fragments together (`PACKET_FANOUT_FLAG_DEFRAG`): a worker does that itself, and
    /// counts frames as they were on the wire. Nor does a full ring overflow into another's (`ROLLOVER`): that splits flows.
    fn join(&self, options: &Options) -> Result<Vec<Note>, CaptureError> {
        if options.promiscuous {
            self.interface.make_promiscuous(self.socket.as_fd())?;
        }
        let Some(fanout) = options.fanout else { return Ok(Vec::new()) };
        match FanoutProgram::load(fanout.seed, &XdpOptions::default().tunnel_ports) {
            Ok(program) => {
                self.join_group(fanout, libc::PACKET_FANOUT_EBPF)?;
                let program = program.as_fd().as_raw_fd();
                self.set(libc::PACKET_FANOUT_DATA, &program, "spread frames by an eBPF program (Linux 4.3)")?;
                Ok(Vec::new())
            }
            Err(error) => {
                self.join_group(fanout, libc::PACKET_FANOUT_HASH)?;
                let (interface, reason) = (self.interface.name.clone(), error.to_string());
                Ok(vec![Note::NoInnerFanout { interface, reason }])
            }
        }
    }

    /// Fragments are not put together by the kernel (`PACKET_FANOUT_FLAG_DEFRAG`): frames are to be counted as they came.
    fn join_group(&self, fanout: Fanout, kind: libc::c_uint) -> Result<(), CaptureError> {
        let join = libc::c_uint::from(fanout.group) | kind << 16;
        self.set(libc::PACKET_FANOUT, &join, "join the fanout group (another number may be free)")
    }

    fn set<T: sys::Plain>(
        &self,
        name: libc::c_int,
        value: &T,
        action: &'static str,
    ) -> Result<(), CaptureError> {
        sys::set_option(self.socket.as_fd(), libc::SOL_PACKET, name, value)
            .map_err(|source| self.error(action, source))
    }

    fn error(&self, action: &'static str, source: io::Error) -> CaptureError {
        CaptureError::system(action, &self.interface.name, source)
    }
}

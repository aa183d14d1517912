//! The trait that every backend implements, its counters and its errors.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use wirespan_frame::{Batch, Descriptor, Filter, Shunt};

use crate::note::Note;
use crate::sys::Listening;

/// Something that lends frames, batch by batch.
///
/// A worker owns its source and asks it in a loop; [`stats`](Self::stats) can be read between any two batches.
pub trait PacketSource: Send {
    /// Lends the next frames; they are valid until the next call.
    ///
    /// `None` is the end of the input. An empty batch says that nothing came within the poll timeout.
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError>;

    /// What came in and what was lost so far.
    fn stats(&mut self) -> SourceStats;

    /// The part of the ring or queue that waits to be lent, 0.0 to 1.0: how far behind the worker is.
    fn backlog(&mut self) -> f32 {
        0.0
    }

    /// From now on only these packets are wanted. False when the source does not choose: then its caller does.
    fn set_filter(&mut self, _filter: &Filter) -> Result<bool, CaptureError> {
        Ok(false)
    }

    /// The source's ability to keep a flow's frames back, where it has one. Asked for once, before the first batch.
    fn shunt(&mut self) -> Option<Box<dyn Shunt>> {
        None
    }

    /// Fallbacks that were taken since the last time this was asked.
    fn notes(&mut self) -> Vec<Note> {
        Vec::new()
    }
}

/// A source whose frames may stay lent for longer than one batch, so that other threads can read them where they lie.
///
/// One thread owns the source: it takes frames, hands their descriptors to other threads together with a clone of the
/// [`Region`], collects the offsets of frames that were read, and gives them back. Frames that are not given back are
/// missing to the kernel, which drops when it has none left. Not to be mixed with
/// [`next_batch`](PacketSource::next_batch), which takes and gives back by itself.
pub trait LendingSource: PacketSource {
    /// The memory in which all frames of this source lie; [`Descriptor::offset`] counts from its start.
    fn region(&self) -> Region;

    /// Lends up to `most` frames that are ready, and appends them to `into`. Does not wait.
    fn take(&mut self, most: usize, into: &mut Vec<Descriptor>) -> Result<(), CaptureError>;

    /// Waits until a frame is ready or the bell rings, at most this long.
    fn wait(&mut self, timeout: Duration, bell: Option<&Listening<'_>>) -> Result<(), CaptureError>;

    /// Gives frames back, in any order, each by the [`Descriptor::offset`] it was lent with and once.
    fn give_back(&mut self, offsets: &[usize]);
}

/// The memory that a [`LendingSource`] shares with the kernel or a device. It lives as long as one of its clones, also when
/// the source is gone.
#[derive(Clone)]
pub struct Region(Arc<dyn Memory>);

/// What frames lie in.
///
/// # Safety
/// What [`bytes`](Self::bytes) tells is always the same, and mapped as long as the value lives.
pub unsafe trait Memory: Send + Sync {
    /// Where it begins, and how long it is.
    fn bytes(&self) -> NonNull<[u8]>;
}

impl Region {
    /// What frames of a source lie in.
    pub fn new(memory: Arc<impl Memory + 'static>) -> Self {
        Self(memory)
    }

    /// The frames that `descriptors` describe.
    ///
    /// # Safety
    /// Each was taken from the source of this region, and is not given back as long as the batch is in use.
    pub unsafe fn batch<'a>(&'a self, descriptors: &'a [Descriptor]) -> Batch<'a> {
        // SAFETY: the memory is mapped, whoever else uses it leaves lent frames alone, and a batch reads nothing else.
        Batch::new(unsafe { self.0.bytes().as_ref() }, descriptors)
    }
}

/// Counters of one source since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Frames that were lent.
    pub received: u64,
    /// Of them, without their last bytes: they were longer than the memory for a frame, or than the snap length.
    pub cut: u64,
    /// Frames that the kernel or the NIC's driver dropped because the ring was full.
    pub kernel_drops: u64,
    /// Times that the ring was full (AF_PACKET: the queue was frozen; AF_XDP: the fill ring was empty).
    pub ring_full: u64,
    /// Frames that were dropped, by cause: `kernel_drops` is their sum. Only causes that occurred.
    pub drops: Vec<(Loss, u64)>,
    /// Frames that the source kept to itself because it was asked to, by reason; only reasons that occurred.
    pub kept_back: Vec<(KeptBack, u64)>,
    /// What could not be read in a capture file, by reason; only reasons that occurred.
    pub unreadable: Vec<(Unreadable, u64)>,
}

impl SourceStats {
    /// Counts dropped frames by cause, and in the sum.
    pub fn lose(&mut self, cause: Loss, frames: u64) {
        if frames > 0 {
            self.kernel_drops += frames;
            self.drops.push((cause, frames));
        }
    }
}

/// Why a source did not lend a frame that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeptBack {
    /// A rule on IP protocols.
    FilteredProtocol,
    /// A rule on networks.
    FilteredNetwork,
    /// A rule on ports.
    FilteredPort,
    /// A rule on VLANs.
    FilteredVlan,
    /// A rule on tunnel ids.
    FilteredTunnel,
    /// Its flow is not in the sample.
    SampledOut,
    /// Its flow is shunted, and it was counted there.
    Shunted,
    /// Its queue is not captured: the network stack has it.
    Passed,
}

impl KeptBack {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::FilteredProtocol,
        Self::FilteredNetwork,
        Self::FilteredPort,
        Self::FilteredVlan,
        Self::FilteredTunnel,
        Self::SampledOut,
        Self::Shunted,
        Self::Passed,
    ];

    /// The name in counters; the same as of frames that a worker leaves out for this reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilteredProtocol => "filtered_protocol",
            Self::FilteredNetwork => "filtered_network",
            Self::FilteredPort => "filtered_port",
            Self::FilteredVlan => "filtered_vlan",
            Self::FilteredTunnel => "filtered_tunnel",
            Self::SampledOut => "sampled_out",
            Self::Shunted => "shunted",
            Self::Passed => "passed",
        }
    }
}

/// Why a live source lost frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The ring was full of frames that the worker had not taken yet.
    RingFull,
    /// All memory for frames was full or lent.
    NoFreeFrame,
    /// A frame was longer than the memory that was free, or than any memory for it.
    DoesNotFit,
    /// The worker that the frame belongs to had no room for more.
    WorkerBehind,
    /// A frame came damaged.
    Damaged,
    /// The NIC had no room for it, so that no queue has seen it.
    NicMissed,
}

impl Loss {
    /// Every cause.
    pub const ALL: [Self; 6] = [
        Self::RingFull,
        Self::NoFreeFrame,
        Self::DoesNotFit,
        Self::WorkerBehind,
        Self::Damaged,
        Self::NicMissed,
    ];
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RingFull => "ring_full",
            Self::NoFreeFrame => "no_free_frame",
            Self::DoesNotFit => "does_not_fit",
            Self::WorkerBehind => "worker_behind",
            Self::Damaged => "damaged",
            Self::NicMissed => "nic_missed",
        })
    }
}

/// Why a part of a capture file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreadable {
    /// There is not one byte in the file.
    EmptyFile,
    /// The file ends within a record (or within its own header).
    Truncated,
    /// A record's length cannot be true, so the records after it cannot be found.
    AbsurdLength,
    /// A pcapng packet is longer than any real frame.
    OversizedFrame,
    /// The fields of a pcapng block do not fit in the block.
    MalformedBlock,
    /// A packet names an interface that the section did not describe.
    UnknownInterface,
    /// A pcapng section has a byte order mark or a version that does not exist.
    UnknownSection,
    /// The gzip stream is corrupt or cut.
    CorruptGzip,
    /// The operating system could not read on.
    ReadFailed,
}

impl Unreadable {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::EmptyFile,
        Self::Truncated,
        Self::AbsurdLength,
        Self::OversizedFrame,
        Self::MalformedBlock,
        Self::UnknownInterface,
        Self::UnknownSection,
        Self::CorruptGzip,
        Self::ReadFailed,
    ];
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyFile => "the file is empty",
            Self::Truncated => "the file ends in the middle of a record",
            Self::AbsurdLength => "a record states an impossible length; what follows it cannot be found",
            Self::OversizedFrame => "a packet is longer than any real frame",
            Self::MalformedBlock => "a pcapng block is malformed",
            Self::UnknownInterface => "a packet belongs to an interface that the file does not describe",
            Self::UnknownSection => "a pcapng section has an unknown byte order mark or version",
            Self::CorruptGzip => "the gzip stream is corrupt or cut",
            Self::ReadFailed => "the operating system could not read on",
        })
    }
}

/// Why a source cannot be opened or cannot go on. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The capture file cannot be opened.
    #[error("cannot open the capture file {path}: {source}; check the path and its permissions")]
    OpenFile {
        /// As given by the user.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no capture file.
    #[error("{path} is not a capture file; give a pcap or pcapng file (gzip is fine)")]
    NotACapture {
        /// As given by the user.
        path: String,
    },
    /// No such network interface.
    #[error("there is no interface named {interface}; choose one of: {known}")]
    UnknownInterface {
        /// As given by the user.
        interface: String,
        /// Those that exist.
        known: String,
    },
    /// The interface exists and is not up.
    #[error("interface {interface} is down; bring it up with `ip link set {interface} up`")]
    InterfaceDown {
        /// Its name.
        interface: String,
    },
    /// The interface was removed during the capture.
    #[error("interface {interface} was removed; start again when it is back")]
    InterfaceGone {
        /// Its name.
        interface: String,
    },
    /// Another AF_XDP socket has the queue.
    #[error(
        "queue {queue} of {interface} is taken by another AF_XDP socket; stop the program that uses it (`ss --xdp -p` names it)"
    )]
    QueueBusy {
        /// Its name.
        interface: String,
        /// Number of the queue.
        queue: u32,
    },
    /// AF_XDP is not in the kernel.
    #[error("this kernel has no AF_XDP (CONFIG_XDP_SOCKETS); capture with AF_PACKET instead")]
    NoAfXdp,
    /// The process may not keep the memory of AF_XDP's frames from being moved.
    #[error(
        "the {kib} KiB of AF_XDP's frames of {interface} may not be locked in memory; raise `ulimit -l`, or add cap_ipc_lock with `setcap`"
    )]
    FewLockedPages {
        /// Which frames.
        interface: String,
        /// Their memory.
        kib: usize,
    },
    /// Another program receives on this address and port.
    #[error("{address} is taken by another program; stop it (`ss -lunp` names it) or listen on another port")]
    AddressBusy {
        /// As given by the user.
        address: SocketAddr,
    },
    /// The address belongs to another machine.
    #[error(
        "{address} is no address of this machine; listen on one that `ip address` shows, or on 0.0.0.0 for all of IPv4, [::] for all of IPv6"
    )]
    NotOurAddress {
        /// As given by the user.
        address: SocketAddr,
    },
    /// AF_XDP was asked for on something else than Ethernet.
    #[error(
        "interface {interface} carries no Ethernet frames, as AF_XDP needs; capture with AF_PACKET instead"
    )]
    NotEthernet {
        /// Its name.
        interface: String,
    },
    /// The XDP program cannot be loaded or attached.
    #[error(transparent)]
    Bpf(#[from] wirespan_bpf::BpfError),
    /// The process may not do this.
    #[error(
        "no permission to {action} on {interface}; run as root, or run `setcap {capabilities}+ep` on the program once"
    )]
    NoPrivilege {
        /// What was tried.
        action: &'static str,
        /// On which interface.
        interface: String,
        /// Which capabilities are needed, as `setcap` wants them.
        capabilities: &'static str,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action} on {interface}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// On which interface.
        interface: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl CaptureError {
    /// A system call that failed, told from one that is not permitted.
    pub(crate) fn system(action: &'static str, interface: &str, source: io::Error) -> Self {
        let interface = interface.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::NoPrivilege { action, interface, capabilities: "cap_net_raw" }
        } else {
            Self::System { action, interface, source }
        }
    }
}

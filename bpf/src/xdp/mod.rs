//! The XDP program that hands an interface's frames to AF_XDP sockets (`programs/xdp_capture.bpf.c`).

mod stamp;

use std::os::fd::AsRawFd;

use aya::maps::{MapError, PerCpuArray, XskMap};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, Pod};

use crate::BpfError;
pub use stamp::Stamp;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp_capture.o"));

const PROGRAM: &str = "wirespan_xdp";
const SOCKETS: &str = "sockets";
const STATISTICS: &str = "statistics";

/// A queue with a higher number keeps its frames in the network stack.
pub const QUEUES_MAX: u32 = 256;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the network stack, for drivers that know no XDP; slower.
    Generic,
}

/// Frames since the program was attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed to a socket.
    pub delivered: u64,
    /// Left to the network stack, since their queue has no socket.
    pub passed: u64,
}

// SAFETY: integers without padding, as the C structure has them.
unsafe impl Pod for Counters {}

/// What the program does beside handing frames to sockets. What is not asked for costs nothing.
#[derive(Clone, Debug, Default)]
pub struct XdpOptions {
    /// Ask the driver for the NIC's receive time, hash and stripped VLAN tag.
    pub nic_hints: bool,
    /// Run in the network stack, also where the driver could run the program.
    pub generic: bool,
}

/// The program on one interface; detached on drop.
pub struct XdpProgram {
    ebpf: Ebpf,
    mode: Mode,
}

impl XdpProgram {
    /// Loads the program and attaches it to an interface: native mode if the driver knows it, else generic mode.
    pub fn attach(interface: &str, options: &XdpOptions) -> Result<Self, BpfError> {
        let mut ebpf = Ebpf::load(OBJECT).map_err(|error| BpfError::load(&error))?;
        let program = program(&mut ebpf)?;
        program.load().map_err(|error| BpfError::load(&error))?;
        let native = !options.generic && program.attach(interface, XdpMode::Driver).is_ok();
        let mode = if native {
            Mode::Native
        } else {
            program
                .attach(interface, XdpMode::Skb)
                .map_err(|error| BpfError::attach(interface, &error))?;
            Mode::Generic
        };
        Ok(Self { ebpf, mode })
    }

    /// Where the program runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// From now on the frames of this queue go to this socket.
    pub fn set_socket(&mut self, queue: u32, socket: &impl AsRawFd) -> Result<(), BpfError> {
        let map = self.ebpf.map_mut(SOCKETS).ok_or_else(|| missing(SOCKETS))?;
        let mut sockets = XskMap::try_from(map).map_err(|error| BpfError::map(&error))?;
        sockets.set(queue, socket.as_raw_fd(), 0).map_err(|error| BpfError::map(&error))
    }

    /// The sum over all CPUs.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        let map = self.ebpf.map(STATISTICS).ok_or_else(|| missing(STATISTICS))?;
        let read = || -> Result<_, MapError> { PerCpuArray::<_, Counters>::try_from(map)?.get(&0, 0) };
        let per_cpu = read().map_err(|error| BpfError::map(&error))?;
        Ok(per_cpu.iter().fold(Counters::default(), |sum, cpu| Counters {
            delivered: sum.delivered.wrapping_add(cpu.delivered),
            passed: sum.passed.wrapping_add(cpu.passed),
        }))
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, BpfError> {
    let program = ebpf.program_mut(PROGRAM).ok_or_else(|| missing(PROGRAM))?;
    program.try_into().map_err(|error| BpfError::load(&error))
}

fn missing(name: &str) -> BpfError {
    BpfError::Load { reason: format!("the embedded object has no {name}") }
}

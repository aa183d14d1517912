//! A network namespace of its own for load that must not reach anything else, with a veth pair in it.

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use std::os::fd::AsRawFd;
use std::process::Command;
use wirespan_bpf::generate::{FRAME_MAX, Taker, Verdict};

/// Runs `work` on a thread in a network namespace of its own, which ends with it and with the threads that it starts.
pub fn in_namespace<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; run as root")?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

const LEFT: &str = "left";
const RIGHT: &str = "right";

/// Two interfaces, up; what one sends, the other receives. They end with the namespace.
pub struct VethPair;

impl VethPair {
    /// A pair that sends nothing by itself and puts no packets together.
    pub fn new() -> anyhow::Result<Self> {
        ip(&format!(
            "link add {LEFT} mtu {FRAME_MAX} numrxqueues 1 numtxqueues 1 \
             type veth peer name {RIGHT} mtu {FRAME_MAX} numrxqueues 1 numtxqueues 1"
        ))?;
        for interface in [LEFT, RIGHT] {
            ip(&format!("link set {interface} addrgenmode none"))?;
            ip(&format!("link set {interface} arp off up"))?;
        }
        Ok(Self)
    }

    /// The interface to send out of.
    pub fn sender(&self) -> &'static str {
        LEFT
    }

    /// The interface that receives.
    pub fn receiver(&self) -> &'static str {
        RIGHT
    }

    /// The receiver takes redirected frames only while an XDP program is on it.
    pub fn take(&self, verdict: Verdict) -> anyhow::Result<Taker> {
        let taker = Taker::attach(RIGHT, verdict)?;
        // An XDP program turns it on, which would put segments together before they are captured.
        set_offload(RIGHT, Offload::Gro, false)?;
        Ok(taker)
    }
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.context("cannot run `ip`; install the package iproute2")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// What a NIC, or the stack in its place, does with segments.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Offload {
    /// Cuts those that it sends.
    #[cfg(feature = "accuracy")]
    Tso = 0x1f,
    /// Cuts those that it sends, in the stack.
    #[cfg(feature = "accuracy")]
    Gso = 0x24,
    /// Puts together those that it receives.
    Gro = 0x2c,
}

/// Turns an offload of an interface of this thread's namespace on or off.
pub fn set_offload(interface: &str, offload: Offload, on: bool) -> anyhow::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("cannot make a socket")?;
    let mut value = EthtoolValue { command: offload as u32, data: on.into() };
    // SAFETY: zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request points to a live value of the structure that the command reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if result < 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("cannot set {offload:?} of {interface}"));
    }
    Ok(())
}

//! Opening a port and its queues.

use std::ffi::CString;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::eal::{Eal, LogCollector};
use crate::error::errno_text;
use crate::pool::{Need, Pool};
use crate::source::BATCH_FRAMES;
use crate::{DpdkError, DpdkSource, PortStats, Transmitter, stats, sys};

/// Bytes of a frame that one buffer takes, unless the port cannot scatter a longer one over several.
const FRAME_BYTES: u32 = 2048;
/// Longest MTU that one buffer takes: it has less than 64 KiB, headroom included.
const BUFFER_MTU: u16 = 65_000;
/// What a frame has beyond its MTU: Ethernet header, two VLAN tags and the checksum.
const FRAME_OVERHEAD: u16 = 14 + 2 * 4 + 4;
/// Buffers beyond those in queues: in batches, and at hand in the threads that fill and free them.
const SPARE_MBUFS: u32 = 2 * BATCH_FRAMES as u32 + 1024;
/// Frames that wait for being sent, where a port is opened to send.
const TX_DESCRIPTORS: u16 = 1024;

/// How to capture on a port.
#[derive(Clone, Debug)]
pub struct PortOptions {
    /// The device's name: `0000:3b:00.0`, `net_pcap0`.
    pub name: String,
    /// Queues, each a source; no more than the device has.
    pub queues: u16,
    /// One queue only where the device does not bring both directions of a connection to the same one: side by side, their
    /// order is lost.
    pub in_order: bool,
    /// Frames that a queue can hold; as near to it as the device comes.
    pub descriptors: u16,
    /// Longest L3 packet in bytes; the device's own unless told.
    pub mtu: Option<u16>,
    /// Also frames that are addressed to others, as they are on a mirror port.
    pub promiscuous: bool,
    /// Times from the device, where it has them.
    pub timestamps: bool,
    /// How long a call polls before it gives an empty batch.
    pub poll_timeout: Duration,
    /// How long to sleep between polls once the queue has stayed empty for a while; without it, a source keeps its CPU
    /// busy. To be given where workers share CPUs.
    pub idle_sleep: Option<Duration>,
    /// Frames of a queue that may be lent for longer than a batch, which are missing to the device.
    pub lent: u32,
    /// What the frames' descriptors say of where they were seen.
    pub port: u16,
}

impl PortOptions {
    /// One queue of about 20 MiB that is polled without sleeping.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queues: 1,
            in_order: false,
            descriptors: 4096,
            mtu: None,
            promiscuous: true,
            timestamps: true,
            poll_timeout: Duration::from_millis(100),
            idle_sleep: None,
            lent: 0,
            port: 0,
        }
    }
}

/// Where the times of a port's frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The system's clock when the batch was taken.
    Software,
    /// The capture file that a `net_pcap` device reads.
    CaptureFile,
    /// The device's clock, set beside the system's every second.
    Device,
}

/// What was set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The device's name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Queues that are read.
    pub queues: u16,
    /// Frames that a queue can hold.
    pub descriptors: u16,
    /// Longest L3 packet.
    pub mtu: u16,
    /// Frames are spread over the queues, both directions of a connection to the same.
    pub symmetric_rss: bool,
    /// A frame may come in several buffers, and is then copied.
    pub scattered: bool,
    /// Frames that are addressed to others come too.
    pub promiscuous: bool,
    /// Where times come from.
    pub timestamps: Timestamps,
    /// NUMA node of the device and its memory, where there are several.
    pub numa_node: Option<u32>,
}

impl fmt::Display for PortInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { driver, queues, descriptors, mtu, .. } = self;
        write!(f, "DPDK {driver}, {queues} queues of {descriptors}, MTU {mtu}")?;
        f.write_str(if self.symmetric_rss { ", symmetric RSS" } else { "" })?;
        f.write_str(if self.scattered { ", scattered" } else { "" })?;
        f.write_str(if self.promiscuous { ", promiscuous" } else { "" })?;
        f.write_str(match self.timestamps {
            Timestamps::Software => "",
            Timestamps::CaptureFile => ", times of the capture file",
            Timestamps::Device => ", times of the device",
        })
    }
}

/// An open port: what its sources have in common. The last one that goes closes it.
pub(crate) struct Port {
    pub id: u16,
    pub info: PortInfo,
    pub pools: Vec<Pool>,
}

impl Port {
    pub(crate) fn stats(&self) -> PortStats {
        PortStats::read(self.id)
    }

    pub(crate) fn extended_stats(&self) -> Vec<(String, u64)> {
        stats::extended(self.id)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // SAFETY: the port was configured, and nobody polls it any more.
        unsafe { sys::ws_port_close(self.id) };
    }
}

/// Opens a port of a started DPDK: one source for each queue.
pub fn open(eal: Eal, options: &PortOptions) -> Result<Vec<DpdkSource>, DpdkError> {
    Ok(open_both_ways(eal, options, false)?.0)
}

/// As [`open`], with one [`Transmitter`] for each queue.
pub fn open_to_send(
    eal: Eal,
    options: &PortOptions,
) -> Result<(Vec<DpdkSource>, Vec<Transmitter>), DpdkError> {
    open_both_ways(eal, options, true)
}

fn open_both_ways(
    eal: Eal,
    options: &PortOptions,
    transmit: bool,
) -> Result<(Vec<DpdkSource>, Vec<Transmitter>), DpdkError> {
    let port = Arc::new(set_up(eal, options, transmit)?);
    let queues = 0..port.info.queues;
    let transmitters = queues.clone().filter(|_| transmit).map(|queue| Transmitter::new(&port, queue));
    let transmitters = transmitters.collect();
    let clock = || match port.info.timestamps {
        Timestamps::Software => Clock::Software,
        Timestamps::CaptureFile => Clock::CaptureFile,
        Timestamps::Device => Clock::of_device(port.id),
    };
    Ok((queues.map(|queue| DpdkSource::new(&port, queue, clock(), options)).collect(), transmitters))
}

/// Configures and starts the port.
fn set_up(eal: Eal, options: &PortOptions, transmit: bool) -> Result<Port, DpdkError> {
    let id = find(eal, &options.name)?;
    let calls = Calls { name: &options.name };
    let device = device(id, calls)?;
    let most = if device.scatters != 0 { device.mtu_max } else { device.mtu_max.min(BUFFER_MTU) };
    if let Some(asked) = options.mtu.filter(|&mtu| mtu > most) {
        return Err(DpdkError::Mtu { port: options.name.clone(), asked, most });
    }
    let most = if options.in_order && device.rss_types == 0 { 1 } else { device.rx_queues.max(1) };
    let queues = options.queues.clamp(1, most);
    let longest = u32::from(options.mtu.unwrap_or(0)) + u32::from(FRAME_OVERHEAD);
    let scatter = longest > FRAME_BYTES && device.scatters != 0;
    let mut config = sys::Config {
        rss_types: if queues > 1 { device.rss_types } else { 0 },
        rx_queues: queues,
        tx_queues: if transmit { queues } else { 0 },
        rx_descriptors: options.descriptors,
        tx_descriptors: TX_DESCRIPTORS,
        mtu: options.mtu.unwrap_or(0),
        scatter: scatter.into(),
        stamps: u8::from(options.timestamps && device.stamps != 0),
    };
    // SAFETY: the port exists and the structure is complete.
    calls.run("configure", || unsafe { sys::ws_port_configure(id, &mut config) })?;
    // VMware's driver fills a second ring for each queue.
    let rings = if sys::text(&device.driver) == "net_vmxnet3" { 2 } else { 1 };
    let in_queues =
        u32::from(config.rx_descriptors) * rings + u32::from(config.tx_descriptors * u16::from(transmit));
    let need = Need {
        mbufs: (in_queues + SPARE_MBUFS + options.lent).next_power_of_two() - 1,
        frame_bytes: if scatter { FRAME_BYTES } else { longest.next_multiple_of(64).max(FRAME_BYTES) },
        socket: device.socket,
    };
    // From here on the port closes when something fails.
    let mut port = Port { id, info: info(options, &device, &config), pools: Vec::new() };
    for queue in 0..queues {
        let pool = Pool::new(id, queue, &need).map_err(|result| pool_error(result, &need, &options.name))?;
        // SAFETY: the port is configured with this queue, and the pool outlives it.
        calls.run("set up a queue of", || unsafe {
            sys::ws_rx_setup(id, queue, config.rx_descriptors, device.socket, pool.raw())
        })?;
        port.pools.push(pool);
        if transmit {
            // SAFETY: as above.
            calls.run("set up a queue of", || unsafe {
                sys::ws_tx_setup(id, queue, config.tx_descriptors, device.socket)
            })?;
        }
    }
    // SAFETY: the port is configured.
    calls.run("start", || unsafe { sys::ws_port_start(id) })?;
    // SAFETY: the port is started. Virtual devices refuse, as they have no filter.
    port.info.promiscuous = options.promiscuous && unsafe { sys::ws_port_promiscuous(id) } >= 0;
    // SAFETY: the port is started.
    port.info.mtu = u16::try_from(unsafe { sys::ws_port_mtu(id) }).unwrap_or(port.info.mtu);
    Ok(port)
}

fn pool_error(result: i32, need: &Need, port: &str) -> DpdkError {
    match result.saturating_neg() {
        libc::ENOMEM => DpdkError::NoMemory { mib: need.bytes().div_ceil(1 << 20) },
        _ => {
            let action = "allocate the frames of";
            DpdkError::Refused { action, port: port.to_owned(), reason: errno_text(result) }
        }
    }
}

fn info(options: &PortOptions, device: &sys::Device, config: &sys::Config) -> PortInfo {
    let driver = sys::text(&device.driver);
    let timestamps = match (options.timestamps, config.stamps, driver.as_str()) {
        (true, 1, _) => Timestamps::Device,
        (true, _, "net_pcap") => Timestamps::CaptureFile,
        _ => Timestamps::Software,
    };
    PortInfo {
        name: options.name.clone(),
        driver,
        queues: config.rx_queues,
        descriptors: config.rx_descriptors,
        mtu: config.mtu,
        symmetric_rss: config.rss_types != 0,
        scattered: config.scatter != 0,
        promiscuous: false,
        timestamps,
        numa_node: u32::try_from(device.socket).ok(),
    }
}

fn find(eal: Eal, name: &str) -> Result<u16, DpdkError> {
    let found = CString::new(name).ok().and_then(|name| {
        // SAFETY: a string.
        u16::try_from(unsafe { sys::ws_port_find(name.as_ptr()) }).ok()
    });
    let complaint =
        || eal.complaint().map_or_else(String::new, |said| format!(" (at its start it said: {said})"));
    found.ok_or_else(|| DpdkError::NoPort {
        name: name.to_owned(),
        complaint: complaint(),
        known: known_ports(eal),
    })
}

/// The names of all ports, and what to do.
fn known_ports(eal: Eal) -> String {
    let mut name = [0; sys::TEXT_BYTES];
    let mut names = Vec::new();
    for port in 0.. {
        // SAFETY: there is room for a name.
        match unsafe { sys::ws_port_name(port, &mut name) } {
            0 => names.push(sys::text(&name)),
            result if result.saturating_neg() == libc::ENODEV => {}
            _ => break,
        }
    }
    let is_refused = eal.complaint().is_some_and(|said| said.contains("Permission denied"));
    match names.is_empty() {
        true if is_refused => {
            "none; run it as root, or give its user the files of the NICs (deploy/dpdk.md)".to_owned()
        }
        true => "none; bind a NIC to vfio-pci (deploy/dpdk.md) or name a virtual device".to_owned(),
        false => {
            format!("{}; name one of them, or bind the NIC to vfio-pci (deploy/dpdk.md)", names.join(", "))
        }
    }
}

fn device(port: u16, calls: Calls<'_>) -> Result<sys::Device, DpdkError> {
    let mut device = MaybeUninit::uninit();
    // SAFETY: the port exists.
    calls.run("ask", || unsafe { sys::ws_port_device(port, device.as_mut_ptr()) })?;
    // SAFETY: it is written when the call works.
    Ok(unsafe { device.assume_init() })
}

/// Calls about one port, whose errors say what the driver said.
#[derive(Clone, Copy)]
struct Calls<'a> {
    name: &'a str,
}

impl Calls<'_> {
    fn run(self, action: &'static str, call: impl FnOnce() -> i32) -> Result<(), DpdkError> {
        let log = LogCollector::begin();
        let result = call();
        let said = log.end();
        let port = self.name.to_owned();
        match result.saturating_neg() {
            ..=0 => Ok(()),
            libc::EBUSY => Err(DpdkError::PortInUse { name: port }),
            _ => {
                let reason = said.unwrap_or_else(|| errno_text(result));
                Err(DpdkError::Refused { action, port, reason })
            }
        }
    }
}

//! The XDP program that hands an interface's frames to AF_XDP sockets (`programs/xdp_capture.bpf.c`).
//!
//! For each frame, in this order, and each step only if it is asked for: the NIC's VLAN tag is read, the innermost packet is
//! found, [`Filter`] rejects, the sample is taken, a shunted flow's frame is counted and not delivered, the NIC's other hints are
//! read, a [`Stamp`] is put in front, and the frame goes to its queue's socket. [`Counters`] say what became of every frame.
//!
//! The program is attached by a link, which the kernel removes when the process ends, however it ends. Needs Linux 5.12;
//! frames of several buffers (jumbo frames) 5.18, hints of the NIC 6.3, its VLAN tag 6.8, and a driver that has them.
//!
//! - `fallback`: what an interface or a kernel does not have
//! - `filter`: which frames are wanted
//! - `shunt`: flows that are counted and not delivered
//! - `stamp`: what lies in front of a delivered frame
//! - `stats`: frames by what became of them

mod fallback;
mod filter;
mod shunt;
mod stamp;
mod stats;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use wirespan_frame::Filter;

use aya_obj::generated::{
    BPF_F_XDP_DEV_BOUND_ONLY, BPF_F_XDP_HAS_FRAGS, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type,
    bpf_prog_type,
};

use crate::BpfError;
use crate::object::{self, Loaded, Recipe};
use crate::sys::{self, Map, Plain};
pub use fallback::Fallback;
pub use filter::FilterMap;
pub use shunt::ShuntMap;
pub use stamp::Stamp;
pub use stats::Counters;
use stats::Statistics;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp_capture.o"));

/// A queue with a higher number keeps its frames in the network stack.
pub const QUEUES_MAX: u32 = 256;

/// Most UDP ports of tunnels.
pub const TUNNEL_PORTS_MAX: usize = 8;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the network stack, for drivers that know no XDP; slower.
    Generic,
}

/// Tunnels over UDP that are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpTunnel {
    /// RFC 7348, and its generic protocol extension.
    Vxlan = 1,
    /// RFC 8926.
    Geneve = 2,
    /// 3GPP TS 29.281.
    Gtpu = 6,
}

/// What the program does beside handing frames to sockets. What is not asked for costs nothing.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// Seed of [`flow_hash`](crate::flow_hash()).
    pub seed: u64,
    /// Stamp frames with the hash of their flow.
    pub flow_hash: bool,
    /// Reject frames by these rules, which [`XdpProgram::take_filter`] can change later.
    pub filter: Option<Filter>,
    /// The share of flows whose frames are delivered, from 0 to 1; `None` for all. All IP fragments are delivered: only the
    /// datagram tells the flow.
    pub sample: Option<f64>,
    /// Most flows that can be shunted at the same time; 0 for no shunt. Memory is taken for those that are.
    pub shunt_flows: u32,
    /// Ask the driver for the NIC's receive time, hash and stripped VLAN tag.
    pub nic_hints: bool,
    /// Run in the network stack, also where the driver could run the program: for drivers whose native mode is broken.
    pub generic: bool,
    /// Take frames that lie in several buffers: only where the sockets can have them, who else lose them without counting.
    pub frags: bool,
    /// UDP destination ports of tunnels; those beyond [`TUNNEL_PORTS_MAX`] are not looked into.
    pub tunnel_ports: Vec<(u16, UdpTunnel)>,
}

impl Default for XdpOptions {
    /// Nothing but what the decoder of the dataplane takes for tunnels.
    fn default() -> Self {
        let vxlan = [4789, 8472, 6784, 4790].map(|port| (port, UdpTunnel::Vxlan));
        Self {
            seed: 0,
            flow_hash: false,
            filter: None,
            sample: None,
            shunt_flows: 0,
            nic_hints: false,
            generic: false,
            frags: true,
            tunnel_ports: [vxlan.as_slice(), &[(6081, UdpTunnel::Geneve), (2152, UdpTunnel::Gtpu)]].concat(),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Settings {
    sample_below: u32,
    kfuncs: u32,
    flow_hash: u8,
    filter: u8,
    shunt: u8,
    frags: u8,
}

// SAFETY: integers without padding.
unsafe impl Plain for Settings {}

impl Settings {
    fn new(options: &XdpOptions, kfuncs: u32, frags: bool) -> Self {
        // 0 stands for all; an empty sample is one of a flow in four billion.
        let sample_below = options.sample.map_or(0, |share| ((share * u32::MAX as f64) as u32).max(1));
        Self {
            sample_below,
            kfuncs,
            flow_hash: options.flow_hash.into(),
            filter: options.filter.is_some().into(),
            shunt: (options.shunt_flows != 0).into(),
            frags: frags.into(),
        }
    }
}

/// `tunnel_ports` of `programs/parse_ip.h`.
pub(crate) fn tunnel_port_bytes(tunnel_ports: &[(u16, UdpTunnel)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = tunnel_ports
        .iter()
        .flat_map(|&(port, tunnel)| [port.to_ne_bytes(), (tunnel as u16).to_ne_bytes()].concat())
        .collect();
    bytes.resize(4 * TUNNEL_PORTS_MAX, 0);
    bytes
}

/// The metadata kfuncs, the numbers that stand for them in `programs/hints.h`, and what they tell.
const KFUNCS: [(&str, i32, u16); 3] = [
    ("bpf_xdp_metadata_rx_timestamp", 0x5753_0001, Stamp::RX_TIME),
    ("bpf_xdp_metadata_rx_hash", 0x5753_0002, Stamp::RX_HASH),
    ("bpf_xdp_metadata_rx_vlan_tag", 0x5753_0003, Stamp::VLAN),
];

/// The program on one interface; detached on drop.
pub struct XdpProgram {
    /// Closed first.
    _link: OwnedFd,
    loaded: Loaded,
    sockets: Arc<Map>,
    statistics: Statistics,
    filter: Option<FilterMap>,
    shunt: Option<ShuntMap>,
    mode: Mode,
    traits: Traits,
    fallbacks: Vec<Fallback>,
}

/// What kernel and driver have.
#[derive(Clone, Copy, Debug)]
struct Traits {
    /// Which hints the kernel can ask the driver for: bits of [`Stamp::flags`].
    hints: u16,
    frags: bool,
}

impl fmt::Debug for XdpProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpProgram")
            .field("mode", &self.mode)
            .field("traits", &self.traits)
            .finish_non_exhaustive()
    }
}

impl XdpProgram {
    /// Loads the program and attaches it to an interface: with the NIC's hints if they are asked for and there, in native mode
    /// if the driver knows it, else in generic mode. [`Self::fallbacks`] and [`Self::frags`] say what could not be had.
    pub fn attach(interface: &str, options: &XdpOptions) -> Result<Self, BpfError> {
        let index = sys::interface_index(interface).map_err(|error| BpfError::attach(interface, &error))?;
        sys::require_programs()?;
        let mut fallbacks = Vec::new();
        if options.nic_hints && !options.generic {
            match Self::attach_bound(interface, index, options) {
                Ok(program) => return Ok(program),
                Err(error @ (BpfError::NoPrivilege | BpfError::InterfaceBusy { .. })) => return Err(error),
                Err(error) => fallbacks
                    .push(Fallback::NoHints { interface: interface.to_owned(), reason: error.reason() }),
            }
        }
        let (loaded, traits) = load(options, None)?;
        let link = |flags| {
            sys::link_xdp(&loaded.program, index, flags).map_err(|error| BpfError::attach(interface, &error))
        };
        let native = if options.generic { None } else { Some(link(XDP_FLAGS_DRV_MODE)) };
        let (link, mode) = match native {
            Some(Ok(link)) => (link, Mode::Native),
            Some(Err(error @ (BpfError::NoPrivilege | BpfError::InterfaceBusy { .. }))) => return Err(error),
            Some(Err(error)) => {
                fallbacks.push(Fallback::Generic { interface: interface.to_owned(), reason: error.reason() });
                (link(XDP_FLAGS_SKB_MODE)?, Mode::Generic)
            }
            None => (link(XDP_FLAGS_SKB_MODE)?, Mode::Generic),
        };
        Self::running(options, loaded, link, mode, traits, fallbacks)
    }

    /// Whether the kernel takes the program from this process.
    pub fn try_loading() -> Result<(), BpfError> {
        sys::require_programs()?;
        load(&XdpOptions::default(), None).map(drop)
    }

    /// With the NIC's hints, for which the program is bound to the device; only native mode has them.
    fn attach_bound(interface: &str, index: u32, options: &XdpOptions) -> Result<Self, BpfError> {
        let (loaded, traits) = load(options, Some(index))?;
        let link = sys::link_xdp(&loaded.program, index, XDP_FLAGS_DRV_MODE)
            .map_err(|error| BpfError::attach(interface, &error))?;
        Self::running(options, loaded, link, Mode::Native, traits, Vec::new())
    }

    fn running(
        options: &XdpOptions,
        loaded: Loaded,
        link: OwnedFd,
        mode: Mode,
        traits: Traits,
        fallbacks: Vec<Fallback>,
    ) -> Result<Self, BpfError> {
        let mut program = Self {
            _link: link,
            sockets: map(&loaded, "sockets")?,
            statistics: Statistics(map(&loaded, "statistics")?),
            loaded,
            filter: None,
            shunt: None,
            mode,
            traits,
            fallbacks,
        };
        if let Some(rules) = &options.filter {
            program.filter = Some(filter(&program.loaded, rules)?);
        }
        if options.shunt_flows != 0 {
            program.shunt = Some(shunt(&program.loaded, &program.statistics)?);
        }
        Ok(program)
    }

    /// Where the program runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Frames of several buffers (jumbo frames) reach the program.
    pub fn frags(&self) -> bool {
        self.traits.frags
    }

    /// The hints that the driver is asked for, as flags of a [`Stamp`]; whether it has them, each frame's stamp says.
    pub fn nic_hints(&self) -> u16 {
        self.traits.hints
    }

    /// What was asked for and could not be had.
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// From now on the frames of this queue go to this socket.
    pub fn set_socket(&self, queue: u32, socket: &impl AsRawFd) -> Result<(), BpfError> {
        let fd = socket.as_raw_fd() as u32;
        self.sockets.set(&queue, &fd, 0).map_err(|error| BpfError::map(&error))
    }

    /// The sum over all CPUs.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        self.statistics.sum().map_err(|error| BpfError::map(&error))
    }

    /// The handle that changes the filter, once; `None` when no filter was asked for.
    pub fn take_filter(&mut self) -> Option<FilterMap> {
        self.filter.take()
    }

    /// A handle that shunts flows, for one worker; `None` when no shunt was asked for.
    pub fn shunt(&self) -> Option<ShuntMap> {
        self.shunt.clone()
    }
}

fn map(loaded: &Loaded, name: &str) -> Result<Arc<Map>, BpfError> {
    loaded.map(name).map_err(|error| BpfError::load(&error))
}

fn filter(loaded: &Loaded, rules: &Filter) -> Result<FilterMap, BpfError> {
    let mut filter = FilterMap {
        sets: map(loaded, "filter_sets")?,
        networks_v4: map(loaded, "networks_v4")?,
        networks_v6: map(loaded, "networks_v6")?,
        tunnel_ids: map(loaded, "tunnel_ids")?,
        networks: Default::default(),
        ids: Default::default(),
    };
    filter.set(rules)?;
    Ok(filter)
}

fn shunt(loaded: &Loaded, statistics: &Statistics) -> Result<ShuntMap, BpfError> {
    Ok(ShuntMap::new(map(loaded, "shunt_flows")?, map(loaded, "shunt_modes")?, statistics.clone()))
}

/// Loads the program, bound to an interface if one is given; without jumbo frames if the kernel does not know them.
fn load(options: &XdpOptions, bound_to: Option<u32>) -> Result<(Loaded, Traits), BpfError> {
    let kfuncs =
        if bound_to.is_some() { kfuncs().map_err(|error| BpfError::load(&error))? } else { Vec::new() };
    if bound_to.is_some() && kfuncs.is_empty() {
        return Err(BpfError::Load { reason: "this kernel cannot ask for them, Linux 6.3 can".to_owned() });
    }
    let attempt = |frags: bool| -> io::Result<_> {
        let traits = Traits { hints: kfuncs.iter().fold(0, |bits, kfunc| bits | kfunc.flag), frags };
        let settings = Settings::new(options, traits.hints.into(), frags);
        let entries = options.shunt_flows.max(1);
        let loaded = object::load(&Recipe {
            object: OBJECT,
            program: "wirespan_xdp",
            kind: (bpf_prog_type::BPF_PROG_TYPE_XDP as u32, bpf_attach_type::BPF_XDP as u32),
            constants: &[
                ("settings", sys::bytes_of(&settings)),
                ("seed", &options.seed.to_ne_bytes()),
                ("tunnel_ports", &tunnel_port_bytes(&options.tunnel_ports)),
            ],
            max_entries: &[("shunt_flows", entries), ("shunt_modes", entries)],
            flags: if frags { BPF_F_XDP_HAS_FRAGS } else { 0 }
                | if bound_to.is_some() { BPF_F_XDP_DEV_BOUND_ONLY } else { 0 },
            ifindex: bound_to.unwrap_or(0),
            kfuncs: &kfuncs.iter().map(|kfunc| (kfunc.number, kfunc.id)).collect::<Vec<_>>(),
        })?;
        Ok((loaded, traits))
    };
    match attempt(options.frags) {
        Err(error) if options.frags && error.kind() == io::ErrorKind::InvalidInput => attempt(false),
        result => result,
    }
    .map_err(|error| BpfError::load(&error))
}

/// A metadata kfunc that the kernel has.
struct Kfunc {
    number: i32,
    id: u32,
    flag: u16,
}

fn kfuncs() -> io::Result<Vec<Kfunc>> {
    let names = KFUNCS.map(|(name, ..)| name);
    let ids = object::kernel_functions(&names)?;
    let known = KFUNCS.iter().zip(ids);
    Ok(known.filter_map(|(&(_, number, flag), id)| Some(Kfunc { number, id: id?, flag })).collect())
}

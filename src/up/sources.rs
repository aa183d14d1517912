//! Where `up` takes its frames from: interfaces of the host, mirror ports, a VPC's mirror.

use super::counters::Fallbacks;
use anyhow::{bail, ensure};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use wirespan_analyzer::Registry;
use wirespan_capture::spread::{self, Sharing};
use wirespan_capture::udp_mirror::{self, Encapsulation, UdpMirror};
use wirespan_capture::{
    CaptureError, Filter, LendingSource, NicMissed, PacketSource, Shunt, af_packet, af_xdp, placement,
};
use wirespan_offload::{Applied, Entry, HardwareFirst, Nic, Plan, STATE_DIR, Switch, restore_leftovers};

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// Most flows that an interface's XDP program keeps back at the same time.
const SHUNT_FLOWS: u32 = 65_536;
/// The fallback from rules in a NIC to delivering, or to the XDP program.
const NO_NIC_SHUNT: &str = "no_nic_shunt";

/// What is watched, and how.
#[derive(clap::Args)]
pub struct SourceArgs {
    /// Interfaces to watch
    #[arg(short, long, value_delimiter = ',', value_name = "INTERFACE")]
    interface: Vec<String>,

    /// What the interfaces are for
    #[arg(long, value_enum, default_value_t = Mode::Host)]
    mode: Mode,

    /// How frames are taken from the interfaces
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,

    /// Threads per interface; frames of fewer queues are spread over them by flow
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// With --mode vpc-mirror: where mirrored VXLAN packets are sent to, such as 4789 (IPv4) or [::]:4789 (IPv6)
    #[arg(long, value_delimiter = ',', value_name = "[ADDRESS:]PORT")]
    listen_vxlan: Vec<Listen>,

    /// With --mode vpc-mirror: where mirrored GENEVE packets are sent to, such as 6081
    #[arg(long, value_delimiter = ',', value_name = "[ADDRESS:]PORT")]
    listen_geneve: Vec<Listen>,

    /// Set the NICs up: `auto`, `off`, or a plan such as channels=4,rx-ring=max,rss=symmetric,gro=off; put back at the end.
    /// `wirespan probe` shows what there is [default: auto for --mode mirror, else off]
    #[arg(long, value_name = "PLAN")]
    offload: Option<Plan>,

    /// Poll the NICs' queues instead of waiting for interrupts: for AF_XDP on a NIC with more traffic than those can bring
    #[arg(long)]
    busy_poll: bool,

    /// With --backend dpdk: options of DPDK's EAL, such as --no-huge; the interfaces are then names of DPDK devices
    #[cfg(feature = "dpdk")]
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    eal: Option<String>,
}

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The host's own traffic, which goes on as it is
    Host,
    /// A mirror feeds it, and nothing else uses it: frames are taken before the network stack, the NIC is set up for it
    Mirror,
    /// A cloud or gateway sends mirrored packets to a UDP port of this machine; needs no privilege
    VpcMirror,
}

/// How frames are taken from an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// af-packet for a host's interface; for a mirror's af-xdp, or af-packet where that cannot be had
    Auto,
    /// A ring shared with the kernel; the host's own traffic goes on as it is
    AfPacket,
    /// AF_XDP; takes the frames away from the host, so only for an interface that a mirror feeds
    AfXdp,
    /// DPDK; takes the NIC away from the host
    #[cfg(feature = "dpdk")]
    Dpdk,
}

/// An address to listen on: `4789`, `10.0.0.1:4789`, `[::]:4789`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listen(SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = match text.parse::<u16>() {
            Ok(port) => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            Err(_) => text.parse(),
        };
        address.ok().filter(|address| address.port() != 0).map(Self).ok_or_else(|| {
            "give a port, such as 4789, or an address with it, such as 10.0.0.1:4789".to_owned()
        })
    }
}

/// One worker's frames.
pub struct WorkerSource {
    /// The interface, or where frames are received.
    pub name: String,
    pub frames: Box<dyn PacketSource>,
    pub shunt: Option<Box<dyn Shunt>>,
    /// It lends the flows of the sample only, and IP fragments.
    pub samples: bool,
    /// Where its worker best runs.
    pub cpu: Option<usize>,
    /// With one worker of each interface.
    pub missed: Option<NicMissed>,
}

/// What sources are to do beside lending frames, where they can.
pub struct Wanted {
    /// Filter frames, by these rules until there are others.
    pub filter: Option<Filter>,
    /// Lend a part of the flows.
    pub sample: Option<f64>,
    /// Decides which they are, on every interface: the directions of a connection may come over two.
    pub seed: u64,
    /// Keep flows back.
    pub shunt: bool,
    /// To watch no interface is enough.
    pub without_interfaces: bool,
}

/// Everything that is watched.
#[derive(Default)]
pub struct Sources {
    pub workers: Vec<WorkerSource>,
    /// Interfaces by number.
    pub names: Vec<String>,
    /// What the operator should know of: set-up, fallbacks.
    pub notes: Vec<String>,
    /// Where fallbacks were counted.
    pub registry: Registry,
    /// Decides which flows are in the sample.
    pub seed: u64,
    /// NICs that were set up; restored when this is dropped.
    pub nics: Vec<Applied>,
}

impl SourceArgs {
    /// What the interfaces are for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Opens everything, or nothing and says why.
    pub fn open(&self, wanted: &Wanted) -> anyhow::Result<Sources> {
        let mut sources = Sources { seed: wanted.seed, ..Sources::default() };
        #[cfg(feature = "dpdk")]
        ensure!(
            self.eal.is_none() || self.backend == Backend::Dpdk && self.mode != Mode::VpcMirror,
            "--eal goes with --backend dpdk, and not with --mode vpc-mirror"
        );
        if self.mode == Mode::VpcMirror {
            ensure!(
                self.interface.is_empty(),
                "--mode vpc-mirror listens on UDP ports and watches no interface; leave out -i"
            );
            self.vpc_mirror(&mut sources)?;
            return Ok(sources);
        }
        ensure!(
            !self.interface.is_empty() || wanted.without_interfaces,
            "give the interfaces to watch, such as -i eth0; `wirespan probe` lists them"
        );
        ensure!(
            self.listen_vxlan.is_empty() && self.listen_geneve.is_empty(),
            "--listen-vxlan and --listen-geneve go with --mode vpc-mirror"
        );
        let mut names = HashSet::new();
        if let Some(twice) = self.interface.iter().find(|name| !names.insert(*name)) {
            bail!("{twice} is given twice, and its frames would be counted twice; give each interface once");
        }
        sources.notes = leftovers();
        for (port, interface) in (0..).zip(&self.interface) {
            sources.names.push(interface.clone());
            self.interface(interface, port, wanted, &mut sources)?;
        }
        Ok(sources)
    }

    fn vpc_mirror(&self, sources: &mut Sources) -> anyhow::Result<()> {
        let listen = |listen: &[Listen], kind: Encapsulation| {
            listen.iter().map(|listen| (listen.0, kind)).collect::<Vec<_>>()
        };
        let listen = [
            listen(&self.listen_vxlan, Encapsulation::Vxlan),
            listen(&self.listen_geneve, Encapsulation::Geneve),
        ]
        .concat();
        ensure!(
            !listen.is_empty(),
            "--mode vpc-mirror needs --listen-vxlan or --listen-geneve, such as --listen-vxlan 4789"
        );
        let mut addresses = HashSet::new();
        if let Some((twice, _)) = listen.iter().find(|(address, _)| !addresses.insert(*address)) {
            bail!("{twice} is given twice; give each address and port once");
        }
        let names: Vec<_> = listen.iter().map(|(address, _)| address.to_string()).collect();
        let name = names.join(",");
        let mirror = UdpMirror::open(&udp_mirror::Config { listen, poll_timeout: POLL_TIMEOUT })?;
        sources.names.push(name.clone());
        if self.workers == 1 {
            sources.add(&name, Box::new(mirror), None);
        } else {
            for end in spread::live(vec![Box::new(mirror)], &self.sharing(seed(), false))? {
                sources.add(&name, Box::new(end), None);
            }
        }
        Ok(())
    }

    fn interface(
        &self,
        interface: &str,
        port: u16,
        wanted: &Wanted,
        sources: &mut Sources,
    ) -> anyhow::Result<()> {
        #[cfg(feature = "dpdk")]
        if self.backend == Backend::Dpdk {
            return self.dpdk(interface, port, wanted, sources);
        }
        let mut plan = match &self.offload {
            Some(plan) => plan.clone(),
            None => Plan { auto: self.mode == Mode::Mirror, entries: Vec::new() },
        };
        if self.busy_poll {
            // What AF_XDP needs for it would not be put back after a crash if AF_XDP changed it.
            plan.entries.push(Entry::Switch(Switch::BusyPoll, true));
        }
        let mut hardware = None;
        if !plan.is_off() {
            let mut nic = Nic::open(interface)?.apply(&plan, self.workers.into(), Path::new(STATE_DIR))?;
            sources.notes.extend(nic.changes().iter().map(|change| format!("{interface}: {change}")));
            for refused in nic.refused() {
                sources.fall_back(interface, "no_nic_setting", format!("{interface}: {refused}"));
            }
            match nic.hardware_shunt(SHUNT_FLOWS) {
                Some(Ok(shunt)) => hardware = Some(shunt),
                Some(Err(refusal)) => {
                    let sentence = format!("{interface} keeps no flows back: {refusal}");
                    sources.fall_back(interface, NO_NIC_SHUNT, sentence);
                }
                None => {}
            }
            sources.nics.push(nic);
        }
        let first = sources.workers.len();
        let wants_xdp = match self.backend {
            Backend::Auto => self.mode == Mode::Mirror,
            backend => backend == Backend::AfXdp,
        };
        if !wants_xdp {
            self.af_packet(interface, port, sources)?;
        } else if let Err(error) = self.af_xdp(interface, port, wanted, sources) {
            if self.backend == Backend::AfXdp || !is_without_af_xdp(&error) {
                return Err(error.into());
            }
            sources.fall_back(interface, "no_af_xdp", format!("{error}; using AF_PACKET"));
            self.af_packet(interface, port, sources)?;
        }
        if let Some(worker) = sources.workers.get_mut(first) {
            worker.missed = Some(NicMissed::new(interface)?);
        }
        // One worker alone sees all of an interface's flows, and the NIC's rules have one owner.
        match (&mut sources.workers[first..], hardware) {
            ([worker], Some(rules)) => {
                worker.shunt = Some(Box::new(HardwareFirst::new(rules, worker.shunt.take())));
            }
            (_, Some(_)) => {
                let why =
                    "the NIC keeps no flows back, as several workers share them; it does with --workers 1";
                sources.fall_back(interface, NO_NIC_SHUNT, format!("{interface}: {why}"));
            }
            (workers, None) if wanted.shunt && workers.iter().any(|worker| worker.shunt.is_none()) => {
                let sentence =
                    format!("{interface}: packets of all flows are delivered: AF_PACKET keeps none back");
                sources.fall_back(interface, "no_shunt", sentence);
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// Where the worker of a queue is to run. Only where nothing else does, and where interfaces do not share CPUs.
    fn cpu(&self, interface: &str, queue: u32) -> Option<usize> {
        let is_alone = self.mode == Mode::Mirror && self.interface.len() == 1;
        if is_alone { placement::cpu_for_queue(interface, queue, self.busy_poll) } else { None }
    }

    fn sharing(&self, seed: u64, symmetric: bool) -> Sharing {
        Sharing { workers: self.workers.into(), seed, poll_timeout: POLL_TIMEOUT, symmetric }
    }

    /// Adds the workers of an interface whose frames come in these queues, each with the CPU to read it on.
    fn share(
        &self,
        interface: &str,
        queues: Vec<(Box<dyn LendingSource>, Option<usize>)>,
        sharing: &Sharing,
        sources: &mut Sources,
    ) -> Result<(), CaptureError> {
        if sharing.workers.max(queues.len()) == 1 {
            for (queue, cpu) in queues {
                sources.add(interface, queue, cpu);
            }
            return Ok(());
        }
        if queues.len() > 1 && !sharing.symmetric {
            let sentence = format!(
                "{interface} does not bring both directions of a connection to one queue (no symmetric RSS): they may be seen \
                 out of order, and requests with them; channels=1 in --offload keeps the order"
            );
            sources.fall_back(interface, "no_symmetric_rss", sentence);
        }
        let (queues, mut cpus): (Vec<_>, Vec<_>) = queues.into_iter().unzip();
        if queues.len() < sharing.workers {
            // Whoever has time reads.
            cpus.clear();
        }
        for (index, end) in spread::live(queues, sharing)?.into_iter().enumerate() {
            sources.add(interface, Box::new(end), cpus.get(index).copied().flatten());
        }
        Ok(())
    }

    fn af_packet(&self, interface: &str, port: u16, sources: &mut Sources) -> Result<(), CaptureError> {
        // Fanout groups are numbers of the network namespace: the process id keeps two wirespans apart.
        let group = (std::process::id() as u16).wrapping_add(port);
        let fanout = af_packet::Fanout { group, seed: seed() };
        let options = af_packet::Options {
            fanout: (self.workers > 1).then_some(fanout),
            port,
            ..af_packet::Options::default()
        };
        for worker in 0..self.workers {
            let source = af_packet::AfPacket::open(interface, options.clone())?;
            sources.add(interface, Box::new(source), self.cpu(interface, worker.into()));
        }
        Ok(())
    }

    fn af_xdp(
        &self,
        interface: &str,
        port: u16,
        wanted: &Wanted,
        sources: &mut Sources,
    ) -> Result<(), CaptureError> {
        let mut options = af_xdp::Options { port, busy_poll: self.busy_poll, ..af_xdp::Options::default() };
        options.program.seed = wanted.seed;
        let symmetric = Nic::open(interface).is_ok_and(|mut nic| nic.is_symmetric());
        // Of a symmetric NIC, the workers look for packets in tunnels alone, which is less work than a hash of each.
        options.program.flow_hash = self.workers > 1 && !symmetric;
        options.program.nic_hints = true;
        options.program.filter = wanted.filter.clone();
        options.program.sample = wanted.sample;
        options.program.shunt_flows = if wanted.shunt { SHUNT_FLOWS } else { 0 };
        let queues = af_xdp::AfXdp::open(interface, options)?;
        if let [first, ..] = queues.as_slice() {
            sources.notes.push(format!("{interface}: AF_XDP on {} queues, {}", queues.len(), first.mode()));
        }
        let first = sources.workers.len();
        let placed = |queue: af_xdp::AfXdp| {
            let cpu = self.cpu(interface, queue.queue());
            (Box::new(queue) as Box<dyn LendingSource>, cpu)
        };
        let queues = queues.into_iter().map(placed).collect();
        self.share(interface, queues, &self.sharing(wanted.seed, symmetric), sources)?;
        sources.workers[first..].iter_mut().for_each(|worker| worker.samples = wanted.sample.is_some());
        Ok(())
    }

    #[cfg(feature = "dpdk")]
    fn dpdk(&self, device: &str, port: u16, wanted: &Wanted, sources: &mut Sources) -> anyhow::Result<()> {
        use wirespan_dpdk::{Dpdk, DpdkSource, EalOptions, PortOptions};
        /// Beside the 4096 that wait in the queue.
        const LENT_FRAMES: u32 = 8_192;
        ensure!(
            self.offload.as_ref().is_none_or(Plan::is_off),
            "--offload sets NICs up through the kernel, which has none of {device} with --backend dpdk; leave it out"
        );
        let eal = EalOptions::of_command_line(self.eal.as_deref().unwrap_or_default());
        let options = PortOptions {
            queues: self.workers,
            in_order: true,
            port,
            lent: if self.workers > 1 { LENT_FRAMES } else { 0 },
            idle_sleep: (!self.busy_poll).then_some(Duration::from_micros(50)),
            ..PortOptions::new(device)
        };
        let queues = Dpdk::start(&eal, &options)?;
        if let [first, ..] = queues.as_slice() {
            sources.notes.push(format!("{device}: {}", first.info()));
            if wanted.shunt
                && let Err(refusal) = first.check_shunt()
            {
                sources.fall_back(device, NO_NIC_SHUNT, refusal.to_string());
            }
        }
        let symmetric = queues.first().is_some_and(|queue| queue.info().symmetric_rss);
        let placed = |queue: DpdkSource| {
            let cpu = self.cpu(device, queue.queue().into());
            (Box::new(queue) as Box<dyn LendingSource>, cpu)
        };
        let queues = queues.into_iter().map(placed).collect();
        Ok(self.share(device, queues, &self.sharing(seed(), symmetric), sources)?)
    }
}

impl Sources {
    /// What was asked for cannot be had, and another way is taken: said and counted.
    fn fall_back(&mut self, interface: &str, kind: &str, sentence: String) {
        Fallbacks::new(&self.registry, interface).count(kind);
        self.notes.push(sentence);
    }

    fn add(&mut self, name: &str, mut frames: Box<dyn PacketSource>, cpu: Option<usize>) {
        let shunt = frames.shunt();
        for note in frames.notes() {
            self.fall_back(name, note.kind(), note.to_string());
        }
        self.workers.push(WorkerSource {
            name: name.to_owned(),
            frames,
            shunt,
            samples: false,
            cpu,
            missed: None,
        });
    }
}

/// AF_XDP cannot be had, for a reason that AF_PACKET need not share: it is tried. Where a queue is busy, the interface had no XDP
/// program that would take its frames away: there cannot be two.
fn is_without_af_xdp(error: &CaptureError) -> bool {
    matches!(
        error,
        CaptureError::Bpf(_)
            | CaptureError::NoAfXdp
            | CaptureError::NotEthernet { .. }
            | CaptureError::QueueBusy { .. }
            | CaptureError::FewLockedPages { .. }
            | CaptureError::System { .. }
    )
}

/// What killed processes left on NICs is put back first, whatever is watched now.
fn leftovers() -> Vec<String> {
    restore_leftovers(Path::new(STATE_DIR)).unwrap_or_else(|error| vec![error.to_string()])
}

/// Addresses of this host, sorted.
pub fn local_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .map(|interfaces| interfaces.iter().map(if_addrs::Interface::ip).collect())
        .unwrap_or_default();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Of a hash that nobody outside can foretell.
pub fn seed() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_listens_on_every_address() {
        let address = |text: &str| text.parse::<Listen>().map(|listen| listen.0.to_string());
        assert_eq!(address("4789"), Ok("0.0.0.0:4789".to_owned()));
        assert_eq!(address("[::]:6081"), Ok("[::]:6081".to_owned()));
        for text in ["vxlan", "0", "[::]:0"] {
            assert!(address(text).is_err_and(|error| error.contains("such as 4789")), "{text}");
        }
    }
}

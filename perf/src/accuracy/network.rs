//! A client's and a server's network namespace, a router's between them, and tcpdump on every end of their links.

use crate::namespace::{Offload, ip, set_offload};
use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// How client and server are joined.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// As tables name it.
    pub name: &'static str,
    mtu: u32,
    /// Segments leave the stack large, as if NICs cut them.
    offload: bool,
    vxlan: bool,
    /// The client knows the server by another address.
    dnat: bool,
}

const PLAIN: Network = Network { name: "MTU 1500, GSO", mtu: 1500, offload: true, vxlan: false, dnat: false };

/// All that are tried.
pub const NETWORKS: [Network; 7] = [
    PLAIN,
    Network { name: "MTU 1500, no GSO", offload: false, ..PLAIN },
    Network { name: "MTU 576, GSO", mtu: 576, ..PLAIN },
    Network { name: "MTU 576, no GSO", mtu: 576, offload: false, ..PLAIN },
    Network { name: "VXLAN, GSO", vxlan: true, ..PLAIN },
    Network { name: "VXLAN, no GSO", vxlan: true, offload: false, ..PLAIN },
    Network { name: "DNAT", dnat: true, ..PLAIN },
];

/// Ends of the links, on the way from client to server.
pub const TAPS: [&str; 4] = ["client", "router-c", "router-s", "server"];

/// Bytes that VXLAN over IPv4 adds.
const VXLAN_BYTES: u32 = 50;
const SERVER: &str = "10.77.2.1";
const SERVER_IN_VXLAN: &str = "10.77.9.2";
const SERVER_BEFORE_DNAT: &str = "10.77.5.5";

/// The namespaces of a network; they end with this.
pub struct Lab {
    client: File,
    router: File,
    server: File,
    network: Network,
}

impl Lab {
    /// Makes them. Leaves the thread in the client's.
    pub fn new(network: Network) -> anyhow::Result<Self> {
        let lab = Self { client: namespace()?, router: namespace()?, server: namespace()?, network };
        for (at, [near, far], net) in
            [(&lab.client, ["client", "router-c"], 1), (&lab.server, ["server", "router-s"], 2)]
        {
            enter(at)?;
            let router = format!("/proc/{}/fd/{}", std::process::id(), lab.router.as_raw_fd());
            ip(&format!(
                "link add {near} mtu {} type veth peer name {far} mtu {} netns {router}",
                network.mtu, network.mtu
            ))?;
            lab.set_up(near, &format!("10.77.{net}.1/24"))?;
            ip(&format!("route add default via 10.77.{net}.254"))?;
            enter(&lab.router)?;
            lab.set_up(far, &format!("10.77.{net}.254/24"))?;
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot make the router forward")?;
        if network.dnat {
            nft(&format!(
                "table ip lab {{ chain in {{ type nat hook prerouting priority dstnat; ip daddr {SERVER_BEFORE_DNAT} dnat to {SERVER}\n}}\n}}\n"
            ))?;
        }
        if network.vxlan {
            for (at, near, [own, other]) in [(&lab.client, "client", [1, 2]), (&lab.server, "server", [2, 1])]
            {
                enter(at)?;
                ip(&format!(
                    "link add overlay type vxlan id 7 local 10.77.{own}.1 remote 10.77.{other}.1 dstport 4789 dev {near}"
                ))?;
                ip(&format!("link set overlay mtu {}", network.mtu - VXLAN_BYTES))?;
                lab.set_up("overlay", &format!("10.77.9.{own}/24"))?;
            }
        }
        enter(&lab.client)?;
        Ok(lab)
    }

    /// The address by which the client knows the server.
    pub fn server_address(&self) -> &'static str {
        match self.network {
            Network { vxlan: true, .. } => SERVER_IN_VXLAN,
            Network { dnat: true, .. } => SERVER_BEFORE_DNAT,
            _ => SERVER,
        }
    }

    /// Moves this thread to the client.
    pub fn enter_client(&self) -> anyhow::Result<()> {
        enter(&self.client)
    }

    /// Moves this thread to the server.
    pub fn enter_server(&self) -> anyhow::Result<()> {
        enter(&self.server)
    }

    /// Captures at every tap, into files of this directory. Leaves the thread in the client's namespace.
    pub fn capture(&self, directory: &Path) -> anyhow::Result<Vec<Tap>> {
        let namespaces = [&self.client, &self.router, &self.router, &self.server];
        let taps = namespaces.into_iter().zip(TAPS).map(|(namespace, name)| {
            enter(namespace)?;
            Tap::start(name, directory.join(format!("{name}.pcap")))
        });
        let taps = taps.collect::<anyhow::Result<Vec<_>>>()?;
        self.enter_client()?;
        Ok(taps)
    }

    fn set_up(&self, interface: &str, address: &str) -> anyhow::Result<()> {
        if !self.network.offload {
            for offload in [Offload::Tso, Offload::Gso, Offload::Gro] {
                set_offload(interface, offload, false)?;
            }
        }
        ip("link set lo up")?;
        ip(&format!("address add {address} dev {interface}"))?;
        ip(&format!("link set {interface} up"))
    }
}

/// A new namespace, in which this thread is then.
fn namespace() -> anyhow::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; run as root")?;
    Ok(File::open("/proc/thread-self/ns/net")?)
}

fn enter(namespace: &File) -> anyhow::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

fn nft(rules: &str) -> anyhow::Result<()> {
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("cannot run `nft`")?;
    nft.stdin.take().context("nft takes no input")?.write_all(rules.as_bytes())?;
    if !nft.wait()?.success() {
        bail!("nft does not take {rules}");
    }
    Ok(())
}

/// tcpdump on one interface; it ends with this.
pub struct Tap {
    /// One of [`TAPS`].
    pub name: &'static str,
    /// What it captured.
    pub file: PathBuf,
    tcpdump: Child,
    says: BufReader<ChildStderr>,
}

impl Tap {
    /// Waits until it captures.
    fn start(name: &'static str, file: PathBuf) -> anyhow::Result<Self> {
        let mut command = Command::new("tcpdump");
        command.args(["-i", name, "-Z", "root", "-n", "-U", "-B", "32768", "-w"]).arg(&file);
        let mut tcpdump =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot run `tcpdump`")?;
        let mut says = BufReader::new(tcpdump.stderr.take().context("tcpdump says nothing")?);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            if says.read_line(&mut line)? == 0 {
                bail!("tcpdump does not capture on {name}");
            }
        }
        Ok(Self { name, file, tcpdump, says })
    }

    /// Writes all that it captured; fails when it lost a packet.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.tcpdump.id() as i32), Signal::SIGINT)?;
        let mut said = String::new();
        self.says.read_to_string(&mut said)?;
        self.tcpdump.wait()?;
        if !said.lines().any(|line| line == "0 packets dropped by kernel") {
            bail!("tcpdump on {} lost packets: {said}", self.name);
        }
        Ok(())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Only one that has ended cannot be killed.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

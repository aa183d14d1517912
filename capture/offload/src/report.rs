//! What a NIC is, has and can: everything is read and nothing changed.

use crate::ethtool::{self, Channels, Feature, TunnelPorts, UpTo};
use crate::link::{self, Link, Xdp};
use crate::netlink::Netlink;
use crate::nfc::{self, HashFields, Hashed, NtupleTable, Rss, Timestamps};
use crate::refusal::Refusal;
use crate::setting;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was asked, or why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer<T> {
    /// The answer.
    Is(T),
    /// The driver or the kernel does not tell.
    Refused {
        /// Why.
        refused: Refusal,
    },
}

impl<T> Answer<T> {
    /// The answer, if there is one.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Refused { .. } => None,
        }
    }

    /// The answer, or the refusal in words.
    pub(crate) fn told(&self) -> Result<&T, String> {
        match self {
            Self::Is(value) => Ok(value),
            Self::Refused { refused } => Err(refused.to_string()),
        }
    }
}

impl<T> From<Result<T, Refusal>> for Answer<T> {
    fn from(result: Result<T, Refusal>) -> Self {
        match result {
            Ok(value) => Self::Is(value),
            Err(refused) => Self::Refused { refused },
        }
    }
}

/// What was found out about a NIC.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The interface.
    #[serde(flatten)]
    pub link: Link,
    /// Name of the driver.
    pub driver: Answer<String>,
    /// Where the device is, such as a PCI address; empty for software interfaces.
    pub bus: String,
    /// Link speed in Mb/s; `None` while there is no link.
    pub speed_mbps: Answer<Option<u32>>,
    /// The NUMA node that the device is attached to, where the machine has several.
    pub numa_node: Option<u32>,
    /// Receive queues.
    pub rx_queues: Answer<u32>,
    /// Interrupts of the device.
    pub interrupts: Option<u32>,
    /// Channels.
    pub channels: Answer<UpTo<Channels>>,
    /// Descriptors in each receive ring.
    pub rx_ring: Answer<UpTo<u32>>,
    /// Spreading over queues.
    pub rss: Answer<Rss>,
    /// What is hashed, by kind of packet.
    pub hash_fields: Vec<(Hashed, Answer<HashFields>)>,
    /// Features by the kernel's name.
    pub features: Answer<BTreeMap<String, Feature>>,
    /// The NIC's own timestamps as they are.
    pub timestamps: Answer<Timestamps>,
    /// What the NIC can timestamp when received.
    pub timestamp_filters: Answer<Vec<String>>,
    /// UDP ports of tunnels.
    pub tunnel_ports: Answer<TunnelPorts>,
    /// Drop rules by 5-tuple.
    pub ntuple: Answer<NtupleTable>,
    /// XDP and AF_XDP in the driver.
    pub xdp: Answer<Xdp>,
    /// `napi_defer_hard_irqs` and `gro_flush_timeout` (ns).
    pub busy_poll: Answer<(u64, u64)>,
}

impl Report {
    /// Asks for everything.
    pub(crate) fn of(netlink: &mut Netlink, link: &Link) -> Self {
        let (index, name) = (link.index, link.name.as_str());
        let driver = nfc::driver(netlink.kernel(), name);
        let bus = driver.as_ref().map(|(_, bus)| bus.clone()).unwrap_or_default();
        let device =
            |netlink: &mut Netlink, file: &str| setting::sysfs(netlink, link, &format!("device/{file}"));
        let queues = |netlink: &mut Netlink| {
            setting::sysfs(netlink, link, "ifindex")?;
            let queues = netlink.kernel().list(&format!("/sys/class/net/{name}/queues"))?;
            Ok(u32::try_from(queues.iter().filter(|queue| queue.starts_with("rx-")).count())
                .unwrap_or(u32::MAX))
        };
        let busy_poll = |netlink: &mut Netlink| {
            let mut number =
                |file| setting::sysfs(netlink, link, file)?.parse().map_err(|_| Refusal::nonsense());
            Ok((number("napi_defer_hard_irqs")?, number("gro_flush_timeout")?))
        };
        Self {
            link: link.clone(),
            driver: driver.map(|(driver, _)| driver).into(),
            bus,
            speed_mbps: ethtool::speed(netlink, index).into(),
            // -1 where the machine has one node only.
            numa_node: device(netlink, "numa_node").ok().and_then(|node| node.parse().ok()),
            rx_queues: queues(netlink).into(),
            interrupts: interrupts(netlink, name),
            channels: ethtool::channels(netlink, index).into(),
            rx_ring: ethtool::rx_ring(netlink, index).into(),
            rss: nfc::rss(netlink.kernel(), name).into(),
            hash_fields: Hashed::ALL
                .map(|of| (of, nfc::hash_fields(netlink.kernel(), name, of).into()))
                .into_iter()
                .collect(),
            features: ethtool::features(netlink, index).into(),
            timestamps: nfc::timestamps(netlink.kernel(), name).into(),
            timestamp_filters: ethtool::timestamp_filters(netlink, index).into(),
            tunnel_ports: ethtool::tunnel_ports(netlink, index).into(),
            ntuple: nfc::ntuple_table(netlink.kernel(), name).into(),
            xdp: link::xdp(netlink, index).into(),
            busy_poll: busy_poll(netlink).into(),
        }
    }

    /// A feature by the kernel's name; one that the driver has not is off and fixed.
    pub fn feature(&self, name: &str) -> Feature {
        self.features.get().and_then(|features| features.get(name)).copied().unwrap_or_default()
    }
}

/// Message-signalled interrupts of the device, or of the PCI device that carries it (virtio).
fn interrupts(netlink: &mut Netlink, name: &str) -> Option<u32> {
    let kernel = netlink.kernel();
    let listed = ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .find_map(|place| kernel.list(&format!("/sys/class/net/{name}/{place}")).ok())?;
    u32::try_from(listed.len()).ok()
}

//! One thing on a NIC that has a value: how it is read, set, and said.

use crate::ethtool::{self, Channels};
use crate::link::Link;
use crate::netlink::Netlink;
use crate::nfc::{self, HashFields, Hashed, Rss, Timestamps};
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A setting with a value: the one wanted, or the one that was there and is to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Number of queues.
    Channels(Channels),
    /// Descriptors in each receive ring.
    RxRing(u32),
    /// Spreading over queues.
    Rss(Rss),
    /// Fields that are hashed for one kind of packet.
    HashFields {
        /// The kind of packet.
        of: Hashed,
        /// Its fields.
        fields: HashFields,
    },
    /// A feature of `ethtool -k`.
    Feature {
        /// The kernel's name of it.
        name: String,
        /// In effect.
        on: bool,
    },
    /// The NIC's own timestamps.
    Timestamps(Timestamps),
    /// A number in the interface's directory of sysfs.
    Sysfs {
        /// The file's name.
        file: String,
        /// What it holds.
        value: String,
    },
}

impl Setting {
    /// The same setting with the value it has now.
    pub fn now(&self, netlink: &mut Netlink, link: &Link) -> Result<Self, Refusal> {
        let (index, name) = (link.index, link.name.as_str());
        Ok(match self {
            Self::Channels(_) => Self::Channels(ethtool::channels(netlink, index)?.now),
            Self::RxRing(_) => Self::RxRing(ethtool::rx_ring(netlink, index)?.now),
            Self::Rss(_) => Self::Rss(nfc::rss(netlink.kernel(), name)?),
            Self::HashFields { of, .. } => {
                Self::HashFields { of: *of, fields: nfc::hash_fields(netlink.kernel(), name, *of)? }
            }
            Self::Feature { name, .. } => {
                let feature = ethtool::features(netlink, index)?.get(name).copied().unwrap_or_default();
                Self::Feature { name: name.clone(), on: feature.on }
            }
            Self::Timestamps(_) => Self::Timestamps(nfc::timestamps(netlink.kernel(), name)?),
            Self::Sysfs { file, .. } => {
                Self::Sysfs { file: file.clone(), value: sysfs(netlink, link, file)? }
            }
        })
    }

    /// Sets it to this value.
    pub fn set(&self, netlink: &mut Netlink, link: &Link) -> Result<(), Refusal> {
        let (index, name) = (link.index, link.name.as_str());
        match self {
            Self::Channels(channels) => ethtool::set_channels(netlink, index, *channels),
            Self::RxRing(descriptors) => ethtool::set_rx_ring(netlink, index, *descriptors),
            Self::Rss(rss) => nfc::set_rss(netlink.kernel(), name, rss),
            Self::HashFields { of, fields } => nfc::set_hash_fields(netlink.kernel(), name, *of, *fields),
            Self::Feature { name, on } => ethtool::set_feature(netlink, index, name, *on),
            Self::Timestamps(timestamps) => nfc::set_timestamps(netlink.kernel(), name, *timestamps),
            Self::Sysfs { file, value } => {
                sysfs(netlink, link, file)?;
                Ok(netlink.kernel().write(&sysfs_path(link, file), value)?)
            }
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Channels(_) => "channels".to_owned(),
            Self::RxRing(_) => "rx ring".to_owned(),
            Self::Rss(_) => "RSS".to_owned(),
            Self::HashFields { of, .. } => format!("hash fields of {}", of.name()),
            Self::Feature { name, .. } => name.clone(),
            Self::Timestamps(_) => "hardware timestamps".to_owned(),
            Self::Sysfs { file, .. } => file.clone(),
        }
    }
}

fn sysfs_path(link: &Link, file: &str) -> String {
    format!("/sys/class/net/{}/{file}", link.name)
}

/// Reads a file of the interface, after making sure that sysfs shows this network namespace's interfaces.
pub fn sysfs(netlink: &mut Netlink, link: &Link, file: &str) -> Result<String, Refusal> {
    let kernel = netlink.kernel();
    let index = kernel.read(&sysfs_path(link, "ifindex"));
    if index.ok().and_then(|index| index.parse().ok()) != Some(link.index) {
        return Err(Refusal::because("/sys shows another network namespace"));
    }
    Ok(kernel.read(&sysfs_path(link, file))?)
}

impl fmt::Display for Setting {
    /// The value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channels(channels) => channels.fmt(f),
            Self::RxRing(descriptors) => descriptors.fmt(f),
            Self::Rss(rss) => rss.fmt(f),
            Self::HashFields { fields, .. } => fields.fmt(f),
            Self::Feature { on, .. } => f.write_str(on_off(*on)),
            Self::Timestamps(timestamps) => timestamps.fmt(f),
            Self::Sysfs { value, .. } => f.write_str(value),
        }
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.combined, "combined"), (self.rx, "rx"), (self.tx, "tx")];
        let some: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
        f.write_str(&some.join(", "))
    }
}

impl fmt::Display for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transformation {
            Self::SYMMETRIC_XOR => f.write_str("symmetric-xor"),
            Self::SYMMETRIC_OR_XOR => f.write_str("symmetric-or-xor"),
            _ if self.is_symmetric() => f.write_str("symmetric key"),
            _ if self.key.is_empty() => f.write_str("without a key"),
            _ => f.write_str("not symmetric"),
        }
    }
}

impl fmt::Display for Timestamps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rx {
            Self::RX_NONE => f.write_str("off"),
            Self::RX_ALL => f.write_str("every frame"),
            _ => f.write_str("some frames"),
        }
    }
}

/// How a switch is said.
pub fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

//! Settings of a NIC through the ethtool ioctl (linux/ethtool.h): driver, RSS, hash fields, ntuple rules, timestamps.
//!
//! Netlink can set RSS and hash fields since Linux 6.17 only, and knows neither ntuple rules nor the driver's name; the ioctl
//! does all of it on every kernel, so there is one way instead of two.

use crate::attr;
use crate::kernel::{Ioctl, Kernel};
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_SRXFH: u32 = 0x2a;
const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
const ETHTOOL_GRXCLSRLALL: u32 = 0x30;
const ETHTOOL_SRXCLSRLDEL: u32 = 0x31;
const ETHTOOL_SRXCLSRLINS: u32 = 0x32;
const ETHTOOL_GRSSH: u32 = 0x46;
const ETHTOOL_SRSSH: u32 = 0x47;

/// `struct ethtool_drvinfo`.
const DRVINFO: usize = 196;

/// The driver's name and where the device is, such as `ice` at `0000:3b:00.0`.
pub fn driver(kernel: &mut dyn Kernel, name: &str) -> Result<(String, String), Refusal> {
    let mut data = command(ETHTOOL_GDRVINFO, DRVINFO);
    kernel.ioctl(Ioctl::Ethtool, name, &mut data)?;
    let text = |at: usize| data.get(at..at + 32).map(attr::as_text).unwrap_or_default();
    // driver, version, firmware version, bus: 32 bytes each, behind the command
    Ok((text(4), text(100)))
}

/// How a NIC spreads frames over its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rss {
    /// Hash function: a bit of `ETH_RSS_HASH_TOP` (1), `XOR` (2), `CRC32` (4).
    pub function: u8,
    /// What is done to the fields before they are hashed (`RXH_XFRM_*`): 0 nothing, 1 symmetric-xor, 2 symmetric-or-xor.
    pub transformation: u8,
    /// The key of the hash; empty where the NIC has none to set.
    pub key: Vec<u8>,
}

impl Rss {
    /// Fields of both directions are made alike before they are hashed: xor of sources and destinations.
    pub const SYMMETRIC_XOR: u8 = 1;
    /// The same, with the or of both besides.
    pub const SYMMETRIC_OR_XOR: u8 = 2;

    /// Whether both directions of a connection come to the same queue.
    pub fn is_symmetric(&self) -> bool {
        self.transformation != 0 || (!self.key.is_empty() && self.key == symmetric_key(self.key.len()))
    }
}

/// A key with a period of 16 bits makes Toeplitz symmetric in addresses and ports (Woo and Park, "Scalable TCP Session
/// Monitoring with Symmetric Receive-side Scaling", 2012).
pub fn symmetric_key(len: usize) -> Vec<u8> {
    [0x6d, 0x5a].into_iter().cycle().take(len).collect()
}

/// `struct ethtool_rxfh` before the table and the key.
const RXFH: usize = 24;

/// ETHTOOL_GRSSH, first for the sizes, then for the key.
pub fn rss(kernel: &mut dyn Kernel, name: &str) -> Result<Rss, Refusal> {
    let mut sizes = command(ETHTOOL_GRSSH, RXFH);
    kernel.ioctl(Ioctl::Ethtool, name, &mut sizes)?;
    let size = |at: usize| sizes.get(at..).and_then(attr::as_u32).map_or(0, |size| size.min(65_536) as usize);
    let (table, key) = (size(8) * 4, size(12));
    let mut data = sizes.clone();
    data.resize(RXFH + table + key, 0);
    kernel.ioctl(Ioctl::Ethtool, name, &mut data)?;
    Ok(Rss {
        function: data.get(16).copied().unwrap_or(0),
        transformation: data.get(17).copied().unwrap_or(0),
        key: data.get(RXFH + table..).unwrap_or_default().to_vec(),
    })
}

/// ETHTOOL_SRSSH; the table that tells which queue belongs to a hash is left alone.
pub fn set_rss(kernel: &mut dyn Kernel, name: &str, to: &Rss) -> Result<(), Refusal> {
    const ETH_RXFH_INDIR_NO_CHANGE: u32 = u32::MAX;
    let mut data = command(ETHTOOL_SRSSH, RXFH);
    put(&mut data, 8, &ETH_RXFH_INDIR_NO_CHANGE.to_ne_bytes());
    put(&mut data, 12, &u32::try_from(to.key.len()).unwrap_or(0).to_ne_bytes());
    put(&mut data, 16, &[to.function, to.transformation]);
    data.extend_from_slice(&to.key);
    kernel.ioctl(Ioctl::Ethtool, name, &mut data).map_err(Refusal::from)
}

/// A kind of packet whose hashed fields can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hashed {
    /// UDP over IPv4: also VXLAN and GENEVE, whose source port tells flows apart.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// GTP-U over IPv4.
    Gtpu4,
    /// GTP-U over IPv6.
    Gtpu6,
}

impl Hashed {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Udp4, Self::Udp6, Self::Gtpu4, Self::Gtpu6];

    /// As `ethtool -N IF rx-flow-hash` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Gtpu4 => "gtpu4",
            Self::Gtpu6 => "gtpu6",
        }
    }

    fn flow_type(self) -> u32 {
        match self {
            Self::Udp4 => 0x02,
            Self::Udp6 => 0x06,
            Self::Gtpu4 => 0x13,
            Self::Gtpu6 => 0x14,
        }
    }

    /// The fields that spread tunnelled flows best: addresses and ports, or addresses and TEID.
    pub fn best(self) -> HashFields {
        match self {
            Self::Udp4 | Self::Udp6 => HashFields(0b1111_0000),
            Self::Gtpu4 | Self::Gtpu6 => HashFields(0b1_0011_0000),
        }
    }
}

/// Header fields that are hashed (`RXH_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashFields(pub u64);

impl HashFields {
    /// Source and destination: of a tunnel's packets, the only ones that both directions of what is in it have in common.
    pub const ADDRESSES: Self = Self(0b0011_0000);
}

impl std::fmt::Display for HashFields {
    /// The letters of `ethtool -N IF rx-flow-hash`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters =
            [(1, 'm'), (2, 'v'), (3, 't'), (4, 's'), (5, 'd'), (6, 'f'), (7, 'n'), (8, 'e'), (31, 'r')];
        let set = letters.iter().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let text: String = set.map(|(_, letter)| *letter).collect();
        f.write_str(if text.is_empty() { "none" } else { &text })
    }
}

/// `struct ethtool_rxnfc`: command, flow type, data, flow specification, rule count.
const RXNFC: usize = 192;
const RXNFC_DATA: usize = 8;
const RXNFC_SPEC: usize = 16;
const RXNFC_LOCATION: usize = RXNFC_SPEC + 160;
const RXNFC_RULE_COUNT: usize = 184;

/// ETHTOOL_GRXFH.
pub fn hash_fields(kernel: &mut dyn Kernel, name: &str, of: Hashed) -> Result<HashFields, Refusal> {
    let mut data = command(ETHTOOL_GRXFH, RXNFC);
    put(&mut data, 4, &of.flow_type().to_ne_bytes());
    kernel.ioctl(Ioctl::Ethtool, name, &mut data)?;
    Ok(HashFields(data.get(RXNFC_DATA..).and_then(attr::as_u64).unwrap_or(0)))
}

/// ETHTOOL_SRXFH.
pub fn set_hash_fields(
    kernel: &mut dyn Kernel,
    name: &str,
    of: Hashed,
    to: HashFields,
) -> Result<(), Refusal> {
    let mut data = command(ETHTOOL_SRXFH, RXNFC);
    put(&mut data, 4, &of.flow_type().to_ne_bytes());
    put(&mut data, RXNFC_DATA, &to.0.to_ne_bytes());
    kernel.ioctl(Ioctl::Ethtool, name, &mut data).map_err(Refusal::from)
}

/// How many ntuple rules a NIC has room for, and whether rules are put where they are asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NtupleTable {
    /// Rules in the table.
    pub rules: u32,
    /// Room of the table; 0 where the driver does not tell.
    pub room: u32,
    /// The driver chooses the place by itself (`RX_CLS_LOC_SPECIAL`).
    pub chooses: bool,
}

/// ETHTOOL_GRXCLSRLCNT.
pub fn ntuple_table(kernel: &mut dyn Kernel, name: &str) -> Result<NtupleTable, Refusal> {
    const RX_CLS_LOC_SPECIAL: u32 = 0x8000_0000;
    let mut data = command(ETHTOOL_GRXCLSRLCNT, RXNFC);
    kernel.ioctl(Ioctl::Ethtool, name, &mut data)?;
    let number = |at: usize| data.get(at..).and_then(attr::as_u32).unwrap_or(0);
    let size = number(RXNFC_DATA);
    Ok(NtupleTable {
        rules: number(RXNFC_RULE_COUNT),
        room: size & !RX_CLS_LOC_SPECIAL,
        chooses: size & RX_CLS_LOC_SPECIAL != 0,
    })
}

/// ETHTOOL_GRXCLSRLALL: the places that hold a rule, and the room of the table.
pub fn ntuple_places(kernel: &mut dyn Kernel, name: &str, rules: u32) -> Result<(Vec<u32>, u32), Refusal> {
    let rules = rules.min(65_536);
    let mut data = command(ETHTOOL_GRXCLSRLALL, RXNFC + rules as usize * 4);
    put(&mut data, RXNFC_RULE_COUNT, &rules.to_ne_bytes());
    kernel.ioctl(Ioctl::Ethtool, name, &mut data)?;
    let room = data.get(RXNFC_DATA..).and_then(attr::as_u32).unwrap_or(0);
    let found = data.get(RXNFC_RULE_COUNT..).and_then(attr::as_u32).unwrap_or(0).min(rules);
    // `rule_locs` begins right behind the count, before the structure's padding ends.
    let places = data.get(RXNFC_RULE_COUNT + 4..).unwrap_or_default().chunks_exact(4);
    Ok((places.take(found as usize).filter_map(attr::as_u32).collect(), room))
}

/// One direction of a TCP or UDP connection: what an ntuple or a flower rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Direction {
    /// Source address and port.
    pub source: std::net::SocketAddr,
    /// Destination address and port, of the same family.
    pub destination: std::net::SocketAddr,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// ETHTOOL_SRXCLSRLINS: frames of this direction are dropped by the NIC. False when the rule cannot be told.
pub fn insert_drop(kernel: &mut dyn Kernel, name: &str, rule: &Direction, place: u32) -> Result<(), Refusal> {
    use std::net::IpAddr::{V4, V6};
    const RX_CLS_FLOW_DISC: u64 = u64::MAX;
    let mut data = command(ETHTOOL_SRXCLSRLINS, RXNFC);
    let (flow_type, addresses): (u32, Vec<u8>) = match (rule.source.ip(), rule.destination.ip()) {
        (V4(from), V4(to)) => (if rule.udp { 2 } else { 1 }, [from.octets(), to.octets()].concat()),
        (V6(from), V6(to)) => (if rule.udp { 6 } else { 5 }, [from.octets(), to.octets()].concat()),
        _ => return Err(Refusal::because("addresses of two families make no flow")),
    };
    put(&mut data, RXNFC_SPEC, &flow_type.to_ne_bytes());
    // `ethtool_tcpip4_spec` and `ethtool_tcpip6_spec`: source, destination, ports, type of service
    let ports = [rule.source.port().to_be_bytes(), rule.destination.port().to_be_bytes()].concat();
    let values = RXNFC_SPEC + 4;
    put(&mut data, values, &addresses);
    put(&mut data, values + addresses.len(), &ports);
    // The mask behind the 52 bytes of values and the 20 of extensions: a set bit is compared.
    let masks = values + 72;
    put(&mut data, masks, &vec![0xff; addresses.len() + ports.len()]);
    put(&mut data, RXNFC_LOCATION - 8, &RX_CLS_FLOW_DISC.to_ne_bytes());
    put(&mut data, RXNFC_LOCATION, &place.to_ne_bytes());
    kernel.ioctl(Ioctl::Ethtool, name, &mut data).map_err(Refusal::from)
}

/// ETHTOOL_SRXCLSRLDEL.
pub fn delete_rule(kernel: &mut dyn Kernel, name: &str, place: u32) -> Result<(), Refusal> {
    let mut data = command(ETHTOOL_SRXCLSRLDEL, RXNFC);
    put(&mut data, RXNFC_LOCATION, &place.to_ne_bytes());
    kernel.ioctl(Ioctl::Ethtool, name, &mut data).map_err(Refusal::from)
}

/// `struct hwtstamp_config` (linux/net_tstamp.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamps {
    /// Always 0.
    pub flags: i32,
    /// What is stamped when sent (`HWTSTAMP_TX_*`).
    pub tx: i32,
    /// What is stamped when received (`HWTSTAMP_FILTER_*`).
    pub rx: i32,
}

impl Timestamps {
    /// Nothing is stamped when received.
    pub const RX_NONE: i32 = 0;
    /// Everything is stamped when received.
    pub const RX_ALL: i32 = 1;
}

/// SIOCGHWTSTAMP.
pub fn timestamps(kernel: &mut dyn Kernel, name: &str) -> Result<Timestamps, Refusal> {
    let mut data = vec![0; 12];
    kernel.ioctl(Ioctl::GetTimestamps, name, &mut data)?;
    let number = |at: usize| data.get(at..).and_then(attr::as_u32).map_or(0, u32::cast_signed);
    Ok(Timestamps { flags: number(0), tx: number(4), rx: number(8) })
}

/// SIOCSHWTSTAMP.
pub fn set_timestamps(kernel: &mut dyn Kernel, name: &str, to: Timestamps) -> Result<(), Refusal> {
    let mut data: Vec<u8> = [to.flags, to.tx, to.rx].iter().flat_map(|number| number.to_ne_bytes()).collect();
    kernel.ioctl(Ioctl::SetTimestamps, name, &mut data).map_err(Refusal::from)
}

/// The data of a command: zeros behind its number.
fn command(number: u32, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    put(&mut data, 0, &number.to_ne_bytes());
    data
}

/// Writes bytes at an offset that the structure's length covers.
fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = data.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

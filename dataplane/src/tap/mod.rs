//! Taps: the named places where traffic is mirrored, and which of them a frame came from.
//!
//! Takes in `taps.yaml` ([`file`](Taps::parse)) and the outer facts of a frame; hands on the id of its tap. The first tap
//! of the file whose conditions all hold is the one; a frame that none fits has tap 0.
//!
//! ```yaml
//! dedup: false                      # for frames whose tap says nothing itself: false, true (10ms) or a time such as 5ms
//! taps:
//!   - name: core-1 uplink
//!     id: 7                         # 1 to 65535; without it, the place in the file
//!     kind: physical-port           # nic, hypervisor, nfv-gateway, physical-port or vpc-mirror
//!     device: core-1                # device, port and site are texts for people
//!     port: Eth1/49
//!     site: fra1
//!     dedup: true
//!     match:                        # all that are given must hold
//!       interface: eth2             # the capture interface; in replay, one of a pcapng file, by name or description, or the file's name
//!       vlan: [100-199, 300]        # outermost tag; a number, a range or a list of them
//!       vxlan: 5001                 # or geneve, erspan_session, gre_key: id of the outermost tunnel
//!       outer_source: 10.9.0.0/16   # who sent that tunnel's packet
//!       source_mac: 02:00:00:00:00:00-02:00:00:ff:ff:ff
//!       destination_mac: 02:00:00:00:00:01
//! ```
//!
//! | module | what |
//! |---|---|
//! | `counted` | whether a source that counts flows tells one tap from another |
//! | `file` | reads and checks the file |
//! | `matcher` | finds the tap of a frame, compiled from the conditions |

mod counted;
mod file;
mod matcher;

pub(crate) use counted::Counted;
pub use file::TapsError;
pub(crate) use matcher::{Facts, Matcher, OuterTunnel};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use wirespan_records::TunnelKind;

/// All taps, in the order they are tried.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// In the order of the file.
    pub taps: Vec<Tap>,
    /// Within this time, the same packet from the same tap is a duplicate, unless the tap says otherwise; `None` keeps all.
    pub dedup: Option<Duration>,
}

/// A named place where traffic is mirrored.
#[derive(Clone, Debug, Serialize)]
pub struct Tap {
    /// From 1.
    pub id: u16,
    /// Unique.
    pub name: String,
    /// What is mirrored.
    pub kind: TapKind,
    /// Switch, host or gateway; may be empty, as the next two.
    pub device: String,
    /// Port of the device.
    pub port: String,
    /// Where the device is.
    pub site: String,
    /// As [`Taps::dedup`], for this tap.
    #[serde(skip)]
    pub dedup: Option<Duration>,
    /// What a frame of this tap looks like.
    #[serde(skip)]
    pub(crate) conditions: Conditions,
}

/// What is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapKind {
    /// A host's own interface.
    Nic,
    /// A virtual switch.
    Hypervisor,
    /// A load balancer, firewall or other network function.
    NfvGateway,
    /// A port of a switch, by SPAN or an optical splitter.
    PhysicalPort,
    /// A cloud's traffic mirroring.
    VpcMirror,
}

impl TapKind {
    /// The name in the file and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nic => "nic",
            Self::Hypervisor => "hypervisor",
            Self::NfvGateway => "nfv-gateway",
            Self::PhysicalPort => "physical-port",
            Self::VpcMirror => "vpc-mirror",
        }
    }
}

impl Taps {
    /// The interfaces that taps ask for.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.taps.iter().filter_map(|tap| tap.conditions.interface.as_deref())
    }

    /// The tap with this id.
    pub fn get(&self, id: u16) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.id == id)
    }
}

/// Ranges of ids, or of MAC addresses as numbers.
pub(crate) type Ranges = Vec<RangeInclusive<u64>>;

/// What a frame of a tap looks like: all that is given must hold, and at least one is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    pub interface: Option<String>,
    pub vlan: Option<Ranges>,
    pub tunnel: Option<(TunnelKind, Ranges)>,
    pub outer_source: Option<Vec<Network>>,
    pub source_mac: Option<Ranges>,
    pub destination_mac: Option<Ranges>,
}

/// Addresses with a prefix in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    v6: bool,
    /// IPv4 in the low 32 bits, host bits zero.
    address: u128,
    /// How many low bits are the host's.
    host_bits: u32,
}

impl Network {
    fn new(ip: IpAddr, prefix: u32) -> Option<Self> {
        let (v6, address, bits) = match ip {
            IpAddr::V4(ip) => (false, u128::from(ip.to_bits()), 32),
            IpAddr::V6(ip) => (true, ip.to_bits(), 128),
        };
        let mut network = Self { v6, address: 0, host_bits: u32::checked_sub(bits, prefix)? };
        network.address = network.prefix_of(address);
        Some(network)
    }

    fn contains(&self, address: u128, v6: bool) -> bool {
        v6 == self.v6 && self.prefix_of(address) == self.address
    }

    fn prefix_of(&self, address: u128) -> u128 {
        address & u128::MAX.checked_shl(self.host_bits).unwrap_or(0)
    }
}

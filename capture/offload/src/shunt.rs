//! Drop rules in the NIC itself, for flows that are shunted: before XDP, without any work of the CPU.
//!
//! Totals must stay exact, so a rule has to count what it drops. Rules of tc's flower classifier do: the driver reports packets and bytes of each.
//! They let TCP's SYN, FIN and RST through, so that a flow still ends and wakes. What they cannot give is the split
//! of those bytes into headers and payload, TCP flags and sequence numbers, and frames that come between the last reading of a rule's
//! counters and its removal are dropped uncounted: up to a second of them where the driver itself reads the NIC by a timer, as mlx5 does. Ntuple rules
//! count nothing and know no TCP flags: everything they drop is missing in all totals. So neither is part of `auto`: `hw-shunt=counted` asks for
//! flower, `hw-shunt=uncounted` for ntuple.

use crate::attr::{self, Attrs};
use crate::kernel::{Bus, Kernel};
use crate::link::Link;
use crate::netlink::Netlink;
use crate::nfc::{self, Direction};
use crate::plan::Counting;
use crate::refusal::Refusal;
use crate::state::Record;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use wirespan_frame::ShuntKey;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_FLOWER_ACT: u16 = 3;
/// The `clsact` queueing discipline's handle and parent, and the parent of rules on what comes in (linux/pkt_sched.h).
const CLSACT: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;

/// Priority of our IPv4 rules, the next one is that of the IPv6 rules; far from what people choose by hand.
const PRIORITY: u16 = 0xc0d0;

/// What a rule dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleCounters {
    /// Frames.
    pub(crate) packets: u64,
    /// Their bytes as the NIC counts them, without the frame check sequence on most.
    pub(crate) bytes: u64,
}

/// Drop rules of one NIC. Dropping it removes them.
pub struct HardwareShunt {
    netlink: Netlink,
    link: Link,
    rules: Rules,
    /// Each shunted flow with the numbers of its two rules, side A's first.
    flows: HashMap<ShuntKey, [u32; 2]>,
    free: Vec<u32>,
}

enum Rules {
    Ntuple { first: u32, count: u32 },
    Flower { made_clsact: bool },
}

impl HardwareShunt {
    /// Looks what there is room for; changes nothing. The record is to be on disk before [`HardwareShunt::begin`].
    pub(crate) fn prepare(
        kernel: Box<dyn Kernel>,
        link: &Link,
        counting: Counting,
        capacity: u32,
    ) -> Result<(Self, Record), Refusal> {
        let mut netlink = Netlink::new(kernel);
        let (rules, record, numbers) = match counting {
            Counting::Counted => {
                let made_clsact = !has_clsact(&mut netlink, link.index);
                let record = Record::FlowerRules { priority: PRIORITY, made_clsact };
                (Rules::Flower { made_clsact }, record, 1..capacity.saturating_mul(2).saturating_add(1))
            }
            Counting::Uncounted => {
                let (first, count) = free_places(netlink.kernel(), &link.name, capacity.saturating_mul(2))?;
                (Rules::Ntuple { first, count }, Record::NtuplePlaces { first, count }, first..first + count)
            }
        };
        let capacity = capacity.min((numbers.end - numbers.start) / 2);
        // Numbers are taken from the end.
        let free: Vec<u32> =
            numbers.take(capacity as usize * 2).collect::<Vec<_>>().into_iter().rev().collect();
        Ok((Self { netlink, link: link.clone(), rules, flows: HashMap::new(), free }, record))
    }

    /// Makes sure with a rule of addresses that nobody has (RFC 5737) that the NIC takes such rules.
    pub(crate) fn begin(mut self) -> Result<Self, Refusal> {
        if let Rules::Flower { made_clsact: true } = self.rules {
            make_clsact(&mut self.netlink, self.link.index)?;
        }
        let end = |host, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), port);
        let nobody = Direction { source: end(1, 9), destination: end(2, 9), udp: false };
        let number = *self.free.last().ok_or_else(|| Refusal::because("there is no room for a rule"))?;
        self.insert(&nobody, number)?;
        self.delete(&nobody, number)?;
        Ok(self)
    }

    /// From now on the NIC drops the flow's frames, both directions. Refused when there is no room, or for a flow that rules
    /// cannot tell from others (in a tunnel or a VLAN, or neither TCP nor UDP): it is then delivered as before.
    pub(crate) fn add(&mut self, key: &ShuntKey) -> Result<(), Refusal> {
        if self.flows.contains_key(key) {
            return Ok(());
        }
        let ways = directions(key)?;
        let (Some(there), Some(back)) = (self.free.pop(), self.free.pop()) else {
            return Err(Refusal::because("there is no room for another flow's rules"));
        };
        let [way_there, way_back] = &ways;
        let made = self.insert(way_there, there).and_then(|()| {
            self.insert(way_back, back).inspect_err(|_| {
                // One rule alone would make the flow one-sided.
                let _ = self.delete(way_there, there);
            })
        });
        match made {
            Ok(()) => {
                self.flows.insert(*key, [there, back]);
            }
            Err(_) => self.free.extend([back, there]),
        }
        made
    }

    /// What the NIC dropped of a flow so far, side A first; `None` for a flow that is not shunted or where rules do not count.
    pub(crate) fn read(&mut self, key: &ShuntKey) -> Option<[RuleCounters; 2]> {
        let [there, back] = *self.flows.get(key)?;
        let ways = directions(key).ok()?;
        Some([self.counters(&ways[0], there)?, self.counters(&ways[1], back)?])
    }

    /// The flow's frames are delivered again; its counters are read for the last time.
    pub(crate) fn remove(&mut self, key: &ShuntKey) -> Option<[RuleCounters; 2]> {
        let counters = self.read(key);
        let numbers = self.flows.remove(key)?;
        for (way, number) in directions(key).ok()?.iter().zip(numbers) {
            // A rule that somebody else has deleted is gone all the same.
            let _ = self.delete(way, number);
            self.free.push(number);
        }
        counters
    }

    fn insert(&mut self, way: &Direction, number: u32) -> Result<(), Refusal> {
        match self.rules {
            Rules::Ntuple { .. } => nfc::insert_drop(self.netlink.kernel(), &self.link.name, way, number),
            Rules::Flower { .. } => {
                let mut message = filter(self.link.index, way, number);
                message.extend_from_slice(flower(way).as_bytes());
                let flags = NLM_F_CREATE | NLM_F_EXCL;
                self.netlink.request(Bus::Route, RTM_NEWTFILTER, flags, &message).map(drop)
            }
        }
    }

    fn delete(&mut self, way: &Direction, number: u32) -> Result<(), Refusal> {
        match self.rules {
            Rules::Ntuple { .. } => nfc::delete_rule(self.netlink.kernel(), &self.link.name, number),
            Rules::Flower { .. } => {
                let mut message = filter(self.link.index, way, number);
                message.extend_from_slice(Attrs::default().text(TCA_KIND, "flower").as_bytes());
                self.netlink.request(Bus::Route, RTM_DELTFILTER, 0, &message).map(drop)
            }
        }
    }

    fn counters(&mut self, way: &Direction, number: u32) -> Option<RuleCounters> {
        if let Rules::Ntuple { .. } = self.rules {
            return None;
        }
        let mut message = filter(self.link.index, way, number);
        message.extend_from_slice(Attrs::default().text(TCA_KIND, "flower").as_bytes());
        let answers = self.netlink.request(Bus::Route, RTM_GETTFILTER, 0, &message).ok()?;
        hardware_counters(answers.first()?)
    }
}

impl Drop for HardwareShunt {
    fn drop(&mut self) {
        let cleared = match self.rules {
            Rules::Ntuple { first, count } => {
                clear_ntuple(self.netlink.kernel(), &self.link.name, first, count)
            }
            Rules::Flower { made_clsact } => {
                clear_flower(&mut self.netlink, self.link.index, PRIORITY, made_clsact)
            }
        };
        if let Err(no) = cleared {
            tracing::warn!("{}: drop rules could not be removed: {no}", self.link.name);
        }
    }
}

/// Both directions of a flow, from side A and from side B.
fn directions(key: &ShuntKey) -> Result<[Direction; 2], Refusal> {
    if key.tunnel_kind != 0 || key.vlan != 0 {
        return Err(Refusal::because("rules are for flows outside of tunnels and VLANs"));
    }
    let udp = match i32::from(key.protocol) {
        libc::IPPROTO_TCP => false,
        libc::IPPROTO_UDP => true,
        _ => return Err(Refusal::because("rules are for TCP and UDP")),
    };
    let side = |address: [u8; 16], port| SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port);
    let (a, b) = (side(key.a, key.a_port), side(key.b, key.b_port));
    Ok([Direction { source: a, destination: b, udp }, Direction { source: b, destination: a, udp }])
}

/// The highest run of free places in the ntuple table, at most `wanted` of them.
fn free_places(kernel: &mut dyn Kernel, name: &str, wanted: u32) -> Result<(u32, u32), Refusal> {
    let table = nfc::ntuple_table(kernel, name)?;
    if table.chooses {
        return Err(Refusal::because(
            "the driver chooses places by itself, so rules could not be found again after a crash",
        ));
    }
    let (taken, room) = nfc::ntuple_places(kernel, name, table.rules)?;
    let room = room.max(table.room);
    let mut end = room;
    while end > 0 && taken.contains(&(end - 1)) {
        end -= 1;
    }
    let below = taken.iter().copied().filter(|place| *place < end).max().map_or(0, |place| place + 1);
    let count = (end - below).min(wanted);
    match count {
        0 | 1 => Err(Refusal::because("the ntuple table has no room")),
        _ => Ok((end - count, count)),
    }
}

/// Deletes the rules in these places.
pub fn clear_ntuple(kernel: &mut dyn Kernel, name: &str, first: u32, count: u32) -> Result<(), Refusal> {
    let table = nfc::ntuple_table(kernel, name)?;
    let (taken, _) = nfc::ntuple_places(kernel, name, table.rules)?;
    let ours = first..first.saturating_add(count);
    taken
        .into_iter()
        .filter(|place| ours.contains(place))
        .try_for_each(|place| nfc::delete_rule(kernel, name, place))
}

/// `struct tcmsg`: interface, handle, parent, and information that depends on the message.
fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, index, handle, parent, info].iter().flat_map(|field| field.to_ne_bytes()).collect()
}

/// The message about a rule; priority and Ethernet type are in its information.
fn filter(index: u32, way: &Direction, number: u32) -> Vec<u8> {
    let v6 = way.source.is_ipv6();
    rules_of(index, PRIORITY, v6, number)
}

/// One rule, or with number 0 all rules of a family. A priority holds rules of one Ethernet type only.
fn rules_of(index: u32, priority: u16, v6: bool, number: u32) -> Vec<u8> {
    let priority = u32::from(priority) + u32::from(v6);
    let protocol = u32::from(ether_type(v6).to_be());
    tcmsg(index, number, INGRESS, priority << 16 | protocol)
}

fn ether_type(v6: bool) -> u16 {
    if v6 { 0x86dd } else { 0x0800 }
}

/// A flower rule that drops one direction in hardware only (linux/pkt_cls.h).
fn flower(way: &Direction) -> Attrs {
    const TCA_FLOWER_KEY_ETH_TYPE: u16 = 8;
    const TCA_FLOWER_KEY_IP_PROTO: u16 = 9;
    const TCA_FLOWER_FLAGS: u16 = 22;
    const TCA_FLOWER_KEY_TCP_FLAGS: u16 = 71;
    const TCA_CLS_FLAGS_SKIP_SW: u32 = 2;
    const FIN_SYN_RST: u16 = 0b111;
    let protocol = if way.udp { libc::IPPROTO_UDP } else { libc::IPPROTO_TCP };
    let mut keys = Attrs::default()
        .be16(TCA_FLOWER_KEY_ETH_TYPE, ether_type(way.source.is_ipv6()))
        .u8(TCA_FLOWER_KEY_IP_PROTO, u8::try_from(protocol).unwrap_or(0));
    for (ip, [v4, v6]) in [(way.source.ip(), [10, 14]), (way.destination.ip(), [12, 16])] {
        keys = match ip {
            IpAddr::V4(ip) => keys.bytes(v4, &ip.octets()),
            IpAddr::V6(ip) => keys.bytes(v6, &ip.octets()),
        };
    }
    let [source, destination] = if way.udp { [20, 21] } else { [18, 19] };
    keys = keys.be16(source, way.source.port()).be16(destination, way.destination.port());
    if !way.udp {
        keys = keys.be16(TCA_FLOWER_KEY_TCP_FLAGS, 0).be16(TCA_FLOWER_KEY_TCP_FLAGS + 1, FIN_SYN_RST);
    }
    keys = keys.u32(TCA_FLOWER_FLAGS, TCA_CLS_FLAGS_SKIP_SW).nest(TCA_FLOWER_ACT, &drop_action());
    Attrs::default().text(TCA_KIND, "flower").nest(TCA_OPTIONS, &keys)
}

/// One action, gact's `drop` (linux/tc_act/tc_gact.h).
fn drop_action() -> Attrs {
    const TC_ACT_SHOT: u32 = 2;
    const TCA_GACT_PARMS: u16 = 2;
    // `struct tc_gact`: index, capabilities, action, and two counts that the kernel fills
    let parameters: Vec<u8> =
        [0, 0, TC_ACT_SHOT, 0, 0].iter().flat_map(|field| field.to_ne_bytes()).collect();
    let options = Attrs::default().bytes(TCA_GACT_PARMS, &parameters);
    Attrs::default().nest(1, &Attrs::default().text(1, "gact").nest(2, &options))
}

/// `TCA_STATS_BASIC_HW` of the rule's action: bytes and packets, the latter of 32 bits unless `TCA_STATS_PKT64` follows.
pub(crate) fn hardware_counters(message: &[u8]) -> Option<RuleCounters> {
    const TCA_ACT_STATS: u16 = 4;
    const TCA_STATS_BASIC_HW: u16 = 7;
    const TCA_STATS_PKT64: u16 = 8;
    let options = attr::find(message.get(20..)?, TCA_OPTIONS)?;
    let action = attr::find(attr::find(options, TCA_FLOWER_ACT)?, 1)?;
    let stats = attr::find(action, TCA_ACT_STATS)?;
    let basic = attr::find(stats, TCA_STATS_BASIC_HW)?;
    let low = u64::from(basic.get(8..).and_then(attr::as_u32)?);
    let whole =
        attr::each(stats).filter(|(kind, _)| *kind == TCA_STATS_PKT64).filter_map(|(_, v)| attr::as_u64(v));
    let packets = whole.last().filter(|packets| packets & 0xffff_ffff == low).unwrap_or(low);
    Some(RuleCounters { packets, bytes: attr::as_u64(basic)? })
}

/// Whether rules on what comes in have a place already, made by somebody else.
fn has_clsact(netlink: &mut Netlink, index: u32) -> bool {
    let disciplines = netlink.request(Bus::Route, RTM_GETQDISC, NLM_F_DUMP, &tcmsg(index, 0, 0, 0));
    let field = |message: &Vec<u8>, at: usize| message.get(at..).and_then(attr::as_u32);
    disciplines
        .unwrap_or_default()
        .iter()
        .any(|d| field(d, 4) == Some(index) && field(d, 12) == Some(CLSACT_PARENT))
}

fn make_clsact(netlink: &mut Netlink, index: u32) -> Result<(), Refusal> {
    let mut message = tcmsg(index, CLSACT, CLSACT_PARENT, 0);
    message.extend_from_slice(Attrs::default().text(TCA_KIND, "clsact").as_bytes());
    netlink.request(Bus::Route, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &message).map(drop)
}

/// Deletes the rules of a priority and the next, and `clsact` when it was made for them.
pub fn clear_flower(
    netlink: &mut Netlink,
    index: u32,
    priority: u16,
    made_clsact: bool,
) -> Result<(), Refusal> {
    if !has_clsact(netlink, index) {
        return Ok(());
    }
    for v6 in [false, true] {
        // Refused when there are no rules of this family.
        let _ = netlink.request(Bus::Route, RTM_DELTFILTER, 0, &rules_of(index, priority, v6, 0));
    }
    match made_clsact {
        true => {
            netlink.request(Bus::Route, RTM_DELQDISC, 0, &tcmsg(index, CLSACT, CLSACT_PARENT, 0)).map(drop)
        }
        false => Ok(()),
    }
}

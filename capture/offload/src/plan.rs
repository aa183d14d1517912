//! `--offload auto|off|PLAN`: what is to be set up, as the user says it.

use std::fmt;
use std::str::FromStr;

/// What is to be set up on a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Everything that helps a mirror and that the driver has, besides the entries.
    pub auto: bool,
    /// What was asked for by name; wins over what `auto` would do.
    pub entries: Vec<Entry>,
}

/// One `name=value` of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `channels=N|max`: queues that receive.
    Channels(Amount),
    /// `rx-ring=N|max`: descriptors in each receive ring.
    RxRing(Amount),
    /// `rss=symmetric`: both directions of a connection come to the same queue.
    SymmetricRss,
    /// `hw-shunt=counted|uncounted`: the NIC itself drops the frames of shunted flows.
    HardwareShunt(Counting),
    /// `name=on|off`.
    Switch(Switch, bool),
}

/// A number, or as much as there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// The driver's maximum.
    Max,
    /// This many, at least 1.
    Exactly(u32),
}

/// Which rules a hardware shunt may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Rules whose packets and bytes the NIC counts (flower), so that totals stay exact.
    Counted,
    /// Rules that drop without counting (ntuple): what they drop is missing in all totals.
    Uncounted,
}

/// What is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Joining of received segments by the kernel: off, because a mirror's packets are to be counted as they came.
    Gro,
    /// Joining of received segments by the driver.
    Lro,
    /// Joining of received segments by the NIC.
    GroHw,
    /// Taking VLAN tags off frames: off, because AF_XDP would never see them.
    VlanStrip,
    /// Receiving what is not addressed to the NIC: on, because a mirror's frames never are.
    Promiscuous,
    /// The NIC's own time on every frame received.
    HwTimestamps,
    /// Hashing the ports of UDP (VXLAN, GENEVE) and the TEID of GTP-U. They tell tunnelled flows apart, but the two directions of one as well, so
    /// `auto` has addresses hashed alone.
    TunnelHash,
    /// Drop rules by 5-tuple.
    Ntuple,
    /// Offloading of tc rules to the NIC.
    TcOffload,
    /// Interrupts held back while a socket polls (`napi_defer_hard_irqs`, `gro_flush_timeout`).
    BusyPoll,
}

impl Switch {
    const ALL: [(&'static str, Self); 10] = [
        ("tunnel-hash", Self::TunnelHash),
        ("gro", Self::Gro),
        ("lro", Self::Lro),
        ("gro-hw", Self::GroHw),
        ("vlan-strip", Self::VlanStrip),
        ("promisc", Self::Promiscuous),
        ("hw-timestamps", Self::HwTimestamps),
        ("ntuple", Self::Ntuple),
        ("tc-offload", Self::TcOffload),
        ("busy-poll", Self::BusyPoll),
    ];

    /// As it is called in a plan.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, switch)| *switch == self).map_or("", |(name, _)| name)
    }

    /// What `off` in a plan cannot mean: these are only ever turned on, and restored.
    fn only_on(self) -> bool {
        matches!(self, Self::Promiscuous | Self::TunnelHash | Self::BusyPoll)
    }
}

/// Why a plan cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No such name.
    #[error(
        "`{0}` is no offload setting; give `auto`, `off`, or a list with commas of channels=, rx-ring=, rss=, tunnel-hash=, \
         gro=, lro=, gro-hw=, vlan-strip=, promisc=, hw-timestamps=, ntuple=, tc-offload=, busy-poll=, hw-shunt="
    )]
    Unknown(String),
    /// No such value.
    #[error("`{name}={value}` cannot be; {name} takes {allowed}")]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What could be given.
        allowed: &'static str,
    },
    /// Two values for one setting.
    #[error("`{0}` is given twice; give it once")]
    Twice(String),
    /// `off` is the whole plan or none of it.
    #[error("`off` changes nothing, so it stands alone; leave it out or leave the others out")]
    OffAndMore,
}

impl Plan {
    /// Reads `auto`, `off`, or a list such as `channels=4,rx-ring=max,rss=symmetric,gro=off`; `auto,gro=on` is auto but for GRO.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        if text.trim() == "off" {
            return Ok(plan);
        }
        for word in text.split(',').map(str::trim) {
            match word.split_once('=') {
                None if word == "auto" && !plan.auto => plan.auto = true,
                None if word == "auto" => return Err(PlanError::Twice(word.to_owned())),
                None if word == "off" => return Err(PlanError::OffAndMore),
                None => return Err(PlanError::Unknown(word.to_owned())),
                Some((name, value)) => {
                    let entry = Entry::parse(name.trim(), value.trim())?;
                    if plan.entry(entry.name()).is_some() {
                        return Err(PlanError::Twice(entry.name().to_owned()));
                    }
                    plan.entries.push(entry);
                }
            }
        }
        Ok(plan)
    }

    /// Whether nothing is to be changed.
    pub fn is_off(&self) -> bool {
        !self.auto && self.entries.is_empty()
    }

    /// What was asked for under a name.
    pub(crate) fn entry(&self, name: &str) -> Option<Entry> {
        self.entries.iter().copied().find(|entry| entry.name() == name)
    }

    /// Whether a switch was asked to be on or off.
    pub(crate) fn switch(&self, switch: Switch) -> Option<bool> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Switch(asked, on) if *asked == switch => Some(*on),
            _ => None,
        })
    }
}

impl Entry {
    fn parse(name: &str, value: &str) -> Result<Self, PlanError> {
        let wrong = |allowed| PlanError::Value { name: name.to_owned(), value: value.to_owned(), allowed };
        let amount = || match (value, value.parse()) {
            ("max", _) => Ok(Amount::Max),
            (_, Ok(number)) if number > 0 => Ok(Amount::Exactly(number)),
            _ => Err(wrong("a number from 1 on, or max")),
        };
        match name {
            "channels" => amount().map(Self::Channels),
            "rx-ring" => amount().map(Self::RxRing),
            "rss" if value == "symmetric" => Ok(Self::SymmetricRss),
            "rss" => Err(wrong("symmetric")),
            "hw-shunt" if value == "counted" => Ok(Self::HardwareShunt(Counting::Counted)),
            "hw-shunt" if value == "uncounted" => Ok(Self::HardwareShunt(Counting::Uncounted)),
            "hw-shunt" => Err(wrong("counted or uncounted")),
            _ => {
                let known = Switch::ALL.iter().find(|(known, _)| *known == name);
                let (_, switch) = known.ok_or_else(|| PlanError::Unknown(name.to_owned()))?;
                match value {
                    "on" => Ok(Self::Switch(*switch, true)),
                    "off" if !switch.only_on() => Ok(Self::Switch(*switch, false)),
                    _ if switch.only_on() => Err(wrong("on; leave it out to leave it as it is")),
                    _ => Err(wrong("on or off")),
                }
            }
        }
    }

    /// As it is called in a plan.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Channels(_) => "channels",
            Self::RxRing(_) => "rx-ring",
            Self::SymmetricRss => "rss",
            Self::HardwareShunt(_) => "hw-shunt",
            Self::Switch(switch, _) => switch.name(),
        }
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        Self::parse(text)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return f.write_str("off");
        }
        let auto = self.auto.then(|| "auto".to_owned());
        let words: Vec<String> = auto.into_iter().chain(self.entries.iter().map(Entry::to_string)).collect();
        f.write_str(&words.join(","))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Channels(Amount::Max) | Self::RxRing(Amount::Max) => write!(f, "{name}=max"),
            Self::Channels(Amount::Exactly(number)) | Self::RxRing(Amount::Exactly(number)) => {
                write!(f, "{name}={number}")
            }
            Self::SymmetricRss => write!(f, "{name}=symmetric"),
            Self::HardwareShunt(Counting::Counted) => write!(f, "{name}=counted"),
            Self::HardwareShunt(Counting::Uncounted) => write!(f, "{name}=uncounted"),
            Self::Switch(_, on) => write!(f, "{name}={}", if *on { "on" } else { "off" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_auto_off_and_lists() {
        assert!(Plan::parse("off").unwrap().is_off());
        assert_eq!(Plan::parse("auto").unwrap(), Plan { auto: true, entries: vec![] });
        let plan = Plan::parse("channels=4, rx-ring=max,rss=symmetric,gro=off,hw-shunt=counted").unwrap();
        assert_eq!(
            plan.entries,
            [
                Entry::Channels(Amount::Exactly(4)),
                Entry::RxRing(Amount::Max),
                Entry::SymmetricRss,
                Entry::Switch(Switch::Gro, false),
                Entry::HardwareShunt(Counting::Counted),
            ]
        );
        assert_eq!(Plan::parse("auto,gro=on").unwrap().switch(Switch::Gro), Some(true));
    }

    #[test]
    fn errors_name_what_is_allowed() {
        let said = |text| Plan::parse(text).unwrap_err().to_string();
        assert!(said("rings=4").starts_with("`rings` is no offload setting; give `auto`, `off`, or a list"));
        assert_eq!(said("channels=0"), "`channels=0` cannot be; channels takes a number from 1 on, or max");
        assert_eq!(said("rss=toeplitz"), "`rss=toeplitz` cannot be; rss takes symmetric");
        assert_eq!(
            said("promisc=off"),
            "`promisc=off` cannot be; promisc takes on; leave it out to leave it as it is"
        );
        assert_eq!(said("gro=off,gro=on"), "`gro` is given twice; give it once");
        assert!(said("off,gro=on").starts_with("`off` changes nothing"));
        assert!(said("").starts_with("`` is no offload setting"));
        let all = said("x");
        for (name, _) in Switch::ALL {
            assert!(all.contains(&format!(" {name}=")), "{name} is missing in the error");
        }
    }

    fn amount() -> impl Strategy<Value = Amount> {
        prop_oneof![Just(Amount::Max), (1..u32::MAX).prop_map(Amount::Exactly)]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            amount().prop_map(Entry::Channels),
            amount().prop_map(Entry::RxRing),
            Just(Entry::SymmetricRss),
            Just(Entry::HardwareShunt(Counting::Uncounted)),
            (0..Switch::ALL.len(), any::<bool>()).prop_map(|(at, on)| {
                let switch = Switch::ALL[at].1;
                Entry::Switch(switch, on || switch.only_on())
            }),
        ]
    }

    proptest! {
        #[test]
        fn reads_back_what_it_prints(auto: bool, mut entries in proptest::collection::vec(entry(), 0..8)) {
            let mut names = std::collections::HashSet::new();
            entries.retain(|entry| names.insert(entry.name()));
            let plan = Plan { auto, entries };
            prop_assert_eq!(Plan::parse(&plan.to_string()).unwrap(), plan);
        }

        #[test]
        fn any_text_is_a_plan_or_an_error(text in ".{0,80}|([a-z-]{0,12}=?[a-z0-9]{0,5},?){0,6}") {
            let _ = Plan::parse(&text);
        }
    }
}

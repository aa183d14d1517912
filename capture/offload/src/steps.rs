//! From a report and a plan to the settings that are to be made.

use crate::ethtool::Channels;
use crate::nfc::{HashFields, Hashed, Rss, Timestamps, symmetric_key};
use crate::plan::{Amount, Counting, Entry, Plan, Switch};
use crate::report::{Answer, Report};
use crate::setting::{Setting, on_off};

/// One change, as one value or as several in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep the interface promiscuous.
    Promiscuous,
    /// Make the first of these that the driver takes.
    Set(Vec<Setting>),
}

/// What a plan comes to on a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// In the order to be made, with the name of the plan's entry.
    pub todo: Vec<(&'static str, Step)>,
    /// What was asked for by name and cannot be, in sentences.
    pub refused: Vec<(&'static str, String)>,
}

/// Whether both directions of a connection can come to the same queue.
fn can_be_symmetric(report: &Report) -> bool {
    report.rss.get().is_some_and(|rss| rss.is_symmetric() || !rss.key.is_empty())
}

/// Interrupts held back this often, for this long, while nobody polls: the kernel's own example
/// (Documentation/networking/napi.rst).
const BUSY_POLL: [(&str, &str); 2] = [("napi_defer_hard_irqs", "2"), ("gro_flush_timeout", "200000")];

/// Features that a switch stands for, by the kernel's names.
pub(crate) fn features_of(switch: Switch) -> &'static [&'static str] {
    match switch {
        Switch::Gro => &["rx-gro"],
        Switch::Lro => &["rx-lro"],
        Switch::GroHw => &["rx-gro-hw"],
        Switch::VlanStrip => &["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"],
        Switch::Ntuple => &["rx-ntuple-filter"],
        Switch::TcOffload => &["hw-tc-offload"],
        Switch::Promiscuous | Switch::HwTimestamps | Switch::TunnelHash | Switch::BusyPoll => &[],
    }
}

impl Steps {
    /// Works out what is to be done; `workers` is how many queues `auto` wants where they keep connections together.
    pub fn plan(report: &Report, plan: &Plan, workers: u32) -> Self {
        let mut steps = Self::default();
        // Promiscuous first: it is what capture cannot do without. Channels before rings and RSS, which they reset.
        if plan.auto || plan.switch(Switch::Promiscuous).is_some() {
            steps.todo.push((Switch::Promiscuous.name(), Step::Promiscuous));
        }
        steps.channels(report, plan, workers);
        steps.rx_ring(report, plan);
        steps.rss(report, plan);
        steps.tunnel_hash(report, plan);
        // A mirror is better off without these; drop rules only where somebody asks for them.
        for switch in [Switch::Gro, Switch::Lro, Switch::GroHw, Switch::VlanStrip] {
            steps.features(report, switch, plan.switch(switch), plan.auto.then_some(false));
        }
        for (switch, shunt) in [(Switch::Ntuple, Counting::Uncounted), (Switch::TcOffload, Counting::Counted)]
        {
            let needed = plan.entry("hw-shunt") == Some(Entry::HardwareShunt(shunt));
            steps.features(report, switch, plan.switch(switch).or(needed.then_some(true)), None);
        }
        steps.timestamps(report, plan);
        steps.busy_poll(report, plan);
        steps
    }

    fn set(&mut self, name: &'static str, setting: Setting) {
        self.todo.push((name, Step::Set(vec![setting])));
    }

    fn refuse(&mut self, name: &'static str, sentence: String) {
        self.refused.push((name, sentence));
    }

    fn channels(&mut self, report: &Report, plan: &Plan, workers: u32) {
        let asked = match plan.entry("channels") {
            Some(Entry::Channels(amount)) => Some(amount),
            _ => None,
        };
        // Where the directions of a connection come to two queues, their order is lost; one queue can be spread in order.
        let in_order = if can_be_symmetric(report) { workers.max(1) } else { 1 };
        let Some(amount) = asked.or(plan.auto.then_some(Amount::Exactly(in_order))) else { return };
        let has = match report.channels.told() {
            Ok(has) => has,
            Err(_) if asked.is_none() => return,
            Err(no) => return self.refuse("channels", format!("channels: {no}")),
        };
        // NICs use either combined channels or separate ones; both directions are kept alike.
        let combined = has.now.combined > 0 || has.max.rx == 0;
        let max = if combined { has.max.combined } else { has.max.rx };
        let wanted = match amount {
            Amount::Max => max,
            Amount::Exactly(number) if number > max && asked.is_some() => {
                let sentence = format!("channels: {number} were asked for, the driver has at most {max}");
                return self.refuse("channels", sentence);
            }
            Amount::Exactly(number) => number.min(max),
        };
        let to = match combined {
            true => Channels { combined: wanted, ..has.now },
            false => Channels { rx: wanted, tx: wanted.min(has.max.tx), ..has.now },
        };
        if wanted > 0 && to != has.now {
            self.set("channels", Setting::Channels(to));
        }
    }

    fn rx_ring(&mut self, report: &Report, plan: &Plan) {
        let asked = match plan.entry("rx-ring") {
            Some(Entry::RxRing(amount)) => Some(amount),
            _ => None,
        };
        let Some(amount) = asked.or(plan.auto.then_some(Amount::Max)) else { return };
        match (report.rx_ring.told(), amount) {
            (Err(no), _) if asked.is_some() => self.refuse("rx-ring", format!("rx ring: {no}")),
            (Ok(has), Amount::Exactly(number)) if number > has.max => {
                let sentence =
                    format!("rx ring: {number} were asked for, the driver has at most {}", has.max);
                self.refuse("rx-ring", sentence);
            }
            (Ok(has), Amount::Exactly(number)) if number != has.now => {
                self.set("rx-ring", Setting::RxRing(number))
            }
            (Ok(has), Amount::Max) if has.max != has.now => self.set("rx-ring", Setting::RxRing(has.max)),
            _ => {}
        }
    }

    fn rss(&mut self, report: &Report, plan: &Plan) {
        let asked = plan.entry("rss").is_some();
        match report.rss.told() {
            _ if !asked && !plan.auto => {}
            Err(no) if asked => self.refuse("rss", format!("RSS: {no}")),
            Ok(now) if !now.is_symmetric() && !now.key.is_empty() => {
                let by = |transformation, key: &[u8]| {
                    Setting::Rss(Rss { function: now.function, transformation, key: key.to_vec() })
                };
                let ways = [
                    by(Rss::SYMMETRIC_XOR, &now.key),
                    by(Rss::SYMMETRIC_OR_XOR, &now.key),
                    by(0, &symmetric_key(now.key.len())),
                ];
                self.todo.push(("rss", Step::Set(ways.to_vec())));
            }
            Ok(now) if now.key.is_empty() && asked => {
                self.refuse("rss", "RSS: the driver has no key to set".to_owned());
            }
            _ => {}
        }
    }

    fn tunnel_hash(&mut self, report: &Report, plan: &Plan) {
        let name = Switch::TunnelHash.name();
        let asked = plan.switch(Switch::TunnelHash).is_some();
        if !asked && !plan.auto {
            return;
        }
        for (of, fields) in &report.hash_fields {
            // With the outer port of VXLAN or GENEVE, or the TEID, the directions of a connection would go to different workers.
            let wanted = if asked { of.best() } else { HashFields::ADDRESSES };
            match fields.told() {
                // Nothing hashed is how drivers without a choice answer.
                Ok(HashFields(0)) if asked => {
                    self.refuse(name, format!("hash fields of {}: the driver hashes none", of.name()));
                }
                Ok(now) if now.0 != 0 && *now != wanted => {
                    self.set(name, Setting::HashFields { of: *of, fields: wanted });
                }
                // A NIC that does not know GTP-U is no news.
                Err(no) if asked && matches!(of, Hashed::Udp4 | Hashed::Udp6) => {
                    self.refuse(name, format!("hash fields of {}: {no}", of.name()));
                }
                _ => {}
            }
        }
    }

    fn features(&mut self, report: &Report, switch: Switch, asked: Option<bool>, auto: Option<bool>) {
        let Some(on) = asked.or(auto) else { return };
        if let (Answer::Refused { refused }, true) = (&report.features, asked.is_some()) {
            return self.refuse(switch.name(), format!("{}: {refused}", switch.name()));
        }
        for name in features_of(switch) {
            let feature = report.feature(name);
            if feature.on == on {
                continue;
            }
            if feature.changeable {
                self.set(switch.name(), Setting::Feature { name: (*name).to_owned(), on });
            } else if asked.is_some() {
                self.refuse(switch.name(), format!("{name}: the driver cannot turn it {}", on_off(on)));
            }
        }
    }

    fn timestamps(&mut self, report: &Report, plan: &Plan) {
        let name = Switch::HwTimestamps.name();
        let asked = plan.switch(Switch::HwTimestamps);
        let Some(on) = asked.or(plan.auto.then_some(true)) else { return };
        let can_all =
            report.timestamp_filters.get().is_some_and(|filters| filters.iter().any(|f| f == "all"));
        match report.timestamps.told() {
            Err(no) if asked.is_some() => self.refuse(name, format!("hardware timestamps: {no}")),
            Ok(_) if on && !can_all && asked.is_some() => {
                self.refuse(name, "hardware timestamps: the NIC cannot stamp every frame".to_owned());
            }
            Ok(now) if on && can_all && now.rx != Timestamps::RX_ALL => {
                self.set(name, Setting::Timestamps(Timestamps { rx: Timestamps::RX_ALL, ..*now }));
            }
            Ok(now) if !on && now.rx != Timestamps::RX_NONE => {
                self.set(name, Setting::Timestamps(Timestamps { rx: Timestamps::RX_NONE, ..*now }));
            }
            _ => {}
        }
    }

    fn busy_poll(&mut self, report: &Report, plan: &Plan) {
        let name = Switch::BusyPoll.name();
        if plan.switch(Switch::BusyPoll).is_none() {
            return;
        }
        match report.busy_poll.told() {
            Err(no) => self.refuse(name, format!("busy polling: {no}")),
            Ok((defer, timeout)) => {
                for ((file, value), now) in BUSY_POLL.into_iter().zip([defer, timeout]) {
                    if now.to_string() != value {
                        self.set(name, Setting::Sysfs { file: file.to_owned(), value: value.to_owned() });
                    }
                }
            }
        }
    }
}

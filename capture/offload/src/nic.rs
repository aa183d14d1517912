//! A NIC: reported on, set up, restored.

use crate::OffloadError;
use crate::kernel::{Kernel, Live, Promiscuous};
use crate::link::{self, Link};
use crate::netlink::Netlink;
use crate::plan::{Counting, Entry, Plan};
use crate::refusal::Refusal;
use crate::report::Report;
use crate::setting::Setting;
use crate::shunt::{self, HardwareShunt};
use crate::state::{self, Found, Journal, Owner, Record};
use crate::steps::{Step, Steps};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An interface and the way to its driver.
pub struct Nic {
    pub(crate) netlink: Netlink,
    pub(crate) link: Link,
}

impl Nic {
    /// The interface of a name, in the network namespace of the calling thread.
    pub fn open(name: &str) -> Result<Self, OffloadError> {
        Self::through(live()?, name)
    }

    /// Names of all interfaces.
    pub fn names() -> Result<Vec<String>, OffloadError> {
        let links = link::all(&mut Netlink::new(live()?)).map_err(OffloadError::Kernel)?;
        Ok(links.into_iter().map(|link| link.name).collect())
    }

    pub(crate) fn through(kernel: Box<dyn Kernel>, name: &str) -> Result<Self, OffloadError> {
        let mut netlink = Netlink::new(kernel);
        match link::by_name(&mut netlink, name) {
            // An alternative name finds the interface too; it is known by its own from here on.
            Ok(link) => Ok(Self { netlink, link }),
            Err(_) => {
                let links = link::all(&mut netlink).map_err(OffloadError::Kernel)?;
                let known: Vec<String> = links.into_iter().map(|link| link.name).collect();
                Err(OffloadError::UnknownInterface { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// Everything there is to know; changes nothing.
    pub fn report(&mut self) -> Report {
        Report::of(&mut self.netlink, &self.link)
    }

    /// Whether it brings both directions of a connection to the same queue. False where it does not tell.
    pub fn is_symmetric(&mut self) -> bool {
        crate::nfc::rss(self.netlink.kernel(), &self.link.name).is_ok_and(|rss| rss.is_symmetric())
    }

    /// Does what the plan says as far as the driver lets it. What an earlier process left behind is restored first.
    ///
    /// `workers` is how many queues `auto` wants of a NIC that can bring both directions of a connection to the same one, `state_dir` where the values to restore are kept ([`crate::STATE_DIR`]).
    pub fn apply(self, plan: &Plan, workers: u32, state_dir: &Path) -> Result<Applied, OffloadError> {
        self.apply_as(plan, workers, state_dir, &whose()?)
    }

    pub(crate) fn apply_as(
        mut self,
        plan: &Plan,
        workers: u32,
        state_dir: &Path,
        (boot, namespace): &(String, u64),
    ) -> Result<Applied, OffloadError> {
        let owner = Owner {
            boot: boot.clone(),
            namespace: *namespace,
            index: self.link.index,
            interface: self.link.name.clone(),
        };
        let interface = owner.interface.clone();
        let unset = |nic| Applied {
            nic,
            journal: None,
            records: Vec::new(),
            promiscuous: None,
            shunt: None,
            changes: Vec::new(),
            refused: Vec::new(),
        };
        if plan.is_off() {
            return Ok(unset(self));
        }
        std::fs::create_dir_all(state_dir)
            .map_err(|source| OffloadError::State { path: state_dir.to_owned(), source })?;
        let path = Journal::path(state_dir, &owner);
        let Found::Ours(mut journal, left_by, left) = Journal::open(&path, true)? else {
            return Err(OffloadError::InUse { interface });
        };
        let mut notes = Vec::new();
        if left_by.as_ref() == Some(&owner) {
            notes = self.undo(&left);
        }
        journal.begin(&owner)?;
        let mut applied = unset(self);
        applied.journal = Some(journal);
        applied.refused = notes;
        applied.make(plan, workers)?;
        Ok(applied)
    }

    /// Puts back what was there, latest change first; says what could not be.
    fn undo(&mut self, records: &[Record]) -> Vec<String> {
        let mut notes = Vec::new();
        for record in records.iter().rev() {
            let (what, undone) = match record {
                Record::Before(before) => (before.name(), self.put_back(before)),
                Record::NtuplePlaces { first, count } => {
                    let undone = shunt::clear_ntuple(self.netlink.kernel(), &self.link.name, *first, *count);
                    ("ntuple rules".to_owned(), undone)
                }
                Record::FlowerRules { priority, made_clsact } => {
                    let undone =
                        shunt::clear_flower(&mut self.netlink, self.link.index, *priority, *made_clsact);
                    ("flower rules".to_owned(), undone)
                }
            };
            if let Err(no) = undone {
                notes.push(format!("{}: {what} could not be restored: {no}", self.link.name));
            }
        }
        notes
    }

    fn put_back(&mut self, before: &Setting) -> Result<(), Refusal> {
        match before.now(&mut self.netlink, &self.link)? == *before {
            true => Ok(()),
            false => before.set(&mut self.netlink, &self.link),
        }
    }
}

/// A NIC that was set up. Dropping it puts back what was there.
pub struct Applied {
    nic: Nic,
    journal: Option<Journal>,
    records: Vec<Record>,
    promiscuous: Option<Promiscuous>,
    shunt: Option<Counting>,
    changes: Vec<String>,
    refused: Vec<String>,
}

impl Applied {
    /// What was changed, in words, such as `rx ring: 1024 -> 8192`.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// What the driver refused, and what an earlier process left that could not be restored.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Drop rules in the NIC, when the plan asked for them (`hw-shunt=`): at most `capacity` of them.
    ///
    /// `None` when it did not; refused where the NIC has no such rules.
    pub fn hardware_shunt(&mut self, capacity: u32) -> Option<Result<HardwareShunt, Refusal>> {
        let counting = self.shunt?;
        let shunt = live()
            .map_err(|error| Refusal::because(error.to_string()))
            .and_then(|kernel| self.shunt_through(kernel, counting, capacity));
        Some(shunt)
    }

    pub(crate) fn shunt_through(
        &mut self,
        kernel: Box<dyn Kernel>,
        counting: Counting,
        capacity: u32,
    ) -> Result<HardwareShunt, Refusal> {
        let (shunt, record) = HardwareShunt::prepare(kernel, &self.nic.link, counting, capacity)?;
        self.note(record).map_err(|error| Refusal::because(error.to_string()))?;
        shunt.begin()
    }

    /// Puts back what was there, and says what could not be.
    pub fn restore(mut self) -> Vec<String> {
        self.undo()
    }

    /// On disk before it is done.
    fn note(&mut self, record: Record) -> Result<(), OffloadError> {
        if let Some(journal) = &mut self.journal {
            journal.note(&record)?;
        }
        self.records.push(record);
        Ok(())
    }

    fn make(&mut self, plan: &Plan, workers: u32) -> Result<(), OffloadError> {
        self.shunt = plan.entries.iter().find_map(|entry| match entry {
            Entry::HardwareShunt(counting) => Some(*counting),
            _ => None,
        });
        let report = self.nic.report();
        let steps = Steps::plan(&report, plan, workers);
        self.refused.extend(steps.refused.into_iter().map(|(_, sentence)| sentence));
        for (_, step) in steps.todo {
            match step {
                Step::Promiscuous => self.be_promiscuous(),
                Step::Set(ways) => self.set(&ways)?,
            }
        }
        Ok(())
    }

    fn be_promiscuous(&mut self) {
        match self.nic.netlink.kernel().promiscuous(self.nic.link.index) {
            Ok(held) => {
                self.promiscuous = Some(held);
                self.changes.push("promiscuous: on".to_owned());
            }
            Err(error) => self.refused.push(format!("promiscuous: {}", Refusal::from(error))),
        }
    }

    /// Makes the first of these settings that the driver takes.
    fn set(&mut self, ways: &[Setting]) -> Result<(), OffloadError> {
        let Some(first) = ways.first() else { return Ok(()) };
        let Nic { netlink, link } = &mut self.nic;
        let before = match first.now(netlink, link) {
            Ok(before) => before,
            Err(no) => {
                self.refused.push(format!("{}: {no}", first.name()));
                return Ok(());
            }
        };
        self.note(Record::Before(before.clone()))?;
        let mut refusals = Vec::new();
        for wanted in ways {
            match self.nic.try_set(wanted) {
                Ok(()) => {
                    self.changes.push(format!("{}: {before} -> {wanted}", wanted.name()));
                    return Ok(());
                }
                Err(no) => refusals.push(format!("{wanted} was refused: {no}")),
            }
        }
        self.refused.push(format!("{}: still {before}; {}", first.name(), refusals.join("; ")));
        Ok(())
    }

    fn undo(&mut self) -> Vec<String> {
        self.promiscuous = None;
        let records = std::mem::take(&mut self.records);
        let mut notes = self.nic.undo(&records);
        if let Some(journal) = self.journal.take() {
            notes.extend(journal.remove().err().map(|error| error.to_string()));
        }
        notes
    }
}

impl Nic {
    /// Sets it and looks whether it is so: drivers say yes to what they only do in part.
    fn try_set(&mut self, wanted: &Setting) -> Result<(), Refusal> {
        wanted.set(&mut self.netlink, &self.link)?;
        let now = wanted.now(&mut self.netlink, &self.link)?;
        match now == *wanted {
            true => Ok(()),
            false => Err(Refusal::because(format!("the driver said yes, but it is {now}"))),
        }
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        for note in self.undo() {
            tracing::warn!("{note}");
        }
    }
}

/// Restores what processes that were killed left behind, in this network namespace. Says what was done, one sentence per interface.
///
/// Files of living processes and of other network namespaces are left alone; those of another boot are removed.
pub fn restore_leftovers(state_dir: &Path) -> Result<Vec<String>, OffloadError> {
    restore_leftovers_as(state_dir, &whose()?, live)
}

pub(crate) fn restore_leftovers_as(
    state_dir: &Path,
    (boot, namespace): &(String, u64),
    connect: impl Fn() -> Result<Box<dyn Kernel>, OffloadError>,
) -> Result<Vec<String>, OffloadError> {
    let mut notes = Vec::new();
    for path in state::files(state_dir)? {
        let Found::Ours(journal, owner, records) = Journal::open(&path, false)? else { continue };
        let Some(owner) = owner else {
            // Cut before its first line was whole: nothing had been changed yet.
            journal.remove()?;
            continue;
        };
        if owner.boot == *boot && owner.namespace != *namespace {
            continue;
        }
        if owner.boot == *boot {
            let mut netlink = Netlink::new(connect()?);
            match link::by_index(&mut netlink, owner.index) {
                // It may have another name by now; the kernel gives no number twice.
                Ok(link) => {
                    notes.push(format!("{}: restored what a killed process had changed", link.name));
                    let problems = Nic { netlink, link }.undo(&records);
                    notes.extend(problems);
                }
                Err(_) => {
                    notes.push(format!("{} is gone; there is nothing to restore on it", owner.interface))
                }
            }
        }
        journal.remove()?;
    }
    Ok(notes)
}

fn live() -> Result<Box<dyn Kernel>, OffloadError> {
    Ok(Box::new(Live::connect().map_err(|error| OffloadError::Kernel(Refusal::from(error)))?))
}

/// The boot and the network namespace of the calling thread.
fn whose() -> Result<(String, u64), OffloadError> {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    const NAMESPACE: &str = "/proc/thread-self/ns/net";
    let failed = |path: &'static str| move |source| OffloadError::State { path: path.into(), source };
    let boot = std::fs::read_to_string(BOOT).map_err(failed(BOOT))?;
    let namespace = std::fs::metadata(NAMESPACE).map_err(failed(NAMESPACE))?.ino();
    Ok((boot.trim().to_owned(), namespace))
}

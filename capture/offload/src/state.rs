//! What was changed, on disk, so that it can be changed back after a crash.
//!
//! One file per interface and network namespace: a line that says whose it is, then a line before each change with
//! the value that was there. Lines are only ever appended and synced, so a crash at any moment leaves a file that tells every
//! change that was made, and at worst a last line for one that was not. The file is locked while its writer lives.

use crate::OffloadError;
use crate::setting::Setting;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Whose file it is. Another boot has other settings, and another network namespace other interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The kernel's random id of this boot.
    pub boot: String,
    /// Inode of the network namespace.
    pub namespace: u64,
    /// Interface number.
    pub index: u32,
    /// Interface name.
    pub interface: String,
}

/// Something to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// The value that was there.
    Before(Setting),
    /// Places of the ntuple table that were free and now may hold our rules.
    NtuplePlaces {
        /// The first place.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Priority of flower rules that was free and now may have ours.
    FlowerRules {
        /// The priority.
        priority: u16,
        /// The `clsact` queueing discipline was made for them.
        made_clsact: bool,
    },
}

/// A locked file of one interface.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

/// A file as it was found.
pub enum Found {
    /// Locked by us, with what is in it.
    Ours(Journal, Option<Owner>, Vec<Record>),
    /// Its writer is alive.
    Busy,
    /// It is gone by now.
    Gone,
}

impl Journal {
    /// Where the file of an interface is.
    pub fn path(dir: &Path, owner: &Owner) -> PathBuf {
        dir.join(format!("{}-{}-{}.json", owner.interface, owner.index, owner.namespace))
    }

    /// Opens a file that is there, or a new one when `create` says so, and locks it.
    pub fn open(path: &Path, create: bool) -> Result<Found, OffloadError> {
        let failed = |source| OffloadError::State { path: path.to_owned(), source };
        let options = OpenOptions::new().read(true).append(true).create(create).mode(0o600).clone();
        loop {
            let mut file = match options.open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !create => {
                    return Ok(Found::Gone);
                }
                opened => opened.map_err(failed)?,
            };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(Found::Busy),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Ok(()) => {}
            }
            // Its last owner may have removed it between our opening and locking it: then the name is another file's.
            let locked = file.metadata().map_err(failed)?.ino();
            if std::fs::metadata(path).map(|named| named.ino()).ok() != Some(locked) {
                continue;
            }
            let mut text = Vec::new();
            file.read_to_end(&mut text).map_err(failed)?;
            let (owner, records) = read(&String::from_utf8_lossy(&text));
            return Ok(Found::Ours(Self { file, path: path.to_owned() }, owner, records));
        }
    }

    /// Writes whose file it is.
    pub fn begin(&mut self, owner: &Owner) -> Result<(), OffloadError> {
        self.file.set_len(0).map_err(|source| self.failed(source))?;
        self.line(owner)
    }

    /// Writes what is to be undone; on disk when it returns.
    pub fn note(&mut self, record: &Record) -> Result<(), OffloadError> {
        self.line(record)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), OffloadError> {
        let written = serde_json::to_string(value).map_err(std::io::Error::other).and_then(|mut line| {
            line.push('\n');
            self.file.write_all(line.as_bytes())?;
            self.file.sync_data()
        });
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> OffloadError {
        OffloadError::State { path: self.path.clone(), source }
    }

    /// Removes the file: everything was undone.
    pub fn remove(self) -> Result<(), OffloadError> {
        std::fs::remove_file(&self.path).map_err(|source| self.failed(source))
    }
}

/// The whole lines of a file; a last line that was cut tells of a change that was never made.
fn read(text: &str) -> (Option<Owner>, Vec<Record>) {
    let mut lines = text.lines();
    let owner = lines.next().and_then(|line| serde_json::from_str(line).ok());
    (owner, lines.map_while(|line| serde_json::from_str(line).ok()).collect())
}

/// The state files in a directory; none when there is no such directory.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, OffloadError> {
    let failed = |source| OffloadError::State { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner() -> Owner {
        Owner { boot: "b".into(), namespace: 1, index: 2, interface: "eth7".into() }
    }

    fn open(path: &Path) -> (Journal, Option<Owner>, Vec<Record>) {
        match Journal::open(path, true).unwrap() {
            Found::Ours(journal, owner, records) => (journal, owner, records),
            _ => panic!("the file is ours"),
        }
    }

    #[test]
    fn keeps_every_record_and_ignores_a_cut_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = Journal::path(dir.path(), &owner());
        let record = Record::Before(Setting::RxRing(512));
        let (mut journal, none, _) = open(&path);
        assert_eq!(none, None);
        journal.begin(&owner()).unwrap();
        journal.note(&record).unwrap();
        journal.file.write_all(b"{\"before\":{\"rx-ri").unwrap();
        drop(journal);
        let (journal, found, records) = open(&path);
        assert_eq!((found, records), (Some(owner()), vec![record]));
        journal.remove().unwrap();
        assert!(files(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_living_owner_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = Journal::path(dir.path(), &owner());
        let (journal, ..) = open(&path);
        assert!(matches!(Journal::open(&path, true).unwrap(), Found::Busy));
        drop(journal);
        open(&path).0.remove().unwrap();
        assert!(matches!(Journal::open(&path, false).unwrap(), Found::Gone));
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(text: String) {
            let _ = read(&text);
        }
    }
}

//! Takes from this process what the engine does not need, before any of its threads starts.
//!
//! The engine is a tool that reads any file as a table, also by a mere name (``default.`/etc/passwd` ``), and writes some.
//! The kernel's Landlock (Linux 5.19 or newer) holds the process to its data directory, whatever a query says.

use super::ServeOptions;
use crate::{StoreError, engine};
use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// The newest set of rights that was tested; older kernels enforce what they know of it.
const RIGHTS: ABI = ABI::V6;

/// What the engine reads besides its data: random seeds, the time zone, this machine's own name, limits of memory and CPUs,
/// debug symbols.
const READABLE: &[&str] = &[
    "/dev/urandom",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/proc/self/cgroup",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/usr/lib/debug",
    "/usr/share/zoneinfo",
];

/// Loads the engine, so that its libraries need not be readable later, and gives up everything else. Threads that run
/// already are not held to it, so this comes first in the process.
pub(super) fn confine(options: &ServeOptions, library: &Path) -> Result<(), StoreError> {
    let data = &options.data;
    let failed = || {
        StoreError::io(format!(
            "cannot use the data directory {} (choose another with --data)",
            data.display()
        ))
    };
    std::fs::create_dir_all(data).map_err(failed())?;
    engine::preload(library)?;
    let data = PathFd::new(data).map_err(|e| failed()(std::io::Error::other(e)))?;
    let mapped = mapped_files().map_err(StoreError::io("cannot read /proc/self/maps"))?;
    match restrict(data, &mapped, options.listen.port()) {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => tracing::warn!(
            "This kernel cannot confine the store (Landlock is off or older than Linux 5.19): whoever may query it may read files of this machine"
        ),
        Ok(_) => {}
        Err(error) => {
            return Err(StoreError::io("cannot confine the store")(std::io::Error::other(error)));
        }
    }
    Ok(())
}

fn restrict(data: PathFd, mapped: &[PathBuf], port: u16) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::from_read(RIGHTS) & !AccessFs::Execute;
    let read_write = AccessFs::from_all(RIGHTS) & !AccessFs::Execute;
    Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?
        .add_rule(PathBeneath::new(data, read_write))?
        .add_rules(path_beneath_rules(READABLE, read))?
        .add_rules(path_beneath_rules(mapped, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
        .add_rule(NetPort::new(port, AccessNet::BindTcp))?
        .restrict_self()
}

/// This program, the engine and their libraries, with debug symbols beside them: the engine reads the symbols of all for the
/// stack trace of its first error.
fn mapped_files() -> std::io::Result<Vec<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut files: Vec<PathBuf> =
        maps.lines().filter_map(|line| Some(PathBuf::from(line.get(line.find('/')?..)?))).collect();
    files.dedup();
    let symbols: Vec<_> = files.iter().map(|file| file.with_extension("debug")).collect();
    files.extend(symbols);
    Ok(files)
}

//! Why a program cannot be loaded or attached.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The process may not load or attach programs.
    #[error(
        "no permission to load eBPF programs; run as root, or run \
         `setcap cap_bpf,cap_perfmon,cap_net_admin,cap_net_raw,cap_ipc_lock,cap_sys_ptrace,cap_sys_nice+ep` on the program once"
    )]
    NoPrivilege,
    /// Another XDP program is on the interface.
    #[error("interface {interface} has an XDP program already; stop what uses it (`bpftool net` names it)")]
    InterfaceBusy {
        /// Its name.
        interface: String,
    },
    /// The kernel takes no programs at all.
    #[error(
        "no eBPF program can be loaded ({reason}); use a kernel that is built with CONFIG_BPF_SYSCALL, and let nothing (a \
         container's seccomp profile) keep wirespan from bpf(2)"
    )]
    NoPrograms {
        /// What the kernel said.
        reason: String,
    },
    /// The kernel does not take the program.
    #[error(
        "this kernel does not take the eBPF program ({reason}); Linux 5.12 or newer is needed, for processes alone 5.8"
    )]
    Load {
        /// What the kernel said.
        reason: String,
    },
    /// The interface takes no XDP program.
    #[error("interface {interface} takes no XDP program ({reason}); capture with AF_PACKET instead")]
    Attach {
        /// Its name.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel does not run the program on frames that are made up.
    #[error("cannot make traffic ({reason}); Linux 5.18 or newer, and root, are needed")]
    Run {
        /// What the kernel said.
        reason: String,
    },
    /// A filter has more rules than there is room for.
    #[error("the filter has {entries} {what}; at most {max} are possible, so sum them up in fewer")]
    FilterTooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        entries: usize,
        /// How many are possible.
        max: usize,
    },
    /// The kernel does not say how its structures are laid out.
    #[error(
        "system calls cannot be traced: no type information of the kernel in {} ({reason}); use a kernel that is built with \
         CONFIG_DEBUG_INFO_BTF", path.display()
    )]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// A program or library cannot be probed.
    #[error("cannot probe {} at offset {offset:#x}: {reason}", file.display())]
    Uprobe {
        /// The program or library.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What the kernel said.
        reason: String,
    },
    /// A map of a running program cannot be changed.
    #[error("cannot change a map of the eBPF program: {reason}")]
    Map {
        /// What the kernel said.
        reason: String,
    },
}

impl BpfError {
    pub(crate) fn load(error: &(dyn Error + 'static)) -> Self {
        match errno(error) {
            Some(EPERM | EACCES) => Self::NoPrivilege,
            _ => Self::Load { reason: text(error) },
        }
    }

    pub(crate) fn attach(interface: &str, error: &(dyn Error + 'static)) -> Self {
        let interface = interface.to_owned();
        match errno(error) {
            Some(EPERM | EACCES) => Self::NoPrivilege,
            Some(EBUSY | EEXIST) => Self::InterfaceBusy { interface },
            _ => Self::Attach { interface, reason: text(error) },
        }
    }

    pub(crate) fn run(error: &(dyn Error + 'static)) -> Self {
        Self::Run { reason: text(error) }
    }

    /// What the kernel said.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Load { reason }
            | Self::Attach { reason, .. }
            | Self::Run { reason }
            | Self::Map { reason } => reason.clone(),
            other => other.to_string(),
        }
    }

    pub(crate) fn map(error: &(dyn Error + 'static)) -> Self {
        Self::Map { reason: text(error) }
    }
}

// Numbers of asm-generic/errno-base.h, which is all that is needed of libc here.
const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

/// The first line of each cause: a verifier's log is long, and its end is not what a user can act on.
pub(crate) fn text(error: &(dyn Error + 'static)) -> String {
    let mut lines: Vec<_> =
        causes(error).filter_map(|cause| cause.to_string().lines().next().map(str::to_owned)).collect();
    // Some say what their cause says too.
    lines.dedup_by(|cause, said| said.contains(cause.as_str()));
    lines.join(": ")
}

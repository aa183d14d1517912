//! What the kernel and the machine have for capture. Only files are read.

use crate::OffloadError;
use crate::kernel::{Kernel, Live};
use crate::refusal::Refusal;
use serde::Serialize;

/// The kernel and the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processors that are online, as the kernel lists them, such as `0-15`.
    pub cpus: String,
    /// NUMA nodes, such as `0-1`.
    pub numa_nodes: String,
    /// The kernel's types are there, so CO-RE programs can be loaded.
    pub btf: bool,
    /// BPF programs are compiled to machine code.
    pub bpf_jit: bool,
    /// AF_XDP sockets can be made.
    pub af_xdp: bool,
    /// Of the capabilities that capture needs, those that this process has.
    pub capabilities: Vec<&'static str>,
    /// And those that it lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Huge pages by size.
    pub huge_pages: Vec<HugePages>,
    /// When the kernel makes huge pages by itself: `always`, `madvise`, `never`; `None` where it cannot.
    pub transparent_huge_pages: Option<String>,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HugePages {
    /// Size of a page.
    pub kib: u64,
    /// Pages set aside.
    pub total: u64,
    /// Pages that nobody uses.
    pub free: u64,
}

impl Machine {
    /// Reads what there is.
    pub fn read() -> Result<Self, OffloadError> {
        let mut kernel = Live::connect().map_err(|error| OffloadError::Kernel(Refusal::from(error)))?;
        Ok(Self::of(&mut kernel))
    }

    pub(crate) fn of(kernel: &mut dyn Kernel) -> Self {
        let mut read = |path: &str| kernel.read(path).ok();
        let status = read("/proc/self/status").unwrap_or_default();
        let (capabilities, missing_capabilities) = capabilities(&status);
        let protocols = read("/proc/net/protocols").unwrap_or_default();
        let thp = read("/sys/kernel/mm/transparent_hugepage/enabled");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            cpus: read("/sys/devices/system/cpu/online").unwrap_or_default(),
            numa_nodes: read("/sys/devices/system/node/online").unwrap_or_else(|| "0".to_owned()),
            bpf_jit: read("/proc/sys/net/core/bpf_jit_enable").is_some_and(|value| value != "0"),
            af_xdp: protocols.lines().any(|line| line.split_whitespace().next() == Some("XDP")),
            capabilities,
            missing_capabilities,
            transparent_huge_pages: thp.as_deref().and_then(chosen),
            btf: kernel.list("/sys/kernel/btf").is_ok_and(|files| files.iter().any(|file| file == "vmlinux")),
            huge_pages: huge_pages(kernel),
        }
    }
}

/// The effective capabilities among those that capture needs (linux/capability.h).
fn capabilities(status: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    const NEEDED: [(&str, u32); 5] = [
        ("CAP_NET_ADMIN", 12),
        ("CAP_NET_RAW", 13),
        ("CAP_IPC_LOCK", 14),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ];
    let mask = wirespan_bpf::effective_capabilities(status);
    let (has, lacks): (Vec<_>, Vec<_>) = NEEDED.iter().partition(|(_, bit)| mask & (1 << bit) != 0);
    let names = |list: Vec<&(&'static str, u32)>| list.into_iter().map(|(name, _)| *name).collect();
    (names(has), names(lacks))
}

/// The word in brackets of `always [madvise] never`.
fn chosen(words: &str) -> Option<String> {
    let (_, rest) = words.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn huge_pages(kernel: &mut dyn Kernel) -> Vec<HugePages> {
    const DIR: &str = "/sys/kernel/mm/hugepages";
    let mut pages = Vec::new();
    for name in kernel.list(DIR).unwrap_or_default() {
        let size = name.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB"));
        let Some(kib) = size.and_then(|size| size.parse().ok()) else { continue };
        let mut number = |file| {
            kernel.read(&format!("{DIR}/{name}/{file}")).ok().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        pages.push(HugePages { kib, total: number("nr_hugepages"), free: number("free_hugepages") });
    }
    pages.sort_by_key(|size| size.kib);
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_capabilities_from_the_mask() {
        let (has, lacks) = capabilities("Name:\tx\nCapEff:\t0000008000003000\n");
        assert_eq!(has, ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(lacks, ["CAP_IPC_LOCK", "CAP_PERFMON"]);
        assert_eq!(capabilities("").0, [""; 0]);
    }

    #[test]
    fn reads_the_word_in_brackets() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }
}

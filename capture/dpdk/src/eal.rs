//! Starting DPDK's environment abstraction layer (EAL), once per process.

use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::DpdkError;
use crate::error::errno_text;
use crate::sys;

/// Most that is kept of what DPDK says while it starts.
const SAID_BYTES: usize = 4096;

/// How DPDK is started; each goes to the EAL as the option that is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EalOptions {
    /// Ordinary pages in place of huge pages (`--no-huge`): for virtual devices only, a NIC cannot write there.
    pub no_huge: bool,
    /// Leave NICs alone (`--no-pci`).
    pub no_pci: bool,
    /// Virtual devices with their arguments, such as `net_pcap0,rx_pcap=FILE` (`--vdev`).
    pub vdevs: Vec<String>,
    /// Memory for all ports in MiB (`-m`); without huge pages 256 unless told, else as needed.
    pub memory_mib: Option<u32>,
    /// Shares the process's state in files under this name, so that DPDK's tools can attach (`--file-prefix`).
    /// Without it nothing is written, and nothing is left behind after a crash (`--in-memory` or `--no-shconf`).
    pub file_prefix: Option<String>,
    /// CPUs of the EAL's own thread, such as `2-3` (`--lcores`); all that the process may use unless told. Workers run
    /// where their own threads run.
    pub lcores: Option<String>,
    /// Further options as they are, such as `--allow=0000:3b:00.0`.
    pub further: Vec<String>,
}

impl EalOptions {
    /// The options of a command line. Without huge pages others change too, so that option is known.
    pub fn of_command_line(words: &str) -> Self {
        let is_no_huge = |word: &&str| *word == "--no-huge";
        let (no_huge, further): (Vec<_>, Vec<_>) = words.split_whitespace().partition(is_no_huge);
        let further = further.into_iter().map(str::to_owned).collect();
        Self { no_huge: !no_huge.is_empty(), further, ..Self::default() }
    }

    fn arguments(&self, allowed_cpus: &str) -> Vec<String> {
        let mut arguments = vec!["wirespan".to_owned()];
        let mut add = |argument: String| arguments.push(argument);
        add(format!("--lcores=0@({})", self.lcores.as_deref().unwrap_or(allowed_cpus)));
        if self.no_huge {
            add("--no-huge".to_owned());
        }
        if self.no_pci {
            add("--no-pci".to_owned());
        }
        if let Some(mib) = self.memory_mib.or(self.no_huge.then_some(256)) {
            add("-m".to_owned());
            add(mib.to_string());
        }
        match &self.file_prefix {
            Some(prefix) => add(format!("--file-prefix={prefix}")),
            None => {
                // Without huge pages there is no file of memory, and the EAL refuses the stronger option.
                add(if self.no_huge { "--no-shconf" } else { "--in-memory" }.to_owned());
                add("--no-telemetry".to_owned());
            }
        }
        self.vdevs.iter().for_each(|vdev| add(format!("--vdev={vdev}")));
        self.further.iter().for_each(|option| add(option.clone()));
        arguments
    }
}

/// The CPUs that this process may use, as the kernel lists them: `0-3,8`.
fn allowed_cpus() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cpus.map_or_else(|| "0".to_owned(), |cpus| cpus.trim().to_owned())
}

/// Shows that DPDK runs.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

/// With which options DPDK was started, and whether it runs; also what it said though it runs.
static STARTED: Mutex<Option<(EalOptions, Outcome)>> = Mutex::new(None);

/// `Err` is why it does not run; `Ok` may hold a complaint, such as of a virtual device that it could not make.
type Outcome = Result<Option<String>, String>;

impl Eal {
    /// Starts DPDK, which works once per process; again with the same options, it runs already.
    pub fn start(options: &EalOptions) -> Result<Self, DpdkError> {
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*started {
            None => {}
            Some((_, Err(_))) => return Err(DpdkError::FailedBefore),
            Some((before, Ok(_))) if before == options => return Ok(Self(())),
            Some(_) => return Err(DpdkError::OtherOptions),
        }
        let arguments = options.arguments(&allowed_cpus()).into_iter().map(|option| {
            CString::new(option).map_err(|error| DpdkError::ZeroByte {
                option: String::from_utf8_lossy(&error.into_vec()).into_owned(),
            })
        });
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        // The EAL binds the thread that starts it to a CPU, so this is not the caller's.
        let result = thread::scope(|scope| scope.spawn(|| init(arguments)).join());
        let result = result.unwrap_or_else(|_| Err("its start was interrupted".to_owned()));
        *started = Some((options.clone(), result.clone()));
        result.map_err(|said| DpdkError::Eal { advice: advice(&said), said }).map(|_| Self(()))
    }

    /// What DPDK complained of when it started.
    pub(crate) fn complaint(self) -> Option<String> {
        let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        started.as_ref().and_then(|(_, outcome)| outcome.clone().ok().flatten())
    }
}

/// Starts the EAL, or says why it did not start.
fn init(arguments: Vec<CString>) -> Outcome {
    // The EAL keeps pointers to its arguments.
    let arguments: &'static mut [*mut c_char] =
        Vec::leak(arguments.into_iter().map(CString::into_raw).chain([std::ptr::null_mut()]).collect());
    let count = arguments.len() as c_int - 1;
    let log = LogCollector::begin();
    // SAFETY: `count` strings and a null pointer behind them, which live as long as the process.
    let result = unsafe { sys::ws_eal_init(count, arguments.as_mut_ptr()) };
    let said = log.end();
    if result < 0 { Err(said.unwrap_or_else(|| errno_text(result))) } else { Ok(said) }
}

fn advice(said: &str) -> &'static str {
    let mentions = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if mentions(&["hugepage", "hugetlb", "huge page"]) {
        "reserve huge pages (deploy/dpdk.md), or start it without huge pages when all devices are virtual"
    } else if mentions(&["unrecognized option", "invalid option", "requires an argument"]) {
        "see the EAL parameters in DPDK's guide for Linux"
    } else if mentions(&["vdev", "driver", "device"]) {
        "check the name and the arguments of the device"
    } else if mentions(&["memory", "alloc", "memseg"]) {
        "give it more memory"
    } else if mentions(&["core ", "cpu", "CPU"]) {
        "choose among the CPUs that this process may use"
    } else {
        "check its options"
    }
}

/// Keeps what DPDK and the drivers say during one call, for the text of an error.
pub(crate) struct LogCollector(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl LogCollector {
    pub(crate) fn begin() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: no memory is involved.
        unsafe { sys::ws_log_collect() };
        Self(one)
    }

    /// The first that was said, which is nearest to the cause.
    pub(crate) fn end(self) -> Option<String> {
        let mut said = vec![0; SAID_BYTES];
        // SAFETY: as much room as is stated.
        let len = unsafe { sys::ws_log_take(said.as_mut_ptr(), said.len()) };
        first_message(&String::from_utf8_lossy(said.get(..len).unwrap_or_default()))
    }
}

/// `EAL: Cannot do it` without the name in front and what follows in further lines.
fn first_message(said: &str) -> Option<String> {
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    let message = line.split_once(": ").map_or(line, |(_, message)| message);
    let message = message.strip_prefix("FATAL: ").unwrap_or(message);
    Some(message.trim_end_matches(['.', '!', ':']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments_of_the_eal() {
        let options = EalOptions {
            no_huge: true,
            no_pci: true,
            vdevs: vec!["net_null0,size=64".to_owned()],
            further: vec!["--iova-mode=va".to_owned()],
            ..EalOptions::default()
        };
        assert_eq!(
            options.arguments("0-1").join(" "),
            "wirespan --lcores=0@(0-1) --no-huge --no-pci -m 256 --no-shconf --no-telemetry --vdev=net_null0,size=64 \
             --iova-mode=va"
        );
        let options = EalOptions {
            memory_mib: Some(2048),
            file_prefix: Some("tap".to_owned()),
            lcores: Some("2,3".to_owned()),
            ..EalOptions::default()
        };
        assert_eq!(options.arguments("0-1").join(" "), "wirespan --lcores=0@(2,3) -m 2048 --file-prefix=tap");
    }

    #[test]
    fn an_option_with_a_zero_byte_is_refused_before_dpdk_sees_it() {
        let options = EalOptions { vdevs: vec!["net\0null".to_owned()], ..EalOptions::default() };
        assert!(matches!(Eal::start(&options), Err(DpdkError::ZeroByte { .. })));
    }

    #[test]
    fn the_first_message_is_the_reason() {
        assert_eq!(first_message("EAL: Cannot do it!\nEAL: gives up\n").as_deref(), Some("Cannot do it"));
        assert_eq!(first_message("\n"), None);
    }
}

//! What to probe in a file.

use std::collections::BTreeSet;
use std::fmt;

use super::elf::{ElfError, Function, Image, ReadAt};
use super::go;
use super::python::{self, Python};
use super::returns::{self, ReturnsError};

/// A TLS implementation whose calls are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Library {
    /// OpenSSL, BoringSSL and others with its functions, in a library of their own or in the program.
    OpenSsl,
    /// GnuTLS.
    GnuTls,
    /// Go's `crypto/tls`.
    GoTls,
}

impl fmt::Display for Library {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::OpenSsl => "OpenSSL",
            Self::GnuTls => "GnuTLS",
            Self::GoTls => "Go crypto/tls",
        })
    }
}

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Name of the eBPF program.
    pub program: &'static str,
    /// Of an instruction in the file.
    pub offset: u64,
}

/// How the ends of calls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Probes on return instructions.
    Instructions,
    /// Return probes of the kernel.
    ReturnProbes,
}

/// What is to be done with a file.
#[derive(Debug)]
pub struct Plan {
    /// What it has; `None` when only work is followed, of goroutines and Python's tasks.
    pub library: Option<Library>,
    /// Functions, and where to attach. Ends of calls come before their beginnings, so that none is left open.
    pub functions: Vec<(&'static str, Vec<Probe>)>,
    /// How the ends of calls are seen.
    pub ends: Ends,
    /// For programs of Go, and for Python.
    pub go: Option<GoProgram>,
    /// What is missing, and why.
    pub missing: Vec<String>,
}

/// A program whose coroutines are known, of Go or Python: its version, and where the running one's number is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoProgram {
    /// As it says itself, `go1.19.8`.
    pub version: String,
    /// Where the pointer to the running `g`, or to the state of a thread of Python, is from the thread pointer, bytes; `None` when that is unknown.
    pub g: Option<i32>,
    /// Where in that the number is, or the pointer that is taken for one, bytes.
    pub goid: u32,
    /// Where in that the thread pointer is, bytes: tells whether it is one at all.
    pub self_at: Option<u32>,
}

/// Which return probes of the kernel may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnProbes {
    /// They do no harm, and cost less than a probe on a return instruction, which the processor has to step over.
    Safe,
    /// They make a system call that seccomp filters kill a process for: Linux 6.11 to 6.13.
    Unsafe,
}

impl ReturnProbes {
    /// By the kernel's release, `6.12.9-amd64`.
    pub fn of_release(release: &str) -> Self {
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(6), Some(11..=13)) => Self::Unsafe,
            _ => Self::Safe,
        }
    }
}

/// A function of a C library: its name, the program at its entry, whether its end matters.
type Call = (&'static str, &'static str, bool);

const OPENSSL: [Call; 5] = [
    ("SSL_read", "ssl_read", true),
    ("SSL_read_ex", "ssl_read_ex", true),
    ("SSL_write", "ssl_write", true),
    ("SSL_write_ex", "ssl_write_ex", true),
    ("SSL_free", "ssl_free", false),
];
const GNUTLS: [Call; 3] = [
    ("gnutls_record_recv", "gnutls_recv", true),
    ("gnutls_record_send", "gnutls_send", true),
    ("gnutls_deinit", "gnutls_deinit", false),
];
const GO_TLS: [Call; 3] = [
    ("crypto/tls.(*Conn).Read", "go_tls_read", true),
    ("crypto/tls.(*Conn).Write", "go_tls_write", true),
    ("crypto/tls.(*Conn).Close", "go_tls_close", false),
];
/// Which goroutine works for which.
const GO_WORK: [Call; 4] = [
    ("net/http.(*persistConn).roundTrip", "go_round_trip", false),
    ("net/http.persistConnWriter.Write", "go_request_write", false),
    ("net/http.persistConnWriter.ReadFrom", "go_request_write", false),
    ("runtime.newproc1", "go_newproc", true),
];

/// What to probe in a file; `None` when there is nothing.
///
/// # Errors
/// [`ElfError`] of a file that is none, or is malformed.
pub fn plan(file: &dyn ReadAt, return_probes: ReturnProbes) -> Result<Option<Plan>, ElfError> {
    let image = Image::read(file)?;
    if let Some(version) = go::version(&image)? {
        return go_plan(&image, version).map(Some);
    }
    let mut plan = Plan::new();
    for (library, calls) in [(Library::OpenSsl, &OPENSSL[..]), (Library::GnuTls, &GNUTLS[..])] {
        plan.add_c_library(&image, library, calls, return_probes)?;
    }
    plan.add_python(&image)?;
    plan.add_python_queue(&image)?;
    Ok((!plan.functions.is_empty() || !plan.missing.is_empty()).then_some(plan))
}

fn go_plan(image: &Image<'_>, version: String) -> Result<Plan, ElfError> {
    let mut plan = Plan::new();
    let Some(numbers) = go::numbers(&version).filter(|numbers| *numbers >= go::OLDEST) else {
        plan.missing.push(format!("{version} is too old: Go 1.18 or newer is needed"));
        return Ok(plan);
    };
    if numbers > go::NEWEST {
        plan.missing.push(format!("{version} is newer than this program: goroutine numbers may be wrong"));
    }
    let g = go::g_offset(image)?;
    if g.is_none() {
        plan.missing.push("goroutine numbers of system calls: linked with C, and stripped".to_owned());
    }
    plan.go = Some(GoProgram { version, g, goid: go::goid_offset(numbers), self_at: None });
    let names: Vec<_> = GO_TLS.iter().chain(&GO_WORK).map(|(name, ..)| *name).collect();
    let found = match go::functions(image, &names) {
        Ok(found) => found,
        Err(error) => {
            plan.missing.push(error.to_string());
            return Ok(plan);
        }
    };
    for (&(name, program, has_end), function) in GO_TLS.iter().chain(&GO_WORK).zip(found) {
        let Some(function) = function else { continue };
        let end = if program == "go_newproc" { "go_newproc_return" } else { "go_tls_return" };
        let ends = if has_end { go_ends(image, function) } else { Ok(Vec::new()) };
        match ends {
            Ok(ends) => {
                plan.add(image, name, program, function, end, &ends);
                if program == "go_tls_read" {
                    plan.library = Some(Library::GoTls);
                }
            }
            Err(error) => plan.missing.push(format!("{name}: {error}")),
        }
    }
    Ok(plan)
}

fn go_ends(image: &Image<'_>, function: Function) -> Result<Vec<u64>, ReturnsError> {
    returns::between(image, function.address, function.address.saturating_add(function.size))
}

impl Plan {
    fn new() -> Self {
        Self { library: None, functions: Vec::new(), ends: Ends::Instructions, go: None, missing: Vec::new() }
    }

    fn add_c_library(
        &mut self,
        image: &Image<'_>,
        library: Library,
        calls: &[Call],
        return_probes: ReturnProbes,
    ) -> Result<(), ElfError> {
        let names: Vec<_> = calls.iter().map(|(name, ..)| *name).collect();
        let found = image.functions(&names)?;
        let mut seen = BTreeSet::new();
        for (&(name, program, has_end), function) in calls.iter().zip(found) {
            let Some(function) = function else { continue };
            if has_end && return_probes == ReturnProbes::Safe {
                self.ends = Ends::ReturnProbes;
                self.add(image, name, program, function, "tls_after_return", &[function.address]);
                self.library = Some(library);
                continue;
            }
            let ends = if has_end { returns::reachable(image, function.address) } else { Ok(Vec::new()) };
            match ends {
                Ok(mut ends) => {
                    // Functions that end in the same one share its returns.
                    ends.retain(|end| seen.insert(*end));
                    self.add(image, name, program, function, "tls_at_return", &ends);
                }
                Err(error) => {
                    self.missing.push(format!(
                        "{name}: {error}, and return probes of Linux 6.11 to 6.13 harm sandboxed programs"
                    ));
                    continue;
                }
            }
            self.library = Some(library);
        }
        Ok(())
    }

    fn add_python_queue(&mut self, image: &Image<'_>) -> Result<(), ElfError> {
        let Some(queue) = python::queue(image)? else { return Ok(()) };
        let mut ends = Vec::new();
        for get in queue.gets {
            match returns::reachable(image, get) {
                Ok(returns) => ends.extend(returns),
                Err(error) => {
                    self.missing.push(format!("work that queues of Python hand on: {error}"));
                    return Ok(());
                }
            }
        }
        ends.sort_unstable();
        ends.dedup();
        let probe = |program, address| Some(Probe { program, offset: image.file_offset(address)? });
        let gets = ends.into_iter().filter_map(|end| probe("python_got", end)).collect();
        let puts = queue.puts.into_iter().filter_map(|put| probe("python_put", put)).collect();
        self.functions.extend([("SimpleQueue.get", gets), ("SimpleQueue.put", puts)]);
        Ok(())
    }

    fn add_python(&mut self, image: &Image<'_>) -> Result<(), ElfError> {
        match python::interpreter(image)? {
            None => {}
            Some(Python::Unknown(version)) => self.missing.push(format!("tasks of {version}")),
            Some(Python::Known(program)) => {
                let function = image.functions(&[python::COPY])?.pop().flatten();
                let Some(function) = function else { return Ok(()) };
                match returns::reachable(image, function.address) {
                    Ok(ends) => {
                        let probes = ends.iter().filter_map(|address| {
                            Some(Probe { program: "python_context", offset: image.file_offset(*address)? })
                        });
                        self.functions.push((python::COPY, probes.collect()));
                        self.go = Some(program);
                    }
                    Err(error) => self.missing.push(format!("{}: {error}", python::COPY)),
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        image: &Image<'_>,
        name: &'static str,
        program: &'static str,
        function: Function,
        end: &'static str,
        ends: &[u64],
    ) {
        let ends = ends.iter().map(|address| (end, *address));
        let probes = ends
            .chain([(program, function.address)])
            .filter_map(|(program, address)| Some(Probe { program, offset: image.file_offset(address)? }));
        self.functions.push((name, probes.collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_probes_are_left_alone_where_they_do_harm() {
        for (release, expected) in [
            ("5.15.0-91-generic", ReturnProbes::Safe),
            ("6.10.3", ReturnProbes::Safe),
            ("6.11.0-8-generic", ReturnProbes::Unsafe),
            ("6.13.7\n", ReturnProbes::Unsafe),
            ("6.14.0", ReturnProbes::Safe),
        ] {
            assert_eq!(ReturnProbes::of_release(release), expected, "{release}");
        }
    }

    /// The queue of this host's Python.
    #[test]
    fn methods_of_a_queue_are_found() {
        let version = std::fs::read_dir("/usr/lib").unwrap().flatten().find_map(|entry| {
            let modules = entry.path().join("lib-dynload").read_dir().ok()?.flatten();
            modules.map(|module| module.path()).find(|path| path.to_string_lossy().contains("/_queue."))
        });
        let Some(path) = version else {
            assert!(std::env::var_os("CI").is_none(), "needs the queue of Python; install python3");
            eprintln!("skipped: needs the queue of Python");
            return;
        };
        let bytes = std::fs::read(path).unwrap();
        let plan = super::plan(&&bytes[..], ReturnProbes::Unsafe).unwrap().unwrap();
        assert_eq!(plan.missing, Vec::<String>::new());
        let [("SimpleQueue.get", gets), ("SimpleQueue.put", puts)] = &plan.functions[..] else {
            panic!("{:?}", plan.functions)
        };
        assert!(!gets.is_empty() && gets.iter().all(|get| bytes[get.offset as usize] == 0xc3), "{gets:?}");
        assert_eq!(puts.len(), 2);
        for cut in (0..bytes.len()).step_by(97) {
            let _ = super::plan(&&bytes[..cut], ReturnProbes::Unsafe);
        }
    }

    /// The OpenSSL of this host.
    #[test]
    fn returns_of_a_real_library_are_return_instructions() {
        let path = std::path::Path::new("/usr/lib/x86_64-linux-gnu/libssl.so.3");
        let Ok(bytes) = std::fs::read(path) else {
            assert!(std::env::var_os("CI").is_none(), "needs {}; install openssl", path.display());
            eprintln!("skipped: needs {}", path.display());
            return;
        };
        let plan = super::plan(&&bytes[..], ReturnProbes::Unsafe).unwrap().unwrap();
        assert_eq!((plan.library, plan.ends), (Some(Library::OpenSsl), Ends::Instructions));
        assert_eq!(plan.missing, Vec::<String>::new());
        let names: Vec<_> = plan.functions.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, OPENSSL.map(|(name, ..)| name));
        let (ends, entries): (Vec<Probe>, Vec<Probe>) = plan
            .functions
            .into_iter()
            .flat_map(|(_, probes)| probes)
            .partition(|probe| probe.program == "tls_at_return");
        assert_eq!(entries.len(), OPENSSL.len());
        assert!(ends.len() >= 4);
        assert!(ends.iter().all(|end| bytes[end.offset as usize] == 0xc3));
        // The same file, cut anywhere, is refused or read as far as it goes.
        for cut in (0..bytes.len()).step_by(997) {
            let _ = super::plan(&&bytes[..cut], ReturnProbes::Unsafe);
        }
    }
}

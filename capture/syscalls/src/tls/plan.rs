//! What to probe in a file.

use std::collections::BTreeSet;
use std::fmt;

use iced_x86::Register;
use wirespan_bpf::tracer::{GoResult, GoWord};

use super::elf::{ElfError, Function, Image, ReadAt};
use super::entry;
use super::go;
use super::python::{self, Python};
use super::results::{self, Known, Place, Work};
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
    /// Where the result of the call is, for the program that reads it there.
    pub result: Option<GoResult>,
}

/// How the ends of calls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Probes on return instructions.
    Instructions,
    /// Probes on instructions before those, where the result is known.
    Results,
    /// Return probes of the kernel.
    ReturnProbes,
}

/// What is to be done with a file.
#[derive(Debug)]
pub struct Plan {
    /// What it has; `None` when only work is followed, of goroutines, Python's tasks and Node.js.
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
    /// They make a system call that seccomp filters kill a process for: Linux 6.11 to 6.13, but for 6.12 from its update 14 on.
    Unsafe,
}

/// What probes of the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Which return probes may be used.
    pub return_probes: ReturnProbes,
    /// A probe's program can read something that is its own: Linux 5.15 and newer.
    pub cookies: bool,
}

impl Kernel {
    /// By its release, `6.12.9-amd64`.
    pub fn of_release(release: &str) -> Self {
        let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse::<u32>().ok());
        let mut number = || numbers.next().unwrap_or(0);
        let (version, update) = ((number(), number()), number());
        let harms = match version {
            (6, 12) => update < 14,
            version => version == (6, 11) || version == (6, 13),
        };
        Self {
            return_probes: if harms { ReturnProbes::Unsafe } else { ReturnProbes::Safe },
            cookies: version >= (5, 15),
        }
    }
}

/// A function: its name, the program at its entry, whether its end matters.
type Call = (&'static str, &'static str, bool);

const OPENSSL: [Call; 6] = [
    ("SSL_read", "ssl_read", true),
    ("SSL_read_ex", "ssl_read_ex", true),
    ("SSL_write", "ssl_write", true),
    ("SSL_write_ex", "ssl_write_ex", true),
    ("SSL_sendfile", "ssl_sendfile", true),
    ("SSL_free", "ssl_free", false),
];
/// The programs at the end of their calls: as a return probe, and on return instructions.
const TLS_ENDS: (&str, &str) = ("tls_after_return", "tls_at_return");
const GNUTLS: [Call; 3] = [
    ("gnutls_record_recv", "gnutls_recv", true),
    ("gnutls_record_send", "gnutls_send", true),
    ("gnutls_deinit", "gnutls_deinit", false),
];
/// Functions of Go, and the programs at their entries.
const GO_TLS: [(&str, &str); 3] = [
    ("crypto/tls.(*Conn).Read", "go_tls_read"),
    ("crypto/tls.(*Conn).Write", "go_tls_write"),
    ("crypto/tls.(*Conn).Close", "go_tls_close"),
];
/// Which goroutine works for which. That they are made is told once, and comes before all but what says better what for.
const GO_WORK: [(&str, &str); 7] = [
    ("google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams", "go_grpc_reads"),
    ("google.golang.org/grpc.(*Server).handleStream", "go_grpc_handles"),
    ("runtime.newproc1", "go_newproc"),
    ("net/http.(*persistConn).roundTrip", "go_round_trip"),
    ("net/http.persistConnWriter.Write", "go_request_write"),
    ("net/http.persistConnWriter.ReadFrom", "go_request_write"),
    ("google.golang.org/grpc/internal/transport.(*loopyWriter).originateStream", "go_grpc_stream"),
];

/// Who asks for a request of gRPC, and what that calls to hand it over to the goroutine that writes for all.
const GRPC_PUT: [&str; 2] = [
    "google.golang.org/grpc/internal/transport.(*http2Client).NewStream",
    "google.golang.org/grpc/internal/transport.(*controlBuffer).executeAndPut",
];

/// What the loop of Node.js is at: what is run, and the program.
const NODE: [(&str, &str, &str); 6] = [
    ("timers", "_ZN4node11Environment9RunTimersEP10uv_timer_s", "node_timers"),
    (
        "frames of HTTP/2",
        "_ZN4node5http212Http2Session14OnFrameReceiveEP15nghttp2_sessionPK13nghttp2_framePv",
        "node_frame",
    ),
    (
        "data of HTTP/2",
        "_ZN4node5http212Http2Session19OnDataChunkReceivedEP15nghttp2_sessionhiPKhmPv",
        "node_chunk",
    ),
    (
        "sessions of HTTP/2",
        "_ZN4node5http212Http2SessionC1EPNS0_10Http2StateEN2v85LocalINS4_6ObjectEEENS0_11SessionTypeE",
        "node_session",
    ),
    ("sending of HTTP/2", "_ZN4node5http212Http2Session15SendPendingDataEv", "node_sends"),
    (
        "streams of HTTP/2",
        "_ZN4node5http211Http2StreamC1EPNS0_12Http2SessionEN2v85LocalINS4_6ObjectEEEi24nghttp2_headers_categoryi",
        "node_stream",
    ),
];

/// Those whose ends matter: what does their work, where it is not part of them; the programs where their results are known, and
/// on their return instructions.
const GO_ENDS: [(&str, Work<'_>, &str, &str); 3] = [
    (
        "crypto/tls.(*Conn).Read",
        Work::Of(&["bytes.(*Reader).Read", "runtime.memmove"]),
        "go_tls_known",
        "go_tls_return",
    ),
    (
        "crypto/tls.(*Conn).Write",
        Work::Of(&["crypto/tls.(*Conn).writeRecordLocked"]),
        "go_tls_known",
        "go_tls_return",
    ),
    // It gives the goroutine its number before it calls what traces that there is one.
    ("runtime.newproc1", Work::Calls, "go_newproc_known", "go_newproc_return"),
];

/// Two functions that may leave their work to a third, which is then probed for both; and the program for each register that
/// may have the address of the number of bytes.
struct Shared {
    plain: &'static str,
    ex: &'static str,
    both: &'static str,
    programs: &'static [(Register, &'static str)],
}

const OPENSSL_SHARED: [Shared; 2] = [
    Shared {
        plain: "SSL_read",
        ex: "SSL_read_ex",
        both: "SSL_read and SSL_read_ex",
        programs: &[(Register::RCX, "ssl_read_ex")],
    },
    Shared {
        plain: "SSL_write",
        ex: "SSL_write_ex",
        both: "SSL_write and SSL_write_ex",
        // Since OpenSSL 3.3 there are flags before it.
        programs: &[(Register::RCX, "ssl_write_ex"), (Register::R8, "ssl_write_ex2")],
    },
];

/// What the program at a function's entry reads.
fn kept(program: &str) -> &'static [Register] {
    use Register::{R8, R9, R14, RAX, RBX, RCX, RDI, RDX, RSI, RSP};
    match program {
        "ssl_read_ex" | "ssl_write_ex" => &[RSP, RDI, RSI, RCX],
        "ssl_write_ex2" => &[RSP, RDI, RSI, R8],
        // What only return probes read is not there yet.
        "python_copied" | "python_taken" => &[RSP],
        "node_frame" => &[RSI, RDX],
        "node_chunk" => &[RDX, R9],
        "node_stream" => &[RSI, RCX, R8],
        "go_newproc" => &[RBX, RCX],
        "go_grpc_stream" => &[RBX, RCX, R14],
        "go_grpc_handles" => &[RCX, RDI, R14],
        program if program.starts_with("go_") => &[RSP, RAX, RBX, R14],
        _ => &[RSP, RDI, RSI],
    }
}

/// What to probe in a file; `None` when there is nothing.
///
/// # Errors
/// [`ElfError`] of a file that is none, or is malformed.
pub fn plan(file: &dyn ReadAt, kernel: Kernel) -> Result<Option<Plan>, ElfError> {
    let image = Image::read(file)?;
    if let Some(version) = go::version(&image)? {
        return go_plan(&image, version, kernel).map(Some);
    }
    let mut plan = Plan::new(match kernel.return_probes {
        ReturnProbes::Safe => Ends::ReturnProbes,
        ReturnProbes::Unsafe => Ends::Instructions,
    });
    for (library, calls) in [(Library::OpenSsl, &OPENSSL[..]), (Library::GnuTls, &GNUTLS[..])] {
        plan.add_c_library(&image, library, calls)?;
    }
    plan.add_python(&image)?;
    plan.add_python_queue(&image)?;
    plan.add_node(&image)?;
    Ok((!plan.functions.is_empty() || !plan.missing.is_empty()).then_some(plan))
}

fn go_plan(image: &Image<'_>, version: String, kernel: Kernel) -> Result<Plan, ElfError> {
    // Their stacks move: a return address is no place for the kernel's.
    let mut plan = Plan::new(Ends::Instructions);
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
    let names: Vec<_> = GO_WORK.iter().chain(&GO_TLS).map(|(name, _)| *name).chain(GRPC_PUT).collect();
    let mut found = match go::functions(image, &names) {
        Ok(found) => found,
        Err(error) => {
            plan.missing.push(error.to_string());
            return Ok(plan);
        }
    };
    let put = found.split_off(names.len() - GRPC_PUT.len());
    for (&(name, program), function) in GO_WORK.iter().chain(&GO_TLS).zip(found) {
        let Some(function) = function else { continue };
        match go_ends(image, name, function, kernel) {
            Ok(mut ends) => {
                if ends.iter().any(|end| end.result.is_some()) {
                    plan.ends = Ends::Results;
                }
                ends.extend(probes(image, program, &[cheap(image, function.address, program)?]));
                plan.functions.push((name, ends));
                if program == "go_tls_read" {
                    plan.library = Some(Library::GoTls);
                }
            }
            Err(error) => plan.missing.push(format!("{name}: {error}")),
        }
    }
    if let [Some(asks), Some(puts)] = put[..] {
        let [name, _] = GRPC_PUT;
        match returns::calls(image, asks, puts.address) {
            Ok(calls) => plan.functions.push((name, probes(image, "go_grpc_put", &calls).collect())),
            Err(error) => plan.missing.push(format!("{name}: {error}")),
        }
    }
    Ok(plan)
}

/// Where a program is put for the entry of the function at `address`.
fn cheap(image: &Image<'_>, address: u64, program: &str) -> Result<u64, ElfError> {
    Ok(entry::cheap(image, address, kept(program))?.unwrap_or(address))
}

/// The probes at the ends of a function of Go, if they matter.
fn go_ends(
    image: &Image<'_>,
    name: &str,
    function: Function,
    kernel: Kernel,
) -> Result<Vec<Probe>, ReturnsError> {
    let Some(&(_, work, at_known, at_return)) = GO_ENDS.iter().find(|(other, ..)| *other == name) else {
        return Ok(Vec::new());
    };
    // What is wrong with a file is said when its returns are looked for.
    let known = kernel.cookies.then(|| results::known(image, function, work).ok().flatten()).flatten();
    let probe = |known: &Known| {
        let result = Some(known.result()?);
        probes(image, at_known, &[known.address]).next().map(|probe| Probe { result, ..probe })
    };
    if let Some(found) = known.and_then(|known| known.iter().map(probe).collect()) {
        return Ok(found);
    }
    Ok(probes(image, at_return, &returns::all(image, function)?).collect())
}

impl Known {
    /// As a probe's program is told; `None` when it is farther away than that can say.
    fn result(&self) -> Option<GoResult> {
        let mut words = [GoWord::None; results::MAX_WORDS];
        for (word, place) in words.iter_mut().zip(&self.words) {
            *word = match *place {
                Place::Register(register) => GoWord::Register(u8::try_from(register.number()).ok()?),
                Place::Stack(offset) => GoWord::Stack(u16::try_from(offset).ok()?),
            };
        }
        Some(GoResult { depth: u16::try_from(self.depth).ok()?, words })
    }
}

impl Plan {
    fn new(ends: Ends) -> Self {
        Self { library: None, functions: Vec::new(), ends, go: None, missing: Vec::new() }
    }

    fn add_c_library(&mut self, image: &Image<'_>, library: Library, calls: &[Call]) -> Result<(), ElfError> {
        let names: Vec<_> = calls.iter().map(|(name, ..)| *name).collect();
        let found = image.functions(&names)?;
        let mut shared = BTreeSet::new();
        if library == Library::OpenSsl && self.ends == Ends::ReturnProbes {
            for pair in &OPENSSL_SHARED {
                let function = |name| {
                    let place = names.iter().position(|other| *other == name)?;
                    found.get(place).copied().flatten()
                };
                if let (Some(plain), Some(ex)) = (function(pair.plain), function(pair.ex))
                    && self.add_shared(image, pair, plain, ex)?
                {
                    shared.extend([pair.plain, pair.ex]);
                    self.library = Some(library);
                }
            }
        }
        let mut seen = BTreeSet::new();
        for (&(name, program, has_end), function) in calls.iter().zip(found) {
            let Some(function) = function.filter(|_| !shared.contains(name)) else { continue };
            let begin = cheap(image, function.address, program)?;
            let ends = if has_end {
                self.ends_of(image, function.address, begin, TLS_ENDS)
            } else {
                Ok(("", Vec::new()))
            };
            match ends {
                Ok((end, mut ends)) => {
                    // Functions that end in the same one share its returns.
                    ends.retain(|end| seen.insert(*end));
                    self.add(image, name, (program, begin), (end, &ends));
                    self.library = Some(library);
                }
                Err(error) => self.missing.push(format!(
                    "{name}: {error}, and return probes of Linux 6.11 to 6.12.13, and 6.13, harm sandboxed programs"
                )),
            }
        }
        Ok(())
    }

    fn add_python_queue(&mut self, image: &Image<'_>) -> Result<(), ElfError> {
        let Some(queue) = python::queue(image)? else { return Ok(()) };
        let mut gets = Vec::new();
        for get in queue.gets {
            let begin = cheap(image, get, "python_taken")?;
            match self.ends_of(image, get, begin, ("python_taken", "python_got")) {
                Ok((program, ends)) => gets.extend(probes(image, program, &ends)),
                Err(error) => {
                    self.missing.push(format!("work that queues of Python hand on: {error}"));
                    return Ok(());
                }
            }
        }
        gets.sort_unstable();
        gets.dedup();
        let mut puts = Vec::new();
        for put in queue.puts {
            puts.extend(probes(image, "python_put", &[cheap(image, put, "python_put")?]));
        }
        self.functions.extend([("SimpleQueue.get", gets), ("SimpleQueue.put", puts)]);
        Ok(())
    }

    fn add_node(&mut self, image: &Image<'_>) -> Result<(), ElfError> {
        let found = image.functions(&NODE.map(|(_, symbol, _)| symbol))?;
        for ((name, _, program), function) in NODE.into_iter().zip(found) {
            let Some(function) = function else { continue };
            self.add(image, name, (program, cheap(image, function.address, program)?), ("", &[]));
        }
        Ok(())
    }

    /// Probes what two functions leave their work to, when one of them has no cheap place for a probe and that has one.
    fn add_shared(
        &mut self,
        image: &Image<'_>,
        pair: &Shared,
        plain: Function,
        ex: Function,
    ) -> Result<bool, ElfError> {
        let is_cheap = |function: Function| {
            let registers = kept(pair.programs.first().map_or("", |(_, program)| program));
            Ok::<_, ElfError>(entry::cheap(image, function.address, registers)?.is_some())
        };
        if is_cheap(plain)? && is_cheap(ex)? {
            return Ok(false);
        }
        let Some(worker) = entry::worker(image, plain.address, ex.address)? else { return Ok(false) };
        let program = pair.programs.iter().find(|(out, _)| *out == worker.out);
        let Some(&(_, program)) = program else { return Ok(false) };
        let Some(begin) = entry::cheap(image, worker.address, kept(program))? else { return Ok(false) };
        self.add(image, pair.both, (program, begin), (TLS_ENDS.0, &[begin]));
        Ok(true)
    }

    fn add_python(&mut self, image: &Image<'_>) -> Result<(), ElfError> {
        let (program, function) = match python::interpreter(image)? {
            None => return Ok(()),
            Some(Python::Unknown(version)) => {
                self.missing.push(format!("tasks of {version}"));
                return Ok(());
            }
            Some(Python::Known(program, function)) => (program, function),
        };
        let begin = cheap(image, function.address, "python_copied")?;
        match self.ends_of(image, function.address, begin, ("python_copied", "python_context")) {
            Ok((end, ends)) => {
                self.functions.push((python::COPY, probes(image, end, &ends).collect()));
                self.go = Some(program);
            }
            Err(error) => self.missing.push(format!("{}: {error}", python::COPY)),
        }
        Ok(())
    }

    /// Where the end of the function at `address` is seen, and by which of two programs: as a return probe where `begin` is, as
    /// nothing is on the stack there but the address that it returns to; or on its return instructions.
    fn ends_of(
        &self,
        image: &Image<'_>,
        address: u64,
        begin: u64,
        (after, at): (&'static str, &'static str),
    ) -> Result<(&'static str, Vec<u64>), ReturnsError> {
        match self.ends {
            Ends::ReturnProbes => Ok((after, vec![begin])),
            Ends::Instructions | Ends::Results => Ok((at, returns::reachable(image, address)?)),
        }
    }

    fn add(
        &mut self,
        image: &Image<'_>,
        name: &'static str,
        (program, begin): (&'static str, u64),
        (end, ends): (&'static str, &[u64]),
    ) {
        let ends = probes(image, end, ends);
        self.functions.push((name, ends.chain(probes(image, program, &[begin])).collect()));
    }
}

/// A program on instructions.
fn probes(image: &Image<'_>, program: &'static str, addresses: &[u64]) -> impl Iterator<Item = Probe> {
    addresses.iter().filter_map(move |address| {
        Some(Probe { program, offset: image.file_offset(*address)?, result: None })
    })
}

#[cfg(test)]
mod tests;

//! Probes on functions of programs and libraries.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya_obj::generated::{PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF, perf_event_attr};

use super::go::GoPrograms;
use super::object::Result;
use super::policy::Policy;
use super::probes::{ProbeProgram, Probes};
use crate::{BpfError, sys};

/// Where the kernel says how perf makes events of probes.
const PERF_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";
const PERF_RETURN: &str = "/sys/bus/event_source/devices/uprobe/format/retprobe";

/// Puts probes on functions, for all processes. It need not be where the tracer is: each probe waits for locks of every process
/// that uses the file.
pub struct Prober {
    pub(super) probes: Arc<Probes>,
    pub(super) go_programs: GoPrograms,
    pub(super) policy: Arc<Mutex<Policy>>,
}

/// Probes with the same program on one file. They are removed when this is dropped, which takes long: the kernel waits until none
/// of them runs.
#[derive(Debug)]
pub struct UprobeLink {
    _links: Vec<OwnedFd>,
    count: usize,
}

impl UprobeLink {
    /// How many probes these are.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Prober {
    /// Attaches a program of the object to instructions of a file. It can read `cookie` there (Linux 5.15); a program of Go's
    /// functions takes [`GoProgram::cookie`](super::GoProgram::cookie).
    pub fn attach(
        &self,
        program: &str,
        file: &Path,
        offsets: &[u64],
        cookie: Option<u64>,
    ) -> Result<UprobeLink> {
        let failed = |offset: u64, reason: String| BpfError::Uprobe { file: file.to_owned(), offset, reason };
        let first = offsets.first().copied().unwrap_or_default();
        let path = CString::new(file.as_os_str().as_bytes());
        let path = path.map_err(|error| failed(first, error.to_string()))?;
        let program = self.probes.get(program).map_err(|reason| failed(first, reason))?;
        let cookie = cookie.unwrap_or_default();
        let links = if self.probes.links_of_many {
            let link = sys::link_uprobes(program.fd, &path, offsets, cookie, program.is_return);
            vec![link.map_err(|error| failed(first, error.to_string()))?]
        } else {
            let attach = |&offset| {
                attach_one(program, &path, offset, cookie).map_err(|error| failed(offset, error.to_string()))
            };
            offsets.iter().map(attach).collect::<Result<_>>()?
        };
        Ok(UprobeLink { _links: links, count: offsets.len() })
    }

    pub(super) fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As an event of perf. The descriptor that keeps it is that of a link, which holds the event, or before Linux 5.15 the event's.
fn attach_one(program: ProbeProgram<'_>, path: &CStr, offset: u64, cookie: u64) -> io::Result<OwnedFd> {
    let event = perf_event(path, offset, program.is_return)?;
    sys::link_perf(program.fd, event.as_fd(), cookie).or_else(|_| {
        control(event.as_fd(), PERF_EVENT_IOC_SET_BPF, program.fd.as_raw_fd())?;
        control(event.as_fd(), PERF_EVENT_IOC_ENABLE, 0)?;
        Ok(event)
    })
}

/// An event of perf when an instruction runs, or when the function that begins there returns.
fn perf_event(path: &CStr, offset: u64, is_return: bool) -> io::Result<OwnedFd> {
    const ALL_PROCESSES: libc::c_int = -1;
    // A program sees all CPUs, whichever the event is of.
    const CPU: libc::c_int = 0;
    const NO_GROUP: libc::c_int = -1;
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| io::ErrorKind::InvalidData.into());
    // SAFETY: all fields are integers.
    let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.type_ = std::fs::read_to_string(PERF_TYPE).and_then(|text| number(&text))?;
    if is_return {
        let bit = std::fs::read_to_string(PERF_RETURN)?;
        attr.config = 1 << number(bit.trim_start_matches("config:"))?;
    }
    attr.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
    attr.__bindgen_anon_4.probe_offset = offset;
    // SAFETY: `attr` and the path live as long as the call.
    let event = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, ALL_PROCESSES, CPU, NO_GROUP, CLOSE_ON_EXEC)
    };
    match libc::c_int::try_from(event) {
        // SAFETY: the descriptor is new.
        Ok(event) if event >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(event) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn control(event: BorrowedFd<'_>, request: u32, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests take a number.
    match unsafe { libc::ioctl(event.as_raw_fd(), request.into(), argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! Probes on functions of programs and libraries.

use std::path::Path;

use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::programs::{Program, ProgramError, UProbe};

use super::object::{Object, Result};
use crate::BpfError;

/// A probe; it is removed when this is dropped.
#[derive(Debug)]
pub struct UprobeLink {
    _link: UProbeLink,
}

/// Loads all programs of probes. What the kernel refuses is said when it is to be attached.
pub(super) fn load_all(object: &mut Object) {
    for program in object.programs() {
        if let Program::UProbe(probe) = program
            && probe.fd().is_err()
        {
            let _ = probe.load();
        }
    }
}

/// Loads `program` when it is not yet, and attaches it to the instruction at `offset` of `file`; it can read `cookie` there.
pub(super) fn attach(
    object: &mut Object,
    program: &str,
    file: &Path,
    offset: u64,
    cookie: Option<u64>,
) -> Result<UprobeLink> {
    let failed = |error: ProgramError| BpfError::Uprobe {
        file: file.to_owned(),
        offset,
        reason: crate::error::text(&error),
    };
    let probe: &mut UProbe = object.program(program)?.try_into().map_err(failed)?;
    if probe.fd().is_err() {
        probe.load().map_err(failed)?;
    }
    let location = UProbeAttachLocation::AbsoluteOffset(offset);
    let point = UProbeAttachPoint { location, cookie };
    let id = match probe.attach(point, file, UProbeScope::AllProcesses) {
        // Before Linux 5.15 there are none.
        Err(_) if cookie.is_some() => probe.attach(offset, file, UProbeScope::AllProcesses),
        attached => attached,
    };
    let id = id.map_err(failed)?;
    Ok(UprobeLink { _link: probe.take_link(id).map_err(failed)? })
}

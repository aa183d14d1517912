//! Probes on functions of programs and libraries.

use std::num::NonZeroU32;
use std::path::Path;

use aya::programs::uprobe::{UProbeLink, UProbeScope};
use aya::programs::{ProgramError, UProbe};

use super::object::{Object, Result};
use crate::BpfError;

/// A probe; it is removed when this is dropped.
#[derive(Debug)]
pub struct UprobeLink {
    _link: UProbeLink,
}

/// Loads `program` when it is not yet, and attaches it to the instruction at `offset` of `file`.
pub(super) fn attach(
    object: &mut Object,
    program: &str,
    file: &Path,
    offset: u64,
    pid: Option<u32>,
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
    let scope = pid.and_then(NonZeroU32::new).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
    let id = probe.attach(offset, file, scope).map_err(failed)?;
    Ok(UprobeLink { _link: probe.take_link(id).map_err(failed)? })
}

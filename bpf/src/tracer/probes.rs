//! The programs of probes, in the kernel.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use aya_obj::{Object, ProgramSection};

use super::object::Result;
use super::stats::ProgramStats;
use crate::{BpfError, sys};

/// All of them.
#[derive(Default)]
pub(super) struct Probes {
    programs: HashMap<String, Loaded>,
    /// They were loaded for links that hold many probes.
    pub links_of_many: bool,
}

struct Loaded {
    /// What the kernel refuses is said when it is to be attached.
    program: std::result::Result<OwnedFd, String>,
    is_return: bool,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct ProbeProgram<'a> {
    pub fd: BorrowedFd<'a>,
    /// It sees that functions return.
    pub is_return: bool,
}

impl Probes {
    /// Loads what the object, whose code was brought in line with the kernel and its maps, has of them.
    pub fn load(object: &Object, btf: Option<&OwnedFd>, links_of_many: bool) -> Self {
        let attach_type = if links_of_many { bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32 } else { 0 };
        let load = |name: &str, program: &aya_obj::Program| {
            let function = object.functions.get(&program.function_key())?;
            let loaded = sys::load_program(&sys::Program {
                name,
                kind: bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32,
                attach_type,
                instructions: &function.instructions,
                license: &program.license,
                flags: 0,
                ifindex: 0,
                btf,
                functions: &function.func_info.func_info_bytes(),
                function_size: function.func_info_rec_size,
            });
            Some(loaded.map_err(|error| BpfError::load(&error).reason()))
        };
        let of_probe = object.programs.iter().filter_map(|(name, program)| {
            let is_return = match program.section {
                ProgramSection::UProbe { .. } => false,
                ProgramSection::URetProbe { .. } => true,
                _ => return None,
            };
            Some((name.clone(), Loaded { program: load(name, program)?, is_return }))
        });
        Self { programs: of_probe.collect(), links_of_many }
    }

    /// A program by its name, or why there is none.
    pub fn get(&self, name: &str) -> std::result::Result<ProbeProgram<'_>, String> {
        let Some(Loaded { program, is_return }) = self.programs.get(name) else {
            return Err(format!("the embedded object has no program {name}"));
        };
        let program = program.as_ref().map_err(String::clone)?;
        Ok(ProbeProgram { fd: program.as_fd(), is_return: *is_return })
    }

    /// What they did.
    pub fn stats(&self) -> impl Iterator<Item = Result<ProgramStats>> {
        let loaded =
            self.programs.iter().filter_map(|(name, loaded)| Some((name, loaded.program.as_ref().ok()?)));
        loaded.map(|(name, program)| ProgramStats::of(name, program.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::TracerOptions;
    use super::super::object::{Kernel, Object};

    /// A refusal is said when a program of the language starts, and no other test of older kernels has all of these.
    #[test]
    fn the_kernel_takes_each_program() {
        let Ok(object) = Object::load(&TracerOptions::default(), Kernel::RUNNING) else {
            assert!(std::env::var_os("CI").is_none(), "needs the right to load programs");
            eprintln!("skipped: needs the right to load programs");
            return;
        };
        let probes = object.load_probes(Kernel::RUNNING).unwrap();
        let refusals =
            probes.programs.iter().filter_map(|(name, loaded)| Some((name, loaded.program.as_ref().err()?)));
        assert_eq!(refusals.collect::<Vec<_>>(), []);
        assert!(!probes.programs.is_empty());
    }
}

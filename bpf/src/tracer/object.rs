//! The embedded object: loaded, its programs attached one by one, its maps taken.

use std::collections::HashSet;
use std::error::Error;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::{Map, MapData};
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use aya_obj::btf::{BtfFeatures, BtfKind};
use object::{Object as _, ObjectSection, SectionKind};

use super::calls;
use super::options::TracerOptions;
use super::probes::Probes;
use super::stats::ProgramStats;
use crate::{BpfError, sys};

pub(super) type Result<T> = std::result::Result<T, BpfError>;

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracer.o"));

/// Where a kernel that is built with type information shows it.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// `struct settings` of `programs/tracer_maps.h`.
fn settings(options: &TracerOptions, casts: bool, preemptible: bool) -> [u32; 7] {
    [
        options.left_out.unwrap_or(0),
        options.only.unwrap_or(0),
        options.ring_bytes / 4,
        u32::from(casts),
        places(options),
        conn_places(options),
        u32::from(preemptible),
    ]
}

/// Threads by the low bits of their ids.
fn places(options: &TracerOptions) -> u32 {
    options.threads.clamp(1, 1 << 22).next_power_of_two()
}

/// TCP's connections by the low bits of their addresses, a quarter of the sockets: more would be memory that is mostly empty, and a
/// connection that finds its place taken costs one more look.
fn conn_places(options: &TracerOptions) -> u32 {
    (options.sockets / 4).clamp(16, 1 << 20).next_power_of_two()
}

/// What the kernel is taken for: by tests, for an older or a newer one.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// `bpf_rdonly_cast` is used where there is one (Linux 6.2).
    pub casts: bool,
    /// So are links that hold many probes (Linux 6.6); aya has none.
    pub links_of_many: bool,
    /// A task can lose the CPU to another in the middle of a program, also where it cannot (before Linux 7.2).
    pub preempts: bool,
}

impl Kernel {
    /// What it is.
    pub const RUNNING: Self = Self { casts: true, links_of_many: true, preempts: false };
}

/// The object in the kernel.
pub(super) struct Object {
    ebpf: Ebpf,
    btf: Btf,
    /// The object file as this kernel can take it.
    code: Vec<u8>,
    /// Programs that are attached.
    links: Vec<(String, BtfTracePointLinkId)>,
}

impl Object {
    /// Loads no program yet.
    pub fn load(options: &TracerOptions, kernel: Kernel) -> Result<Self> {
        let path = options.btf.as_deref().unwrap_or(Path::new(BTF));
        let btf = Btf::parse_file(path, aya::Endianness::default())
            .map_err(|error| BpfError::NoBtf { path: path.to_owned(), reason: crate::error::text(&error) })?;
        sys::raise_memory_limit();
        sys::require_programs()?;
        let casts = if kernel.casts { functions(&btf, &CASTS) } else { Vec::new() };
        let preempts = kernel.preempts || preempts(&btf);
        let preemption = if preempts { functions(&btf, &PREEMPTION) } else { Vec::new() };
        let code = code_for(&[&casts[..], &preemption].concat(), sys::has_atomics())?;
        let settings = settings(options, !casts.is_empty(), !preemption.is_empty());
        let calls = calls::calls(&options.groups);
        let wakers = calls::wakers();
        let ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("settings", &settings, true)
            .override_global("calls", &calls, true)
            .override_global("wakers", &wakers, true)
            .map_max_entries("events", options.ring_bytes)
            .map_max_entries("places", places(options))
            .map_max_entries("crowd", places(options))
            .map_max_entries("conns", options.sockets)
            .map_max_entries("conn_places", conn_places(options))
            .load(&code)
            .map_err(|error| BpfError::load(&error))?;
        Ok(Self { ebpf, btf, code, links: Vec::new() })
    }

    /// Loads the programs of probes, which use the same maps; none of those may be taken yet.
    pub fn load_probes(&self, kernel: Kernel) -> Result<Probes> {
        let failed = |error: &(dyn Error + 'static)| BpfError::load(error);
        let mut object = aya_obj::Object::parse(&self.code).map_err(|error| failed(&error))?;
        // What every kernel has that has a ring (5.8).
        let features = BtfFeatures::new(true, true, true, false, false, false, false, false);
        let types = object.fixup_and_sanitize_btf(&features).map_err(|error| failed(&error))?;
        let types = types.map(|types| sys::load_btf(&types.to_bytes())).transpose();
        let types = types.map_err(|error| failed(&error))?;
        object.relocate_btf(&self.btf).map_err(|error| failed(&error))?;
        let definitions = std::mem::take(&mut object.maps);
        let sections: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
        let maps = self.ebpf.maps().filter_map(|(name, map)| {
            let definition = definitions.get(name)?;
            Some((name, data_of(map)?.fd().as_fd().as_raw_fd(), definition))
        });
        object.relocate_maps(maps, &sections).map_err(|error| failed(&error))?;
        object.relocate_calls(&sections).map_err(|error| failed(&error))?;
        let has_links = self.btf.id_by_type_name_kind("bpf_uprobe_multi_link", BtfKind::Struct).is_ok();
        Ok(Probes::load(&object, types.as_ref(), kernel.links_of_many && has_links))
    }

    /// Loads a program of a tracepoint.
    pub fn load_program(&mut self, program: &str, tracepoint: &str) -> Result<()> {
        let Self { ebpf, btf, .. } = self;
        if btf.id_by_type_name_kind(&format!("btf_trace_{tracepoint}"), BtfKind::Typedef).is_err() {
            return Err(BpfError::Load { reason: format!("this kernel has no tracepoint {tracepoint}") });
        }
        let program: &mut BtfTracePoint = program_of(ebpf, program)?.try_into().map_err(failed)?;
        program.load(tracepoint, btf).map_err(failed)
    }

    /// Attaches a loaded program to its tracepoint, until [`Self::detach`] or until the object is dropped.
    pub fn attach(&mut self, name: &str) -> Result<()> {
        let program: &mut BtfTracePoint = program_of(&mut self.ebpf, name)?.try_into().map_err(failed)?;
        let link = program.attach().map_err(failed)?;
        self.links.push((name.to_owned(), link));
        Ok(())
    }

    /// Detaches all programs; they stay loaded.
    pub fn detach(&mut self) -> Result<()> {
        for (name, link) in self.links.drain(..) {
            let program: &mut BtfTracePoint =
                program_of(&mut self.ebpf, &name)?.try_into().map_err(failed)?;
            program.detach(link).map_err(failed)?;
        }
        Ok(())
    }

    pub fn map<T>(&mut self, name: &str) -> Result<T>
    where
        T: TryFrom<Map>,
        T::Error: Error + 'static,
    {
        let map = self.ebpf.take_map(name);
        let map =
            map.ok_or_else(|| BpfError::Map { reason: format!("the embedded object has no map {name}") })?;
        T::try_from(map).map_err(|error| BpfError::map(&error))
    }

    /// What the programs in the kernel did.
    pub fn program_stats(&self) -> Result<Vec<ProgramStats>> {
        let loaded = self.ebpf.programs().filter_map(|(name, program)| Some((name, program.fd().ok()?)));
        loaded.map(|(name, fd)| ProgramStats::of(name, fd.as_fd())).collect()
    }
}

fn program_of<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .ok_or_else(|| BpfError::Load { reason: format!("the embedded object has no program {name}") })
}

/// The map behind one of the kinds that the object has.
fn data_of(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// The kernel's own functions that the programs call, with the numbers of helpers that they call where they mean them; aya resolves
/// no kernel functions.
const CASTS: [(i32, &str); 1] = [(0x7fff_0001, "bpf_rdonly_cast")];
const PREEMPTION: [(i32, &str); 4] = [
    (0x7fff_0002, "bpf_preempt_disable"),
    (0x7fff_0003, "bpf_preempt_enable"),
    (0x7fff_0004, "bpf_local_irq_save"),
    (0x7fff_0005, "bpf_local_irq_restore"),
];

/// Numbers with the kernel's for what is meant; none unless the kernel has all.
fn functions(btf: &Btf, wanted: &[(i32, &str)]) -> Vec<(i32, u32)> {
    let id =
        |&(number, name): &(i32, &str)| Some((number, btf.id_by_type_name_kind(name, BtfKind::Func).ok()?));
    wanted.iter().map(id).collect::<Option<_>>().unwrap_or_default()
}

/// Whether a task can lose the CPU to another in the middle of a program of system calls. The kernel has this function since it lets
/// programs there sleep (Linux 7.2).
fn preempts(btf: &Btf) -> bool {
    btf.id_by_type_name_kind("trace_call_bpf_faultable", BtfKind::Func).is_ok()
}

/// The object with calls of the kernel's own `functions`, where it calls helpers with their numbers.
/// On a kernel without `atomics` that give back what was there (before Linux 5.12), nothing is done in their place: the programs
/// do not come there then, but the kernel knows no such instruction.
fn code_for(functions: &[(i32, u32)], atomics: bool) -> Result<Vec<u8>> {
    // Operation, registers, offset, number: a call of a helper, one of a kernel function, and a jump to where it goes on anyway.
    const CALL: [u8; 4] = [0x85, 0, 0, 0];
    const CALL_KERNEL: [u8; 4] = [0x85, 0x20, 0, 0];
    const NOTHING: [u8; 8] = [0x05, 0, 0, 0, 0, 0, 0, 0];
    // Of 32 and of 64 bits; its number is 0 for an addition that gives nothing back, which all kernels know.
    const ATOMIC: [u8; 2] = [0xc3, 0xdb];
    let invalid = |error: object::Error| BpfError::Load { reason: error.to_string() };
    let mut code = OBJECT.to_vec();
    let file = object::File::parse(OBJECT).map_err(invalid)?;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, size)) = section.file_range() else { continue };
        let Some(instructions) = code.get_mut(start as usize..(start + size) as usize) else { continue };
        for instruction in instructions.as_chunks_mut::<8>().0 {
            let called = |(number, _): &&(i32, u32)| {
                instruction[..4] == CALL && instruction[4..] == number.to_ne_bytes()
            };
            if let Some((_, function)) = functions.iter().find(called) {
                instruction[..4].copy_from_slice(&CALL_KERNEL);
                instruction[4..].copy_from_slice(&function.to_ne_bytes());
            } else if !atomics && ATOMIC.contains(&instruction[0]) && instruction[4..] != [0; 4] {
                *instruction = NOTHING;
            }
        }
    }
    Ok(code)
}

fn failed(error: ProgramError) -> BpfError {
    match &error {
        ProgramError::LoadError { io_error, verifier_log } => match sys::verdict(&verifier_log.to_string()) {
            // A function of eBPF that is newer than the kernel.
            Some(verdict) if verdict.starts_with("invalid func") => {
                BpfError::Load { reason: format!("this kernel is too old for it ({verdict})") }
            }
            Some(verdict) => BpfError::Load { reason: format!("{io_error}: {verdict}") },
            None => BpfError::load(&error),
        },
        _ => BpfError::load(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_tracepoint_is_rejected_with_a_reason() {
        let options = TracerOptions::default();
        let Ok(mut object) = Object::load(&options, Kernel::RUNNING) else {
            assert!(std::env::var_os("CI").is_none(), "needs the right to load programs");
            eprintln!("skipped: needs the right to load programs");
            return;
        };
        // What the program takes for a socket is a number there.
        let error = object.load_program("set_state", "cpu_idle").unwrap_err().to_string();
        assert!(error.contains(": invalid "), "{error}");
    }
}

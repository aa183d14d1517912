//! From an embedded object file to a program in the kernel, with the maps that it uses.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use aya_obj::btf::{Btf, BtfFeatures, BtfKind};
use aya_obj::generated::{BPF_CALL, BPF_F_RDONLY_PROG, BPF_JMP, bpf_insn};
use aya_obj::{EbpfSectionKind, Function};

use crate::sys::{self, Map};

/// What to load, and how.
pub(crate) struct Recipe<'a> {
    /// The object file.
    pub object: &'a [u8],
    /// Name of the program in it.
    pub program: &'a str,
    /// `BPF_PROG_TYPE_...` and `BPF_...` of the attachment.
    pub kind: (u32, u32),
    /// Values of the program's constants.
    pub constants: &'a [(&'a str, &'a [u8])],
    /// Sizes of maps that the object leaves open.
    pub max_entries: &'a [(&'a str, u32)],
    /// `BPF_F_...`
    pub flags: u32,
    /// The interface that the program is bound to; 0 for none.
    pub ifindex: u32,
    /// Calls to be turned into calls of kernel functions: number of the helper that the object calls, id of the function.
    pub kfuncs: &'a [(i32, u32)],
}

/// A program in the kernel.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub program: OwnedFd,
    maps: HashMap<String, Arc<Map>>,
}

impl Loaded {
    pub fn map(&self, name: &str) -> io::Result<Arc<Map>> {
        self.maps
            .get(name)
            .cloned()
            .ok_or_else(|| io::Error::other(format!("the embedded object has no {name}")))
    }
}

/// Loads a program.
pub(crate) fn load(recipe: &Recipe<'_>) -> io::Result<Loaded> {
    sys::raise_memory_limit();
    let mut object = aya_obj::Object::parse(recipe.object).map_err(invalid)?;
    let constants = recipe.constants.iter().map(|&(name, bytes)| (name, (bytes, true))).collect();
    object.patch_map_data(constants).map_err(invalid)?;
    // What every kernel has that has global functions (5.12).
    let features = BtfFeatures::new(true, true, true, true, false, false, false, false);
    let btf = object.fixup_and_sanitize_btf(&features).map_err(invalid)?;
    let btf =
        sys::load_btf(&btf.ok_or_else(|| io::Error::other("the embedded object has no BTF"))?.to_bytes())?;

    let definitions = std::mem::take(&mut object.maps);
    let maps = definitions
        .iter()
        .map(|(name, definition)| Ok((name.clone(), Arc::new(create_map(recipe, name, definition)?))))
        .collect::<io::Result<HashMap<_, _>>>()?;
    let text_sections: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    let fds = definitions.iter().filter_map(|(name, map)| Some((name.as_str(), maps.get(name)?.fd(), map)));
    object.relocate_maps(fds, &text_sections).map_err(invalid)?;
    object.relocate_calls(&text_sections).map_err(invalid)?;

    let program = object.programs.get(recipe.program);
    let program = program.ok_or_else(|| io::Error::other("the embedded object has another program"))?;
    let function = object.functions.get(&(program.section_index, program.address));
    let function = function.ok_or_else(|| io::Error::other("the embedded object's program is empty"))?;
    let program = load_function(recipe, function, &program.license, &btf)?;
    Ok(Loaded { program, maps })
}

fn load_function(
    recipe: &Recipe<'_>,
    function: &Function,
    license: &std::ffi::CStr,
    btf: &OwnedFd,
) -> io::Result<OwnedFd> {
    let mut instructions = function.instructions.clone();
    for instruction in &mut instructions {
        call_kernel_function(instruction, recipe.kfuncs);
    }
    sys::load_program(&sys::Program {
        name: recipe.program,
        kind: recipe.kind.0,
        attach_type: recipe.kind.1,
        instructions: &instructions,
        license,
        flags: recipe.flags,
        ifindex: recipe.ifindex,
        btf: Some(btf),
        functions: &function.func_info.func_info_bytes(),
        function_size: function.func_info_rec_size,
    })
}

fn create_map(recipe: &Recipe<'_>, name: &str, definition: &aya_obj::Map) -> io::Result<Map> {
    let mut definition = definition.clone();
    if let Some(&(_, max_entries)) = recipe.max_entries.iter().find(|(map, _)| *map == name) {
        definition.set_max_entries(max_entries);
    }
    let constant = definition.section_kind() == EbpfSectionKind::Rodata;
    if constant && let aya_obj::Map::Legacy(map) = &mut definition {
        map.def.map_flags |= BPF_F_RDONLY_PROG;
    }
    let map = Map::create(name, &definition)?;
    if constant {
        map.set_bytes(&0u32, definition.data(), 0)?;
        map.freeze()?;
    }
    Ok(map)
}

/// Turns the call of a helper that does not exist into one of a kernel function, if it is one of `kfuncs`.
fn call_kernel_function(instruction: &mut bpf_insn, kfuncs: &[(i32, u32)]) {
    const PSEUDO_KFUNC_CALL: u8 = 2;
    if u32::from(instruction.code) == BPF_JMP | BPF_CALL
        && instruction.src_reg() == 0
        && let Some(&(_, id)) = kfuncs.iter().find(|&&(number, _)| number == instruction.imm)
    {
        instruction.set_src_reg(PSEUDO_KFUNC_CALL);
        instruction.imm = id as i32;
    }
}

/// The running kernel's number of one of its functions, for each of `names` that it has.
pub(crate) fn kernel_functions<'a>(
    names: &'a [&'a str],
) -> io::Result<impl Iterator<Item = Option<u32>> + 'a> {
    let btf = Btf::from_sys_fs().map_err(invalid)?;
    Ok(names.iter().map(move |name| btf.id_by_type_name_kind(name, BtfKind::Func).ok()))
}

fn invalid(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

//! The bpf(2) system call: maps, programs and links. aya covers most of it, but loads no program that is bound to a device, and
//! none for links of many probes.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{
    BPF_ALU64, BPF_ATOMIC, BPF_DW, BPF_EXIT, BPF_F_UPROBE_MULTI_RETURN, BPF_JMP, BPF_MEM, BPF_MOV, BPF_STX,
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_info, bpf_prog_type,
};

use crate::BpfError;

/// Types that are the same bytes in the kernel and here.
///
/// # Safety
///
/// `repr(C)` or a primitive, without padding, valid for all bit patterns.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: a primitive.
unsafe impl Plain for u32 {}
// SAFETY: a primitive.
unsafe impl Plain for u64 {}
// SAFETY: its fields leave no padding, as is asserted where it is defined.
unsafe impl Plain for wirespan_frame::ShuntKey {}

pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: plain types have no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A map of the kernel. Its methods are system calls, which the kernel orders; none of them locks here.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
    /// Values of a key: one for each CPU that there may be, else 1.
    values: usize,
}

/// Only if there is no such key.
pub(crate) const NO_EXIST: u64 = 1;

impl Map {
    pub fn create(name: &str, definition: &aya_obj::Map) -> io::Result<Self> {
        let kind = definition.map_type();
        // SAFETY: all fields are integers.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the variant of BPF_MAP_CREATE.
        let create = unsafe { &mut attr.__bindgen_anon_1 };
        create.map_type = kind;
        create.key_size = definition.key_size();
        create.value_size = definition.value_size();
        create.max_entries = definition.max_entries();
        create.map_flags = definition.map_flags();
        copy_name(&mut create.map_name, name);
        let per_cpu = [bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH];
        let is_per_cpu = per_cpu.iter().any(|&other| other as u32 == kind);
        Ok(Self {
            fd: bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)?,
            key_size: definition.key_size() as usize,
            value_size: definition.value_size() as usize,
            max_entries: definition.max_entries(),
            values: if is_per_cpu { possible_cpus()? } else { 1 },
        })
    }

    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// How many keys there is room for.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// From now on only programs read it, so that the verifier knows what is in it.
    pub fn freeze(&self) -> io::Result<()> {
        self.call(bpf_cmd::BPF_MAP_FREEZE, std::ptr::null(), 0, 0).map(drop)
    }

    /// The values of a key, of all CPUs; one where the map does not keep them apart.
    pub fn get_per_cpu<K: Plain, V: Plain>(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        self.check::<K>(size_of::<V>())?;
        let stride = size_of::<V>().next_multiple_of(8);
        let mut buffer = vec![0u8; stride * self.values];
        if !found(self.call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, key_pointer(key), buffer.as_mut_ptr() as u64, 0))? {
            return Ok(None);
        }
        // SAFETY: a stride holds a value, and a plain type may be any bytes.
        let read = |bytes: &[u8]| unsafe { bytes.as_ptr().cast::<V>().read_unaligned() };
        Ok(Some(buffer.chunks_exact(stride).map(read).collect()))
    }

    /// Sets the value of a key, on all CPUs where there is one for each.
    pub fn set<K: Plain, V: Plain>(&self, key: &K, value: &V, flags: u64) -> io::Result<()> {
        self.set_bytes(key, bytes_of(value), flags)
    }

    /// See [`Self::set`].
    pub fn set_bytes<K: Plain>(&self, key: &K, value: &[u8], flags: u64) -> io::Result<()> {
        self.check::<K>(value.len())?;
        let mut buffer = value.to_vec();
        buffer.resize(value.len().next_multiple_of(8), 0);
        let buffer = buffer.repeat(self.values);
        self.call(bpf_cmd::BPF_MAP_UPDATE_ELEM, key_pointer(key), buffer.as_ptr() as u64, flags).map(drop)
    }

    /// False when there was no such key.
    pub fn remove<K: Plain>(&self, key: &K) -> io::Result<bool> {
        self.check::<K>(self.value_size)?;
        found(self.call(bpf_cmd::BPF_MAP_DELETE_ELEM, key_pointer(key), 0, 0))
    }

    fn check<K>(&self, value_size: usize) -> io::Result<()> {
        if size_of::<K>() != self.key_size || value_size != self.value_size {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(())
    }

    fn call(&self, command: bpf_cmd, key: *const u8, value: u64, flags: u64) -> io::Result<i32> {
        // SAFETY: all fields are integers.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the variant of commands on a map's elements.
        let element = unsafe { &mut attr.__bindgen_anon_2 };
        element.map_fd = self.fd.as_raw_fd() as u32;
        element.key = key as u64;
        element.__bindgen_anon_1.value = value;
        element.flags = flags;
        bpf(command, &mut attr)
    }
}

fn key_pointer<K: Plain>(key: &K) -> *const u8 {
    std::ptr::from_ref(key).cast()
}

fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a program is loaded from.
pub(crate) struct Program<'a> {
    pub name: &'a str,
    /// `BPF_PROG_TYPE_...`
    pub kind: u32,
    pub attach_type: u32,
    pub instructions: &'a [bpf_insn],
    pub license: &'a CStr,
    pub flags: u32,
    /// The interface that it is bound to; 0 for none.
    pub ifindex: u32,
    pub btf: Option<&'a OwnedFd>,
    pub functions: &'a [u8],
    pub function_size: usize,
}

/// Bytes of the verifier's log, of which the last lines say what it does not like.
const LOG_BYTES: usize = 1 << 20;

/// Loads a program; the error says what the verifier said.
pub(crate) fn load_program(program: &Program<'_>) -> io::Result<OwnedFd> {
    match try_load(program, &mut []) {
        Err(error) if error.raw_os_error() != Some(libc::EPERM) => {
            let mut log = vec![0; LOG_BYTES];
            // It may have been refused for a moment only: a signal interrupts the verifier.
            try_load(program, &mut log).map_err(|error| {
                let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
                match verdict(&String::from_utf8_lossy(log.get(..end).unwrap_or_default())) {
                    Some(reason) => io::Error::new(error.kind(), format!("{error}: {reason}")),
                    None => error,
                }
            })
        }
        result => result,
    }
}

/// An instruction of a program that is made up here.
fn instruction(code: u32, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
    let registers = bpf_insn::new_bitfield_1(to, from);
    bpf_insn { code: code as u8, _bitfield_align_1: [], _bitfield_1: registers, off, imm }
}

/// Loads a program to see whether the kernel takes it.
fn try_instructions(instructions: &[bpf_insn]) -> io::Result<()> {
    let program = Program {
        name: "trial",
        kind: bpf_prog_type::BPF_PROG_TYPE_SOCKET_FILTER as u32,
        attach_type: 0,
        instructions,
        license: c"GPL",
        flags: 0,
        ifindex: 0,
        btf: None,
        functions: &[],
        function_size: 0,
    };
    try_load(&program, &mut []).map(drop)
}

/// Whether the kernel knows atomic operations that give back what was there (Linux 5.12).
pub(crate) fn has_atomics() -> bool {
    const EXCHANGE: i32 = 0xe1;
    // r1 = 0; *(r10 - 8) = r1; r1 = exchange(r10 - 8, r1); r0 = 0; return
    let instructions = [
        instruction(BPF_ALU64 | BPF_MOV, 1, 0, 0, 0),
        instruction(BPF_STX | BPF_MEM | BPF_DW, 10, 1, -8, 0),
        instruction(BPF_STX | BPF_ATOMIC | BPF_DW, 10, 1, -8, EXCHANGE),
        instruction(BPF_ALU64 | BPF_MOV, 0, 0, 0, 0),
        instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    ];
    try_instructions(&instructions).is_ok()
}

/// Tells a kernel that takes no programs at all from one that does not take a certain one.
pub(crate) fn require_programs() -> Result<(), BpfError> {
    // r0 = 0; return
    let instructions =
        [instruction(BPF_ALU64 | BPF_MOV, 0, 0, 0, 0), instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)];
    try_instructions(&instructions).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => BpfError::NoPrivilege,
        _ => BpfError::NoPrograms { reason: error.to_string() },
    })
}

/// What the verifier says at last, of a program that it rejects. Numbers of what it went through come behind.
pub(crate) fn verdict(log: &str) -> Option<&str> {
    const NUMBERS: [&str; 4] = ["processed ", "stack depth ", "subprog ", "verification time "];
    log.lines().rev().find(|line| !line.is_empty() && !NUMBERS.iter().any(|what| line.starts_with(what)))
}

fn try_load(program: &Program<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    // SAFETY: all fields are integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the variant of BPF_PROG_LOAD.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = program.kind;
    load.expected_attach_type = program.attach_type;
    load.insns = program.instructions.as_ptr() as u64;
    load.insn_cnt = program.instructions.len() as u32;
    load.license = program.license.as_ptr() as u64;
    load.prog_flags = program.flags;
    load.prog_ifindex = program.ifindex;
    if let Some(btf) = program.btf {
        load.prog_btf_fd = btf.as_raw_fd() as u32;
        load.func_info = program.functions.as_ptr() as u64;
        load.func_info_rec_size = program.function_size as u32;
        load.func_info_cnt = program.functions.len().checked_div(program.function_size).unwrap_or(0) as u32;
    }
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
    }
    copy_name(&mut load.prog_name, program.name);
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// What the kernel says of a loaded program.
pub(crate) fn program_info(program: i32) -> io::Result<bpf_prog_info> {
    // SAFETY: all fields are integers.
    let (mut attr, mut info): (bpf_attr, bpf_prog_info) = unsafe { std::mem::zeroed() };
    attr.info.bpf_fd = program as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Loads type information.
pub(crate) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: all fields are integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the variant of BPF_BTF_LOAD.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = btf.as_ptr() as u64;
    load.btf_size = btf.len() as u32;
    bpf_fd(bpf_cmd::BPF_BTF_LOAD, &mut attr)
}

/// Attaches an XDP program to an interface, until the link is closed, also by the end of the process.
pub(crate) fn link_xdp(program: &OwnedFd, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: all fields are integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the variant of BPF_LINK_CREATE.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    link.__bindgen_anon_2.target_ifindex = ifindex;
    link.attach_type = bpf_attach_type::BPF_XDP as u32;
    link.flags = flags;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to many instructions of a file, with a cookie for each that is not 0 (Linux 6.6).
pub(crate) fn link_uprobes(
    program: BorrowedFd<'_>,
    file: &CStr,
    offsets: &[u64],
    cookie: u64,
    is_return: bool,
) -> io::Result<OwnedFd> {
    let cookies = vec![cookie; offsets.len()];
    // SAFETY: all fields are integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the variant of BPF_LINK_CREATE.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    link.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
    // SAFETY: the variant of this type of attachment.
    let many = unsafe { &mut link.__bindgen_anon_3.uprobe_multi };
    many.path = file.as_ptr() as u64;
    many.offsets = offsets.as_ptr() as u64;
    many.cookies = cookies.as_ptr() as u64;
    many.cnt = offsets.len() as u32;
    many.flags = if is_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 };
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to an event of perf (Linux 5.15).
pub(crate) fn link_perf(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    // SAFETY: all fields are integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the variant of BPF_LINK_CREATE.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    link.__bindgen_anon_2.target_fd = event.as_raw_fd() as u32;
    link.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    link.__bindgen_anon_3.perf_event.bpf_cookie = cookie;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Kernels before 5.11 count maps as locked memory; one that does not let the limit be raised says so when a map is made.
pub(crate) fn raise_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a structure that lives as long as the call.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) };
}

/// CPUs that the kernel keeps values for, whether they are there or not.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn copy_name(place: &mut [std::ffi::c_char; 16], name: &str) {
    // The last byte stays 0.
    let names = name.bytes().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    for (place, byte) in place.iter_mut().take(15).zip(names) {
        *place = byte as std::ffi::c_char;
    }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: these commands give a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the callers fill `attr` in for the command; what it points to lives as long as the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Index of an interface of the caller's network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a string that ends in 0.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Nanoseconds of a clock.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills the structure in; these clocks always exist.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn the_verdict_is_before_the_numbers() {
        let log = "combined stack size of 4 calls is 544. Too large\nverification time 1714 usec\nstack depth 200+8+128+168\n\
                   processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n\
                   subprog 1 (new_conn) static insns_self 0 insns_total 0 stack 0\n\n";
        assert_eq!(verdict(log), Some("combined stack size of 4 calls is 544. Too large"));
        assert_eq!(verdict("processed 8 insns\n"), None);
    }
}

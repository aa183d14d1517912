use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, FileHeader64, Ident, PF_R, PF_X, PT_LOAD,
    ProgramHeader64,
};
use object::pod::bytes_of;
use object::{U16, U32, U64};

use super::*;

const BASE: u64 = 0x1000;

/// A file with nothing but this code, at [`BASE`].
fn file(code: &[u8]) -> Vec<u8> {
    let [header_size, segment_size] = [size_of::<FileHeader64<LE>>(), size_of::<ProgramHeader64<LE>>()];
    let (none, zero) = (U16::new(LE, 0), U64::new(LE, 0));
    let header = FileHeader64 {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: 1,
            os_abi: 0,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, ET_DYN),
        e_machine: U16::new(LE, EM_X86_64),
        e_version: U32::new(LE, 1),
        e_entry: zero,
        e_phoff: U64::new(LE, header_size as u64),
        e_shoff: zero,
        e_flags: U32::new(LE, 0),
        e_ehsize: none,
        e_phentsize: none,
        e_phnum: U16::new(LE, 1),
        e_shentsize: none,
        e_shnum: none,
        e_shstrndx: none,
    };
    let size = U64::new(LE, code.len() as u64);
    let segment = ProgramHeader64 {
        p_type: U32::new(LE, PT_LOAD),
        p_flags: U32::new(LE, PF_R | PF_X),
        p_offset: U64::new(LE, (header_size + segment_size) as u64),
        p_vaddr: U64::new(LE, BASE),
        p_paddr: U64::new(LE, BASE),
        p_filesz: size,
        p_memsz: size,
        p_align: U64::new(LE, 1),
    };
    [bytes_of(&header), bytes_of(&segment), code].concat()
}

fn cheap_in(code: &[u8]) -> Option<u64> {
    let file = file(code);
    let file = &file[..];
    let image = Image::read(&file).unwrap();
    let kept = [Register::RSP, Register::RDI, Register::RSI];
    cheap(&image, BASE, &kept).unwrap().map(|address| address - BASE)
}

#[test]
fn a_probe_moves_to_what_is_emulated_while_nothing_it_reads_changes() {
    // push r13
    assert_eq!(cheap_in(b"\x41\x55\xc3"), Some(0));
    // endbr64; push rbp
    assert_eq!(cheap_in(b"\xf3\x0f\x1e\xfa\x55\xc3"), Some(4));
    // test rdi, rdi; je far
    assert_eq!(cheap_in(b"\x48\x85\xff\x0f\x84\x00\x01\x00\x00"), Some(3));
    // xor r8d, r8d; xor ecx, ecx; jmp
    assert_eq!(cheap_in(b"\x45\x31\xc0\x31\xc9\xe9\x00\x01\x00\x00"), Some(5));
    // cmp rsp, [r14+16]; jbe
    assert_eq!(cheap_in(b"\x49\x3b\x66\x10\x76\x20\xc3"), Some(4));
}

#[test]
fn a_probe_stays_where_moving_it_would_change_what_it_sees() {
    for code in [
        // sub rsp, 8; call
        &b"\x48\x83\xec\x08\xe8\x00\x00\x00\x00"[..],
        // mov edi, 1; push rbp: a part of a register
        b"\xbf\x01\x00\x00\x00\x55",
        // xchg rsi, rax; push rbp
        b"\x48\x96\x55",
        // pop rax; push rbp
        b"\x58\x55",
        // syscall; push rbp
        b"\x0f\x05\x55",
        // ret
        b"\xc3\x55",
        // A push with a prefix is not emulated, and moves the stack.
        b"\x66\x55\x55",
        // bnd jmp
        b"\xf2\xe9\x00\x00\x00\x00\x55",
        b"",
        b"\x06",
    ] {
        assert_eq!(cheap_in(code), None, "{code:x?}");
    }
    // Long, but not looked at for long.
    assert_eq!(cheap_in(&b"\x31\xc0".repeat(1000)), None);
}

/// `SSL_read_ex` at 0, `SSL_read` at 32, what they call at 64.
fn worker_in(ex: &[u8], plain: &[u8]) -> Option<Worker> {
    let mut code = vec![0xcc; 128];
    code[..ex.len()].copy_from_slice(ex);
    code[32..][..plain.len()].copy_from_slice(plain);
    code[64] = 0x55;
    let file = file(&code);
    let file = &file[..];
    let image = Image::read(&file).unwrap();
    worker(&image, BASE + 32, BASE).unwrap()
}

// sub rsp, 8; call 64; add rsp, 8; ret
const EX: &[u8] = b"\x48\x83\xec\x08\xe8\x37\x00\x00\x00\x48\x83\xc4\x08\xc3";
// sub rsp, 0x18; test edx, edx; js out; mov rcx, rsp; movsxd rdx, edx; call 64; out: ret
const PLAIN: &[u8] = b"\x48\x83\xec\x18\x85\xd2\x78\x0b\x48\x89\xe1\x48\x63\xd2\xe8\x0d\x00\x00\x00\xc3";

#[test]
fn the_worker_of_two_functions_is_found() {
    let address = BASE + 64;
    assert_eq!(worker_in(EX, PLAIN), Some(Worker { address, out: Register::RCX }));
    // mov r8, rcx; xor ecx, ecx; jmp to: sub rsp, 8; call 64
    let flags = b"\x49\x89\xc8\x31\xc9\xeb\x00\x48\x83\xec\x08\xe8\x30\x00\x00\x00";
    assert_eq!(worker_in(flags, PLAIN), Some(Worker { address, out: Register::R8 }));
}

#[test]
fn no_worker_is_found_where_it_is_not_proven() {
    for ex in [
        // xor esi, esi; call 64: another buffer
        &b"\x31\xf6\xe8\x39\x00\x00\x00"[..],
        // lea rcx, [rsp]; call 64: another place for the number of bytes
        b"\x48\x8d\x0c\x24\xe8\x37\x00\x00\x00",
        // inc rdx; call 64: another number of bytes
        b"\x48\xff\xc2\xe8\x38\x00\x00\x00",
        // call 65: another function
        b"\xe8\x3c\x00\x00\x00",
        // test edi, edi; je to call 101; call 64: one or the other
        b"\x85\xff\x74\x05\xe8\x37\x00\x00\x00\xe8\x57\x00\x00\x00",
        // call rax
        b"\xff\xd0",
        // jmp rax
        b"\xff\xe0",
        // jmp to itself
        b"\xeb\xfe",
        b"\xc3",
    ] {
        assert_eq!(worker_in(ex, PLAIN), None, "{ex:x?}");
    }
    // mov rsi, rdi; call 64; and a function that calls nothing
    assert_eq!(worker_in(EX, b"\x48\x89\xfe\xe8\x18\x00\x00\x00"), None);
    assert_eq!(worker_in(EX, b"\xc3"), None);
}

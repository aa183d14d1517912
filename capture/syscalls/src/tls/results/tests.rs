use super::*;

const BASE: u64 = 0x1000;

/// The places known in a function at [`BASE`]: their addresses from there, depths and words. What is 0x100 behind it does the work,
/// what is 0x300 behind it never returns.
fn known_in(code: &[u8]) -> Option<Vec<(u64, i64, Vec<Place>)>> {
    known_behind(code, Work::Of(&["work"]))
}

fn known_behind(code: &[u8], work: Work<'_>) -> Option<Vec<(u64, i64, Vec<Place>)>> {
    let names = [(0x100, "work"), (0x200, "other"), (0x300, "runtime.panicIndex")];
    let names = names.into_iter().map(|(at, name)| (BASE + at, name.to_owned())).collect();
    let known = Body::read(code, BASE, &names, work)?.known()?;
    Some(known.into_iter().map(|known| (known.address - BASE, known.depth, known.words)).collect())
}

fn register(register: Register) -> Vec<Place> {
    vec![Place::Register(register)]
}

#[test]
fn a_result_is_known_at_the_first_emulated_instruction_behind_the_work() {
    // sub rsp, 0x18; call work; test rbx, rbx; jne fail; mov [rsp+16], rax; call other; mov rax, [rsp+16]; add rsp, 0x18; ret;
    // fail: mov [rsp+8], rax; call other; mov rax, [rsp+8]; add rsp, 0x18; ret
    let code = b"\x48\x83\xec\x18\xe8\xf7\x00\x00\x00\x48\x85\xdb\x75\x14\x48\x89\x44\x24\x10\xe8\xe8\x01\x00\x00\
                 \x48\x8b\x44\x24\x10\x48\x83\xc4\x18\xc3\x48\x89\x44\x24\x08\xe8\xd4\x01\x00\x00\x48\x8b\x44\x24\x08\
                 \x48\x83\xc4\x18\xc3";
    assert_eq!(known_in(code), Some(vec![(0x0c, 0x18, register(Register::RAX))]));
}

#[test]
fn ways_that_return_0_have_no_probe() {
    // As before, but fail: call rdx; xor eax, eax; add rsp, 0x18; ret
    let code =
        b"\x48\x83\xec\x18\xe8\xf7\x00\x00\x00\x48\x85\xdb\x75\x14\x48\x89\x44\x24\x10\xe8\xe8\x01\x00\x00\
                 \x48\x8b\x44\x24\x10\x48\x83\xc4\x18\xc3\xff\xd2\x31\xc0\x48\x83\xc4\x18\xc3";
    assert_eq!(known_in(code), Some(vec![(0x13, 0x18, vec![Place::Stack(16)])]));
    // sub rsp, 0x18; movups [rsp+8], xmm15; mov [rsp+8], rax; call work; movups [rsp+8], xmm15; call rdx; mov rax, [rsp+8];
    // add rsp, 0x18; ret
    let code = b"\x48\x83\xec\x18\x44\x0f\x11\x7c\x24\x08\x48\x89\x44\x24\x08\xe8\xec\x00\x00\x00\x44\x0f\x11\x7c\x24\x08\
                 \xff\xd2\x48\x8b\x44\x24\x08\x48\x83\xc4\x18\xc3";
    assert_eq!(known_in(code), Some(vec![]));
}

/// As `(*Conn).Read` ends: the number of bytes is known before they are copied, and there are checks behind it.
#[test]
fn the_work_is_waited_for() {
    // push rbp; sub rsp, 16; cmp rax, rbx; je same; mov [rsp+8], rcx; call work; mov rcx, [rsp+8]; same: test rcx, rcx; je out;
    // cmp rdx, rsi; ja beyond; out: mov [rsp], rcx; movups [rsp+8], xmm15; call rdx; mov rax, [rsp]; add rsp, 16; pop rbp; ret;
    // beyond: call panic; int3
    let code = b"\x55\x48\x83\xec\x10\x48\x39\xd8\x74\x0f\x48\x89\x4c\x24\x08\xe8\xec\x00\x00\x00\x48\x8b\x4c\x24\x08\
                 \x48\x85\xc9\x74\x05\x48\x39\xf2\x77\x16\x48\x89\x0c\x24\x44\x0f\x11\x7c\x24\x08\xff\xd2\x48\x8b\x04\x24\
                 \x48\x83\xc4\x10\x5d\xc3\xe8\xc2\x02\x00\x00\xcc";
    assert_eq!(known_in(code), Some(vec![(0x1c, 0x18, register(Register::RCX))]));
}

/// As `newproc1` ends.
#[test]
fn all_calls_may_be_the_work() {
    // sub rsp, 0x18; call work; mov [rsp+8], rax; cmp rbx, rcx; je on; call rdx; on: mov rax, [rsp+8]; cmp edx, 1; jne out;
    // mov [r14+16], rbx; out: add rsp, 0x18; ret
    let code = b"\x48\x83\xec\x18\xe8\xf7\x00\x00\x00\x48\x89\x44\x24\x08\x48\x39\xcb\x74\x02\xff\xd2\x48\x8b\x44\x24\x08\
                 \x83\xfa\x01\x75\x04\x49\x89\x5e\x10\x48\x83\xc4\x18\xc3";
    assert_eq!(known_in(code), Some(vec![(0x11, 0x18, vec![Place::Stack(8)])]));
    assert_eq!(known_behind(code, Work::Calls), Some(vec![(0x1d, 0x18, register(Register::RAX))]));
}

#[test]
fn a_result_may_be_a_sum() {
    // sub rsp, 0x18; mov [rsp+16], rcx; call work; mov [rsp+8], rax; call other; mov rbx, [rsp+8]; mov rsi, [rsp+16]; add rbx, rsi;
    // mov rax, rbx; add rsp, 0x18; ret
    let code =
        b"\x48\x83\xec\x18\x48\x89\x4c\x24\x10\xe8\xf2\x00\x00\x00\x48\x89\x44\x24\x08\xe8\xe8\x01\x00\x00\
                 \x48\x8b\x5c\x24\x08\x48\x8b\x74\x24\x10\x48\x01\xf3\x48\x89\xd8\x48\x83\xc4\x18\xc3";
    assert_eq!(known_in(code), Some(vec![(0x13, 0x18, vec![Place::Stack(8), Place::Stack(16)])]));
    // sub rsp, 0x18; call work; test rbx, rbx; je on; on: lea rax, [rbx+rcx]; add rsp, 0x18; ret
    let code =
        b"\x48\x83\xec\x18\xe8\xf7\x00\x00\x00\x48\x85\xdb\x74\x00\x48\x8d\x04\x0b\x48\x83\xc4\x18\xc3";
    let words = vec![Place::Register(Register::RCX), Place::Register(Register::RBX)];
    assert_eq!(known_in(code), Some(vec![(0x0c, 0x18, words)]));
}

#[test]
fn the_return_is_probed_where_the_result_is_not_known_before() {
    for (code, end) in [
        // sub rsp, 8; call work; add rsp, 8; ret
        (&b"\x48\x83\xec\x08\xe8\xf7\x00\x00\x00\x48\x83\xc4\x08\xc3"[..], 0x0d),
        // call work; mov rbx, rax; call other; mov rax, rbx; ret: what is called may change the register
        (b"\xe8\xfb\x00\x00\x00\x48\x89\xc3\xe8\xf3\x01\x00\x00\x48\x89\xd8\xc3", 0x10),
        // sub rsp, 0x18; lea rdi, [rsp+8]; mov [rsp], rdi; call work; mov [rsp+8], rax; call other; mov rax, [rsp+8]; add rsp, 0x18;
        // ret: what is called may know the place
        (
            b"\x48\x83\xec\x18\x48\x8d\x7c\x24\x08\x48\x89\x3c\x24\xe8\xee\x00\x00\x00\x48\x89\x44\x24\x08\xe8\xe4\x01\x00\x00\
              \x48\x8b\x44\x24\x08\x48\x83\xc4\x18\xc3",
            0x25,
        ),
        // sub rsp, 0x18; call work; call other; mov rax, [rsp]; add rsp, 0x18; ret: other's result
        (b"\x48\x83\xec\x18\xe8\xf7\x00\x00\x00\xe8\xf2\x01\x00\x00\x48\x8b\x04\x24\x48\x83\xc4\x18\xc3", 0x16),
        // sub rsp, 0x18; call work; mov [rsp+8], rax; call other; mov dword [rsp+12], 0; mov rax, [rsp+8]; add rsp, 0x18; ret
        (
            b"\x48\x83\xec\x18\xe8\xf7\x00\x00\x00\x48\x89\x44\x24\x08\xe8\xed\x01\x00\x00\xc7\x44\x24\x0c\x00\x00\x00\x00\
              \x48\x8b\x44\x24\x08\x48\x83\xc4\x18\xc3",
            0x24,
        ),
        // sub rsp, 0x18; mov [rsp+8], rcx; mov [rsp+16], rcx; call work; mov [rsp], rax; call other; mov rax, [rsp];
        // add rax, [rsp+8]; add rax, [rsp+16]; add rsp, 0x18; ret: three words
        (
            b"\x48\x83\xec\x18\x48\x89\x4c\x24\x08\x48\x89\x4c\x24\x10\xe8\xed\x00\x00\x00\x48\x89\x04\x24\xe8\xe4\x01\x00\x00\
              \x48\x8b\x04\x24\x48\x03\x44\x24\x08\x48\x03\x44\x24\x10\x48\x83\xc4\x18\xc3",
            0x2e,
        ),
    ] {
        assert_eq!(known_in(code), Some(vec![(end, 0, register(Register::RAX))]), "{code:x?}");
    }
}

#[test]
fn nothing_is_known_of_what_is_not_understood() {
    for code in [
        // jmp on; on: ret: no work
        &b"\xeb\x00\xc3"[..],
        // call work; jmp rax
        b"\xe8\xfb\x00\x00\x00\xff\xe0",
        // test rax, rax; je on; push rbx; on: call work; ret: the stack pointer is here or there
        b"\x48\x85\xc0\x74\x01\x53\xe8\xf5\x00\x00\x00\xc3",
        // mov rsp, rax; call work; ret
        b"\x48\x89\xc4\xe8\xf8\x00\x00\x00\xc3",
        // call work; jmp out of it
        b"\xe8\xfb\x00\x00\x00\xeb\x40",
        // No instruction.
        b"\x06",
        b"",
    ] {
        assert_eq!(known_in(code), None, "{code:x?}");
    }
}

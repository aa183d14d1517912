//! What the kernel's verifier asks of the programs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Instant;

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use super::super::object::{Kernel, OBJECT, Object as Loaded};
use super::super::{TracerOptions, attachments};
use crate::BpfError;

/// `instructions`, a program with all that it calls, as functions by where they begin: how far down each goes on its stack, and
/// where what it calls begins.
fn functions(instructions: &[bpf_insn]) -> BTreeMap<usize, (u32, BTreeSet<usize>)> {
    const CALL: u8 = 0x85;
    const FUNCTION: u8 = 1;
    // Of the classes that go to memory, and of those that copy a register and add to it.
    const MEMORY: std::ops::RangeInclusive<u8> = 1..=3;
    const COPY: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const FRAME: u8 = 10;
    let callee = |(at, call): (usize, &bpf_insn)| {
        let is_call = call.code == CALL && call.src_reg() == FUNCTION;
        is_call.then(|| at.saturating_add_signed(call.imm as isize + 1))
    };
    let mut begins: BTreeSet<usize> = instructions.iter().enumerate().filter_map(callee).collect();
    begins.insert(0);
    let mut functions = BTreeMap::new();
    for (number, &begin) in begins.iter().enumerate() {
        let end = begins.iter().nth(number + 1).copied().unwrap_or(instructions.len());
        let mut depth = 0u32;
        for pair in instructions[begin..end].windows(2) {
            let [one, next] = pair else { continue };
            let class = one.code & 7;
            let base = if class == 1 { one.src_reg() } else { one.dst_reg() };
            if MEMORY.contains(&class) && base == FRAME {
                depth = depth.max((-i32::from(one.off)).max(0).cast_unsigned());
            }
            if one.code == COPY
                && one.src_reg() == FRAME
                && next.code == ADD
                && next.dst_reg() == one.dst_reg()
            {
                depth = depth.max((-next.imm).max(0).cast_unsigned());
            }
        }
        let calls = (begin..end).filter_map(|at| callee((at, &instructions[at]))).collect();
        functions.insert(begin, (depth, calls));
    }
    functions
}

/// What a function and the worst chain of what it calls take, each in whole 32 bytes.
fn stack(functions: &BTreeMap<usize, (u32, BTreeSet<usize>)>, begin: usize) -> u32 {
    let (depth, calls) = &functions[&begin];
    let deepest = calls.iter().map(|&call| stack(functions, call)).max().unwrap_or_default();
    (*depth).max(1).next_multiple_of(32) + deepest
}

#[test]
fn each_program_has_enough_stack_on_kernels_that_give_512_bytes_for_all_it_calls() {
    let mut object = Object::parse(OBJECT).unwrap();
    let sections: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    object.relocate_calls(&sections).unwrap();
    for (name, program) in &object.programs {
        let function = &object.functions[&program.function_key()];
        let bytes = stack(&functions(&function.instructions), 0);
        assert!((32..=512).contains(&bytes), "{name} takes {bytes} bytes");
    }
    let sys_exit = &object.functions[&object.programs["sys_exit"].function_key()];
    assert!(functions(&sys_exit.instructions).len() > 3, "what it calls is looked at");
}

#[test]
#[ignore = "prints timings"]
fn time_to_check_each_program() {
    let options = TracerOptions { uprobes: true, ..TracerOptions::default() };
    let mut object = Loaded::load(&options, Kernel::RUNNING).unwrap();
    let began = Instant::now();
    let probes = object.load_probes(Kernel::RUNNING).unwrap();
    println!("all programs of probes: {:?}", began.elapsed());
    for (_, program, tracepoint, _) in attachments(&options.groups) {
        let began = Instant::now();
        let refused = object.load_program(program, tracepoint).err().as_ref().map(BpfError::reason);
        println!("{program}: {:?}, {refused:?}", began.elapsed());
    }
    for stats in probes.stats().chain(object.program_stats().unwrap().into_iter().map(Ok)) {
        let stats = stats.unwrap();
        println!("{}: {} instructions", stats.name, stats.verified);
    }
}

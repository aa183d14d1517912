//! Where a probe on the beginning of a function costs least.
//!
//! The kernel steps over the instruction under a probe with the processor's trap flag, which is another exception; in a virtual
//! machine that costs ten times what the probe does. A few kinds of instructions it emulates. So a probe is put on the first of
//! those that is always passed before anything changed that the probe reads, or on a function that does the whole work.

use std::collections::BTreeSet;

use iced_x86::{Code as Operation, FlowControl, Instruction, InstructionInfoFactory, OpKind, Register};

use super::code::{Code, is_emulated, writes};
use super::elf::{ElfError, Image};

/// Instructions that are looked at; functions begin with less.
const MAX_INSTRUCTIONS: usize = 64;
/// Registers of the first arguments of a C function, in order.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// The address of an instruction that the kernel emulates, and that is reached from `address` by no jump, with the registers
/// `kept` as they were there.
///
/// # Errors
/// Those of the file.
pub fn cheap(image: &Image<'_>, address: u64, kept: &[Register]) -> Result<Option<u64>, ElfError> {
    let mut code = Code::new(image);
    let mut instruction = Instruction::default();
    let mut registers = InstructionInfoFactory::new();
    let mut at = address;
    for _ in 0..MAX_INSTRUCTIONS {
        if !code.decode(at, &mut instruction)? {
            return Ok(None);
        }
        if is_emulated(code.bytes(at)?) {
            return Ok(Some(at));
        }
        let goes_on = instruction.flow_control() == FlowControl::Next;
        if !goes_on || written(&mut registers, &instruction).any(|register| kept.contains(&register)) {
            return Ok(None);
        }
        at = instruction.next_ip();
    }
    Ok(None)
}

/// The whole registers that an instruction writes.
fn written<'a>(
    registers: &'a mut InstructionInfoFactory,
    instruction: &Instruction,
) -> impl Iterator<Item = Register> + 'a {
    let used = registers.info(instruction).used_registers().iter();
    used.filter(|used| writes(used.access())).map(|used| used.register().full_register())
}

/// A function that does the work of two others: of `SSL_read`, and of `SSL_read_ex`, which has a fourth argument for the number
/// of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Where it begins.
    pub address: u64,
    /// The register of the address of the number of bytes; the other arguments are where `SSL_read_ex` has them.
    pub out: Register,
}

/// What `plain` and `ex` both leave their work to: all that `ex` does first is to call it with its own arguments, and `plain`
/// calls it too, with its first two. `None` when that is not so, or cannot be seen.
///
/// # Errors
/// Those of the file.
pub fn worker(image: &Image<'_>, plain: u64, ex: u64) -> Result<Option<Worker>, ElfError> {
    let Some(calls) = first_calls(image, ex)? else { return Ok(None) };
    let mut calls = calls.into_iter();
    let (Some(call), None) = (calls.next(), calls.next()) else { return Ok(None) };
    let out = call.arguments.iter().position(|argument| *argument == Some(3));
    let Some(out) = out.and_then(|place| ARGUMENTS.get(place)) else { return Ok(None) };
    if call.arguments[..3] != [Some(0), Some(1), Some(2)] {
        return Ok(None);
    }
    let calls = first_calls(image, plain)?.unwrap_or_default();
    let calls_it =
        calls.iter().any(|other| other.target == call.target && other.arguments[..2] == [Some(0), Some(1)]);
    Ok(calls_it.then_some(Worker { address: call.target, out: *out }))
}

/// A call, and which arguments of the caller are then in the registers of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    target: u64,
    arguments: [Option<usize>; ARGUMENTS.len()],
}

/// The first calls on all ways from `address`; `None` when they cannot all be seen.
fn first_calls(image: &Image<'_>, address: u64) -> Result<Option<BTreeSet<Call>>, ElfError> {
    let mut calls = BTreeSet::new();
    let mut code = Code::new(image);
    let mut instruction = Instruction::default();
    let mut registers = InstructionInfoFactory::new();
    let mut ways = vec![(address, std::array::from_fn(Some))];
    let mut seen = BTreeSet::new();
    while let Some((at, mut arguments)) = ways.pop() {
        if !seen.insert((at, arguments)) {
            continue;
        }
        if seen.len() > MAX_INSTRUCTIONS || !code.decode(at, &mut instruction)? {
            return Ok(None);
        }
        let next = match instruction.flow_control() {
            FlowControl::Next => {
                pass(&mut registers, &instruction, &mut arguments);
                instruction.next_ip()
            }
            FlowControl::ConditionalBranch => {
                ways.push((instruction.near_branch_target(), arguments));
                instruction.next_ip()
            }
            FlowControl::UnconditionalBranch => instruction.near_branch_target(),
            FlowControl::IndirectBranch => {
                let Some(target) = code.imported(&instruction)? else { return Ok(None) };
                target
            }
            FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => {
                calls.insert(Call { target: instruction.near_branch_target(), arguments });
                continue;
            }
            FlowControl::Return => continue,
            _ => return Ok(None),
        };
        ways.push((next, arguments));
    }
    Ok(Some(calls))
}

/// What an instruction leaves of the arguments.
fn pass(
    registers: &mut InstructionInfoFactory,
    instruction: &Instruction,
    arguments: &mut [Option<usize>; ARGUMENTS.len()],
) {
    let place = |register| ARGUMENTS.iter().position(|argument| *argument == register);
    let moves = matches!(instruction.code(), Operation::Mov_r64_rm64 | Operation::Mov_rm64_r64);
    let moved = (moves && instruction.op1_kind() == OpKind::Register)
        .then(|| place(instruction.op1_register()).and_then(|from| arguments.get(from).copied().flatten()))
        .flatten();
    for register in written(registers, instruction) {
        if let Some(to) = place(register).and_then(|to| arguments.get_mut(to)) {
            *to = moved;
        }
    }
}

#[cfg(test)]
mod tests;

//! Where the result of a function of Go is known before it returns.
//!
//! A probe on a return instruction has to be stepped over, which costs ten times what the probe does, and return probes cannot be
//! used on stacks that move. But behind the call that does the work, the result lies in a register or in the function's frame, and
//! is only handed through. So for each instruction it is found out which words make up what all returns behind it will have in
//! `rax`, and probes are put on the first emulated instructions where that is known and the work is done. A return that can be
//! reached past all of them is probed itself, unless it is one of those that return 0.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Code as Operation, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpKind,
    Register, UsedMemory,
};

use super::code::{is_emulated, writes};
use super::elf::{Function, Image};
use super::go;
use super::returns::{self, ReturnsError};

/// Instructions of the longest function that is looked at.
const MAX_STEPS: usize = 4096;
/// How often all of them are; most functions need three.
const MAX_PASSES: usize = 32;
/// Words that a result may be the sum of.
pub const MAX_WORDS: usize = 2;
const WORD: i64 = 8;

/// Where a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a register of 64 bits.
    Register(Register),
    /// On the stack: its distance from the stack pointer, bytes.
    Stack(i64),
}

/// An instruction at which the result is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of the instruction.
    pub address: u64,
    /// How far the stack pointer is below where it was at the function's entry, bytes.
    pub depth: i64,
    /// The words whose sum is the result, at most [`MAX_WORDS`].
    pub words: Vec<Place>,
}

/// What does the work of a function: behind its last call, the buffer is filled, or sent, or what was made is complete.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Functions of these names.
    Of(&'a [&'a str]),
    /// All that it calls.
    Calls,
}

/// Where probes see the results of all calls of `function` that are not 0; `None` when it cannot be seen, or does not do the work so.
///
/// # Errors
/// [`ReturnsError`]
pub fn known(
    image: &Image<'_>,
    function: Function,
    work: Work<'_>,
) -> Result<Option<Vec<Known>>, ReturnsError> {
    let code = returns::code_of(image, function)?;
    let called = Decoder::with_ip(64, &code, function.address, DecoderOptions::NONE);
    let called = called.into_iter().filter_map(|instruction| called_by(&instruction)).collect();
    let names = go::names(image, &called)?;
    Ok(Body::read(&code, function.address, &names, work).and_then(|body| body.known()))
}

/// The function that is called, where that is always the same.
fn called_by(instruction: &Instruction) -> Option<u64> {
    (instruction.flow_control() == FlowControl::Call && instruction.op0_kind() == OpKind::NearBranch64)
        .then(|| instruction.near_branch_target())
}

/// The words whose sum a result is; those on the stack by their distance from where the stack pointer was at entry.
type Sum = Vec<Place>;

/// What all returns behind an instruction return.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// There is none, as far as was looked.
    Nothing,
    Sum(Sum),
    Unknown,
}

impl Outcome {
    fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Nothing, _) => other.clone(),
            (outcome, Self::Nothing) => outcome,
            (Self::Sum(sum), Self::Sum(other)) if sum == *other => Self::Sum(sum),
            _ => Self::Unknown,
        }
    }
}

struct Step {
    instruction: Instruction,
    is_emulated: bool,
    is_work: bool,
    /// Those that may follow, by their numbers.
    next: Vec<usize>,
    /// How far the stack pointer is below where it was at entry; `None` where nothing leads to.
    depth: Option<i64>,
}

impl Step {
    fn is_return(&self) -> bool {
        self.instruction.flow_control() == FlowControl::Return
    }
}

/// A function.
struct Body {
    steps: Vec<Step>,
    /// Places on the stack, as [`Sum`] has them, where the function puts words: others are those of results of what it calls.
    stored: BTreeSet<i64>,
    /// Those whose addresses it takes: others may write there.
    taken: BTreeSet<i64>,
}

impl Body {
    /// `None` where it is not seen what follows on what, or where the stack pointer is.
    fn read(code: &[u8], start: u64, names: &BTreeMap<u64, String>, work: Work<'_>) -> Option<Self> {
        let instructions: Vec<Instruction> =
            Decoder::with_ip(64, code, start, DecoderOptions::NONE).iter().take(MAX_STEPS + 1).collect();
        if instructions.len() > MAX_STEPS || instructions.iter().any(Instruction::is_invalid) {
            return None;
        }
        let number = |address: u64| instructions.binary_search_by_key(&address, Instruction::ip).ok();
        let mut steps = Vec::with_capacity(instructions.len());
        for instruction in &instructions {
            let target = || number(instruction.near_branch_target());
            let callee = called_by(instruction).and_then(|address| names.get(&address));
            let behind = number(instruction.next_ip());
            let never_returns = callee.is_some_and(|name| go::never_returns(name));
            let is_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            let next = match instruction.flow_control() {
                FlowControl::Next | FlowControl::IndirectCall => behind.into_iter().collect(),
                FlowControl::Call if never_returns => Vec::new(),
                FlowControl::Call => behind.into_iter().collect(),
                FlowControl::ConditionalBranch => vec![behind?, target()?],
                FlowControl::UnconditionalBranch => vec![target()?],
                FlowControl::Return | FlowControl::Interrupt | FlowControl::Exception => Vec::new(),
                FlowControl::IndirectBranch | FlowControl::XbeginXabortXend => return None,
            };
            let offset = usize::try_from(instruction.ip().checked_sub(start)?).ok()?;
            steps.push(Step {
                instruction: *instruction,
                is_emulated: is_emulated(code.get(offset..)?),
                is_work: match work {
                    Work::Of(names) => callee.is_some_and(|name| names.contains(&name.as_str())),
                    Work::Calls => is_call && !never_returns,
                },
                next,
                depth: None,
            });
        }
        let mut body = Self { steps, stored: BTreeSet::new(), taken: BTreeSet::new() };
        body.measure()?;
        Some(body)
    }

    /// Finds the depth of each step, and what becomes of places on the stack.
    fn measure(&mut self) -> Option<()> {
        let mut ways = vec![(0, 0)];
        while let Some((number, depth)) = ways.pop() {
            let step = self.steps.get_mut(number)?;
            if let Some(known) = step.depth {
                if known != depth {
                    return None;
                }
                continue;
            }
            step.depth = Some(depth);
            let instruction = &step.instruction;
            match instruction.code() {
                Operation::Lea_r64_m if instruction.op0_register() != Register::RBP => {
                    self.taken.extend(on_stack(instruction, depth));
                }
                Operation::Mov_rm64_r64 | Operation::Mov_rm64_imm32 => {
                    self.stored.extend(on_stack(instruction, depth));
                }
                _ => {}
            }
            let lower = depth.checked_add(lowered(instruction)?)?;
            ways.extend(step.next.iter().map(|next| (*next, lower)));
        }
        Some(())
    }

    /// The first places on all ways where the result is known and may not be 0: at returns at the latest.
    fn known(&self) -> Option<Vec<Known>> {
        let before_work = self.before_work();
        let outcomes = self.outcomes()?;
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut ways = vec![0];
        while let Some(number) = ways.pop() {
            if !seen.insert(number) {
                continue;
            }
            let step = self.steps.get(number)?;
            let known = match outcomes.get(number)? {
                Outcome::Sum(sum) if sum.is_empty() => continue,
                Outcome::Sum(sum) if step.is_return() => Some(self.describe(step, sum)?),
                Outcome::Sum(sum) if step.is_emulated && !before_work.contains(&number) => {
                    self.describe(step, sum)
                }
                _ => None,
            };
            match known {
                Some(known) => found.push(known),
                None => ways.extend(&step.next),
            }
        }
        found.sort_unstable_by_key(|known| known.address);
        (!before_work.is_empty()).then_some(found)
    }

    /// What is known at a step of a result that is not 0; `None` when it is not where a probe could read it.
    fn describe(&self, step: &Step, sum: &Sum) -> Option<Known> {
        let depth = step.depth?;
        let word = |place: &Place| match *place {
            Place::Stack(from_entry) => {
                let from_here = from_entry.checked_add(depth)?;
                let is_word = from_here >= 0 && from_here % WORD == 0;
                let is_own = self.stored.contains(&from_entry) && !self.taken.contains(&from_entry);
                (is_word && is_own).then_some(Place::Stack(from_here))
            }
            Place::Register(_) => Some(*place),
        };
        let words = sum.iter().map(word).collect::<Option<_>>()?;
        Some(Known { address: step.instruction.ip(), depth, words })
    }

    /// The calls that do the work, and the steps from which they may be reached.
    fn before_work(&self) -> BTreeSet<usize> {
        let mut before = vec![Vec::new(); self.steps.len()];
        for (number, step) in self.steps.iter().enumerate().filter(|(_, step)| step.depth.is_some()) {
            for next in &step.next {
                if let Some(before) = before.get_mut(*next) {
                    before.push(number);
                }
            }
        }
        let works = |(number, step): (usize, &Step)| (step.is_work && step.depth.is_some()).then_some(number);
        let mut ways: Vec<usize> = self.steps.iter().enumerate().filter_map(works).collect();
        let mut found = BTreeSet::new();
        while let Some(number) = ways.pop() {
            if found.insert(number) {
                ways.extend(before.get(number).into_iter().flatten());
            }
        }
        found
    }

    /// For each step the outcome; `None` when that is too much work.
    fn outcomes(&self) -> Option<Vec<Outcome>> {
        let mut outcomes = vec![Outcome::Nothing; self.steps.len()];
        let mut registers = InstructionInfoFactory::new();
        for _ in 0..MAX_PASSES {
            let mut changes = false;
            // What an outcome depends on is behind it mostly.
            for (number, step) in self.steps.iter().enumerate().rev() {
                let Some(depth) = step.depth else { continue };
                let outcome = if step.is_return() {
                    Outcome::Sum(vec![Place::Register(Register::RAX)])
                } else {
                    let after = step
                        .next
                        .iter()
                        .filter_map(|next| outcomes.get(*next))
                        .fold(Outcome::Nothing, Outcome::or);
                    match after {
                        Outcome::Sum(sum) => before(&mut registers, &step.instruction, depth, sum)
                            .map_or(Outcome::Unknown, Outcome::Sum),
                        outcome => outcome,
                    }
                };
                // Only ever towards the unknown.
                if let Some(known) = outcomes.get_mut(number) {
                    let outcome = outcome.or(known);
                    changes |= outcome != *known;
                    *known = outcome;
                }
            }
            if !changes {
                return Some(outcomes);
            }
        }
        None
    }
}

/// By how much an instruction lowers the stack pointer; `None` when that is not seen.
fn lowered(instruction: &Instruction) -> Option<i64> {
    use Operation as Op;
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        return Some(0);
    }
    let is_stack_pointer = instruction.op0_register() == Register::RSP;
    match instruction.code() {
        Op::Sub_rm64_imm8 | Op::Sub_rm64_imm32 if is_stack_pointer => Some(immediate(instruction)),
        Op::Add_rm64_imm8 | Op::Add_rm64_imm32 if is_stack_pointer => Some(-immediate(instruction)),
        _ => {
            let mut registers = InstructionInfoFactory::new();
            let mut used = registers.info(instruction).used_registers().iter();
            let moves = used.any(|used| writes(used.access()) && used.register() == Register::RSP);
            match instruction.stack_pointer_increment() {
                0 => (!moves).then_some(0),
                by => Some(-i64::from(by)),
            }
        }
    }
}

/// The last operand, a number.
fn immediate(instruction: &Instruction) -> i64 {
    instruction.immediate(1).cast_signed()
}

/// The place of memory that is addressed by the stack pointer alone, from where that was at entry.
fn on_stack(instruction: &Instruction, depth: i64) -> Option<i64> {
    let alone = instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None;
    alone.then(|| instruction.memory_displacement64().cast_signed().checked_sub(depth)).flatten()
}

/// The place of an operand of 64 bits.
fn place(instruction: &Instruction, operand: u32, depth: i64) -> Option<Place> {
    match instruction.op_kind(operand) {
        OpKind::Register => Some(instruction.op_register(operand))
            .filter(|register| register.is_gpr64() && *register != Register::RSP)
            .map(Place::Register),
        OpKind::Memory => on_stack(instruction, depth).map(Place::Stack),
        _ => None,
    }
}

/// What a sum that is known behind an instruction is before it. Memory that is not addressed by the stack pointer is another's.
fn before(
    registers: &mut InstructionInfoFactory,
    instruction: &Instruction,
    depth: i64,
    sum: Sum,
) -> Option<Sum> {
    if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        return sum.iter().all(|place| matches!(place, Place::Stack(_))).then_some(sum);
    }
    let info = registers.info(instruction);
    let changes = |place: &Place| match *place {
        Place::Register(register) => {
            let mut used = info.used_registers().iter();
            used.any(|used| writes(used.access()) && used.register().full_register() == register)
        }
        Place::Stack(from_entry) => info
            .used_memory()
            .iter()
            .filter(|used| writes(used.access()))
            .any(|used| overlaps(used, depth, from_entry)),
    };
    let (changed, mut rest): (Sum, Sum) = sum.into_iter().partition(changes);
    for place in changed {
        rest.extend(made_of(instruction, depth, place)?);
    }
    rest.sort_unstable();
    (rest.len() <= MAX_WORDS).then_some(rest)
}

/// Whether memory that is written may be that of a word.
fn overlaps(used: &UsedMemory, depth: i64, from_entry: i64) -> bool {
    match (used.base(), used.index()) {
        (Register::RSP, Register::None) => {
            let size = i64::try_from(used.memory_size().size()).unwrap_or(i64::MAX);
            let start = used.displacement().cast_signed().saturating_sub(depth);
            start < from_entry.saturating_add(WORD) && from_entry < start.saturating_add(size)
        }
        (Register::RSP | Register::RBP, _) | (_, Register::RSP | Register::RBP) => true,
        _ => false,
    }
}

/// The words that an instruction puts into a place, as a sum; `None` when it is something else.
fn made_of(instruction: &Instruction, depth: i64, to: Place) -> Option<Sum> {
    use Operation as Op;
    let is_whole = || (place(instruction, 0, depth) == Some(to)).then_some(());
    match instruction.code() {
        Op::Mov_r64_rm64 | Op::Mov_rm64_r64 => {
            is_whole()?;
            Some(vec![place(instruction, 1, depth)?])
        }
        Op::Add_r64_rm64 | Op::Add_rm64_r64 => {
            is_whole()?;
            Some(vec![to, place(instruction, 1, depth)?])
        }
        Op::Lea_r64_m => {
            let (base, index) = (instruction.memory_base(), instruction.memory_index());
            let adds = instruction.memory_index_scale() == 1 && instruction.memory_displacement64() == 0;
            let both =
                [base, index].into_iter().all(|register| register.is_gpr64() && register != Register::RSP);
            (adds && both).then(|| vec![Place::Register(base), Place::Register(index)])
        }
        Op::Mov_rm64_imm32 | Op::Mov_r64_imm64 => {
            is_whole()?;
            (instruction.immediate(1) == 0).then(Vec::new)
        }
        Op::Mov_r32_imm32 => (instruction.immediate(1) == 0).then(Vec::new),
        Op::Xor_r32_rm32 | Op::Xor_rm32_r32 | Op::Xor_r64_rm64 | Op::Xor_rm64_r64 => {
            (instruction.op0_register() == instruction.op1_register()).then(Vec::new)
        }
        // Go keeps 0 in that register.
        Op::Movups_xmmm128_xmm if instruction.op1_register() == Register::XMM15 => {
            let (start, Place::Stack(at)) = (on_stack(instruction, depth)?, to) else { return None };
            (start <= at && at <= start.saturating_add(WORD)).then(Vec::new)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! Where a function returns: the addresses of its `ret` instructions.
//!
//! A probe on each of them sees what a return probe sees, but leaves the stack alone: a Go stack moves, and on Linux 6.11 to
//! 6.13 a return probe makes a system call that seccomp filters do not know.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

use super::elf::{ElfError, Image};

/// Instructions of one function; the longest of those that are sought has some hundred.
const MAX_INSTRUCTIONS: usize = 8192;
/// Bytes of code that are read at once.
const PIECE: usize = 512;
/// Bytes of the longest instruction.
const LONGEST: usize = 15;
/// Bytes of the longest function that is swept.
const MAX_FUNCTION: u64 = 64 << 10;

/// Why not all returns of a function are known.
#[derive(Debug, thiserror::Error)]
pub enum ReturnsError {
    /// The file cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A jump whose target is computed.
    #[error("it jumps to a computed address")]
    Computed,
    /// It is unlike code.
    #[error("its code cannot be decoded")]
    Undecodable,
    /// It does not end.
    #[error("it is too long")]
    TooLong,
    /// It returns nowhere.
    #[error("it has no return")]
    None,
}

impl From<std::io::Error> for ReturnsError {
    fn from(error: std::io::Error) -> Self {
        Self::Elf(error.into())
    }
}

/// The returns that can be reached from `entry` without a call. A jump to another function that ends this one (a tail call) is
/// followed, so that some may belong to it; who probes them must tell by the stack pointer whose return it is.
///
/// # Errors
/// [`ReturnsError`]
pub fn reachable(image: &Image<'_>, entry: u64) -> Result<Vec<u64>, ReturnsError> {
    let mut returns = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut starts = vec![entry];
    let mut instruction = Instruction::default();
    let mut code = Code { image, start: 0, bytes: Vec::new() };
    while let Some(mut at) = starts.pop() {
        while seen.insert(at) {
            if seen.len() > MAX_INSTRUCTIONS {
                return Err(ReturnsError::TooLong);
            }
            code.decode(at, &mut instruction)?;
            at = match instruction.flow_control() {
                FlowControl::Next
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::XbeginXabortXend => instruction.next_ip(),
                FlowControl::ConditionalBranch => {
                    starts.push(instruction.near_branch_target());
                    instruction.next_ip()
                }
                FlowControl::UnconditionalBranch => instruction.near_branch_target(),
                FlowControl::IndirectBranch => {
                    imported(image, &instruction)?.ok_or(ReturnsError::Computed)?
                }
                FlowControl::Return => {
                    returns.insert(at);
                    break;
                }
                // What comes after a call that never returns.
                FlowControl::Interrupt | FlowControl::Exception => break,
            };
        }
    }
    if returns.is_empty() { Err(ReturnsError::None) } else { Ok(returns.into_iter().collect()) }
}

/// Code of a file, read piece by piece.
struct Code<'a> {
    image: &'a Image<'a>,
    start: u64,
    bytes: Vec<u8>,
}

impl Code<'_> {
    fn decode(&mut self, at: u64, instruction: &mut Instruction) -> Result<(), ReturnsError> {
        let within = |code: &Self| at.checked_sub(code.start).and_then(|at| usize::try_from(at).ok());
        if within(self).is_none_or(|within| within + LONGEST > self.bytes.len()) {
            self.bytes.resize(PIECE, 0);
            let read = self.image.memory(at, &mut self.bytes)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let bytes = within(self).and_then(|within| self.bytes.get(within..)).unwrap_or_default();
        Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode_out(instruction);
        if instruction.is_invalid() { Err(ReturnsError::Undecodable) } else { Ok(()) }
    }
}

/// The target of a jump through a slot that the dynamic linker fills, as in the procedure linkage table.
fn imported(image: &Image<'_>, jump: &Instruction) -> Result<Option<u64>, ElfError> {
    if jump.op0_kind() == OpKind::Memory && jump.is_ip_rel_memory_operand() {
        image.import(jump.ip_rel_memory_address())
    } else {
        Ok(None)
    }
}

/// All returns between two addresses, which must be those of one function without data in it, as Go's are.
///
/// # Errors
/// [`ReturnsError`]
pub fn between(image: &Image<'_>, start: u64, end: u64) -> Result<Vec<u64>, ReturnsError> {
    let size = end.checked_sub(start).filter(|size| *size <= MAX_FUNCTION).ok_or(ReturnsError::TooLong)?;
    let mut code = vec![0; usize::try_from(size).unwrap_or_default()];
    let read = image.memory(start, &mut code)?;
    if read < code.len() {
        return Err(ReturnsError::Undecodable);
    }
    let mut returns = Vec::new();
    for instruction in &mut Decoder::with_ip(64, &code, start, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return Err(ReturnsError::Undecodable);
        }
        if instruction.flow_control() == FlowControl::Return {
            returns.push(instruction.ip());
        }
    }
    if returns.is_empty() { Err(ReturnsError::None) } else { Ok(returns) }
}

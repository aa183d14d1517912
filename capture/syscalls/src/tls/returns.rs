//! Where a function returns: the addresses of its `ret` instructions. And where it calls another.
//!
//! A probe on each return sees what a return probe sees, but leaves the stack alone: a Go stack moves, and on Linux 6.11 to
//! 6.13 a return probe makes a system call that seccomp filters do not know.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::code::Code;
use super::elf::{ElfError, Function, Image};

/// Instructions of one function; the longest of those that are sought has some hundred.
const MAX_INSTRUCTIONS: usize = 8192;
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
    let mut code = Code::new(image);
    while let Some(mut at) = starts.pop() {
        while seen.insert(at) {
            if seen.len() > MAX_INSTRUCTIONS {
                return Err(ReturnsError::TooLong);
            }
            if !code.decode(at, &mut instruction)? {
                return Err(ReturnsError::Undecodable);
            }
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
                FlowControl::IndirectBranch => code.imported(&instruction)?.ok_or(ReturnsError::Computed)?,
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

/// All returns of a function without data in it, as Go's are.
///
/// # Errors
/// [`ReturnsError`]
pub fn all(image: &Image<'_>, function: Function) -> Result<Vec<u64>, ReturnsError> {
    let code = code_of(image, function)?;
    let mut returns = Vec::new();
    for instruction in &mut Decoder::with_ip(64, &code, function.address, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return Err(ReturnsError::Undecodable);
        }
        if instruction.flow_control() == FlowControl::Return {
            returns.push(instruction.ip());
        }
    }
    if returns.is_empty() { Err(ReturnsError::None) } else { Ok(returns) }
}

/// Where a function calls the one at `callee`.
///
/// # Errors
/// [`ReturnsError`]
pub fn calls(image: &Image<'_>, function: Function, callee: u64) -> Result<Vec<u64>, ReturnsError> {
    let code = code_of(image, function)?;
    let instructions = Decoder::with_ip(64, &code, function.address, DecoderOptions::NONE).into_iter();
    let calls = instructions.filter(|instruction| {
        instruction.flow_control() == FlowControl::Call && instruction.near_branch_target() == callee
    });
    Ok(calls.map(|call| call.ip()).collect())
}

/// The bytes of a function.
pub(super) fn code_of(image: &Image<'_>, function: Function) -> Result<Vec<u8>, ReturnsError> {
    if function.size > MAX_FUNCTION {
        return Err(ReturnsError::TooLong);
    }
    let mut code = vec![0; usize::try_from(function.size).unwrap_or_default()];
    let read = image.memory(function.address, &mut code)?;
    if read < code.len() { Err(ReturnsError::Undecodable) } else { Ok(code) }
}

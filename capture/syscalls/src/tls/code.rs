//! Code of a file, decoded piece by piece.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpAccess, OpKind};

use super::elf::{ElfError, Image};

/// Bytes of code that are read at once.
const PIECE: usize = 512;
/// Bytes of the longest instruction.
const LONGEST: usize = 15;

/// Whether the kernel emulates the instruction that these bytes begin with, when there is a probe on it. Linux 5.8 and newer,
/// `arch/x86/kernel/uprobes.c`: `push`, jumps and calls to a given distance, `nop`; none with a prefix.
pub(super) fn is_emulated(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [0x50..=0x57, ..]
            | [0x41, 0x50..=0x57, ..]
            | [0x70..=0x7f, ..]
            | [0x0f, 0x80..=0x8f, ..]
            | [0xe8 | 0xe9 | 0xeb | 0x90, ..]
    )
}

/// Whether what is accessed so may be another afterwards.
pub(super) fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// Code of a file.
pub(super) struct Code<'a> {
    image: &'a Image<'a>,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Code<'a> {
    pub fn new(image: &'a Image<'a>) -> Self {
        Self { image, start: 0, bytes: Vec::new() }
    }

    /// What the file has at an address: the bytes of the instruction there, and of some behind it.
    pub fn bytes(&mut self, at: u64) -> Result<&[u8], ElfError> {
        let within = |code: &Self| at.checked_sub(code.start).and_then(|at| usize::try_from(at).ok());
        if within(self)
            .is_none_or(|within| within.checked_add(LONGEST).is_none_or(|end| end > self.bytes.len()))
        {
            self.bytes.resize(PIECE, 0);
            let read = self.image.memory(at, &mut self.bytes)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        Ok(within(self).and_then(|within| self.bytes.get(within..)).unwrap_or_default())
    }

    /// Decodes the instruction at an address; false when there is none.
    pub fn decode(&mut self, at: u64, instruction: &mut Instruction) -> Result<bool, ElfError> {
        Decoder::with_ip(64, self.bytes(at)?, at, DecoderOptions::NONE).decode_out(instruction);
        Ok(!instruction.is_invalid())
    }

    /// Where a jump through a slot ends that the dynamic linker fills, as in the procedure linkage table.
    pub fn imported(&self, jump: &Instruction) -> Result<Option<u64>, ElfError> {
        if jump.op0_kind() == OpKind::Memory && jump.is_ip_rel_memory_operand() {
            self.image.import(jump.ip_rel_memory_address())
        } else {
            Ok(None)
        }
    }
}

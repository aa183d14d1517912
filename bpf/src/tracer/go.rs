//! Which processes are programs of Go or Python, whose coroutines are told.

use aya::Pod;
use aya::maps::{HashMap, MapData};

use super::policy::is_missing;
use super::uprobe::Prober;
use crate::BpfError;

/// Where a Go program keeps the number of the goroutine that runs: `struct go_program` of `programs/go.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoProgram {
    /// Where the pointer to the running `g` is from the thread pointer, bytes; 0 when that is unknown.
    pub g: i32,
    /// Where in a `g` its number is, bytes.
    pub goid: u32,
    /// Where in it the thread pointer is, bytes; 0 when it is not there.
    pub self_at: u32,
}

// SAFETY: integers without padding.
unsafe impl Pod for GoProgram {}

/// The map behind [`Prober::set_go_program`].
pub(super) type GoPrograms = HashMap<MapData, u32, GoProgram>;

impl GoProgram {
    /// For the probes of a program of Go: they find a process's goroutines by it before [`Prober::set_go_program`] did.
    pub fn cookie(&self) -> u64 {
        u64::from(self.g.cast_unsigned()) << 32 | u64::from(self.goid)
    }
}

/// A word of a process at a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GoWord {
    /// There is none.
    None,
    /// In a register, by the number that instructions have for it.
    Register(u8),
    /// On the stack, so many bytes above the stack pointer.
    Stack(u16),
}

/// What a probe in the middle of a function of Go needs to know about the call that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoResult {
    /// How far the stack pointer is below where it was at the function's entry, bytes.
    pub depth: u16,
    /// The words whose sum is the result.
    pub words: [GoWord; 2],
}

impl GoResult {
    /// For the program `go_tls_known`: the depth in the lowest 16 bits, then the words.
    pub fn cookie(&self) -> u64 {
        let word = |word: GoWord| match word {
            GoWord::None => 0,
            GoWord::Register(number) => 1 << 16 | u64::from(number),
            GoWord::Stack(offset) => 2 << 16 | u64::from(offset),
        };
        let [first, second] = self.words.map(word);
        u64::from(self.depth) | first << 16 | second << 40
    }
}

impl Prober {
    /// Says that some processes may have goroutines; to be said before probes with a [`GoProgram::cookie`] are attached.
    pub fn expect_coroutines(&self) -> Result<(), BpfError> {
        self.policy().expect_coroutines()
    }

    /// Says that a process is a program of Go, so that its events have goroutines, or that it is not any more.
    pub fn set_go_program(&mut self, tgid: u32, program: Option<GoProgram>) -> Result<(), BpfError> {
        if program.is_some() {
            self.policy().expect_coroutines()?;
        }
        let result = match program {
            Some(program) => self.go_programs.insert(tgid, program, 0),
            None => match self.go_programs.remove(&tgid) {
                Err(error) if is_missing(&error) => Ok(()),
                result => result,
            },
        };
        result.map_err(|error| BpfError::map(&error))
    }
}

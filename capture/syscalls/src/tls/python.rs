//! CPython: which version it is, and where the running task is.
//!
//! Each task of `asyncio` runs in a context of its own (PEP 567), and so does what is given to another thread with
//! `asyncio.to_thread`. Its address stands for the coroutine, as a goroutine's number does for Go: the thread's state points to it,
//! the C library's thread-specific data to that. A context is copied whenever a task begins; a probe there tells for which other it began.

use super::elf::{ElfError, Image};
use super::plan::GoProgram;

/// The function that all copies of contexts are made by, and what tells the version.
pub const COPY: &str = "PyContext_CopyCurrent";
const VERSION: &str = "Py_Version";

/// Where glibc (2.34 and later, x86-64) keeps the value of a thread's first key, from the thread pointer. The interpreter makes
/// its key before anything else does; `self_at` says whether it did.
const FIRST_KEY: i32 = 0x318;

/// Versions, with where in the thread's state are the current context and the thread's own id, bytes.
const STATES: [((u8, u8), u32, u32); 1] = [((3, 11), 224, 152)];

/// What is known of an interpreter.
pub enum Python {
    /// Its tasks can be told apart.
    Known(GoProgram),
    /// Its version's structures are not known.
    Unknown(String),
}

/// The interpreter in a file, or `None` when there is none.
///
/// # Errors
/// [`ElfError`]
pub fn interpreter(image: &Image<'_>) -> Result<Option<Python>, ElfError> {
    let [Some(_)] = image.functions(&[COPY])?[..] else { return Ok(None) };
    let Some(address) = image.object(VERSION)? else {
        return Ok(Some(Python::Unknown("Python older than 3.11".to_owned())));
    };
    let mut bytes = [0; 4];
    image.memory(address, &mut bytes)?;
    let [_, patch, minor, major] = bytes;
    let version = format!("Python {major}.{minor}.{patch}");
    let known = STATES.iter().find(|(version, ..)| *version == (major, minor));
    Ok(Some(match known {
        Some(&(_, goid, self_at)) => {
            Python::Known(GoProgram { version, g: Some(FIRST_KEY), goid, self_at: Some(self_at) })
        }
        None => Python::Unknown(version),
    }))
}

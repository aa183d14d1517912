//! CPython: which version it is, and where the running task is.
//!
//! Each task of `asyncio` runs in a context of its own (PEP 567), and so does what is given to another thread with
//! `asyncio.to_thread`. Its address stands for the coroutine, as a goroutine's number does for Go: the thread's state points to it,
//! the C library's thread-specific data to that. A context is copied whenever a task begins; a probe there tells for which other it began.
//!
//! `concurrent.futures` gives work to the threads of a pool through a `SimpleQueue`, in C. Probes on its methods tell who put an
//! object there, and who took it. They are found in the module's table of methods, since nothing else names them.

use super::elf::{ElfError, Function, Image};
use super::plan::GoProgram;

/// The function that all copies of contexts are made by, and what tells the version.
pub const COPY: &str = "PyContext_CopyCurrent";
const VERSION: &str = "Py_Version";

/// Where glibc (2.34 and later, x86-64) keeps the value of a thread's first key, from the thread pointer. The interpreter makes
/// its key before anything else does; `self_at` says whether it did.
const FIRST_KEY: i32 = 0x318;

/// Versions, with where in the thread's state are the current context and the thread's own id, bytes.
const STATES: [((u8, u8), u32, u32); 1] = [((3, 11), 224, 152)];

/// The function that the module `_queue` is known by.
const QUEUE: &str = "PyInit__queue";
/// Its methods that put something in (the first two), and take something out.
const METHODS: [&str; 4] = ["put", "put_nowait", "get", "get_nowait"];
const PUTS: usize = 2;
/// How methods are called: `(self, arguments, count, names)`; with the second, the class comes before the arguments.
const METH_FASTCALL: u32 = 0x80;
const METH_METHOD: u32 = 0x200;

/// Methods of a queue: where each begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Queue {
    /// Put something in: the second argument points to what.
    pub puts: Vec<u64>,
    /// Take something out, and return it.
    pub gets: Vec<u64>,
}

/// The queue in a file, or `None` when there is none.
///
/// # Errors
/// [`ElfError`]
pub fn queue(image: &Image<'_>) -> Result<Option<Queue>, ElfError> {
    let ([Some(_)], Some(names)) = (&image.functions(&[QUEUE])?[..], image.section(".rodata")) else {
        return Ok(None);
    };
    let places = image.find_names(names.offset, names.size, &METHODS)?;
    let pointers = image.pointers()?;
    let mut found = [None; METHODS.len()];
    // An entry of the table: the name, the method, how it is called.
    for (&entry, target) in &pointers {
        let place = target.checked_sub(names.address);
        let Some(&(_, which)) = place.and_then(|place| places.iter().find(|(at, _)| *at == place)) else {
            continue;
        };
        let method = entry.checked_add(8).and_then(|at| pointers.get(&at)).copied();
        let Some(method) = method.filter(|method| image.file_offset(*method).is_some()) else { continue };
        let mut flags = [0; 4];
        image.memory(entry.saturating_add(16), &mut flags)?;
        let flags = u32::from_le_bytes(flags);
        if which < PUTS && flags & (METH_FASTCALL | METH_METHOD) != METH_FASTCALL {
            return Ok(None);
        }
        if found.get_mut(which).is_none_or(|found| found.replace(method).is_some()) {
            return Ok(None);
        }
    }
    Ok(match found {
        [Some(put), Some(put_nowait), Some(get), Some(get_nowait)] => {
            Some(Queue { puts: vec![put, put_nowait], gets: vec![get, get_nowait] })
        }
        _ => None,
    })
}

/// What is known of an interpreter.
pub enum Python {
    /// Its tasks can be told apart; with [`COPY`].
    Known(GoProgram, Function),
    /// Its version's structures are not known.
    Unknown(String),
}

/// The interpreter in a file, or `None` when there is none.
///
/// # Errors
/// [`ElfError`]
pub fn interpreter(image: &Image<'_>) -> Result<Option<Python>, ElfError> {
    let [Some(copy)] = image.functions(&[COPY])?[..] else { return Ok(None) };
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
            let program = GoProgram { version, g: Some(FIRST_KEY), goid, self_at: Some(self_at) };
            Python::Known(program, copy)
        }
        None => Python::Unknown(version),
    }))
}

//! Go programs: which version built them, where their functions are also when their symbols were stripped, and where the
//! running goroutine's number is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::elf::{ElfError, Function, Image, Section, Window};

/// A version of Go, `(1, 19)`.
pub type Version = (u16, u16);

/// First bytes of what the linker writes about the build.
const BUILD_INFO: &[u8; 14] = b"\xff Go buildinf:";
/// Where its strings begin when they are in it (Go 1.18).
const INLINE_STRINGS: usize = 32;
const INLINE: u8 = 2;
/// Bytes of the longest name of a function that is read.
const MAX_NAME: usize = 96;
/// Functions of the largest programs are some hundred thousand.
const MAX_FUNCTIONS: u64 = 1 << 22;

/// Magic numbers of the table of functions: of Go 1.18, of Go 1.20.
const TABLE_1_18: u32 = 0xffff_fff0;
const TABLE_1_20: u32 = 0xffff_fff1;

/// The oldest version that is read here: the first whose functions take their arguments in registers and whose table is of
/// today's shape.
pub const OLDEST: Version = (1, 18);
/// The newest version whose structures were looked at; those of newer ones are taken to be the same.
pub const NEWEST: Version = (1, 26);

/// The version that built a program; `None` when it is none of Go's.
///
/// # Errors
/// Those of the file.
pub fn version(image: &Image<'_>) -> io::Result<Option<String>> {
    let Some(section) = image.section(".go.buildinfo") else { return Ok(None) };
    let mut bytes = [0; 128];
    let read = image.raw(section.offset, &mut bytes)?;
    let bytes =
        bytes.get(..read.min(usize::try_from(section.size).unwrap_or(usize::MAX))).unwrap_or_default();
    if !bytes.starts_with(BUILD_INFO) {
        return Ok(None);
    }
    let inline = bytes.get(BUILD_INFO.len() + 1).is_some_and(|flags| flags & INLINE != 0);
    // Older linkers leave a pointer there.
    let version = if inline { bytes.get(INLINE_STRINGS..).and_then(short_string) } else { None };
    Ok(Some(version.map_or_else(
        || "go1.17 or older".to_owned(),
        |version| String::from_utf8_lossy(version).into_owned(),
    )))
}

/// A string behind its length, which is a varint; versions are shorter than 128 bytes.
fn short_string(bytes: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = bytes.split_first()?;
    (length < 0x80).then(|| rest.get(..usize::from(length)))?
}

/// The numbers of `go1.19.8`, `go1.23rc1` or `devel go1.27-...`.
pub fn numbers(version: &str) -> Option<Version> {
    let (_, rest) = version.split_once("go")?;
    let (major, rest) = rest.split_once('.')?;
    let minor = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Where in the runtime's `g` the goroutine's number is, bytes.
///
/// Before it lie two words of stack bounds, two guards, three pointers, the saved registers, the places of the system call,
/// `param` and the status. Go 1.23 added a place of the system call, Go 1.25 removed a saved register.
pub fn goid_offset(version: Version) -> u32 {
    if version == (1, 23) || version == (1, 24) { 160 } else { 152 }
}

/// Where the pointer to the running `g` is from the thread pointer. A program that Go's own linker made has thread-local storage
/// for this alone; one that is linked with C may have more, and says where only while it has its symbols.
///
/// # Errors
/// [`ElfError`]
pub fn g_offset(image: &Image<'_>) -> Result<Option<i32>, ElfError> {
    let size = image.tls_size().unwrap_or(8);
    let within = if size == 8 { Some(0) } else { image.thread_local("runtime.tlsg")? };
    Ok(within.and_then(|within| i32::try_from(i128::from(within) - i128::from(size)).ok()))
}

/// The functions of these names: from the symbols, or from the table that the runtime itself uses.
///
/// # Errors
/// [`ElfError`]
pub fn functions(image: &Image<'_>, names: &[&str]) -> Result<Vec<Option<Function>>, ElfError> {
    let found = image.functions(names)?;
    if found.iter().any(Option::is_some) {
        return Ok(found);
    }
    Table::of(image)?.map_or(Ok(found), |table| table.functions(names))
}

/// The names of the functions that begin at these addresses, as far as there are such.
///
/// # Errors
/// [`ElfError`]
pub fn names(image: &Image<'_>, addresses: &BTreeSet<u64>) -> Result<BTreeMap<u64, String>, ElfError> {
    let mut names = BTreeMap::new();
    if let Some(table) = Table::of(image)? {
        for &address in addresses {
            names.extend(table.name(address)?.map(|name| (address, name)));
        }
    }
    Ok(names)
}

/// Whether a function is one of those that are called when something is wrong, and never return.
pub fn never_returns(name: &str) -> bool {
    ["runtime.gopanic", "runtime.throw", "runtime.fatal"].contains(&name)
        || ["runtime.panic", "runtime.goPanic"].iter().any(|beginning| name.starts_with(beginning))
}

/// The table of functions (`pclntab`).
struct Table<'a> {
    image: &'a Image<'a>,
    functions: u64,
    text: u64,
    /// Offsets in the file.
    names: (u64, u64),
    entries: (u64, u64),
}

impl<'a> Table<'a> {
    fn of(image: &'a Image<'a>) -> Result<Option<Self>, ElfError> {
        let section = image.sections().iter().find(|section| section.name.ends_with(".gopclntab"));
        section.map(|section| Self::read(image, section)).transpose()
    }

    fn read(image: &'a Image<'a>, section: &Section) -> Result<Self, ElfError> {
        let mut header = Window::new(image, section.offset, section.size);
        let magic = header.u32(section.offset)?;
        if !matches!(magic, Some(TABLE_1_18 | TABLE_1_20)) {
            return Err(ElfError::Malformed("an unknown kind of Go's table of functions"));
        }
        let mut word = |index: u64| -> Result<u64, ElfError> {
            let bytes = header.get(section.offset.saturating_add(8 + 8 * index))?;
            bytes.map(u64::from_le_bytes).ok_or(ElfError::Malformed("Go's table of functions is cut"))
        };
        let [functions, _files, text, names, units, _file_table, _program_counters, entries] =
            [word(0)?, word(1)?, word(2)?, word(3)?, word(4)?, word(5)?, word(6)?, word(7)?];
        if functions > MAX_FUNCTIONS || names > units || units > section.size || entries > section.size {
            return Err(ElfError::Malformed("Go's table of functions contradicts itself"));
        }
        // In position independent programs the dynamic linker writes it; since Go 1.26 nobody does.
        let text = match text {
            0 => image.import(section.address.saturating_add(8 + 8 * 2))?,
            text => Some(text),
        };
        let text = text.or_else(|| Some(image.section(".text")?.address));
        Ok(Self {
            image,
            functions,
            text: text.ok_or(ElfError::Malformed("no code"))?,
            names: (section.offset.saturating_add(names), units - names),
            entries: (section.offset.saturating_add(entries), section.size - entries),
        })
    }

    /// The name of the function that begins at an address.
    fn name(&self, address: u64) -> Result<Option<String>, ElfError> {
        let Some(start) = address.checked_sub(self.text) else { return Ok(None) };
        let word = |at: u64| -> io::Result<Option<u64>> {
            let mut bytes = [0; 4];
            let read = self.image.raw(self.entries.0.saturating_add(at), &mut bytes)?;
            let is_there = read == bytes.len() && at < self.entries.1;
            Ok(is_there.then(|| u32::from_le_bytes(bytes).into()))
        };
        // They are in order.
        let (mut low, mut high) = (0, self.functions);
        while low < high {
            let middle = low.midpoint(high);
            match word(middle * 8)? {
                Some(other) if other < start => low = middle + 1,
                _ => high = middle,
            }
        }
        if word(low * 8)? != Some(start) {
            return Ok(None);
        }
        let Some(description) = word(low * 8 + 4)? else { return Ok(None) };
        let Some(place) = word(description + 4)?.filter(|place| *place < self.names.1) else {
            return Ok(None);
        };
        let mut name = [0; MAX_NAME];
        let read = self.image.raw(self.names.0.saturating_add(place), &mut name)?;
        let name = name.get(..read).and_then(|name| name.get(..memchr::memchr(0, name)?));
        Ok(name.map(|name| String::from_utf8_lossy(name).into_owned()))
    }

    fn functions(&self, names: &[&str]) -> Result<Vec<Option<Function>>, ElfError> {
        let mut found = vec![None; names.len()];
        let places = self.image.find_names(self.names.0, self.names.1, names)?;
        if places.is_empty() {
            return Ok(found);
        }
        let (offset, size) = self.entries;
        // Each index entry: where the function begins, and where it is described; the description has its name's place.
        let mut index = Window::new(self.image, offset, size);
        let mut descriptions = Window::new(self.image, offset, size);
        for number in 0..self.functions {
            let entry = offset.saturating_add(number * 8);
            let (Some(start), Some(description)) = (index.u32(entry)?, index.u32(entry + 4)?) else { break };
            let Some(name) = descriptions.u32(offset.saturating_add(u64::from(description) + 4))? else {
                break;
            };
            let Ok(place) = places.binary_search_by_key(&u64::from(name), |(offset, _)| *offset) else {
                continue;
            };
            let Some(end) = index.u32(entry + 8)? else { break };
            if let Some(place) = places.get(place).and_then(|(_, which)| found.get_mut(*which)) {
                let address = self.text.saturating_add(start.into());
                if begins_like_go(self.image, address)? {
                    *place = Some(Function { address, size: end.saturating_sub(start).into() });
                }
            }
        }
        Ok(found)
    }
}

/// A function that needs room on the stack begins by comparing the stack pointer with the bound in `g`. This holds that the
/// table's addresses are read as they are meant.
fn begins_like_go(image: &Image<'_>, address: u64) -> io::Result<bool> {
    let mut code = [0; 20];
    image.memory(address, &mut code)?;
    // `cmp rsp, [r14+16]`, or `lea r12, [rsp-n]` and `cmp r12, [r14+16]`.
    Ok(code.windows(4).any(|bytes| matches!(bytes, [0x49, 0x3b, 0x66, 0x10] | [0x4d, 0x3b, 0x66, 0x10])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(numbers("go1.19.8"), Some((1, 19)));
        assert_eq!(numbers("go1.23rc1"), Some((1, 23)));
        assert_eq!(numbers("devel go1.27-3f5a"), Some((1, 27)));
        assert_eq!(numbers("gccgo"), None);
        assert_eq!(short_string(b"\x04go1.9"), Some(&b"go1."[..]));
        assert_eq!(short_string(b"\x09go"), None);
    }
}

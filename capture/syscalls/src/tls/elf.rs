//! What is needed of an ELF file, read in small ranges: a program may have hundreds of megabytes, and may change under the reader.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memmem::Finder;
use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, FileHeader64, PF_X, PT_LOAD, PT_TLS, ProgramHeader64,
    R_X86_64_RELATIVE, Rela64, SHN_UNDEF, SHT_DYNSYM, SHT_NOBITS, SHT_RELA, SHT_SYMTAB, STT_FUNC, STT_TLS,
    SectionHeader64, Sym64,
};
use object::pod::{self, Pod};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// More program or section headers than any linker makes.
const MAX_HEADERS: usize = 65_536;
/// Places of the sought names in a table of names; more are a file that is made to be slow.
const MAX_PLACES: usize = 4096;

/// Pointers of a module that is looked into; the one that is sought has some sixty.
const MAX_POINTERS: usize = 65_536;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is another kind of file.
    #[error("is no ELF file of a 64-bit x86 program")]
    Foreign,
    /// It contradicts itself.
    #[error("is malformed: {0}")]
    Malformed(&'static str),
}

/// Bytes at an offset.
pub trait ReadAt {
    /// Fills `buffer` from `offset` on; fewer bytes at the end of the file.
    ///
    /// # Errors
    /// Those of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let read = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..read), from.get(..read)) {
            to.copy_from_slice(from);
        }
        Ok(read)
    }
}

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it is in memory, before relocation.
    pub address: u64,
    /// Where it is in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    kind: u32,
    link: u32,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it begins in memory, before relocation.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// An ELF file.
pub struct Image<'a> {
    file: &'a dyn ReadAt,
    segments: Vec<ProgramHeader64<LE>>,
    sections: Vec<Section>,
}

impl<'a> Image<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn read(file: &'a dyn ReadAt) -> Result<Self, ElfError> {
        let header: FileHeader64<LE> = read_one(file, 0)?.ok_or(ElfError::Foreign)?;
        let ident = &header.e_ident;
        if ident.magic != ELFMAG || ident.class != ELFCLASS64 || ident.data != ELFDATA2LSB {
            return Err(ElfError::Foreign);
        }
        if header.e_machine.get(LE) != EM_X86_64 {
            return Err(ElfError::Foreign);
        }
        let segments = read_many(file, header.e_phoff.get(LE), header.e_phnum.get(LE).into())?;
        let sections = read_sections(file, &header)?;
        Ok(Self { file, segments, sections })
    }

    /// The sections, none where they were removed.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// A section by its name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Where in the file an address of code is.
    pub fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr.get(LE))?;
            let is_code = segment.p_type.get(LE) == PT_LOAD && segment.p_flags.get(LE) & PF_X != 0;
            (is_code && within < segment.p_filesz.get(LE))
                .then(|| segment.p_offset.get(LE).checked_add(within))?
        })
    }

    /// Up to `buffer.len()` bytes at an address, of code or data; 0 where the file has none.
    ///
    /// # Errors
    /// Those of the file.
    pub fn memory(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        for segment in self.segments.iter().filter(|segment| segment.p_type.get(LE) == PT_LOAD) {
            let Some(within) = address.checked_sub(segment.p_vaddr.get(LE)) else { continue };
            let Some(left) = segment.p_filesz.get(LE).checked_sub(within).filter(|left| *left > 0) else {
                continue;
            };
            let Some(offset) = segment.p_offset.get(LE).checked_add(within) else { continue };
            let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            return buffer.get_mut(..room).map_or(Ok(0), |buffer| self.file.read_at(buffer, offset));
        }
        Ok(0)
    }

    /// Bytes at an offset of the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn raw(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// How far the thread pointer is above the first byte of the program's own thread-local storage.
    pub fn tls_size(&self) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.p_type.get(LE) == PT_TLS)?;
        let align = segment.p_align.get(LE).max(1);
        segment.p_memsz.get(LE).checked_next_multiple_of(align)
    }

    /// The functions of these names: exported ones, else any.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn functions(&self, names: &[&str]) -> Result<Vec<Option<Function>>, ElfError> {
        let mut found = vec![None; names.len()];
        for kind in [SHT_DYNSYM, SHT_SYMTAB] {
            for table in self.sections.iter().filter(|section| section.kind == kind) {
                self.named(table, names, |which, symbol| {
                    let is_function = symbol.st_info & 0xf == STT_FUNC;
                    let (address, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
                    if let Some(place) = found.get_mut(which).filter(|_| is_function && address != 0) {
                        place.get_or_insert(Function { address, size });
                    }
                })?;
            }
            // Node.js exports what is sought, beside 40 MB of symbols.
            if found.iter().any(Option::is_some) {
                break;
            }
        }
        Ok(found)
    }

    /// The symbols of these names that are defined here, with the name's number.
    fn named(
        &self,
        table: &Section,
        names: &[&str],
        mut visit: impl FnMut(usize, &Sym64<LE>),
    ) -> Result<(), ElfError> {
        let Some(strings) = self.sections.get(table.link as usize) else { return Ok(()) };
        let places = self.find_names(strings.offset, strings.size, names)?;
        if places.is_empty() {
            return Ok(());
        }
        self.each(table, |symbol: &Sym64<LE>| {
            let name = u64::from(symbol.st_name.get(LE));
            if let Ok(place) = places.binary_search_by_key(&name, |(offset, _)| *offset)
                && let Some(&(_, which)) = places.get(place)
                && symbol.st_shndx.get(LE) != SHN_UNDEF
            {
                visit(which, symbol);
            }
        })
    }

    /// The address of an exported variable.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn object(&self, name: &str) -> Result<Option<u64>, ElfError> {
        let mut found = None;
        for table in self.sections.iter().filter(|section| section.kind == SHT_DYNSYM) {
            self.named(table, &[name], |_, symbol| found = Some(symbol.st_value.get(LE)))?;
        }
        Ok(found)
    }

    /// Where a variable is in the program's own thread-local storage.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn thread_local(&self, name: &str) -> Result<Option<u64>, ElfError> {
        let mut found = None;
        for table in self.sections.iter().filter(|section| section.kind == SHT_SYMTAB) {
            self.named(table, &[name], |_, symbol| {
                if symbol.st_info & 0xf == STT_TLS {
                    found = Some(symbol.st_value.get(LE));
                }
            })?;
        }
        Ok(found)
    }

    /// Where each of `names` with its final 0 stands in a part of the file: offsets from its beginning, in order, and
    /// which name. Linkers put a name into the end of a longer one, so that what comes before it does not matter.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn find_names(&self, offset: u64, size: u64, names: &[&str]) -> Result<Vec<(u64, usize)>, ElfError> {
        let needles: Vec<Vec<u8>> = names.iter().map(|name| [name.as_bytes(), &[0]].concat()).collect();
        let finders: Vec<_> = needles.iter().map(Finder::new).collect();
        let overlap = needles.iter().map(Vec::len).max().unwrap_or(0);
        let mut buffer = vec![0; CHUNK + overlap];
        let mut places = Vec::new();
        let mut at = 0;
        while at < size {
            let want = buffer.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let Some(from) = offset.checked_add(at) else { break };
            let Some(chunk) = buffer.get_mut(..want) else { break };
            let read = self.file.read_at(chunk, from)?;
            let chunk = chunk.get(..read).unwrap_or_default();
            // An empty name asks for nothing.
            for (which, finder) in finders.iter().enumerate().filter(|(_, finder)| finder.needle().len() > 1)
            {
                places.extend(
                    finder
                        .find_iter(chunk)
                        .filter(|place| *place < CHUNK)
                        .map(|place| (at + place as u64, which)),
                );
            }
            if places.len() > MAX_PLACES {
                return Err(ElfError::Malformed("a name stands in too many places"));
            }
            if read < want {
                break;
            }
            at += CHUNK as u64;
        }
        places.sort_unstable();
        Ok(places)
    }

    /// Whether `bytes` stand somewhere in a part of the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn holds(&self, offset: u64, size: u64, bytes: &[u8]) -> io::Result<bool> {
        let finder = Finder::new(bytes);
        let mut buffer = vec![0; CHUNK + bytes.len()];
        for at in (0..size).step_by(CHUNK) {
            let want = buffer.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let Some(chunk) = buffer.get_mut(..want) else { break };
            let read = self.file.read_at(chunk, offset.saturating_add(at))?;
            if finder.find(chunk.get(..read).unwrap_or_default()).is_some() {
                return Ok(true);
            }
            if read < want {
                break;
            }
        }
        Ok(false)
    }

    /// Where a jump through the slot at `slot` ends, when that is in this file: a function that it exports.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn import(&self, slot: u64) -> Result<Option<u64>, ElfError> {
        for table in self.sections.iter().filter(|section| section.kind == SHT_RELA) {
            let mut symbol = None;
            self.each(table, |rela: &Rela64<LE>| {
                if rela.r_offset.get(LE) == slot {
                    symbol = Some((rela.r_info.get(LE) >> 32, rela.r_addend.get(LE)));
                }
            })?;
            let Some((symbol, addend)) = symbol else { continue };
            if symbol == 0 {
                return Ok(u64::try_from(addend).ok().filter(|address| *address != 0));
            }
            let Some(symbols) = self.sections.get(table.link as usize) else { return Ok(None) };
            let at = symbol
                .checked_mul(size_of::<Sym64<LE>>() as u64)
                .and_then(|at| at.checked_add(symbols.offset));
            let symbol: Option<Sym64<LE>> = at.map_or(Ok(None), |at| read_one(self.file, at))?;
            return Ok(symbol
                .filter(|symbol| symbol.st_shndx.get(LE) != SHN_UNDEF)
                .map(|symbol| symbol.st_value.get(LE)));
        }
        Ok(None)
    }

    /// Pointers that the loader fills in: where each is, and to where in this file.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn pointers(&self) -> Result<BTreeMap<u64, u64>, ElfError> {
        let mut pointers = BTreeMap::new();
        for table in self.sections.iter().filter(|section| section.kind == SHT_RELA) {
            self.each(table, |rela: &Rela64<LE>| {
                let relative = rela.r_type(LE, false) == R_X86_64_RELATIVE;
                if relative && pointers.len() < MAX_POINTERS {
                    pointers.insert(rela.r_offset.get(LE), rela.r_addend.get(LE).cast_unsigned());
                }
            })?;
        }
        Ok(pointers)
    }

    fn each<T: Pod + Copy>(&self, table: &Section, mut visit: impl FnMut(&T)) -> Result<(), ElfError> {
        let step = CHUNK / size_of::<T>() * size_of::<T>();
        let mut buffer = vec![0; step];
        let mut at = 0;
        while at < table.size {
            let want = step.min(usize::try_from(table.size - at).unwrap_or(usize::MAX));
            let Some(from) = table.offset.checked_add(at) else { break };
            let Some(chunk) = buffer.get_mut(..want) else { break };
            let read = self.file.read_at(chunk, from)?;
            let chunk = chunk.get(..read).unwrap_or_default();
            for entry in chunk.chunks_exact(size_of::<T>()) {
                if let Ok((entry, _)) = pod::from_bytes(entry) {
                    visit(entry);
                }
            }
            if read < want {
                break;
            }
            at += step as u64;
        }
        Ok(())
    }
}

fn read_sections(file: &dyn ReadAt, header: &FileHeader64<LE>) -> Result<Vec<Section>, ElfError> {
    let count = usize::from(header.e_shnum.get(LE));
    let headers: Vec<SectionHeader64<LE>> = read_many(file, header.e_shoff.get(LE), count)?;
    let names = headers.get(usize::from(header.e_shstrndx.get(LE)));
    let mut text = Vec::new();
    if let Some(names) = names {
        text.resize(usize::try_from(names.sh_size.get(LE)).unwrap_or(usize::MAX).min(1 << 20), 0);
        let read = file.read_at(&mut text, names.sh_offset.get(LE))?;
        text.truncate(read);
    }
    let name = |at: u32| {
        let from = text.get(at as usize..).unwrap_or_default();
        let end = memchr::memchr(0, from).unwrap_or(0).min(256);
        String::from_utf8_lossy(from.get(..end).unwrap_or_default()).into_owned()
    };
    Ok(headers
        .iter()
        .map(|header| Section {
            name: name(header.sh_name.get(LE)),
            address: header.sh_addr.get(LE),
            offset: header.sh_offset.get(LE),
            size: if header.sh_type.get(LE) == SHT_NOBITS { 0 } else { header.sh_size.get(LE) },
            kind: header.sh_type.get(LE),
            link: header.sh_link.get(LE),
        })
        .collect())
}

fn read_many<T: Pod + Copy>(file: &dyn ReadAt, offset: u64, count: usize) -> Result<Vec<T>, ElfError> {
    if count > MAX_HEADERS {
        return Err(ElfError::Malformed("too many headers"));
    }
    let mut bytes = vec![0; count * size_of::<T>()];
    let read = file.read_at(&mut bytes, offset)?;
    let whole = bytes.get(..read).unwrap_or_default().chunks_exact(size_of::<T>());
    Ok(whole.filter_map(|entry| pod::from_bytes(entry).ok()).map(|(entry, _): (&T, _)| *entry).collect())
}

fn read_one<T: Pod + Copy>(file: &dyn ReadAt, offset: u64) -> Result<Option<T>, ElfError> {
    Ok(read_many(file, offset, 1)?.pop())
}

/// Reads small values of a part of the file that come roughly in order, from memory.
pub struct Window<'a> {
    image: &'a Image<'a>,
    offset: u64,
    end: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Of `size` bytes from `offset` of the file.
    pub fn new(image: &'a Image<'a>, offset: u64, size: u64) -> Self {
        Self { image, offset, end: offset.saturating_add(size), bytes: Vec::new() }
    }

    /// `N` bytes at an offset of the file; `None` where they are not in the part, or not in the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn get<const N: usize>(&mut self, offset: u64) -> io::Result<Option<[u8; N]>> {
        if offset < self.offset || offset.saturating_add(N as u64) > self.offset + self.bytes.len() as u64 {
            let Some(left) = self.end.checked_sub(offset).filter(|left| *left >= N as u64) else {
                return Ok(None);
            };
            self.bytes.resize(CHUNK.min(usize::try_from(left).unwrap_or(CHUNK)), 0);
            let read = self.image.raw(offset, &mut self.bytes)?;
            self.bytes.truncate(read);
            self.offset = offset;
        }
        let at = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
        Ok(self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied())
    }

    /// A number of 32 bits.
    ///
    /// # Errors
    /// See [`Self::get`].
    pub fn u32(&mut self, offset: u64) -> io::Result<Option<u32>> {
        Ok(self.get(offset)?.map(u32::from_le_bytes))
    }
}

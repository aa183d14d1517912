//! The files whose code a process has in its memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Lines of one process that are read; programs with more map data, not code.
const MAX_LINES: usize = 65_536;

/// What `statfs` calls an overlay.
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// A file, told apart from all others that are there. Containers of one image have an overlay each, with a device of its own, but
/// the files below are the same to the kernel's probes: of those, the time of the last change stands for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// When a file was changed last, ns since the epoch: differs for a later file with the same [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed(i128);

/// Of the file behind a path, links followed.
///
/// # Errors
/// Those of the file.
pub fn identify(path: &Path) -> io::Result<(Identity, Changed)> {
    identify_open(&File::options().read(true).custom_flags(libc::O_PATH).open(path)?)
}

/// Of an open file.
///
/// # Errors
/// Those of the file.
pub fn identify_open(file: &File) -> io::Result<(Identity, Changed)> {
    let metadata = file.metadata()?;
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    let device = if is_on_overlay(file) { changed as u64 } else { metadata.dev() };
    Ok((Identity { device, inode: metadata.ino() }, Changed(changed)))
}

fn is_on_overlay(file: &File) -> bool {
    let mut about = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel writes to `about`, which is valid as zeros, too.
    let about = unsafe {
        libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr());
        about.assume_init()
    };
    about.f_type.cast_unsigned() == OVERLAYFS_SUPER_MAGIC
}

/// Code of a file in a process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it is in memory, as `map_files` names it.
    range: String,
    /// The file's name in the process's own view.
    pub path: PathBuf,
}

impl Mapping {
    /// A path that leads to the file also when it is another container's, or deleted.
    pub fn file_of(&self, tgid: u32) -> PathBuf {
        let mapped = PathBuf::from(format!("/proc/{tgid}/map_files/{}", self.range));
        // Only the superuser may follow those.
        if mapped.exists() {
            return mapped;
        }
        let path = self.path.to_string_lossy();
        PathBuf::from(format!("/proc/{tgid}/root/{}", path.trim_start_matches('/')))
    }
}

/// The files whose code a process has in its memory, each once.
///
/// # Errors
/// Those of `/proc`; the process may be gone.
pub fn code_of(tgid: u32) -> io::Result<Vec<Mapping>> {
    read(BufReader::new(File::open(format!("/proc/{tgid}/maps"))?))
}

fn read(maps: impl BufRead) -> io::Result<Vec<Mapping>> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in maps.split(b'\n').take(MAX_LINES) {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let Some(mapping) = code(&line) else { continue };
        // The pieces of a file lie next to each other.
        if found.last().is_none_or(|last| last.path != mapping.path) {
            found.push(mapping);
        }
    }
    Ok(found)
}

/// `7f1c-7f2d r-xp 0001f000 fe:00 1234    /usr/lib/libssl.so.3`
fn code(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let range = fields.next()?;
    let mode = fields.next()?;
    let inode = fields.nth(2)?;
    let path = fields.next()?.trim_start();
    let is_file = mode.as_bytes().get(2) == Some(&b'x') && inode != "0" && path.starts_with('/');
    is_file.then(|| Mapping { range: range.to_owned(), path: PathBuf::from(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_found_and_each_file_once() {
        let maps = "\
55d0-55d1 r--p 00000000 fe:00 11 /usr/bin/my program
55d1-55d2 r-xp 00001000 fe:00 11                         /usr/bin/my program
7f00-7f01 r-xp 00000000 fe:00 12 /usr/lib/libssl.so.3
7f01-7f02 r-xp 00001000 fe:00 12 /usr/lib/libssl.so.3
7f02-7f03 rw-p 00000000 00:00 0
7f03-7f04 r-xp 00000000 00:01 9 /memfd:jit (deleted)
7ffc-7ffd r-xp 00000000 00:00 0 [vdso]
junk";
        let found = read(maps.as_bytes()).unwrap();
        let paths: Vec<_> = found.iter().map(|mapping| mapping.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/usr/bin/my program", "/usr/lib/libssl.so.3", "/memfd:jit (deleted)"]);
        assert_eq!(found[0].range, "55d1-55d2");
    }

    #[test]
    fn the_own_program_is_found_and_can_be_opened() {
        let own = std::process::id();
        let program = identify(Path::new("/proc/self/exe")).unwrap();
        let found = code_of(own).unwrap();
        let files: Vec<_> = found.iter().map(|mapping| identify(&mapping.file_of(own)).unwrap()).collect();
        assert!(files.contains(&program));
    }
}

//! Libraries whose contents no probe shows, named by what a process has in memory.

use super::elf::{ElfError, Image};
use super::maps;
use std::fs::File;
use std::path::Path;
use wirespan_event::ProcessKey;

/// Files that come with such a library, by how their names begin.
const NAMES: [(&str, &str); 5] = [
    ("libjvm.so", "Java"),
    ("libssl3.so", "NSS"),
    ("libmbedtls.so", "Mbed TLS"),
    ("libwolfssl.so", "wolfSSL"),
    ("librustls.so", "rustls"),
];
/// What stands for others.
pub const UNKNOWN: &str = "an unknown library";
/// What the compiler leaves of paths to the sources of rustls, where it is told to name them in panics, as it is unless asked not to.
const RUSTLS: &[u8] = b"/rustls-";
/// Bytes of constants that are looked through; programs with more have other data there.
const MAX_CONSTANTS: u64 = 256 << 20;

/// A process speaks TLS whose contents are not seen, or, after such a word, are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Who.
    pub process: ProcessKey,
    /// What it speaks TLS with; `None` when its contents are seen from now on.
    pub library: Option<&'static str>,
    /// What the operator should know, where its program was not met before.
    pub note: Option<String>,
}

/// What a process speaks TLS with, as far as that can be told.
pub fn library_of(tgid: u32) -> &'static str {
    let mappings = maps::code_of(tgid).unwrap_or_default();
    let named = mappings.iter().find_map(|mapping| {
        let name = mapping.path.file_name()?.to_str()?;
        NAMES.iter().find(|(beginning, _)| name.starts_with(beginning))
    });
    let is_rustls = || has_rustls(Path::new(&format!("/proc/{tgid}/exe"))).unwrap_or(false);
    match named {
        Some((_, library)) => library,
        None if is_rustls() => "rustls",
        None => UNKNOWN,
    }
}

fn has_rustls(program: &Path) -> Result<bool, ElfError> {
    let file = File::open(program)?;
    let image = Image::read(&file)?;
    let Some(constants) = image.section(".rodata") else { return Ok(false) };
    Ok(image.holds(constants.offset, constants.size.min(MAX_CONSTANTS), RUSTLS)?)
}

//! Compiles the C programs of `programs/` with clang into objects that the crate embeds.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const INSTALL: &str = "run `make setup`, or install the Debian packages clang and libbpf-dev";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-env-changed=CLANG");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let clang = find_clang()?;
    println!("cargo::rustc-env=CLANG={}", clang.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; build with cargo")?);
    let programs =
        Path::new("programs").read_dir().map_err(|error| format!("cannot list programs: {error}"))?;
    for program in programs {
        let source = program.map_err(|error| format!("cannot list programs: {error}"))?.path();
        if source.extension().is_some_and(|extension| extension == "c") {
            compile(&clang, &source, &out)?;
        }
    }
    Ok(())
}

/// `$CLANG`, or the first that runs of the names under which distributions install it, newest first.
fn find_clang() -> Result<OsString, String> {
    if let Some(chosen) = env::var_os("CLANG") {
        return Ok(chosen);
    }
    let versioned = (14..=22).rev().map(|version| format!("clang-{version}"));
    std::iter::once("clang".to_owned())
        .chain(versioned)
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
        .map(OsString::from)
        .ok_or_else(|| format!("the eBPF programs need clang, which was not found: {INSTALL}"))
}

fn compile(clang: &OsString, source: &Path, out: &Path) -> Result<(), String> {
    // NAME.bpf.c becomes NAME.o.
    let object = out.join(source.file_stem().unwrap_or_default()).with_extension("o");
    // Without an architecture of its own, the BPF target does not know where Debian keeps asm/types.h.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let output = Command::new(clang)
        .args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror", "-fdebug-compilation-dir=."])
        .arg(format!("-D__TARGET_ARCH_{}", if arch == "aarch64" { "arm64" } else { "x86" }))
        .arg("-idirafter")
        .arg(format!("/usr/include/{arch}-linux-gnu"))
        .arg("-c")
        .arg(source)
        .arg("-o")
        .arg(&object)
        .output()
        .map_err(|error| format!("cannot run {}: {error}; {INSTALL}", clang.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("file not found") {
        return Err(format!(
            "the eBPF programs need the headers of libbpf and of the kernel: {INSTALL}\n{text}"
        ));
    }
    Err(format!("{} does not compile\n{text}", source.display()))
}

//! Finds the system's DPDK through pkg-config and compiles the shim around its inline functions.

use std::env;
use std::process::{Command, ExitCode};

const INSTALL: &str = "install DPDK 22.11 or later (the Debian packages libdpdk-dev and pkg-config), or build \
                       without the feature dpdk";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={}", message.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let mut shim = cc::Build::new();
    for flag in pkg_config("--cflags")? {
        // Warnings about DPDK's own headers are not ours to mend.
        shim.flag(flag.strip_prefix("-I").map_or_else(|| flag.clone(), |path| format!("-isystem{path}")));
    }
    for name in ["eal", "flow", "port", "receive"] {
        shim.file(format!("shim/{name}.c"));
    }
    // Indirect rte_flow counters and the device's clock.
    shim.define("ALLOW_EXPERIMENTAL_API", None);
    // The shim is on the path of every frame, also in debug builds.
    shim.std("gnu11").opt_level(3).warnings(true).extra_warnings(true);
    shim.try_compile("wirespan_dpdk_shim")
        .map_err(|error| format!("cannot compile the DPDK shim: {error}"))?;
    for flag in pkg_config("--libs")? {
        if let Some(path) = flag.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={path}");
        } else if let Some(name) = flag.strip_prefix("-l") {
            println!("cargo::rustc-link-lib={name}");
        }
    }
    Ok(())
}

fn pkg_config(what: &str) -> Result<Vec<String>, String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(&program)
        .args([what, "libdpdk >= 22.11"])
        .output()
        .map_err(|error| format!("cannot run {}: {error}; {INSTALL}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "pkg-config finds no libdpdk ({}); {INSTALL}",
            said.lines().next().unwrap_or_default()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

//! The machine that these tests do not run on.

use std::path::Path;
use std::process::Command;

#[test]
fn the_programs_compile_for_the_other_machine() {
    let other = if cfg!(target_arch = "aarch64") { "x86" } else { "arm64" };
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let sources = programs.read_dir().unwrap().map(|entry| entry.unwrap().path());
    for source in sources.filter(|path| path.extension().is_some_and(|extension| extension == "c")) {
        let output = Command::new(env!("CLANG"))
            .args(["-target", "bpf", "-g", "-O2", "-mcpu=v3", "-Wall", "-Werror"])
            .arg(format!("-D__TARGET_ARCH_{other}"))
            .arg("-idirafter")
            .arg(format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH))
            .args(["-o", "/dev/null", "-c"])
            .arg(&source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

//! Whatever a program's file is, it is looked into without end of memory or time, and says the same each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wirespan_syscalls::tls::plan::{Kernel, Plan, ReturnProbes, plan};

/// Headers of sections and segments that the input fills in, and where they are.
const SEGMENTS: (u16, u16) = (64, 3);
const SECTIONS: (u16, u16) = (SEGMENTS.0 + 56 * SEGMENTS.1, 8);
/// Behind them: names that sections and functions have.
const NAMES: u16 = SECTIONS.0 + 64 * SECTIONS.1;
const TEXT: &[u8] = b"\0.go.buildinfo\0.gopclntab\0.text\0.rodata\0SSL_read\0SSL_read_ex\0SSL_write\0SSL_write_ex\0\
    gnutls_record_send\0PyInit__queue\0PyContext_CopyCurrent\0Py_Version\0put\0put_nowait\0get\0get_nowait\0\
    crypto/tls.(*Conn).Read\0runtime.newproc1\0runtime.tlsg\0\xff Go buildinf:\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08go1.19.8";

/// An ELF file as far as its first header; the first section has the names of the others.
fn file(bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(u64::from(SEGMENTS.0).to_le_bytes());
    file.extend(u64::from(SECTIONS.0).to_le_bytes());
    file.extend([0; 8]);
    for field in [56, SEGMENTS.1, 64, SECTIONS.1, 0] {
        file.extend(field.to_le_bytes());
    }
    let headers = usize::from(NAMES - SEGMENTS.0);
    let (head, rest) = bytes.split_at(bytes.len().min(headers));
    file.extend(head);
    file.resize(usize::from(NAMES), 0);
    let first = usize::from(SECTIONS.0);
    file[first..][24..32].copy_from_slice(&u64::from(NAMES).to_le_bytes());
    file[first..][32..40].copy_from_slice(&(TEXT.len() as u64).to_le_bytes());
    file.extend(TEXT);
    file.extend(rest);
    file
}

fn summary(file: &[u8], kernel: Kernel) -> Result<Option<String>, String> {
    match plan(&file, kernel) {
        Ok(plan) => Ok(plan.map(|Plan { functions, missing, .. }| format!("{functions:?} {missing:?}"))),
        Err(error) => Err(error.to_string()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    for file in [&file(bytes)[..], bytes] {
        for (return_probes, cookies) in [(ReturnProbes::Safe, true), (ReturnProbes::Unsafe, false)] {
            let kernel = Kernel { return_probes, cookies };
            assert_eq!(summary(file, kernel), summary(file, kernel));
        }
    }
});

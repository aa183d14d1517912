use super::*;

const SAFE: Kernel = Kernel { return_probes: ReturnProbes::Safe, cookies: true };
const UNSAFE: Kernel = Kernel { return_probes: ReturnProbes::Unsafe, cookies: false };

#[test]
fn kernels_are_told_apart() {
    for (release, return_probes, cookies) in [
        ("5.10.0-8-amd64", ReturnProbes::Safe, false),
        ("5.15.0-91-generic", ReturnProbes::Safe, true),
        ("6.10.3", ReturnProbes::Safe, true),
        ("6.11.0-8-generic", ReturnProbes::Unsafe, true),
        ("6.12.13-amd64", ReturnProbes::Unsafe, true),
        ("6.12.0-55.9.1.el10_0.x86_64", ReturnProbes::Unsafe, true),
        ("6.12.117+deb13-amd64", ReturnProbes::Safe, true),
        ("6.13.7\n", ReturnProbes::Unsafe, true),
        ("6.14.0", ReturnProbes::Safe, true),
        ("", ReturnProbes::Safe, false),
    ] {
        assert_eq!(Kernel::of_release(release), Kernel { return_probes, cookies }, "{release}");
    }
}

/// The queue of this host's Python.
#[test]
fn methods_of_a_queue_are_found() {
    let version = std::fs::read_dir("/usr/lib").unwrap().flatten().find_map(|entry| {
        let modules = entry.path().join("lib-dynload").read_dir().ok()?.flatten();
        modules.map(|module| module.path()).find(|path| path.to_string_lossy().contains("/_queue."))
    });
    let Some(path) = version else {
        assert!(std::env::var_os("CI").is_none(), "needs the queue of Python; install python3");
        eprintln!("skipped: needs the queue of Python");
        return;
    };
    let bytes = std::fs::read(path).unwrap();
    let plan = super::plan(&&bytes[..], UNSAFE).unwrap().unwrap();
    assert_eq!(plan.missing, Vec::<String>::new());
    let [("SimpleQueue.get", gets), ("SimpleQueue.put", puts)] = &plan.functions[..] else {
        panic!("{:?}", plan.functions)
    };
    assert!(!gets.is_empty() && gets.iter().all(|get| bytes[get.offset as usize] == 0xc3), "{gets:?}");
    assert_eq!(puts.len(), 2);
    for cut in (0..bytes.len()).step_by(97) {
        let _ = super::plan(&&bytes[..cut], UNSAFE);
    }
}

/// The OpenSSL of this host.
fn openssl() -> Option<Vec<u8>> {
    let path = std::path::Path::new("/usr/lib/x86_64-linux-gnu/libssl.so.3");
    let bytes = std::fs::read(path).ok();
    if bytes.is_none() {
        assert!(std::env::var_os("CI").is_none(), "needs {}; install openssl", path.display());
        eprintln!("skipped: needs {}", path.display());
    }
    bytes
}

#[test]
fn returns_of_a_real_library_are_return_instructions() {
    let Some(bytes) = openssl() else { return };
    let plan = super::plan(&&bytes[..], UNSAFE).unwrap().unwrap();
    assert_eq!((plan.library, plan.ends), (Some(Library::OpenSsl), Ends::Instructions));
    assert_eq!(plan.missing, Vec::<String>::new());
    let names: Vec<_> = plan.functions.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, OPENSSL.map(|(name, ..)| name));
    let (ends, entries): (Vec<Probe>, Vec<Probe>) = plan
        .functions
        .into_iter()
        .flat_map(|(_, probes)| probes)
        .partition(|probe| probe.program == "tls_at_return");
    assert_eq!(entries.len(), OPENSSL.len());
    assert!(ends.len() >= 4);
    assert!(ends.iter().all(|end| bytes[end.offset as usize] == 0xc3));
    // The same file, cut anywhere, is refused or read as far as it goes.
    for cut in (0..bytes.len()).step_by(997) {
        let _ = super::plan(&&bytes[..cut], UNSAFE);
    }
}

/// Nothing of it has to be stepped over.
#[test]
fn probes_of_a_real_library_are_on_instructions_that_the_kernel_emulates() {
    let Some(bytes) = openssl() else { return };
    let plan = super::plan(&&bytes[..], SAFE).unwrap().unwrap();
    assert_eq!((plan.library, plan.ends), (Some(Library::OpenSsl), Ends::ReturnProbes));
    assert_eq!(plan.missing, Vec::<String>::new());
    let probes: Vec<_> = plan.functions.into_iter().flat_map(|(_, probes)| probes).collect();
    for probe in &probes {
        let at = &bytes[probe.offset as usize..][..2];
        let is_push_or_jump =
            matches!(at, [0x50..=0x57 | 0x70..=0x7f, _] | [0x41, 0x50..=0x57] | [0x0f, 0x80..=0x8f]);
        assert!(is_push_or_jump, "{probe:?} is on {at:x?}");
    }
    // A return probe for each beginning of a read or write.
    let returns = probes.iter().filter(|probe| probe.program == "tls_after_return").count();
    assert!(returns >= 2);
    assert_eq!(probes.len(), 2 * returns + 1);
}

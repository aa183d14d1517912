//! Against this machine's own drivers, in network namespaces, and against recorded conversations.

mod conversation;
mod decode;
mod nics;
mod rules;
mod veth;

use std::process::Command;

/// Runs `test` in a network namespace of its own that has a multi-queue veth pair `m0`, `m1`, with sysfs to match.
///
/// The namespaces are the thread's: they end with it, whatever happens. False when there is no privilege for it, which CI must have.
fn with_veth(test: impl FnOnce() + Send) -> bool {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must give it");
        eprintln!("skipped: this test needs root to make a network namespace");
        return false;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            separate();
            run("ip link add m0 numrxqueues 4 numtxqueues 4 type veth peer name m1 numrxqueues 4 numtxqueues 4");
            run("ip link set m0 up");
            run("ip link set m1 up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
    true
}

fn separate() {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the texts end with zero bytes, and the kernel takes no other memory.
    let results = unsafe {
        [
            libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS),
            libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()),
            libc::mount(c"sysfs".as_ptr(), c"/sys".as_ptr(), c"sysfs".as_ptr(), 0, none.cast()),
        ]
    };
    assert_eq!(results, [0; 3], "{}", std::io::Error::last_os_error());
}

/// Runs a command in the thread's namespaces.
fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

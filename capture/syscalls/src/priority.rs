//! Which threads go first when CPUs are busy.

/// Before others of the process, for the little that it may take: while it waits for a CPU, the ring fills up.
const READER: libc::c_int = -10;

/// The thread that reads events, which is the current one, comes before others; false when it may not.
pub fn prefer() -> bool {
    set(READER)
}

/// The current thread is as the process was started, and not as who made it.
pub fn ordinary() {
    // To go back is never forbidden.
    let _ = set(0);
}

/// The nice value of this thread, beside that of the process's first.
fn set(offset: libc::c_int) -> bool {
    let process = std::process::id();
    // SAFETY: these calls take numbers; 0 is the current thread.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, process);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice + offset) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> libc::c_int {
        // SAFETY: takes numbers; 0 is the current thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn the_reader_is_preferred_and_what_it_starts_is_not() {
        let before = nice();
        let of_threads = std::thread::spawn(move || {
            let may = prefer();
            let made = std::thread::spawn(|| {
                ordinary();
                nice()
            });
            (may, nice(), made.join().unwrap())
        });
        let (may, reader, made) = of_threads.join().unwrap();
        assert_eq!(reader, if may { (before + READER).max(-20) } else { before });
        assert_eq!((made, nice()), (before, before));
    }
}

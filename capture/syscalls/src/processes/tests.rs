//! Processes in a /proc of files, and real ones.

use super::*;
use std::path::Path;
use std::process::{Command, Stdio};

const TICK_NS: u64 = 10_000_000;
const CLOCK: Clock = Clock { boot_ns: 1_000_000_000_000_000_000 };

struct Proc(tempfile::TempDir);

impl Proc {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn processes(&self) -> Processes {
        Processes::at(self.0.path().to_owned(), CLOCK)
    }

    fn process(&self, pid: u32, start_ticks: u64, comm: &str, executable: &str, cgroup: &str) {
        let directory = self.0.path().join(pid.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        let _ = std::fs::remove_file(directory.join("exe"));
        std::os::unix::fs::symlink(executable, directory.join("exe")).unwrap();
        write("cmdline", &format!("{comm}\0--serve\0"));
        write("cgroup", cgroup);
        write("stat", &format!("{pid} ({comm}) S {} {start_ticks} 0 0", ["0"; 18].join(" ")));
    }

    fn end(&self, pid: u32) {
        std::fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
    }
}

fn header(kind: Kind, tgid: u32, start_ns: u64) -> Header {
    Header { kind: kind as u8, tgid, process_start_ns: start_ns, enter_ns: start_ns, ..Header::default() }
}

fn fork(processes: &mut Processes, parent: (u32, u64), child: (u32, u64)) {
    let header = Header {
        other_tgid: child.0,
        other_tid: child.0,
        enter_ns: child.1,
        ..header(Kind::Fork, parent.0, parent.1)
    };
    processes.observe(&Event { header: &header, payload: &[] });
}

fn exec(processes: &mut Processes, key: (u32, u64), file: &str) {
    let header = header(Kind::Exec, key.0, key.1);
    processes.observe(&Event { header: &header, payload: file.as_bytes() });
}

fn news(processes: &mut Processes, (tgid, start_ns): (u32, u64)) -> Option<Arc<Process>> {
    processes.news(&header(Kind::Data, tgid, start_ns))
}

#[test]
fn a_process_is_told_once_and_again_as_another_program() {
    let proc = Proc::new();
    let key = (7, 41 * TICK_NS + 5);
    proc.process(7, 41, "sh", "/bin/dash", "0::/");
    let mut processes = proc.processes();
    let told = news(&mut processes, key).unwrap();
    assert_eq!(
        (told.name.as_str(), told.executable.as_str(), told.command.as_str()),
        ("sh", "/bin/dash", "sh --serve")
    );
    assert_eq!((told.pid, told.start_ns), (7, CLOCK.epoch_ns(key.1)));
    assert_eq!(news(&mut processes, key), None);
    proc.process(7, 41, "nginx", "/usr/sbin/nginx (deleted)", "0::/");
    exec(&mut processes, key, "/usr/sbin/nginx");
    let told = news(&mut processes, key).unwrap();
    assert_eq!((told.name.as_str(), told.executable.as_str()), ("nginx", "/usr/sbin/nginx"));
    assert_eq!(news(&mut processes, key), None);
}

#[test]
fn the_pid_of_another_process_is_not_mistaken() {
    let proc = Proc::new();
    proc.process(7, 41, "new", "/bin/new", "0::/");
    let mut processes = proc.processes();
    assert_eq!(news(&mut processes, (7, 40 * TICK_NS)).unwrap().name, "");
    assert_eq!(news(&mut processes, (7, 41 * TICK_NS)).unwrap().name, "new");
    assert_eq!(processes.stats().unknown, 1);
}

#[test]
fn what_has_ended_is_known_by_its_events() {
    let proc = Proc::new();
    proc.process(
        7,
        41,
        "nginx",
        "/usr/sbin/nginx",
        "0::/docker/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    );
    let mut processes = proc.processes();
    let parent = (7, 41 * TICK_NS);
    news(&mut processes, parent);
    let (worker, curl) = ((8, 42 * TICK_NS), (9, 43 * TICK_NS));
    fork(&mut processes, parent, worker);
    fork(&mut processes, parent, curl);
    for _ in 0..EAGER_PER_SECOND {
        // The budget is spent: nothing is read now.
        exec(&mut processes, (1, 43 * TICK_NS), "/bin/true");
    }
    exec(&mut processes, curl, "/usr/bin/curl");
    let told = news(&mut processes, worker).unwrap();
    assert_eq!((told.pid, told.name.as_str()), (8, "nginx"));
    assert!(told.container_id.is_some());
    let told = news(&mut processes, curl).unwrap();
    assert_eq!((told.name.as_str(), told.executable.as_str()), ("curl", "/usr/bin/curl"));
    assert_eq!(processes.stats().from_events, 2);
    // Another process with the worker's pid, much later, is not the worker.
    assert_eq!(news(&mut processes, (8, 4200 * TICK_NS)).unwrap().name, "");
}

#[test]
fn a_process_stays_known_after_its_end() {
    let proc = Proc::new();
    let key = (7, 41 * TICK_NS + 1);
    proc.process(7, 41, "curl", "/usr/bin/curl", "0::/");
    let mut processes = proc.processes();
    processes.expect(7);
    proc.end(7);
    let told = news(&mut processes, key).unwrap();
    assert_eq!((told.name.as_str(), told.start_ns), ("curl", CLOCK.epoch_ns(key.1)));
    assert_eq!(processes.get(ProcessKey { tgid: 7, start_ns: key.1 }), told);
}

#[test]
fn cgroups_are_read_once() {
    let proc = Proc::new();
    let container = "4b7a6f2dc1e84f0d9b1c3a5e7f90812a3b4c5d6e7f8091a2b3c4d5e6f708192a";
    let cgroup = format!("0::/system.slice/docker-{container}.scope\n");
    let mut processes = proc.processes();
    let mut container_of = |pid, cgroup_id| {
        let header = Header { cgroup: cgroup_id, ..header(Kind::Data, pid, 41 * TICK_NS) };
        processes.news(&header).unwrap().container_id.as_deref().map(str::to_owned)
    };
    proc.process(7, 41, "a", "/bin/a", &cgroup);
    assert_eq!(container_of(7, 99).as_deref(), Some(container));
    // Known by the number of its cgroup, even when it is gone.
    assert_eq!(container_of(8, 99).as_deref(), Some(container));
    // With v1 hierarchies, the number says nothing.
    proc.process(9, 41, "a", "/bin/a", &format!("4:memory:/docker/{container}\n0::/\n"));
    assert_eq!(container_of(9, 100).as_deref(), Some(container));
    proc.process(10, 41, "a", "/bin/a", "4:memory:/\n0::/\n");
    assert_eq!(container_of(10, 100), None);
}

#[test]
fn memory_is_bounded() {
    let proc = Proc::new();
    let mut processes = proc.processes();
    for pid in 1..100_000 {
        let key = (pid, u64::from(pid) * TICK_NS);
        exec(&mut processes, key, "/bin/true");
        assert_eq!(news(&mut processes, key).unwrap().name, "true");
    }
    assert!(processes.stats().known <= 2 * KNOWN_MIN as u64);
    assert!(processes.begun.len() <= 2 * KNOWN_MIN);
}

#[test]
fn a_real_child_is_read() {
    let mut child = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let mut processes = Processes::new(CLOCK);
    let files = loop {
        // It is this test's program until it has become `sleep`, which has its name a moment before its command line.
        let files = Files::read(Path::new("/proc"), pid, false).unwrap();
        if files.name == "sleep" && !files.command.is_empty() {
            break files;
        }
        std::thread::yield_now();
    };
    let start_ns = files.start_ticks * TICK_NS + 3;
    assert!(processes.running().contains(&pid));
    processes.expect(pid);
    child.kill().unwrap();
    child.wait().unwrap();
    let told = news(&mut processes, (pid, start_ns)).unwrap();
    assert_eq!((told.name.as_str(), told.command.as_str()), ("sleep", "sleep 600"));
}

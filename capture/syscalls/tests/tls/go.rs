//! What calls of Go's `crypto/tls` return, and which goroutines ask and answer with gRPC.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use wirespan_event::{Header, Kind, Source};
use wirespan_syscalls::tls::plan::{Ends, Kernel, Library, ReturnProbes, plan};

use crate::watch::{Heard, Watch, needs};
use crate::{Running, go_program, output_of, spawn};

fn of_go(header: &Header, tgid: u32) -> bool {
    header.tgid == tgid && header.source() == Some(Source::GoTls) && header.kind() == Some(Kind::Data)
}

/// Starts a program, which waits for its input, and has it probed.
fn start(program: &Path, watch: &mut Watch) -> Running {
    let running = spawn(Command::new(program).stdout(Stdio::piped()));
    let tgid = running.0.id();
    let is_exec = |heard: &Heard| heard.header.kind() == Some(Kind::Exec) && heard.header.tgid == tgid;
    watch.until("it executes", |heard| heard.iter().any(is_exec));
    watch.look();
    running
}

/// Also of calls that take less than came, that send several records, or a record of one byte first, as TLS 1.0 does.
#[test]
fn lengths_of_go_are_what_its_calls_return() {
    needs!("go");
    let directory = tempfile::tempdir().unwrap();
    let program = go_program(directory.path(), "amounts.go", &["-ldflags", "-s -w"]);
    let mut watch = Watch::start();
    let mut running = start(&program, &mut watch);
    let tgid = running.0.id();
    let report = watch.libraries.reports().find(|report| report.file == program).unwrap();
    assert_eq!((report.library, report.ends), (Some(Library::GoTls), Ends::Results), "{report}");

    drop(running.0.stdin.take());
    let said = output_of(running);
    let mut expected = [Vec::new(), Vec::new()];
    for (number, line) in said.lines().enumerate() {
        expected[number % 2].extend(line.split(' ').map(|length| length.parse::<u32>().unwrap()));
    }
    let [written, read] = expected;
    let of_it = |heard: &[Heard]| heard.iter().filter(|heard| of_go(&heard.header, tgid)).count();
    watch.until("all calls", |heard| of_it(heard) >= written.len() + read.len());
    for (ingress, lengths) in [(false, written), (true, read)] {
        let calls = watch.heard.iter().filter(|heard| of_go(&heard.header, tgid));
        let calls: Vec<_> = calls.filter(|heard| heard.header.is_ingress() == ingress).collect();
        assert_eq!(calls.iter().map(|heard| heard.header.length).collect::<Vec<_>>(), lengths);
        // Each message has a letter of its own.
        assert!(
            calls.iter().all(|heard| heard.payload.iter().all(|byte| Some(byte) == heard.payload.first()))
        );
        assert!(calls.iter().filter(|heard| !heard.payload.is_empty()).count() >= lengths.len().min(6));
    }
}

/// None of the probes that each call passes has to be stepped over.
#[test]
fn probes_of_go_are_on_instructions_that_the_kernel_emulates() {
    needs!("go");
    let directory = tempfile::tempdir().unwrap();
    let kernel = Kernel { return_probes: ReturnProbes::Safe, cookies: true };
    for flags in [&["-ldflags", "-s -w"][..], &["-buildmode", "pie"]] {
        let program = std::fs::read(go_program(directory.path(), "amounts.go", flags)).unwrap();
        let planned = plan(&&program[..], kernel).unwrap().unwrap();
        assert_eq!((planned.ends, planned.missing), (Ends::Results, vec![]));
        let is_for_all = |name: &str| name.starts_with("crypto/tls") || name == "runtime.newproc1";
        for (name, probes) in planned.functions.iter().filter(|(name, _)| is_for_all(name)) {
            for probe in probes {
                let at = &program[probe.offset as usize..][..2];
                let is_emulated =
                    matches!(at, [0x70..=0x7f | 0xe8 | 0xe9 | 0xeb | 0x90, _] | [0x0f, 0x80..=0x8f]);
                assert!(is_emulated, "{name}: {probe:?} is on {at:x?}");
            }
            assert_eq!(probes.iter().filter(|probe| probe.result.is_none()).count(), 1, "{name}");
        }
        // Where there are no cookies, returns are probed.
        let without = plan(&&program[..], Kernel { cookies: false, ..kernel });
        assert_eq!(without.unwrap().unwrap().ends, Ends::Instructions);
    }
}

/// One goroutine writes all requests and another reads them, but each stream is told with those that asked and answered.
#[test]
fn streams_of_grpc_are_told_with_the_goroutines_that_ask_and_answer() {
    needs!("go", "/usr/share/gocode/src/google.golang.org/grpc");
    let directory = tempfile::tempdir().unwrap();
    for flags in [&["-ldflags", "-s -w"][..], &["-buildmode", "pie"]] {
        let program = go_program(directory.path(), "grpc.go", flags);
        let mut watch = Watch::start();
        let mut running = start(&program, &mut watch);
        let tgid = running.0.id();
        running.0.stdin.take().unwrap().write_all(b"\n").unwrap();

        let mut calls = BTreeMap::<_, [u64; 2]>::new();
        for line in output_of(running).lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [what, method, goroutine] = words[..] else { panic!("{line}") };
            calls.entry(method.to_owned()).or_default()[usize::from(what == "answers")] =
                goroutine.parse().unwrap();
        }
        let told = |heard: &[Heard]| {
            let headers = heard.iter().map(|heard| heard.header);
            let of_it = headers.filter(|header| header.tgid == tgid && header.source() == Some(Source::Go));
            of_it.filter(|header| header.kind() == Some(Kind::Stream)).collect::<Vec<_>>()
        };
        watch.until("all streams", |heard| told(heard).len() > 2 * calls.len());
        let mut streams = BTreeMap::<_, [u64; 2]>::new();
        let mut readers = Vec::new();
        let mut others = BTreeSet::new();
        for header in told(&watch.heard) {
            match header.length {
                0 => readers.push(header.coroutine),
                stream => {
                    streams.entry(stream).or_default()[usize::from(header.is_ingress())] = header.coroutine;
                    others.insert((header.is_ingress(), header.tls));
                }
            }
        }
        // One writes, and the connection has one session at the other end.
        assert_eq!((readers.len(), others.len()), (1, 2), "{others:?}");
        let (mut said, mut told): (Vec<_>, Vec<_>) =
            (calls.into_values().collect(), streams.into_values().collect());
        said.sort_unstable();
        told.sort_unstable();
        assert_eq!((said.len(), &told), (100, &said));
    }
}

//! The live source against real processes of this machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wirespan_event::{Entry, Header, Kind, ProcessKey};
use wirespan_records::Process;
use wirespan_syscalls::source::TracerOptions;
use wirespan_syscalls::{EventSource, Live, LiveOptions, LogFile, SourceError};

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

fn options() -> LiveOptions {
    let tracer = TracerOptions { left_out: None, ..TracerOptions::default() };
    LiveOptions { tracer, tls: false, limits: None, own: Vec::new(), record: None }
}

/// `None`, after saying why, where nothing can be traced and nothing need be.
fn start(options: LiveOptions) -> Option<Live> {
    match Live::start(options) {
        Ok(live) => Some(live),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// What was said, as far as these tests look at it.
#[derive(Default)]
struct Said {
    clocks: usize,
    processes: HashMap<ProcessKey, Vec<Arc<Process>>>,
    events: Vec<(Header, Vec<u8>)>,
    /// All events.
    handed_on: u64,
    /// Events of processes that were not told of before.
    early: usize,
}

impl Said {
    fn take(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Clock(_) => self.clocks += 1,
            Entry::Process(key, process) => {
                self.processes.entry(key).or_default().push(Arc::clone(process));
            }
            Entry::TlsUnseen(..) => {}
            Entry::Gap => panic!("without limits, nothing is left out"),
            Entry::Event(event) => {
                assert!(self.clocks > 0, "the clock comes first");
                self.handed_on += 1;
                let has_bytes = matches!(event.header.kind(), Some(Kind::Data | Kind::Open));
                let is_told = self.processes.contains_key(&event.header.process());
                self.early += usize::from(has_bytes && !is_told);
                self.events.push((*event.header, event.payload.to_vec()));
            }
        }
    }

    fn of(&self, tgid: u32, kind: Kind) -> usize {
        self.events.iter().filter(|(header, _)| header.tgid == tgid && header.kind() == Some(kind)).count()
    }
}

fn until(source: &mut dyn EventSource, said: &mut Said, done: impl Fn(&Said) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done(said) {
        assert!(Instant::now() < end, "{} events", said.events.len());
        source.next(LOOK, &mut |entry| said.take(entry)).unwrap();
    }
}

/// Events that the programs made = events handed on + the sum of named losses.
fn accounts_for_events(live: &mut Live, said: &mut Said) {
    let end = Instant::now() + PATIENCE;
    loop {
        live.next(LOOK, &mut |entry| said.take(entry)).unwrap();
        let counts = live.counts();
        assert_eq!(counts.events, said.handed_on + counts.own);
        let of = |reason| counts.lost().find(|(name, _)| *name == reason).unwrap().1;
        let known = counts.events + of("ring_full") + of("malformed");
        assert!(known <= counts.made, "{counts:?}");
        // Others make events between the last look and the count.
        if known == counts.made {
            return;
        }
        assert!(Instant::now() < end, "{counts:?}");
    }
}

#[test]
fn processes_are_told_before_their_events_and_a_recording_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shell.events");
    let Some(mut live) = start(LiveOptions { record: Some(file.clone()), ..options() }) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // A shell that becomes another program: both speak over the same connection.
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; echo from bash >&3; exec perl -e 'syswrite(STDOUT, \"from perl\\n\")' >&3"
    );
    let mut child = Command::new("bash").args(["-c", &script]).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from bash\nfrom perl\n");
    child.wait().unwrap();
    let tgid = child.id();
    let mut said = Said::default();
    until(&mut live, &mut said, |said| said.of(tgid, Kind::Exit) > 0);

    accounts_for_events(&mut live, &mut said);
    assert_eq!(said.early, 0);
    let (_, told) = said.processes.iter().find(|(key, _)| key.tgid == tgid).unwrap();
    let names: Vec<&str> = told.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names.last(), Some(&"perl"), "{told:?}");
    assert!(said.of(tgid, Kind::Data) >= 2);

    drop(live);
    let mut log = LogFile::open(&file).unwrap();
    let mut again = Said::default();
    while log.next(Duration::ZERO, &mut |entry| again.take(entry)).unwrap().is_some() {}
    assert_eq!(again.events, said.events);
    assert_eq!(again.processes, said.processes);
    assert_eq!((again.clocks, log.stats().cut, log.stats().damaged), (said.clocks, 0, 0));
}

#[test]
fn own_connections_are_left_out_and_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let own = vec![wirespan_records::Endpoint { ip: address.ip(), port: address.port() }];
    let Some(mut live) = start(LiveOptions { own, ..options() }) else { return };
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    for to in [address, other.local_addr().unwrap()] {
        TcpStream::connect(to).unwrap().write_all(b"hello").unwrap();
    }
    let tgid = std::process::id();
    let of_port = |said: &Said, port| {
        let of =
            |header: &Header| header.tgid == tgid && [header.local_port, header.remote_port].contains(&port);
        said.events.iter().filter(|(header, _)| of(header)).count()
    };
    let mut said = Said::default();
    let port = other.local_addr().unwrap().port();
    until(&mut live, &mut said, |said| of_port(said, port) >= 2);
    assert_eq!(of_port(&said, address.port()), 0);
    assert!(live.counts().own >= 2);
    accounts_for_events(&mut live, &mut said);
}

/// A program that only ends, so that a thousand processes a second are not limited by what loads them.
fn ends_at_once(directory: &Path) -> PathBuf {
    let path = directory.join("ends-at-once");
    let code: &[u8] = match std::env::consts::ARCH {
        // exit(0): mov eax, 60; xor edi, edi; syscall.
        "x86_64" => &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05],
        // mov x0, 0; mov x8, 93; svc 0.
        "aarch64" => &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4],
        other => panic!("the code of exit(0) on {other} is not known here"),
    };
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    // An ELF header, and one segment that is all of the file.
    let header: [&[u8]; 14] = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        &2_u16.to_le_bytes(),
        &machine.to_le_bytes(),
        &1_u32.to_le_bytes(),
        &(BASE + HEADERS).to_le_bytes(),
        &64_u64.to_le_bytes(),
        &0_u64.to_le_bytes(),
        &0_u32.to_le_bytes(),
        &64_u16.to_le_bytes(),
        &56_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &0_u16.to_le_bytes(),
        &0_u16.to_le_bytes(),
        &0_u16.to_le_bytes(),
    ];
    let segment: [&[u8]; 8] = [
        &1_u32.to_le_bytes(),
        &5_u32.to_le_bytes(),
        &0_u64.to_le_bytes(),
        &BASE.to_le_bytes(),
        &BASE.to_le_bytes(),
        &size.to_le_bytes(),
        &size.to_le_bytes(),
        &4096_u64.to_le_bytes(),
    ];
    std::fs::write(&path, [header.concat(), segment.concat(), code.to_vec()].concat()).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Two seconds of a thousand processes each, as fast as they can be made; with probes, so that every program is looked into.
#[test]
fn short_lived_processes_are_all_told() {
    const PROCESSES: usize = 2000;
    let directory = tempfile::tempdir().unwrap();
    let program = ends_at_once(directory.path());
    let Some(mut live) = start(LiveOptions { tls: true, ..options() }) else { return };
    let name = program.to_str().unwrap().to_owned();
    let started = Instant::now();
    let spawner = std::thread::spawn(move || {
        for _ in 0..PROCESSES {
            assert!(Command::new(&program).status().unwrap().success());
        }
        started.elapsed()
    });
    let this = std::process::id();
    let mut said = Said::default();
    let (mut children, mut execs, mut exits) = (HashSet::new(), 0, 0);
    let end = Instant::now() + PATIENCE;
    while exits < PROCESSES && Instant::now() < end {
        live.next(LOOK, &mut |entry| said.take(entry)).unwrap();
        for (header, payload) in said.events.drain(..) {
            match header.kind() {
                Some(Kind::Fork) if header.tgid == this && header.other_tgid != this => {
                    children.insert(header.other_tgid);
                }
                Some(Kind::Exec) if children.contains(&header.tgid) => {
                    assert!(payload.starts_with(name.as_bytes()), "{payload:?}");
                    execs += 1;
                }
                Some(Kind::Exit) if children.remove(&header.tgid) => exits += 1,
                _ => {}
            }
        }
    }
    let took = spawner.join().unwrap();
    accounts_for_events(&mut live, &mut said);
    let lost: u64 = live.counts().lost().map(|(_, count)| count).sum();
    assert_eq!((execs, exits, lost), (PROCESSES, PROCESSES, 0), "{:?}", live.counts());
    let stats = live.processes();
    // None of them touched a socket: only those that the budget allows are read.
    assert!(stats.known <= 16_384 && stats.from_events < 500, "{stats:?}");
    eprintln!("{:.0} processes a second; {stats:?}", PROCESSES as f64 / took.as_secs_f64());
}

#[test]
fn a_full_ring_is_counted_and_survived() {
    let tracer = TracerOptions { ring_bytes: 4096, left_out: None, ..TracerOptions::default() };
    let Some(mut live) = start(LiveOptions { tracer, ..options() }) else { return };
    let (mut left, mut right) = UnixStream::pair().unwrap();
    for _ in 0..200 {
        left.write_all(&[7; 400]).unwrap();
        right.read_exact(&mut [0; 400]).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    for _ in 0..200 {
        client.write_all(&[7; 400]).unwrap();
        server.read_exact(&mut [0; 400]).unwrap();
    }
    let lost = |live: &Live| live.counts().lost().find(|(reason, _)| *reason == "ring_full").unwrap().1;
    let mut said = Said::default();
    until(&mut live, &mut said, |said| said.events.len() > 5);
    assert!(lost(&live) > 100, "{:?}", live.counts());
    // What comes after there is room again is seen.
    let port = listener.local_addr().unwrap().port();
    let of_port = |header: &Header| [header.local_port, header.remote_port].contains(&port);
    let mut seen = 0;
    let end = Instant::now() + PATIENCE;
    while seen == 0 && Instant::now() < end {
        client.write_all(b"after").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        live.next(LOOK, &mut |entry| said.take(entry)).unwrap();
        seen = said.events.iter().filter(|(header, _)| header.length == 5 && of_port(header)).count();
    }
    assert!(seen > 0);
    accounts_for_events(&mut live, &mut said);
}

/// Probes are attached, and removed, while events are taken out of the ring.
#[test]
fn nothing_is_lost_while_probes_are_attached() {
    const ENDS: usize = 32;
    let Some(mut live) = start(LiveOptions { tls: true, ..options() }) else { return };
    let mut ends: Vec<_> = (0..ENDS).map(|_| UnixStream::pair().unwrap()).collect();
    let (mut said, mut sent) = (Said::default(), 0);
    let end = Instant::now() + PATIENCE;
    while !live.is_settled() {
        assert!(Instant::now() < end, "the libraries were not probed");
        for (from, to) in &mut ends {
            from.write_all(b"while probes are attached").unwrap();
            to.read_exact(&mut [0; 25]).unwrap();
            sent += 1;
        }
        live.next(LOOK, &mut |entry| said.take(entry)).unwrap();
    }
    let of_this = |said: &Said| {
        let sends = said.events.iter().filter(|(header, payload)| {
            header.tgid == std::process::id()
                && !header.is_ingress()
                && payload == b"while probes are attached"
        });
        sends.count()
    };
    until(&mut live, &mut said, |said| of_this(said) == sent);
    accounts_for_events(&mut live, &mut said);
    assert!(sent > 0);
    assert_eq!(live.counts().lost().map(|(_, count)| count).sum::<u64>(), 0, "{:?}", live.counts());
    let libraries = live.libraries();
    let openssl = libraries.iter().filter(|line| line.contains(": OpenSSL;")).count();
    assert!(openssl > 0, "this host has an OpenSSL, or else the test says nothing: {libraries:#?}");
}

fn allow_descriptors(count: usize) {
    let limit = libc::rlimit { rlim_cur: count as u64, rlim_max: count as u64 };
    // SAFETY: reads a structure that lives as long as the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

#[test]
fn connections_that_were_open_before_are_traced() {
    const CONNECTIONS: usize = 5000;
    allow_descriptors(2 * CONNECTIONS + 200);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut ends = Vec::new();
    for _ in 0..CONNECTIONS {
        ends.push((TcpStream::connect(address).unwrap(), listener.accept().unwrap().0));
    }
    let Some(mut live) = start(options()) else { return };
    let mut said = Said::default();
    let tgid = std::process::id();
    // Both ends of each, by their ports, and the sockets.
    let (mut seen, mut conns) = (HashSet::new(), HashSet::new());
    let end = Instant::now() + PATIENCE;
    // Other tests of this machine may fill the ring, so what was lost speaks again.
    while seen.len() < 2 * ends.len() {
        assert!(Instant::now() < end, "{} of {}", seen.len(), 2 * ends.len());
        for some in ends.chunks_mut(100) {
            for (client, server) in some {
                let port = client.local_addr().unwrap().port();
                if !seen.contains(&(port, address.port())) || !seen.contains(&(address.port(), port)) {
                    client.write_all(b"ping").unwrap();
                    server.read_exact(&mut [0; 4]).unwrap();
                }
            }
            live.next(LOOK, &mut |entry| said.take(entry)).unwrap();
            for (header, payload) in said.events.drain(..) {
                if header.tgid == tgid && header.kind() == Some(Kind::Data) && payload == b"ping" {
                    assert!([header.local_port, header.remote_port].contains(&address.port()));
                    seen.insert((header.local_port, header.remote_port));
                    conns.insert(header.conn);
                }
            }
        }
    }
    assert_eq!(conns.len(), 2 * ends.len());
    accounts_for_events(&mut live, &mut said);
}

#[test]
fn a_kernel_without_type_information_is_one_sentence() {
    let tracer = TracerOptions { btf: Some("/nowhere/btf".into()), ..TracerOptions::default() };
    match Live::start(LiveOptions { tracer, ..options() }) {
        Err(SourceError::Tracer(error)) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.contains("BTF"), "{text}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it started without type information"),
    }
}

#[test]
fn a_recording_that_cannot_be_made_is_told_at_the_start() {
    let record = Some("/proc/nowhere/x.events".into());
    let error = Live::start(LiveOptions { record, ..options() }).err().unwrap().to_string();
    assert!(error.starts_with("cannot open /proc/nowhere/x.events"), "{error}");
    assert!(!LogFile::recognises("/proc/nowhere".as_ref()));
}

#[test]
fn shells_are_there() {
    // The tests above say little when these are missing.
    for program in ["bash", "perl"] {
        let found =
            Command::new(program).arg("-e").arg("").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(found.is_ok(), "{program} is missing");
    }
}

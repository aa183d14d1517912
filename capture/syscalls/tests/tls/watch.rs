//! A tracer with its libraries, as the live source runs them.

use std::time::{Duration, Instant};

use wirespan_bpf::tracer::{Stats, Tracer, TracerOptions};
use wirespan_event::{Header, Kind};
use wirespan_syscalls::tls::Libraries;

/// What is not heard by then is not heard.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event.
#[derive(Clone, Debug)]
pub struct Heard {
    pub header: Header,
    pub payload: Vec<u8>,
}

impl Heard {
    pub fn has(&self, text: &str) -> bool {
        memchr::memmem::find(&self.payload, text.as_bytes()).is_some()
    }
}

pub struct Watch {
    tracer: Tracer,
    pub libraries: Libraries,
    pub heard: Vec<Heard>,
}

impl Watch {
    /// Watches all processes, also those that run already.
    pub fn start() -> Self {
        let mut tracer = Tracer::start(&TracerOptions { uprobes: true, ..TracerOptions::default() }).unwrap();
        let mut libraries = Libraries::new(tracer.take_prober().unwrap());
        let processes = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        for tgid in processes {
            libraries.process_started(tgid);
        }
        let mut watch = Self { tracer, libraries, heard: Vec::new() };
        watch.look();
        watch
    }

    /// Listens until those that run, and so have mapped their libraries, were looked at.
    pub fn look(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.tracer.wait(Duration::from_millis(5)).unwrap();
        let mut new = Vec::new();
        self.tracer
            .drain(&mut |event| new.push(Heard { header: *event.header, payload: event.payload.to_vec() }));
        for heard in &new {
            let header = &heard.header;
            match header.kind() {
                Some(Kind::Exec) => self.libraries.process_started(header.tgid),
                Some(Kind::Fork) if header.other_tgid != header.tgid => {
                    self.libraries.process_forked(header.tgid, header.other_tgid);
                }
                Some(Kind::Exit) if header.tid == header.tgid => {
                    self.libraries.process_ended(header.tgid);
                }
                _ => {}
            }
        }
        self.heard.append(&mut new);
        self.libraries.advance();
    }

    /// Listens until `done`.
    pub fn until(&mut self, what: &str, done: impl Fn(&[Heard]) -> bool) {
        let begun = Instant::now();
        while !done(&self.heard) {
            if begun.elapsed() > PATIENCE {
                for report in self.libraries.reports() {
                    eprintln!("{report}");
                }
                eprintln!("{:?}", self.libraries.failures().collect::<Vec<_>>());
                for heard in
                    self.heard.iter().filter(|heard| heard.header.tls != 0 && heard.header.length > 0)
                {
                    let Header { tgid, tls, conn, coroutine, length, .. } = heard.header;
                    let text = String::from_utf8_lossy(&heard.payload);
                    let line = text.lines().next().unwrap_or_default();
                    eprintln!("{tgid} {tls:x} conn {conn} coroutine {coroutine}: {length} bytes: {line}");
                }
                let lost = self.tracer.stats().map(|stats| Stats { programs: Vec::new(), ..stats });
                panic!("not heard: {what}; {lost:?}");
            }
            self.turn();
        }
    }

    /// The first plaintext of a process with `text` in it.
    pub fn find(&self, tgid: u32, text: &str, ingress: bool) -> &Heard {
        self.heard
            .iter()
            .find(|heard| {
                let header = &heard.header;
                header.tgid == tgid && header.tls != 0 && header.is_ingress() == ingress && heard.has(text)
            })
            .unwrap()
    }
}

/// Ends the test when it lacks root or a program; that fails it in CI.
macro_rules! needs {
    ($($program:literal),*) => {
        if let Some(missing) = crate::watch::missing(&[$($program),*]) {
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return;
        }
    };
}
pub(crate) use needs;

pub fn missing(programs: &[&str]) -> Option<String> {
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs eBPF; run as root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let lacks =
        |program: &&&str| !std::env::split_paths(&path).any(|directory| directory.join(program).exists());
    programs
        .iter()
        .find(lacks)
        .map(|program| format!("needs the program {program}; run `.ci/packages.sh test`"))
}

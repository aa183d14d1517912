//! Event logs (`.events`): files of what a source said, so that it can be analysed again.
//!
//! ```text
//! file    = magic (8 bytes), version (u32), records
//! record  = length of the body (u32), type (u32), body
//! clock   = nanoseconds since the epoch at which CLOCK_BOOTTIME was 0 (u64)
//! event   = struct event of bpf/programs/event.h, payload
//! process = pid (u32), start (u64, CLOCK_BOOTTIME), start (u64, epoch),
//!           name, executable, command, container id, pod uid: each a length (u32) and UTF-8 bytes, the last two may be empty
//! gap     = nothing
//! unseen  = pid (u32), start (u64, CLOCK_BOOTTIME), library: a length (u32) and UTF-8 bytes, empty for none
//! ```
//!
//! Numbers are in the byte order of the machine, as in the kernel's ring. Records are only ever added at the end: of a file that
//! was cut, everything before the cut is read, and the cut is counted.

use crate::{Clock, Entry, Event, Header, ProcessKey};
use std::io::{self, Read, Write};
use std::sync::Arc;
use thiserror::Error;
use wirespan_records::Process;

/// How an event log begins.
pub const MAGIC: [u8; 8] = *b"\x89WSEVT\r\n";
const VERSION: u32 = 1;
/// A longer record does not exist: payloads end at 64 KiB, command lines at 4 KiB.
const BODY_BYTES_MAX: usize = 1 << 20;

const CLOCK: u32 = 1;
const EVENT: u32 = 2;
const PROCESS: u32 = 3;
const GAP: u32 = 4;
const UNSEEN: u32 = 5;

/// Why an event log cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file does not begin as event logs do.
    #[error("this is no event log")]
    NotALog,
    /// The file is of a version that this program does not know.
    #[error("this event log is of version {0}, and this wirespan reads version {VERSION}")]
    Version(u32),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes an event log.
pub struct LogWriter<W: Write> {
    out: io::BufWriter<W>,
    body: Vec<u8>,
}

impl<W: Write> LogWriter<W> {
    /// Begins a log.
    pub fn new(out: W) -> io::Result<Self> {
        let mut out = io::BufWriter::with_capacity(1 << 16, out);
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_ne_bytes())?;
        Ok(Self { out, body: Vec::new() })
    }

    /// Adds what a source said.
    pub fn write(&mut self, entry: Entry<'_>) -> io::Result<()> {
        match entry {
            Entry::Clock(clock) => self.record(CLOCK, &clock.boot_ns.to_ne_bytes(), &[]),
            Entry::Event(Event { header, payload }) => self.record(EVENT, header.as_bytes(), payload),
            Entry::Gap => self.record(GAP, &[], &[]),
            Entry::Process(key, process) => self.encoded(PROCESS, |body| encode(key, process, body)),
            Entry::TlsUnseen(key, library) => self.encoded(UNSEEN, |body| {
                encode_key(key, body);
                encode_text(library.unwrap_or_default(), body);
            }),
        }
    }

    /// Adds a record whose body is put together first.
    fn encoded(&mut self, kind: u32, encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        encode(&mut body);
        let result = self.record(kind, &body, &[]);
        self.body = body;
        result
    }

    /// Hands everything to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn record(&mut self, kind: u32, body: &[u8], more: &[u8]) -> io::Result<()> {
        let length = body.len() + more.len();
        self.out.write_all(&(length as u32).to_ne_bytes())?;
        self.out.write_all(&kind.to_ne_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(more)
    }
}

fn encode(key: ProcessKey, process: &Process, body: &mut Vec<u8>) {
    encode_key(key, body);
    body.extend_from_slice(&process.start_ns.to_ne_bytes());
    let (container, pod) = (process.container_id.as_deref(), process.pod_uid.as_deref());
    for text in [&process.name, &process.executable, &process.command]
        .map(String::as_str)
        .into_iter()
        .chain([container, pod].map(Option::unwrap_or_default))
    {
        encode_text(text, body);
    }
}

fn encode_key(key: ProcessKey, body: &mut Vec<u8>) {
    body.extend_from_slice(&key.tgid.to_ne_bytes());
    body.extend_from_slice(&key.start_ns.to_ne_bytes());
}

fn encode_text(text: &str, body: &mut Vec<u8>) {
    body.extend_from_slice(&(text.len() as u32).to_ne_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn decode(body: &[u8]) -> Option<(ProcessKey, Process)> {
    let mut fields = Fields(body);
    let key = fields.key()?;
    let start_ns = fields.u64()?;
    let (name, executable, command) = (fields.text()?, fields.text()?, fields.text()?);
    let (container, pod) = (fields.text()?, fields.text()?);
    let some = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let process = Process {
        pid: key.tgid,
        start_ns,
        name: name.to_owned(),
        executable: executable.to_owned(),
        command: command.to_owned(),
        container_id: some(container),
        pod_uid: some(pod),
    };
    fields.0.is_empty().then_some((key, process))
}

fn decode_unseen(body: &[u8]) -> Option<(ProcessKey, Option<String>)> {
    let mut fields = Fields(body);
    let (key, library) = (fields.key()?, fields.text()?);
    fields.0.is_empty().then_some((key, Some(library.to_owned()).filter(|library| !library.is_empty())))
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*field))
    }

    fn u64(&mut self) -> Option<u64> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*field))
    }

    fn key(&mut self) -> Option<ProcessKey> {
        Some(ProcessKey { tgid: self.u32()?, start_ns: self.u64()? })
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(field).ok()
    }
}

/// What a reader met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Events that were handed on.
    pub events: u64,
    /// Processes that were handed on.
    pub processes: u64,
    /// Records of an unknown type, or whose body is not what its type says; they were passed over.
    pub damaged: u64,
    /// Records that the end of the file, or a length that no record has, cut off: 0 or 1.
    pub cut: u64,
}

/// Reads an event log.
pub struct LogReader<R: Read> {
    input: io::BufReader<R>,
    body: Vec<u8>,
    header: Header,
    process: Arc<Process>,
    library: Option<String>,
    stats: LogStats,
    ended: bool,
}

impl<R: Read> LogReader<R> {
    /// Opens a log.
    pub fn new(input: R) -> Result<Self, LogError> {
        let mut input = io::BufReader::with_capacity(1 << 16, input);
        let mut start = [0; 12];
        let got = fill(&mut input, &mut start)?;
        let (magic, version) = start.split_at(MAGIC.len());
        if got < start.len() || magic != MAGIC {
            return Err(LogError::NotALog);
        }
        let version = Fields(version).u32().unwrap_or_default();
        if version != VERSION {
            return Err(LogError::Version(version));
        }
        let (header, process, library) = Default::default();
        let stats = LogStats::default();
        Ok(Self { input, body: Vec::new(), header, process, library, stats, ended: false })
    }

    /// The next thing that was said; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        while let Some(kind) = self.next_record()? {
            match kind {
                CLOCK => {
                    if let Some(boot_ns) = Fields(&self.body).u64() {
                        return Ok(Some(Entry::Clock(Clock { boot_ns })));
                    }
                }
                EVENT => {
                    if let Some(header) = Header::read(&self.body).filter(|header| fits(header, &self.body)) {
                        self.stats.events += 1;
                        self.header = header;
                        let payload = self.body.get(size_of::<Header>()..).unwrap_or_default();
                        return Ok(Some(Entry::Event(Event { header: &self.header, payload })));
                    }
                }
                PROCESS => {
                    if let Some((key, process)) = decode(&self.body) {
                        self.stats.processes += 1;
                        self.process = Arc::new(process);
                        return Ok(Some(Entry::Process(key, &self.process)));
                    }
                }
                GAP => return Ok(Some(Entry::Gap)),
                UNSEEN => {
                    if let Some((key, library)) = decode_unseen(&self.body) {
                        self.library = library;
                        return Ok(Some(Entry::TlsUnseen(key, self.library.as_deref())));
                    }
                }
                _ => {}
            }
            self.stats.damaged += 1;
        }
        Ok(None)
    }

    /// What was met so far.
    pub fn stats(&self) -> LogStats {
        self.stats
    }

    /// Reads a record into `body`; its type, or `None` at the end.
    fn next_record(&mut self) -> Result<Option<u32>, LogError> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; 8];
        let got = fill(&mut self.input, &mut head)?;
        let mut fields = Fields(&head);
        let (length, kind) = (fields.u32().unwrap_or_default() as usize, fields.u32());
        if got == head.len() && length <= BODY_BYTES_MAX {
            self.body.resize(length, 0);
            if fill(&mut self.input, &mut self.body)? == length {
                return Ok(kind);
            }
        }
        self.ended = true;
        self.stats.cut = u64::from(got > 0);
        Ok(None)
    }
}

/// The header speaks of this record's bytes.
fn fits(header: &Header, body: &[u8]) -> bool {
    header.size as usize == body.len() && size_of::<Header>() + header.captured as usize == body.len()
}

/// Reads until `buffer` is full or the input ends; how many bytes there were.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Said {
        Clock(u64),
        Event(Box<Header>, Vec<u8>),
        Process(ProcessKey, Arc<Process>),
        TlsUnseen(ProcessKey, Option<String>),
        Gap,
    }

    impl Said {
        fn entry(&self) -> Entry<'_> {
            match self {
                Self::Clock(boot_ns) => Entry::Clock(Clock { boot_ns: *boot_ns }),
                Self::Event(header, payload) => Entry::Event(Event { header, payload }),
                Self::Process(key, process) => Entry::Process(*key, process),
                Self::TlsUnseen(key, library) => Entry::TlsUnseen(*key, library.as_deref()),
                Self::Gap => Entry::Gap,
            }
        }

        fn of(entry: Entry<'_>) -> Self {
            match entry {
                Entry::Clock(clock) => Self::Clock(clock.boot_ns),
                Entry::Event(event) => Self::Event(Box::new(*event.header), event.payload.to_vec()),
                Entry::Process(key, process) => Self::Process(key, Arc::clone(process)),
                Entry::TlsUnseen(key, library) => Self::TlsUnseen(key, library.map(str::to_owned)),
                Entry::Gap => Self::Gap,
            }
        }
    }

    fn write(said: &[Said]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut log = LogWriter::new(&mut bytes).unwrap();
        said.iter().for_each(|said| log.write(said.entry()).unwrap());
        log.flush().unwrap();
        drop(log);
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<Said>, LogStats) {
        let mut log = LogReader::new(bytes).unwrap();
        let mut said = Vec::new();
        while let Some(entry) = log.next_entry().unwrap() {
            said.push(Said::of(entry));
        }
        (said, log.stats())
    }

    fn any_said() -> impl Strategy<Value = Said> {
        let event = (any::<(u8, u32, u64)>(), prop::collection::vec(any::<u8>(), 0..600)).prop_map(
            |((kind, tgid, enter_ns), payload)| {
                let captured = payload.len() as u32;
                let header =
                    Header { size: 176 + captured, captured, kind, tgid, enter_ns, ..Header::default() };
                Said::Event(Box::new(header), payload)
            },
        );
        let process = (any::<(u32, u64, u64)>(), ".{0,20}", ".{0,20}", "[a-z0-9]{0,64}").prop_map(
            |((tgid, start_ns, epoch_ns), name, command, id)| {
                let id = (!id.is_empty()).then(|| Arc::from(id));
                let process = Process {
                    pid: tgid,
                    start_ns: epoch_ns,
                    executable: format!("/bin/{name}"),
                    name,
                    command,
                    container_id: id.clone(),
                    pod_uid: id,
                };
                Said::Process(ProcessKey { tgid, start_ns }, Arc::new(process))
            },
        );
        let unseen = (any::<(u32, u64)>(), prop::option::of(".{1,20}"))
            .prop_map(|((tgid, start_ns), library)| Said::TlsUnseen(ProcessKey { tgid, start_ns }, library));
        prop_oneof![any::<u64>().prop_map(Said::Clock), event, process, unseen, Just(Said::Gap)]
    }

    proptest! {
        #[test]
        fn what_was_said_is_read(said in prop::collection::vec(any_said(), 0..20)) {
            let (read, stats) = read(&write(&said));
            prop_assert_eq!((stats.damaged, stats.cut), (0, 0));
            prop_assert_eq!(read, said);
        }

        #[test]
        fn a_cut_log_is_read_up_to_the_cut(said in prop::collection::vec(any_said(), 1..20), part in 0.0..1.0) {
            let whole = write(&said);
            let ends: Vec<usize> = (0..=said.len()).map(|count| write(&said[..count]).len()).collect();
            let cut = 12 + ((whole.len() - 12) as f64 * part) as usize;
            let (read, stats) = read(&whole[..cut]);
            let complete = ends.iter().filter(|end| **end <= cut).count() - 1;
            prop_assert_eq!(&read[..], &said[..complete]);
            prop_assert_eq!(stats.cut, u64::from(!ends.contains(&cut)));
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let log = [&write(&[])[..], &bytes].concat();
            let mut reader = LogReader::new(&log[..]).unwrap();
            let mut entries = 0;
            while reader.next_entry().unwrap().is_some() {
                entries += 1;
            }
            prop_assert!(entries <= bytes.len() / 8);
        }
    }

    #[test]
    fn damaged_records_are_passed_over() {
        let event = Said::Event(Box::new(Header { size: 177, captured: 1, ..Header::default() }), vec![7]);
        let lies = Said::Event(Box::new(Header { size: 177, captured: 2, ..Header::default() }), vec![7]);
        let (read, stats) = read(&write(&[lies, event.clone()]));
        assert_eq!(read, [event]);
        assert_eq!(stats, LogStats { events: 1, damaged: 1, ..LogStats::default() });
    }

    #[test]
    fn other_files_are_told_apart() {
        let error =
            |bytes: &[u8]| LogReader::new(bytes).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error(b"\xd4\xc3\xb2\xa1 a capture file"), "this is no event log");
        assert_eq!(error(b"\x89WSE"), "this is no event log");
        let mut newer = write(&[]);
        newer[8..].copy_from_slice(&9u32.to_ne_bytes());
        assert!(error(&newer).contains("of version 9"), "{}", error(&newer));
    }
}

//! Writes down what the tracer would say of made-up processes.

use std::sync::Arc;
use wirespan_event::header::{AF_INET, AF_UNIX};
use wirespan_event::{Call, Clock, Event, Flags, Header, Kind, ProcessKey, Source};
use wirespan_host::{Host, HostConfig};
use wirespan_records::{Process, Span, Text};

/// CLOCK_BOOTTIME 0 in the tests, as nanoseconds since the epoch.
pub const BOOT_NS: u64 = 1_700_000_000_000_000_000;
/// When every process of the tests began.
pub const PROCESS_START_NS: u64 = 1_000;

pub type Log = Vec<(Header, Vec<u8>)>;

/// A thread, and what it did so far.
#[derive(Clone, Debug)]
pub struct Thread {
    pub tgid: u32,
    pub tid: u32,
    pub turn: u32,
    pub events: u32,
}

impl Thread {
    pub fn new(tgid: u32, tid: u32) -> Self {
        Self { tgid, tid, turn: 0, events: 0 }
    }
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Socket {
    pub conn: u64,
    pub family: u16,
    pub protocol: u8,
    pub local: ([u8; 4], u16),
    pub remote: ([u8; 4], u16),
    pub role: Flags,
    /// Of the next byte to send, and to receive.
    pub seq: [u32; 2],
    pub events: u32,
    pub netns: u32,
}

impl Socket {
    pub fn tcp(conn: u64, role: Flags, local: ([u8; 4], u16), remote: ([u8; 4], u16)) -> Self {
        let seq = [0xffff_ff00, 0x1000];
        Self { conn, family: AF_INET, protocol: 6, local, remote, role, seq, events: 0, netns: 1 }
    }

    /// Both ends of a TCP connection to port 80: the client's, the server's.
    pub fn pair(conn: u64) -> [Self; 2] {
        let (client, server) = (([10, 0, 0, 1], 40_000 + conn as u16), ([10, 0, 0, 2], 80));
        let client_end = Self::tcp(conn, Flags::CLIENT, client, server);
        let [out, into] = client_end.seq;
        let server_end = Self { seq: [into, out], ..Self::tcp(conn + 1, Flags::SERVER, server, client) };
        [client_end, server_end]
    }
}

/// Events as they happen.
#[derive(Default)]
pub struct Script {
    pub now_ns: u64,
    pub log: Log,
}

impl Script {
    pub fn header(&mut self, thread: &mut Thread, socket: &Socket, kind: Kind) -> Header {
        self.now_ns += 10_000;
        thread.events += 1;
        let ip = |ip: [u8; 4]| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip);
            bytes
        };
        Header {
            kind: kind as u8,
            flags: socket.role,
            enter_ns: self.now_ns - 2_000,
            exit_ns: self.now_ns - 1_000,
            tgid: thread.tgid,
            tid: thread.tid,
            process_start_ns: PROCESS_START_NS,
            conn: socket.conn,
            turn: thread.turn,
            thread_event: thread.events,
            conn_event: socket.events,
            netns: socket.netns,
            family: socket.family,
            protocol: socket.protocol,
            tcp_state: 1,
            local: ip(socket.local.0),
            local_port: socket.local.1,
            remote: ip(socket.remote.0),
            remote_port: socket.remote.1,
            ..Header::default()
        }
    }

    pub fn open(&mut self, thread: &mut Thread, socket: &Socket) {
        let mut header = self.header(thread, socket, Kind::Open);
        header.call = if socket.role == Flags::CLIENT { Call::Connect } else { Call::Accept } as u32;
        if socket.protocol == 6 {
            [header.tcp_seq, header.opposite_seq] = socket.seq;
        }
        self.push(header, &[]);
    }

    /// What one end of a UNIX socket is bound to: the other one, or this one.
    pub fn name(&mut self, thread: &mut Thread, socket: &Socket, is_other: bool, address: &[u8]) {
        let mut header = self.header(thread, socket, Kind::Name);
        if is_other {
            header.flags = header.flags.with(Flags::INGRESS);
        }
        self.push(header, address);
    }

    pub fn close(&mut self, socket: &Socket) {
        let mut nobody = Thread::new(0, 0);
        let header = self.header(&mut nobody, socket, Kind::Close);
        self.push(header, &[]);
    }

    pub fn send(&mut self, thread: &mut Thread, socket: &mut Socket, data: &[u8]) {
        self.cut(thread, socket, data, false, usize::MAX);
    }

    pub fn receive(&mut self, thread: &mut Thread, socket: &mut Socket, data: &[u8]) {
        self.cut(thread, socket, data, true, usize::MAX);
    }

    /// A call of which at most `captured` bytes are kept.
    pub fn cut(
        &mut self,
        thread: &mut Thread,
        socket: &mut Socket,
        data: &[u8],
        ingress: bool,
        captured: usize,
    ) {
        let mut header = self.header(thread, socket, Kind::Data);
        socket.events += 1;
        let way = usize::from(ingress);
        if socket.protocol == 6 {
            (header.tcp_seq, header.opposite_seq) = (socket.seq[way], socket.seq[1 - way]);
        }
        socket.seq[way] = socket.seq[way].wrapping_add(data.len() as u32);
        if ingress {
            header.flags = header.flags.with(Flags::INGRESS);
        }
        header.length = data.len() as u32;
        let payload = &data[..data.len().min(captured)];
        if payload.len() < data.len() {
            header.flags = header.flags.with(Flags::TRUNCATED);
        }
        self.push(header, payload);
    }

    pub fn push(&mut self, mut header: Header, payload: &[u8]) {
        header.captured = payload.len() as u32;
        header.size = (size_of::<Header>() + payload.len()) as u32;
        self.log.push((header, payload.to_vec()));
    }
}

pub fn config() -> HostConfig {
    HostConfig { clock: Clock { boot_ns: BOOT_NS }, ..HostConfig::default() }
}

/// The spans of a log, by id, and the host.
pub fn run_with(config: HostConfig, log: &[(Header, Vec<u8>)]) -> (Vec<Span>, Host) {
    let mut host = Host::new(config);
    let mut spans = Vec::new();
    for (header, payload) in log {
        let key = ProcessKey { tgid: header.tgid, start_ns: header.process_start_ns };
        host.process(key, Arc::new(Process { pid: header.tgid, ..Process::default() }));
        host.event(&Event { header, payload });
        host.advance(header.exit_ns, &mut spans);
    }
    host.finish(&mut spans);
    spans.sort_by_key(|span| span.id);
    (spans, host)
}

pub fn run(log: &[(Header, Vec<u8>)]) -> Vec<Span> {
    run_with(config(), log).0
}

/// One line for each span.
pub fn shown(spans: &[Span]) -> Vec<String> {
    let text = |text: &Option<Text>| text.clone().unwrap_or("-".into());
    let show = |span: &Span| {
        format!(
            "{} {} {} {} {} {} -> {} {}, {:?}/{:?}",
            span.observation_point.as_str(),
            span.process.as_ref().map_or(0, |process| process.pid),
            span.l7_protocol.as_str(),
            text(&span.request_type),
            text(&span.request_resource),
            span.session.as_str(),
            span.response_code.map_or("-".to_owned(), |code| code.to_string()),
            text(&span.response_result),
            span.req_tcp_seq,
            span.resp_tcp_seq,
        )
    };
    spans.iter().map(show).collect()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").into_bytes()
}

pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The same log, where UNIX sockets are meant.
pub fn unix(conn: u64, role: Flags, inodes: [u8; 2]) -> Socket {
    Socket {
        family: AF_UNIX,
        protocol: 0,
        ..Socket::tcp(conn, role, ([inodes[0], 0, 0, 0], 0), ([inodes[1], 0, 0, 0], 0))
    }
}

/// A call of a TLS library.
pub fn tls(header: &mut Header, session: u64) {
    (header.source, header.tls) = (Source::OpenSsl as u8, session);
}

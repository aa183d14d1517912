//! Plaintext of TLS libraries, bound to sockets. The handshake is a recorded one; the records behind it have the right lengths and
//! made-up bodies.

use crate::common::*;
use proptest::prelude::*;
use wirespan_event::{Flags, Header, Kind, Source};
use wirespan_host::HostConfig;
use wirespan_records::{L7Protocol, ObservationPoint, Session, Signal, Span};

const HANDSHAKE: &str = include_str!("../../../l7/tests/fixtures/tls/tls13.hex");
/// What TLS 1.3 adds to a record, behind its head.
const ADDED: usize = 17;

/// One end: who, its socket, its session, and how its library does I/O.
struct End {
    thread: Thread,
    socket: Socket,
    session: u64,
    calls: u32,
    in_memory: bool,
    /// Bytes that were received and not read by the library.
    unread: Vec<u8>,
}

impl End {
    fn new(thread: Thread, socket: Socket, session: u64, in_memory: bool) -> Self {
        Self { thread, socket, session, calls: 0, in_memory, unread: Vec::new() }
    }

    /// The event of a library call that began with the event at `first` of the log.
    fn call(&mut self, script: &mut Script, data: &[u8], ingress: bool, first: Option<usize>) {
        let enter_ns = first.map_or(script.now_ns + 5_000, |first| script.log[first].0.enter_ns - 1_000);
        let mut header = script.header(&mut self.thread, &self.socket, Kind::Data);
        tls(&mut header, self.session);
        header.enter_ns = enter_ns;
        header.conn_event = self.calls;
        self.calls += 1;
        header.length = data.len() as u32;
        if ingress {
            header.flags = header.flags.with(Flags::INGRESS);
        }
        if self.in_memory {
            header = Header { conn: 0, family: 0, protocol: 0, flags: Flags(header.flags.0 & 1), ..header };
        }
        script.push(header, data);
    }

    fn write(&mut self, script: &mut Script, data: &[u8]) -> Vec<u8> {
        let records: Vec<Vec<u8>> = data.chunks(1 << 14).map(record).collect();
        if self.in_memory {
            self.call(script, data, false, None);
            script.cut(&mut self.thread, &mut self.socket, &records.concat(), false, 1024);
        } else {
            let first = script.log.len();
            for record in &records {
                script.cut(&mut self.thread, &mut self.socket, record, false, 5);
            }
            self.call(script, data, false, Some(first));
        }
        records.concat()
    }

    /// Receives records with these plaintexts, the last of them wanted, the others of the handshake.
    fn read(&mut self, script: &mut Script, records: &[u8], data: &[u8]) {
        let first = script.log.len();
        if self.in_memory {
            script.cut(&mut self.thread, &mut self.socket, records, true, 1024);
            self.unread.clear();
            for piece in data.chunks(1 << 14) {
                self.call(script, piece, true, None);
            }
            return;
        }
        let (mut rest, mut plain) = (records, data);
        let mut first = Some(first);
        while let [_, _, _, high, low, ..] = *rest {
            let body = usize::from(u16::from_be_bytes([high, low]));
            let start = script.log.len();
            script.cut(&mut self.thread, &mut self.socket, &rest[..5], true, 5);
            script.cut(&mut self.thread, &mut self.socket, &rest[5..5 + body], true, 5);
            rest = &rest[5 + body..];
            if body - ADDED <= plain.len() && (rest.is_empty() || body - ADDED == 1 << 14) {
                let (piece, after) = plain.split_at(body - ADDED);
                self.call(script, piece, true, Some(first.take().unwrap_or(start)));
                plain = after;
            }
        }
    }
}

fn record(plain: &[u8]) -> Vec<u8> {
    let body = plain.len() + ADDED;
    [&[23, 3, 3][..], &(body as u16).to_be_bytes(), &vec![0x5a; body]].concat()
}

/// Both ends, after the handshake.
fn connected(script: &mut Script, conn: u64, in_memory: [bool; 2]) -> [End; 2] {
    let [client, server] = Socket::pair(conn);
    let mut ends = [
        End::new(Thread::new(100, 100), client, 0x7000 + conn, in_memory[0]),
        End::new(Thread::new(200, 200), server, 0x7000 + conn, in_memory[1]),
    ];
    for end in &mut ends {
        script.open(&mut end.thread, &end.socket);
    }
    for line in HANDSHAKE.lines() {
        let (from, to) = if line.starts_with('>') { (0, 1) } else { (1, 0) };
        let hex: Vec<u8> = line[2..].bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = hex.chunks(2).map(byte).collect();
        let sender = &mut ends[from];
        script.send(&mut sender.thread, &mut sender.socket, &bytes);
        let receiver = &mut ends[to];
        script.receive(&mut receiver.thread, &mut receiver.socket, &bytes);
    }
    for end in &mut ends {
        end.thread.turn += 1;
    }
    ends
}

/// Asks and answers; gives the sequence numbers of both records.
fn exchange(
    script: &mut Script,
    [client, server]: &mut [End; 2],
    request: &[u8],
    response: &[u8],
    tickets: usize,
) -> [u32; 2] {
    let asked = client.socket.seq[0];
    let records = client.write(script, request);
    server.read(script, &records, request);
    let tickets: Vec<u8> = (0..tickets).flat_map(|_| record(&[0; 261])).collect();
    if !tickets.is_empty() {
        script.cut(&mut server.thread, &mut server.socket, &tickets, false, 512);
    }
    let answered = server.socket.seq[0];
    let records = server.write(script, response);
    client.read(script, &[tickets, records].concat(), response);
    for end in [client, server] {
        end.thread.turn += 1;
    }
    [asked, answered]
}

fn plain(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| span.signal == Signal::Tls).collect()
}

#[test]
fn both_ends_name_the_records_whatever_their_libraries_do() {
    for in_memory in [[false, false], [true, false], [false, true], [true, true]] {
        let mut script = Script::default();
        let mut ends = connected(&mut script, 10, in_memory);
        let mut expected = Vec::new();
        for n in 0..3 {
            let tickets = if n == 0 { 2 } else { 0 };
            expected.push(exchange(
                &mut script,
                &mut ends,
                &get(&format!("/{n}")),
                &ok(&"y".repeat(40 * n)),
                tickets,
            ));
        }
        let (spans, host) = run_with(config(), &script.log);
        let stats = host.stats();
        let found = plain(&spans);
        assert_eq!(found.len(), 6, "{in_memory:?} {:?}", shown(&spans));
        for (n, [asked, answered]) in expected.iter().enumerate() {
            for span in &found[2 * n..][..2] {
                assert_eq!(span.request_resource.as_deref(), Some(&*format!("/{n}")));
                assert_eq!(
                    (span.req_tcp_seq, span.resp_tcp_seq),
                    (Some(*asked), Some(*answered)),
                    "{in_memory:?} {n}"
                );
                assert_eq!((span.client.port, span.server.port), (40_010, 80));
                let pid = if span.observation_point == ObservationPoint::ClientProcess { 100 } else { 200 };
                assert_eq!(span.process.as_ref().map(|process| process.pid), Some(pid));
            }
        }
        let nested = in_memory.iter().filter(|in_memory| !**in_memory).count() as u64;
        assert_eq!(
            (stats.tls_sessions, stats.tls_bound_by_nesting, stats.tls_bound_by_records),
            (2, nested, 2 - nested)
        );
        assert_eq!((stats.tls_unbound, stats.tls_messages_without_record), (0, 0));
        // The handshake, seen by both ends, and nothing else of the ciphertext.
        let rest: Vec<_> = spans.iter().filter(|span| span.signal == Signal::Syscall).collect();
        assert!(
            rest.iter().all(|span| span.l7_protocol == L7Protocol::Tls && span.session == Session::Complete)
        );
        assert_eq!(rest.len(), 2);
    }
}

/// As with MPTCP: what is counted in their place is no number of TCP's.
#[test]
fn where_the_socket_has_no_sequence_numbers_there_are_none() {
    let mut script = Script::default();
    let mut ends = connected(&mut script, 10, [false, true]);
    exchange(&mut script, &mut ends, &get("/"), &ok(""), 0);
    for (header, _) in &mut script.log {
        (header.tcp_seq, header.opposite_seq) = (0, 0);
    }
    let spans = run(&script.log);
    let found: Vec<_> = plain(&spans).iter().map(|span| (span.req_tcp_seq, span.resp_tcp_seq)).collect();
    assert_eq!(found, [(None, None); 2], "{:?}", shown(&spans));
}

/// The socket moves plaintext, which the library's calls tell.
#[test]
fn what_the_kernel_encrypts_is_one_exchange_without_sequence_numbers() {
    let mut script = Script::default();
    let mut ends = connected(&mut script, 10, [false, false]);
    let mut moved = |end: &mut End, data: &[u8], ingress: bool| {
        let first = script.log.len();
        script.cut(&mut end.thread, &mut end.socket, data, ingress, 0);
        let header = &mut script.log[first].0;
        header.flags = header.flags.with(Flags::KTLS).with(Flags::NO_DATA).with(Flags::SEQ_AMBIGUOUS);
        end.call(&mut script, data, ingress, Some(first));
    };
    for n in 0..2 {
        let [client, server] = &mut ends;
        let (request, response) = (get(&format!("/{n}")), ok("y"));
        moved(client, &request, false);
        moved(server, &request, true);
        moved(server, &response, false);
        moved(client, &response, true);
    }
    let spans = run(&script.log);
    let found: Vec<_> = plain(&spans).iter().map(|span| (span.req_tcp_seq, span.resp_tcp_seq)).collect();
    assert_eq!(found, [(None, None); 4], "{:?}", shown(&spans));
    assert!(plain(&spans).iter().all(|span| span.session == Session::Complete));
    // The handshakes.
    assert_eq!(spans.len(), 6, "{:?}", shown(&spans));
}

#[test]
fn long_messages_have_the_record_that_held_their_first_byte() {
    for in_memory in [false, true] {
        let mut script = Script::default();
        let mut ends = connected(&mut script, 10, [in_memory, in_memory]);
        let long = "z".repeat(40_000);
        let first = exchange(&mut script, &mut ends, &get("/long"), &ok(&long), 0);
        let second = exchange(&mut script, &mut ends, &get("/short"), &ok("s"), 0);
        let spans = run(&script.log);
        for (span, [asked, answered]) in plain(&spans).iter().zip([first, first, second, second]) {
            assert_eq!((span.req_tcp_seq, span.resp_tcp_seq), (Some(asked), Some(answered)), "{in_memory}");
        }
        assert_eq!(plain(&spans).len(), 4);
    }
}

/// The client's thread did not run for a while after its socket call: it gets the number behind that of the response.
#[test]
fn a_request_whose_call_ends_after_the_response_was_read_is_no_loss() {
    let mut script = Script::default();
    let mut ends = connected(&mut script, 10, [false, false]);
    let expected: Vec<_> =
        (0..3).map(|n| exchange(&mut script, &mut ends, &get(&format!("/{n}")), &ok(""), 0)).collect();
    let (session, tgid) = (ends[0].session, 100);
    let is_call = |(header, _): &&mut (Header, Vec<u8>)| header.tls == session && header.tgid == tgid;
    let mut calls = script.log.iter_mut().filter(is_call).map(|(header, _)| header).skip(2);
    let [written, read] = [calls.next().unwrap(), calls.next().unwrap()];
    assert!(!written.is_ingress() && read.is_ingress());
    std::mem::swap(&mut written.conn_event, &mut read.conn_event);
    written.other_tid = 1;
    let (spans, host) = run_with(config(), &script.log);
    let found: Vec<_> =
        plain(&spans).iter().map(|span| [span.req_tcp_seq, span.resp_tcp_seq].map(Option::unwrap)).collect();
    assert_eq!(found, expected.iter().flat_map(|both| [*both, *both]).collect::<Vec<_>>());
    assert_eq!(host.stats().tls_messages_without_record, 0);
}

/// As servers of Go do that were busy: the request came with the end of the handshake, and is read later, on another thread.
#[test]
fn what_a_goroutine_received_is_its_own_on_another_thread() {
    let mut script = Script::default();
    let [mut client, mut server] = connected(&mut script, 10, [false, true]);
    let asked = client.socket.seq[0];
    let records = client.write(&mut script, &get("/"));
    script.cut(&mut server.thread, &mut server.socket, &records, true, 1024);
    server.thread = Thread { turn: 7, ..Thread::new(200, 201) };
    server.call(&mut script, &get("/"), true, None);
    let answered = server.socket.seq[0];
    server.in_memory = false;
    let records = server.write(&mut script, &ok(""));
    client.read(&mut script, &records, &ok(""));
    for (header, _) in script.log.iter_mut().filter(|(header, _)| header.tgid == 200) {
        header.coroutine = 5;
        if header.tls != 0 {
            header.source = Source::GoTls as u8;
        }
    }
    let (spans, host) = run_with(config(), &script.log);
    let found: Vec<_> = plain(&spans).iter().map(|span| (span.req_tcp_seq, span.resp_tcp_seq)).collect();
    assert_eq!(found, [(Some(asked), Some(answered)); 2], "{:?}", shown(&spans));
    assert_eq!(host.stats().tls_bound_by_records, 1);
}

/// The call waited for its socket, so that its record is known when the loss before it is found, which was another thread's.
#[test]
fn a_response_behind_a_request_that_was_lost_keeps_its_own_record() {
    let mut script = Script::default();
    let mut ends = connected(&mut script, 10, [false, true]);
    let expected: Vec<_> =
        (0..40).map(|n| exchange(&mut script, &mut ends, &get(&format!("/{n}")), &ok("same"), 0)).collect();
    let is_call = |(header, _): &(Header, Vec<u8>)| header.tls != 0 && header.tgid == 200;
    let request = script.log.iter().position(is_call).unwrap();
    script.log.remove(request);
    let behind = script.log.iter_mut().skip(request).filter(|(header, _)| header.tgid == 200);
    behind.for_each(|(header, _)| header.thread_event -= 1);
    let spans = run(&script.log);
    let last = plain(&spans).into_iter().filter(|span| span.request_resource.as_deref() == Some("/39"));
    let found: Vec<_> = last.map(|span| [span.req_tcp_seq, span.resp_tcp_seq]).collect();
    assert_eq!(found, [expected[39].map(Some); 2]);
}

#[test]
fn a_session_that_fits_two_sockets_is_bound_to_none() {
    let mut script = Script::default();
    let mut one = connected(&mut script, 10, [false, true]);
    let mut two = connected(&mut script, 20, [false, true]);
    // One thread reads from both sockets before it decrypts what came from either.
    let records = [&mut one, &mut two].map(|[client, _]| client.write(&mut script, &get("/same")));
    for ([_, server], records) in [&mut one, &mut two].into_iter().zip(&records) {
        server.thread = Thread::new(200, 200);
        script.cut(&mut server.thread, &mut server.socket, records, true, 512);
    }
    for [_, server] in [&mut one, &mut two] {
        server.call(&mut script, &get("/same"), true, None);
    }
    let (spans, host) = run_with(config(), &script.log);
    assert!(host.stats().tls_ambiguous >= 1);
    assert_eq!(host.stats().tls_bound_by_records, 0);
    let found: Vec<_> = plain(&spans).into_iter().filter(|span| span.server.port == 0).collect();
    assert_eq!(found.len(), 2, "{:?}", shown(&spans));
    assert!(
        found
            .iter()
            .all(|span| span.req_tcp_seq.is_none() && span.request_resource.as_deref() == Some("/same"))
    );
}

#[test]
fn the_address_of_a_session_can_be_used_again() {
    let mut script = Script::default();
    for conn in [10, 20] {
        let mut ends = connected(&mut script, conn, [true, true]);
        for end in &mut ends {
            end.session = 0x9000;
        }
        exchange(&mut script, &mut ends, &get("/"), &ok(""), 0);
        for end in &mut ends {
            let mut header = script.header(&mut end.thread, &end.socket, Kind::TlsFree);
            tls(&mut header, end.session);
            script.push(header, &[]);
            script.close(&end.socket);
        }
    }
    let (spans, host) = run_with(config(), &script.log);
    let ports: Vec<_> =
        plain(&spans).iter().map(|span| (span.client.port, span.req_tcp_seq.is_some())).collect();
    assert_eq!(ports, [(40_010, true), (40_010, true), (40_020, true), (40_020, true)]);
    assert_eq!(host.stats().tls_sessions, 4);
}

/// What it had open stays open, and what lies at the address of its session is another's.
#[test]
fn a_session_ends_when_its_process_becomes_another_program() {
    let mut script = Script::default();
    let mut expected = Vec::new();
    for conn in [10, 20] {
        let mut ends = connected(&mut script, conn, [true, false]);
        ends[0].session = 0x9000;
        expected.push(exchange(&mut script, &mut ends, &get("/"), &ok(""), 0)[0]);
        let header = script.header(&mut ends[0].thread, &ends[0].socket, Kind::Exec);
        script.push(Header { conn: 0, family: 0, ..header }, b"/bin/other");
    }
    let (spans, host) = run_with(config(), &script.log);
    let of_client =
        plain(&spans).into_iter().filter(|span| span.process.as_ref().is_some_and(|p| p.pid == 100));
    let found: Vec<_> = of_client.map(|span| (span.client.port, span.req_tcp_seq)).collect();
    assert_eq!(found, [(40_010, Some(expected[0])), (40_020, Some(expected[1]))], "{:?}", shown(&spans));
    assert_eq!(host.stats().tls_sessions, 4);
}

/// Of two requests of one length, the socket that the one came through is told of, the other's was lost.
#[test]
fn what_was_read_is_not_taken_for_what_was_lost() {
    for is_lost in [false, true] {
        let mut script = Script::default();
        let mut one = connected(&mut script, 10, [false, true]);
        let mut two = connected(&mut script, 20, [false, true]);
        let mut thread = Thread { turn: 1, ..one[1].thread.clone() };
        let mut reads = Vec::new();
        for [client, server] in [&mut one, &mut two] {
            let records = client.write(&mut script, &get("/same"));
            (server.thread, server.calls) = (thread.clone(), 0);
            reads.push(script.log.len());
            script.cut(&mut server.thread, &mut server.socket, &records, true, 512);
            thread = server.thread.clone();
        }
        // The first to decrypt is what came second.
        two[1].call(&mut script, &get("/same"), true, None);
        if is_lost {
            script.log.remove(reads[1]);
        } else {
            script.log.remove(reads[0]);
            script
                .log
                .iter_mut()
                .skip(reads[0])
                .for_each(|(header, _)| header.thread_event -= u32::from(header.tgid == 200));
        }
        let (spans, host) = run_with(config(), &script.log);
        let of_server =
            plain(&spans).into_iter().find(|span| span.process.as_ref().is_some_and(|p| p.pid == 200));
        let port = if is_lost { 0 } else { 40_020 };
        assert_eq!(of_server.map(|span| span.client.port), Some(port), "{:?}", shown(&spans));
        assert_eq!(host.stats().tls_bound_by_records, u64::from(!is_lost));
    }
}

proptest! {
    #[test]
    fn whatever_is_lost_no_record_is_named_that_is_not_the_right_one(
        in_memory in any::<[bool; 2]>(),
        sizes in prop::collection::vec((0..200usize, 0..200usize), 1..6),
        lost in prop::collection::vec(prop::bool::weighted(0.08), 20..90),
    ) {
        let mut script = Script::default();
        let mut ends = connected(&mut script, 10, in_memory);
        let mut truth = Vec::new();
        for (n, (asked, answered)) in sizes.iter().enumerate() {
            let request = get(&format!("/{n}/{}", "q".repeat(*asked)));
            truth.push(exchange(&mut script, &mut ends, &request, &ok(&"a".repeat(*answered)), usize::from(n == 0)));
        }
        let kept: Log =
            script.log.iter().zip(lost.iter().cycle()).filter(|(_, lost)| !**lost).map(|(event, _)| event.clone()).collect();
        for span in plain(&run(&kept)) {
            let Some(name) = &span.request_resource else { continue };
            let n: usize = name[1..].split('/').next().unwrap_or_default().parse().unwrap();
            let [asked, answered] = truth[n];
            prop_assert!(span.req_tcp_seq.is_none_or(|seq| seq == asked), "{}: {:?} is not {}", name, span.req_tcp_seq, asked);
            if span.session == Session::Complete {
                prop_assert!(span.resp_tcp_seq.is_none_or(|seq| seq == answered), "{}: {:?} is not {}", name, span.resp_tcp_seq, answered);
            }
        }
    }
}

#[test]
fn sessions_without_any_socket_are_bounded() {
    let mut script = Script::default();
    let mut sessions: Vec<End> = (1..=500)
        .map(|session| End::new(Thread::new(100, 100), Socket::pair(10)[0].clone(), session, true))
        .collect();
    for end in &mut sessions {
        end.call(&mut script, &get("/"), false, None);
    }
    let (spans, host) = run_with(HostConfig { max_connections: 64, ..config() }, &script.log);
    assert_eq!(spans.len(), 500);
    assert!(host.stats().evicted_connections > 400, "{:?}", host.stats());
}

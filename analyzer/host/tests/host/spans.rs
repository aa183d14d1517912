//! Spans of both ends of connections, from made-up events.

use crate::common::*;
use wirespan_event::{Flags, Header, Kind};
use wirespan_host::HostConfig;
use wirespan_records::{L4Protocol, ObservationPoint, ResponseStatus, Session, Signal, Span};

/// A client asks a server on the same host `n` times, on one connection.
fn conversation(n: usize) -> Script {
    let mut script = Script::default();
    let (mut curl, mut nginx) = (Thread::new(100, 100), Thread::new(200, 201));
    let [mut client, mut server] = Socket::pair(10);
    script.open(&mut curl, &client);
    script.open(&mut nginx, &server);
    for i in 0..n {
        let (request, response) = (get(&format!("/{i}")), ok(&format!("answer {i}")));
        script.send(&mut curl, &mut client, &request);
        script.receive(&mut nginx, &mut server, &request);
        script.send(&mut nginx, &mut server, &response);
        script.receive(&mut curl, &mut client, &response);
    }
    script.close(&client);
    script.close(&server);
    script
}

#[test]
fn both_ends_of_a_connection_have_spans_with_the_same_sequence_numbers() {
    let spans = run(&conversation(2).log);
    insta::assert_debug_snapshot!(shown(&spans), @r#"
    [
        "c-p 100 HTTP GET /0 complete -> 200 -, Some(4294967040)/Some(4096)",
        "s-p 200 HTTP GET /0 complete -> 200 -, Some(4294967040)/Some(4096)",
        "c-p 100 HTTP GET /1 complete -> 200 -, Some(4294967071)/Some(4142)",
        "s-p 200 HTTP GET /1 complete -> 200 -, Some(4294967071)/Some(4142)",
    ]
    "#);
    let client = &spans[0];
    assert_eq!((client.client.port, client.server.port), (40_010, 80));
    assert_eq!((client.signal, client.flow_id), (Signal::Syscall, 10));
    // The send counts from when the call began, the receive from when it ended.
    assert_eq!(client.start_ns, BOOT_NS + 30_000 - 2_000);
    assert_eq!(client.end_ns, BOOT_NS + 60_000 - 1_000);
    let mut ids: Vec<u64> = spans.iter().map(|span| span.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_connection_seen_from_the_middle_has_the_spans_that_are_whole() {
    let log = conversation(30).log;
    // Without both openings and the first request: which response is whose is known when the client has waited often enough.
    let (spans, host) = run_with(config(), &log[4..]);
    let whole: Vec<_> = spans.iter().filter(|span| span.session == Session::Complete).collect();
    assert_eq!((whole.len() as u64 + host.stats().unpaired, host.stats().unpaired), (58, 20));
    let right = |span: &&Span| span.req_tcp_seq.is_some() && span.resp_tcp_seq.is_some();
    assert!(whole.iter().all(right));
    let lone: Vec<_> = spans.iter().filter(|span| span.session == Session::ResponseOnly).collect();
    assert!(lone.iter().all(|span| span.request_resource.is_none()));
}

#[test]
fn bodies_beyond_what_was_copied_are_passed_over() {
    let mut script = Script::default();
    let mut nginx = Thread::new(200, 200);
    let [_, mut server] = Socket::pair(10);
    script.open(&mut nginx, &server);
    for i in 0..3 {
        script.cut(&mut nginx, &mut server, &get(&format!("/{i}")), true, 512);
        script.cut(&mut nginx, &mut server, &ok(&"x".repeat(5_000)), false, 512);
    }
    let (spans, host) = run_with(config(), &script.log);
    assert_eq!(spans.iter().filter(|span| span.session == Session::Complete && !span.truncated).count(), 3);
    assert!(host.stats().unseen_bytes > 3 * 4_000);
    assert_eq!(host.stats().lost_bytes, 0);
}

#[test]
fn bytes_without_a_traced_call_take_their_place() {
    let mut script = Script::default();
    let mut nginx = Thread::new(200, 200);
    let [_, mut server] = Socket::pair(10);
    script.open(&mut nginx, &server);
    for i in 0..2 {
        script.receive(&mut nginx, &mut server, &get(&format!("/{i}")));
        script.send(&mut nginx, &mut server, b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n");
        script.cut(&mut nginx, &mut server, &[b'x'; 9000], false, 0);
        script.log.last_mut().unwrap().0.kind = Kind::Socket as u8;
    }
    let (spans, host) = run_with(config(), &script.log);
    let bytes: Vec<_> = spans.iter().map(|span| (span.response_bytes, span.truncated)).collect();
    assert_eq!(bytes, [(9041, false), (9041, false)]);
    assert_eq!((host.stats().unseen_bytes, host.stats().lost_bytes), (18_000, 0));
}

#[test]
fn writes_of_two_threads_are_put_in_the_order_of_the_stream() {
    let mut script = Script::default();
    let (mut one, mut two) = (Thread::new(200, 201), Thread::new(200, 202));
    let [_, mut server] = Socket::pair(10);
    script.open(&mut one, &server);
    script.receive(&mut one, &mut server, &[get("/a"), get("/b")].concat());
    script.send(&mut one, &mut server, &ok("first"));
    script.send(&mut two, &mut server, &ok("second"));
    // The second thread had begun to write earlier, but waited for the lock of the socket.
    let [.., (first, _), (second, _)] = &mut script.log[..] else { unreachable!() };
    second.enter_ns = first.enter_ns - 500;
    let (spans, host) = run_with(config(), &script.log);
    let places: Vec<_> =
        spans.iter().map(|span| (span.request_resource.as_deref(), span.resp_tcp_seq)).collect();
    assert_eq!(places, [(Some("/a"), Some(0x1000)), (Some("/b"), Some(0x1000 + 43))]);
    assert_eq!((host.stats().held_events, host.stats().lost_bytes), (1, 0));
}

#[test]
fn an_event_told_twice_is_read_once() {
    let mut log = conversation(2).log;
    let twice: Vec<_> = log.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
    let (spans, host) = run_with(config(), &twice);
    assert_eq!(shown(&spans), shown(&run(&log)));
    let bytes: u32 = log.iter_mut().map(|(header, _)| header.length).sum();
    assert_eq!(host.stats().repeated_bytes, u64::from(bytes));
}

#[test]
fn what_two_threads_may_have_mixed_is_not_read() {
    let mut script = Script::default();
    let mut thread = Thread::new(200, 201);
    let [_, mut server] = Socket::pair(10);
    script.open(&mut thread, &server);
    script.receive(&mut thread, &mut server, &[get("/a"), get("/b")].concat());
    script.send(&mut thread, &mut server, &ok("x"));
    let lost = script.log.len();
    script.send(&mut thread, &mut server, &ok("y"));
    script.send(&mut thread, &mut server, &ok("z"));
    let last = script.log.last_mut().unwrap();
    last.0.flags = last.0.flags.with(Flags::SEQ_AMBIGUOUS);
    script.log.remove(lost);
    let (spans, host) = run_with(config(), &script.log);
    assert_eq!(host.stats().ambiguous_events, 1);
    assert_eq!(spans.iter().filter(|span| span.session == Session::Complete).count(), 1);
}

#[test]
fn a_response_written_before_its_request_was_read_is_not_its_response() {
    let mut script = Script::default();
    let mut thread = Thread::new(200, 201);
    let [_, mut server] = Socket::pair(10);
    script.open(&mut thread, &server);
    // Written before anything was read: by a server that closes connections which do nothing, say.
    script.receive(&mut thread, &mut server, &get("/second"));
    script.send(&mut thread, &mut server, &ok("first"));
    let (header, _) = script.log.last_mut().unwrap();
    header.opposite_seq = server.seq[1] - get("/second").len() as u32;
    let (spans, host) = run_with(config(), &script.log);
    let sessions: Vec<_> = spans.iter().map(|span| (span.session, span.response_code)).collect();
    assert_eq!(sessions, [(Session::RequestOnly, None), (Session::ResponseOnly, Some(200))]);
    assert_eq!((host.stats().mispaired, spans[0].response_status), (1, ResponseStatus::Unknown));
}

const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04shop\x04test\0\0\x01\0\x01";
const ANSWER: &[u8] =
    b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x04shop\x04test\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07";

#[test]
fn datagrams_are_told_apart_by_their_peer() {
    let mut script = Script::default();
    let mut dns = Thread::new(300, 300);
    let server = |port| Socket {
        protocol: 17,
        ..Socket::tcp(20, Flags::default(), ([10, 0, 0, 53], 53), ([10, 0, 0, 1], port))
    };
    let (mut one, mut two) = (server(1111), server(2222));
    // The same id from two clients.
    script.receive(&mut dns, &mut one, QUERY);
    script.receive(&mut dns, &mut two, QUERY);
    script.send(&mut dns, &mut two, ANSWER);
    script.send(&mut dns, &mut one, ANSWER);
    script.close(&one);
    let spans = run(&script.log);
    let seen: Vec<_> =
        spans.iter().map(|span| (span.client.port, span.session, span.protocol, span.req_tcp_seq)).collect();
    assert_eq!(seen, [1111, 2222].map(|port| (port, Session::Complete, L4Protocol::Udp, None)));
    assert!(spans.iter().all(|span| span.observation_point == ObservationPoint::ServerProcess));
}

#[test]
fn the_end_of_a_socket_ends_its_own_datagrams() {
    let mut script = Script::default();
    let mut resolver = Thread::new(300, 300);
    let mut sockets = [19, 20, 21].map(|conn| Socket {
        protocol: 17,
        ..Socket::tcp(conn, Flags::default(), ([10, 0, 0, 1], conn as u16), ([10, 0, 0, 53], 53))
    });
    for socket in &mut sockets {
        script.send(&mut resolver, socket, QUERY);
    }
    script.close(&sockets[1]);
    for socket in [0, 2] {
        script.receive(&mut resolver, &mut sockets[socket], ANSWER);
    }
    let spans = run(&script.log);
    let seen: Vec<_> = spans.iter().map(|span| (span.client.port, span.session)).collect();
    assert_eq!(seen, [(19, Session::Complete), (20, Session::RequestOnly), (21, Session::Complete)]);
}

#[test]
fn unix_sockets_have_spans_that_name_both_ends() {
    let mut script = Script::default();
    let (mut nginx, mut redis) = (Thread::new(200, 200), Thread::new(400, 400));
    let (mut client, mut server) = (unix(30, Flags::CLIENT, [7, 0]), unix(31, Flags::SERVER, [8, 7]));
    script.open(&mut nginx, &client);
    script.name(&mut nginx, &client, true, b"/run/redis.sock\0");
    let (command, reply) = (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$1\r\nv\r\n");
    // The server's end has no inode before it is accepted.
    script.send(&mut nginx, &mut client, command);
    client.remote = ([8, 0, 0, 0], 0);
    script.open(&mut redis, &server);
    script.name(&mut redis, &server, false, b"/run/redis.sock\0");
    for first in [true, false] {
        if !first {
            script.send(&mut nginx, &mut client, command);
        }
        script.receive(&mut redis, &mut server, command);
        script.send(&mut redis, &mut server, reply);
        script.receive(&mut nginx, &mut client, reply);
    }
    let spans = run(&script.log);
    for span in &spans {
        let attribute = |name| span.attributes.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        assert_eq!((attribute("unix.client"), attribute("unix.server")), (Some("7"), Some("8")));
        assert_eq!((attribute("unix.name"), attribute("netns")), (Some("/run/redis.sock"), Some("1")));
        assert_eq!(span.session, Session::Complete);
    }
    // Both ends count the bytes of each direction.
    for point in [ObservationPoint::ClientProcess, ObservationPoint::ServerProcess] {
        let of_one = spans.iter().filter(|span| span.observation_point == point);
        let counted: Vec<_> = of_one.map(|span| (span.req_tcp_seq, span.resp_tcp_seq)).collect();
        let second = (command.len() as u32, reply.len() as u32);
        assert_eq!(counted, [(Some(0), Some(0)), (Some(second.0), Some(second.1))]);
    }
}

#[test]
fn a_unix_socket_has_the_name_of_the_end_that_answers() {
    let named = |is_other, address: &[u8]| {
        let mut script = Script::default();
        let mut redis = Thread::new(400, 400);
        let mut server = unix(31, Flags::default(), [8, 7]);
        script.open(&mut redis, &server);
        script.name(&mut redis, &server, is_other, address);
        script.receive(&mut redis, &mut server, b"*1\r\n$4\r\nPING\r\n");
        script.send(&mut redis, &mut server, b"+PONG\r\n");
        let [span] = &run(&script.log)[..] else { panic!("one request") };
        span.attributes.iter().find(|(name, _)| *name == "unix.name").map(|(_, value)| value.to_string())
    };
    assert_eq!(named(false, b"/run/redis.sock\0").as_deref(), Some("/run/redis.sock"));
    assert_eq!(named(false, b"\0/tmp/.X11-unix/X0").as_deref(), Some("@/tmp/.X11-unix/X0"));
    assert_eq!(named(false, b"\0a\0b\0\0").as_deref(), Some("@a@b"));
    assert_eq!(named(true, b"/run/client.sock\0"), None, "the client's");
    assert_eq!(named(false, b""), None, "it could not be read");
}

#[test]
fn one_address_in_two_namespaces_is_two_servers() {
    let mut script = Script::default();
    let (mut one, mut two) = (Thread::new(300, 300), Thread::new(400, 400));
    // The same addresses, ports and numbers; what differs is the socket and its namespace.
    let ends = |conn, netns| {
        let ends = ([127, 0, 0, 1], 80, [127, 0, 0, 1], 999);
        Socket { netns, ..Socket::tcp(conn, Flags::SERVER, (ends.0, ends.1), (ends.2, ends.3)) }
    };
    let (mut web, mut redis) = (ends(10, 11), ends(20, 12));
    script.open(&mut one, &web);
    script.open(&mut two, &redis);
    script.receive(&mut one, &mut web, &get("/"));
    script.receive(&mut two, &mut redis, b"*1\r\n$4\r\nPING\r\n");
    script.send(&mut one, &mut web, &ok("x"));
    script.send(&mut two, &mut redis, b"+PONG\r\n");
    let spans = run(&script.log);
    let seen: Vec<_> = spans
        .iter()
        .map(|span| {
            (
                span.l7_protocol.as_str(),
                span.session,
                span.attributes.iter().any(|a| *a == ("netns", "11".into())),
            )
        })
        .collect();
    assert_eq!(seen, [("HTTP", Session::Complete, true), ("Redis", Session::Complete, false)]);
}

#[test]
fn spans_have_their_process_also_when_it_ended_last_of_all() {
    let mut script = conversation(1);
    for tgid in [100, 200] {
        let mut last = Thread::new(tgid, tgid);
        let [socket, _] = Socket::pair(10);
        let header = Header { conn: 0, ..script.header(&mut last, &socket, Kind::Exit) };
        script.push(header, &[]);
    }
    let spans = run(&script.log);
    let pids: Vec<_> = spans.iter().map(|span| span.process.as_ref().map(|process| process.pid)).collect();
    assert_eq!(pids, [Some(100), Some(200)]);
}

#[test]
fn numbers_of_the_socket_come_with_the_span() {
    let mut script = conversation(1);
    for (index, (header, _)) in script.log.iter_mut().enumerate() {
        (header.srtt_us, header.retrans) = (250, index as u32);
    }
    let spans = run(&script.log);
    let attribute = |span: &Span, name| {
        span.attributes.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(attribute(&spans[0], "tcp.srtt_us"), "250");
    assert_eq!(attribute(&spans[0], "tcp.retrans"), "3");
}

#[test]
fn memory_is_bounded() {
    let config = HostConfig { max_connections: 64, max_waiting_bytes: 20_000, ..config() };
    let mut script = Script::default();
    let mut thread = Thread::new(100, 100);
    for n in 0..500 {
        let [mut client, _] = Socket::pair(10 * (n + 1));
        script.open(&mut thread, &client);
        script.send(&mut thread, &mut client, &get("/"));
    }
    // All at the same time: nothing passes the watermark.
    for (header, _) in &mut script.log {
        (header.enter_ns, header.exit_ns) = (header.enter_ns / 1_000, header.exit_ns / 1_000);
    }
    let (spans, host) = run_with(config, &script.log);
    assert_eq!(spans.len(), 500);
    let stats = host.stats();
    assert!(stats.early_events > 800 && stats.evicted_connections > 400, "{stats:?}");
}

#[test]
fn unknown_kinds_of_events_are_counted() {
    let header = Header { kind: 99, ..Header::default() };
    let (spans, host) = run_with(config(), &[(header, Vec::new())]);
    assert_eq!((spans.len(), host.stats().unknown_events), (0, 1));
}

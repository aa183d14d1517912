use super::probe::probe;
use crate::drive::{script, segments};
use crate::engine::{Config, Side};
use crate::parser::{ProbeInfo, Role, Verdict};
use proptest::prelude::*;
use wirespan_records::{L4Protocol, L7Protocol, ResponseStatus, Session, Span};

const C: Side = Side::A;
const S: Side = Side::B;

/// Conversations with Redis 7.0, one segment a line: `>` from the client, `<` from the server.
const RESP2: &str = include_str!("../../../tests/fixtures/redis/resp2.hex");
const RESP3: &str = include_str!("../../../tests/fixtures/redis/resp3.hex");
const PUBSUB: &str = include_str!("../../../tests/fixtures/redis/pubsub.hex");
const MONITOR: &str = include_str!("../../../tests/fixtures/redis/monitor.hex");

fn recorded(text: &str) -> Vec<(Side, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let segment = |line: &str| {
        let side = if line.starts_with('>') { C } else { S };
        (side, line.as_bytes()[2..].chunks(2).map(byte).collect())
    };
    text.lines().map(segment).collect()
}

fn run_with(config: Config, script: &[(Side, impl AsRef<[u8]>)]) -> Vec<Span> {
    let script: Vec<_> = script.iter().map(|(side, bytes)| (*side, bytes.as_ref())).collect();
    segments(L4Protocol::Tcp, config, &script)
}

fn run(script: &[(Side, impl AsRef<[u8]>)]) -> Vec<Span> {
    run_with(Config::default(), script)
}

/// Request, status, and result or exception of each span.
fn told(spans: &[Span]) -> Vec<String> {
    spans
        .iter()
        .map(|span| {
            assert_eq!(span.l7_protocol, L7Protocol::Redis);
            let resource = span.request_resource.as_deref().unwrap_or("-");
            format!(
                "{} | {} | {} {}",
                span.request_type.as_deref().unwrap_or("-"),
                &resource[..resource.floor_char_boundary(60)],
                span.response_status.as_str(),
                span.response_result.as_deref().or(span.response_exception.as_deref()).unwrap_or("-"),
            )
        })
        .collect()
}

/// A command as an array.
fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n", arg.len()).bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn reads_recorded_conversations() {
    insta::assert_snapshot!("resp2", told(&run(&recorded(RESP2))).join("\n"));
    insta::assert_snapshot!("resp3", told(&run(&recorded(RESP3))).join("\n"));
    insta::assert_snapshot!("pubsub", told(&run(&recorded(PUBSUB))).join("\n"));
    insta::assert_snapshot!("monitor", told(&run(&recorded(MONITOR))).join("\n"));
    let hidden = run_with(Config { obfuscate: true, ..Config::default() }, &recorded(RESP2));
    insta::assert_snapshot!("obfuscated", told(&hidden).join("\n"));
}

#[test]
fn client_reply_says_which_commands_are_answered() {
    let reply = |mode: &'static [u8]| (C, command(&[b"CLIENT", b"REPLY", mode]));
    let set = |key: &'static [u8]| (C, command(&[b"SET", key, b"1"]));
    let spans = run(&[
        reply(b"OFF"),
        set(b"a"),
        // Changes nothing while all replies are off.
        reply(b"SKIP"),
        set(b"b"),
        set(b"c"),
        reply(b"ON"),
        (S, b"+OK\r\n".to_vec()),
        reply(b"SKIP"),
        set(b"d"),
        (C, command(&[b"GET", b"d"])),
        (S, b"$1\r\n1\r\n".to_vec()),
    ]);
    let answered = spans.iter().filter(|span| span.session == Session::Complete);
    let answered: Vec<_> = answered.map(|span| span.request_resource.as_deref().unwrap()).collect();
    assert_eq!((spans.len(), answered), (9, vec!["CLIENT REPLY ON", "GET d"]));
}

#[test]
fn counts_the_bytes_of_each_message_of_a_pipeline() {
    let spans = run(&[
        (C, &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nget\r\n$1\r\nk\r\n"[..]),
        (S, b"+OK\r\n$5\r\nvalue\r\n"),
    ]);
    assert_eq!(told(&spans), ["SET | SET k value | ok OK", "GET | get k | ok value"]);
    assert_eq!(spans.iter().map(|span| span.request_bytes).collect::<Vec<_>>(), [31, 20]);
    assert_eq!(spans.iter().map(|span| span.response_bytes).collect::<Vec<_>>(), [5, 11]);
}

/// Types that a server of version 7 does not send.
#[test]
fn reads_streamed_values_and_blob_errors() {
    let spans = run(&[
        (C, command(&[b"EVALSHA", b"x"]).repeat(5)),
        (S, b"!21\r\nSYNTAX invalid syntax\r\n$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n".to_vec()),
        (
            S,
            b"*?\r\n:1\r\n%?\r\n+k\r\n$?\r\n;1\r\nx\r\n;0\r\n.\r\n.\r\n|1\r\n+ttl\r\n:9\r\n*0\r\n,inf\r\n"
                .to_vec(),
        ),
    ]);
    let results: Vec<_> =
        told(&spans).iter().map(|line| line.rsplit(" | ").next().unwrap().to_owned()).collect();
    assert_eq!(
        results,
        ["server_error SYNTAX invalid syntax", "ok bulk string", "ok array", "ok array(0)", "ok inf"]
    );
    assert_eq!(spans.iter().map(|span| span.response_bytes).collect::<Vec<_>>(), [28, 25, 37, 18, 6]);
}

#[test]
fn passes_over_huge_values_without_keeping_them() {
    let value = vec![b'v'; 300_000];
    let request = command(&[b"SET", b"k", &value, b"EX", b"10"]);
    let mut reply = format!("*3\r\n${}\r\n", value.len()).into_bytes();
    reply.extend_from_slice(&value);
    reply.extend_from_slice(b"\r\n:1\r\n+x\r\n");
    let mut parts: Vec<(Side, &[u8])> = request.chunks(1400).map(|part| (C, part)).collect();
    parts.extend(reply.chunks(1400).map(|part| (S, part)));
    let get = command(&[b"GET", b"k"]);
    parts.extend([(C, &get[..]), (S, b"$-1\r\n")]);
    let spans = run_with(Config { max_buffer: 8192, ..Config::default() }, &parts);
    assert_eq!(spans.len(), 2);
    assert!(spans[0].request_resource.as_ref().is_some_and(|line| line.len() == 4096));
    assert_eq!(spans[0].request_bytes, request.len() as u64);
    assert_eq!(spans[0].response_bytes, reply.len() as u64);
    assert_eq!(told(&spans[1..]), ["GET | GET k | ok nil"]);
}

#[test]
fn gives_up_on_nesting_that_nobody_uses_but_not_on_long_tails() {
    let deep = [&b"*2\r\n".repeat(100)[..], b":1\r\n"].concat();
    assert_eq!(run(&[(C, command(&[b"GET", b"k"])), (S, deep)]).len(), 1);
    let tail = [&b"*1\r\n".repeat(5000)[..], b":1\r\n"].concat();
    let spans = run(&[(C, command(&[b"GET", b"k"])), (S, tail.clone())]);
    assert_eq!(told(&spans), ["GET | GET k | ok array(1)"]);
    assert_eq!(spans[0].response_bytes, tail.len() as u64);
}

#[test]
fn passwords_never_show() {
    for (args, shown) in [
        (&[&b"AUTH"[..], b"pw"][..], "AUTH ?"),
        (&[b"auth", b"user", b"pw"], "auth user ?"),
        (&[b"HELLO", b"3", b"AUTH", b"user", b"pw"], "HELLO 3 AUTH user ?"),
        (
            &[b"CONFIG", b"SET", b"maxmemory", b"1", b"masterauth", b"pw"],
            "CONFIG SET maxmemory 1 masterauth ?",
        ),
        (&[b"ACL", b"SETUSER", b"u", b"on", b">pw", b"~*"], "ACL SETUSER u on ? ~*"),
        (&[b"MIGRATE", b"h", b"1", b"k", b"0", b"9", b"AUTH2", b"u", b"pw"], "MIGRATE h 1 k 0 9 AUTH2 u ?"),
    ] {
        let spans = run(&[(C, command(args)), (S, b"+OK\r\n".to_vec())]);
        assert_eq!(spans[0].request_resource.as_deref(), Some(shown));
        let inline = [&args.join(&b" "[..])[..], b"\r\n"].concat();
        let spans = run(&[(C, command(&[b"GET", b"k"])), (S, b":1\r\n".to_vec()), (C, inline)]);
        assert_eq!(spans[1].request_resource.as_deref(), Some(shown));
    }
}

#[test]
fn ends_where_replication_begins() {
    let spans = run(&[
        (C, command(&[b"PSYNC", b"?", b"-1"])),
        (S, b"\n".to_vec()),
        (S, b"+FULLRESYNC 8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb 0\r\n".to_vec()),
        (S, b"$12\r\nREDIS0011xxx*1\r\n$4\r\nPING\r\n".to_vec()),
        (C, command(&[b"REPLCONF", b"ACK", b"14"])),
    ]);
    assert_eq!(
        told(&spans),
        ["PSYNC | PSYNC ? -1 | ok FULLRESYNC 8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb 0"]
    );
}

#[test]
fn goes_on_after_a_hole() {
    let get = command(&[b"GET", b"k"]);
    let spans = run(&[(C, get.clone()), (S, b"garbage".to_vec()), (C, get), (S, b"$1\r\nv\r\n".to_vec())]);
    assert_eq!(spans.iter().filter(|span| span.session == Session::Complete).count(), 1);
    assert_eq!(spans.iter().filter(|span| span.response_status == ResponseStatus::Ok).count(), 1);
}

fn asked(data: &[u8], src_port: u16, dst_port: u16, role: Option<Role>) -> Verdict {
    probe(data, &ProbeInfo { l4: L4Protocol::Tcp, src_port, dst_port, role, stream_start: false })
}

#[test]
fn knows_commands_and_replies_without_a_handshake() {
    for (data, role) in [
        (&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..], Role::Client),
        (b"*1\r\n$7\r\nCOMMAND\r\n", Role::Client),
        (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", Role::Server),
        (b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n", Role::Server),
        (b"LRANGE mylist 0 -1\r\n", Role::Client),
        (b"$1107\r\n{\"sso\"", Role::Server),
        (b"$-1\r\n", Role::Server),
        (b":1\r\n", Role::Server),
        (b":1\r\n$1\r\nx\r\n+OK\r\n", Role::Server),
        (b"*0\r\n", Role::Server),
        (b"*2\r\n:1\r\n:2\r\n", Role::Server),
        (b"+PONG\r\n", Role::Server),
        (b"-WRONGTYPE Operation against a key\r\n", Role::Server),
        (b"-ERR unknown command 'x'\r\n", Role::Server),
        (b"%1\r\n$1\r\nk\r\n:1\r\n", Role::Server),
        (b"_\r\n", Role::Server),
        (b"#t\r\n", Role::Server),
    ] {
        assert_eq!(asked(data, 40_000, 50_000, None), Verdict::Yes(role), "{}", data.escape_ascii());
    }
    assert_eq!(asked(b"+OK\r\n", 6379, 50_000, None), Verdict::Yes(Role::Server));
    assert_eq!(asked(b"PING\r\n", 50_000, 6379, None), Verdict::Yes(Role::Client));
    assert_eq!(asked(b"*1\r\n$3\r\nfoo\r\n", 1, 2, Some(Role::Server)), Verdict::Yes(Role::Server));
    assert_eq!(asked(b"*3", 1, 2, None), Verdict::Maybe);
    assert_eq!(asked(b"*1\r\n$4\r\nPI", 1, 2, None), Verdict::Maybe);
}

#[test]
fn leaves_other_protocols_alone() {
    for data in [
        &b"+OK\r\n"[..],
        b"+OK POP3 server ready <1@mail>\r\n",
        b"-ERR 'Unknown Protocol Operation'\r\n",
        b"-ERR authentication failed\r\n",
        b"PING\r\n",
        b"INFO {\"server_id\":\"x\"}\r\n",
        b"AUTH LOGIN\r\n",
        b"QUIT\r\n",
        b"TYPE I\r\n",
        b"get key\r\n",
        b"set key 0 0 5\r\nvalue\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"MOVE /a HTTP/1.1\r\n\r\n",
        b"SUBSCRIBE\nid:0\n\n\0",
        b"* OK [CAPABILITY IMAP4rev1] ready\r\n",
        b"+ idling\r\n",
        b"220 mail ESMTP\r\n",
        b":server 001 nick :Welcome\r\n",
        b"$Lock EXTENDEDPROTOCOL Pk=x|",
        b"$\0\x01\x20\x80\x60",
        b"=15 x\r\n",
        b"\x10\x10\0\x04MQTT",
        b"*1\n$4\nPING\n",
        b"*abc\r\n",
    ] {
        assert_eq!(asked(data, 40_000, 50_000, None), Verdict::No, "{}", data.escape_ascii());
    }
}

proptest! {
    /// However a conversation is cut into segments, the spans are the same.
    #[test]
    fn segments_do_not_matter(
        which in prop::sample::select(vec![RESP2, RESP3, PUBSUB, MONITOR]),
        lengths in prop::collection::vec(1usize..40, 1..40),
    ) {
        let whole = recorded(which);
        let mut lengths = lengths.into_iter().cycle();
        let mut cut: Vec<(Side, &[u8])> = Vec::new();
        for (side, bytes) in &whole {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(lengths.next().unwrap().min(rest.len()));
                cut.push((*side, head));
                rest = tail;
            }
        }
        let bytes = |spans: &[Span]| spans.iter().map(|s| (s.request_bytes, s.response_bytes)).collect::<Vec<_>>();
        let (one, other) = (run(&whole), run(&cut));
        prop_assert_eq!(told(&one), told(&other));
        prop_assert_eq!(bytes(&one), bytes(&other));
    }

    #[test]
    fn never_panics(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        script(Some(L7Protocol::Redis), L4Protocol::Tcp, &input);
    }

    /// Bytes that look like RESP get further than noise.
    #[test]
    fn never_panics_on_what_looks_like_it(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                &b"*3\r\n"[..], b"*1000000\r\n", b"$3\r\n", b"foo\r\n", b"$-1\r\n", b"GET", b"%2\r\n", b"|1\r\n", b">3\r\n", b"$?\r\n",
                b";1\r\n", b";0\r\n", b"*?\r\n", b".\r\n", b"$7\r\nmessage\r\n", b"$9\r\nsubscribe\r\n", b":1\r\n", b"+OK\r\n",
                b"-ERR\r\n", b"$4000000000\r\n", b"\x02", b"\x31", b"\xf7", b"\x20", b"\x51", b"*1\r\n$7\r\nMONITOR\r\n",
                b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n", b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n", b"\r\n", b"!3\r\n", b"=7\r\ntxt:",
            ]),
            0..100,
        ),
    ) {
        script(Some(L7Protocol::Redis), L4Protocol::Tcp, &parts.concat());
    }
}

//! `wirespan up` with sockets that addresses do not tell apart: of network namespaces, and UNIX sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use support::{Host, Up, certificate, is_root, text, wirespan};

const TRACED: [&str; 4] = ["--tracer", "on", "--tracer-cpu", "4"];

/// The answer as text, as soon as there are `count` rows.
fn rows(up: &Up, count: usize, sql: &str) -> Vec<Vec<String>> {
    up.wait_for("the spans", |up| up.ask(sql).len() >= count);
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    up.ask(sql).into_iter().map(|row| row.into_iter().map(text).collect()).collect()
}

#[test]
fn one_loopback_address_in_two_namespaces_is_two_servers() {
    if !is_root() {
        return;
    }
    let hosts = [Host::web(26), Host::web(27)];
    let mut up = Up::start(&TRACED);
    let curl = ["curl", "-s", "-o", "/dev/null", "--local-port", "40800", "http://127.0.0.1:8000/dev"];
    let asking: Vec<_> = hosts.iter().map(|host| host.inside(&curl).spawn().unwrap()).collect();
    assert!(asking.into_iter().all(|mut curl| curl.wait().unwrap().success()));
    let netns = hosts.each_ref().map(Host::netns);
    let sql = format!(
        "SELECT attributes['netns'] AS netns, observation_point, trace_key FROM l7_log \
         WHERE server = '127.0.0.1' AND server_port = 8000 AND session = 'complete' AND netns IN ('{}', '{}') \
         ORDER BY netns = '{}', observation_point",
        netns[0], netns[1], netns[1]
    );
    let rows = rows(&up, 4, &sql);
    up.accounts_for_events();
    up.stop();
    let ends: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].as_str())).collect();
    let expected = |netns: &u64| ["c-p", "s-p"].map(|end| (netns.to_string(), end));
    assert_eq!(ends, netns.iter().flat_map(expected).collect::<Vec<_>>());
    // The ends of each are one trace.
    assert!(rows[0][2] == rows[1][2] && rows[2][2] == rows[3][2] && rows[0][2] != rows[2][2], "{rows:?}");
}

#[test]
fn a_namespace_whose_name_was_deleted_is_traced_as_long_as_it_is_used() {
    if !is_root() {
        return;
    }
    let host = Host::web(131);
    let netns = host.netns();
    host.forget_name();
    let mut up = Up::start(&[&["-i", &host.veth][..], &TRACED].concat());
    assert!(host.get("dev").wait().unwrap().success());
    let sql = format!(
        "SELECT signal, observation_point, attributes['netns'], trace_key FROM l7_log \
         WHERE server = '{}' AND session = 'complete' ORDER BY signal, observation_point",
        host.address
    );
    let rows = rows(&up, 3, &sql);
    up.stop();
    let seen: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(seen, [("packet", "c"), ("syscall", "c-p"), ("syscall", "s-p")]);
    assert_eq!(rows[2][2], netns.to_string());
    assert!(rows.iter().all(|row| row[3] == rows[0][3]), "one trace: {rows:?}");
}

/// Answers on port 8000, and on the UNIX socket that it is told of.
const SERVER: &str = "
import http.server, socketserver, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def address_string(self):
        return 'unix'
class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass
name = sys.argv[1]
unix = Unix('\\0' + name[1:] if name[0] == '@' else name, Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    unix.socket = context.wrap_socket(unix.socket, server_side=True)
threading.Thread(target=unix.serve_forever).start()
http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()
";

#[test]
fn unix_sockets_are_shown_by_their_names_also_across_namespaces() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let hidden = format!("@wirespan-test-{}", std::process::id());
    let by_path = Host::serving(28, &["-c", SERVER, path.to_str().unwrap()]);
    let by_name = Host::serving(29, &["-c", SERVER, &hidden]);
    let mut up = Up::start(&TRACED);
    let url = "http://web/over-unix";
    // A path leads to a socket of any namespace.
    let mut curl = Command::new("curl");
    assert!(curl.args(["-s", "--unix-socket", path.to_str().unwrap(), url]).status().unwrap().success());
    let mut curl = by_name.inside(&["curl", "-s", "--abstract-unix-socket", &hidden[1..], url]);
    assert!(curl.status().unwrap().success());
    for (name, netns) in [(path.to_str().unwrap(), None), (&hidden[..], Some(by_name.netns()))] {
        let sql = format!(
            "SELECT observation_point, attributes['netns'], trace_key, toString(id) FROM l7_log \
             WHERE attributes['unix.name'] = '{name}' ORDER BY observation_point"
        );
        let rows = rows(&up, 2, &sql);
        let points: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(points, ["c-p", "s-p"]);
        let namespaces: BTreeSet<_> = rows.iter().map(|row| &row[1]).collect();
        assert_eq!(namespaces.len(), 1, "{rows:?}");
        assert!(netns.is_none_or(|netns| namespaces.contains(&netns.to_string())), "{rows:?}");
        assert_eq!(rows[0][2], rows[1][2], "one trace");
        let server = format!("http://{}", up.page);
        // Rows of a trace are written after those of the list.
        up.wait_for("the whole trace", |_| {
            let shown = wirespan(&["trace", "--span", &rows[0][3], "--server", &server]);
            let shown = text(&shown.stdout);
            shown.contains("1 requests, seen 2 times") && shown.contains(&format!("({name})"))
        });
    }
    up.accounts_for_events();
    up.stop();
    drop(by_path);
}

#[test]
fn tls_over_a_unix_socket_is_named_and_joined_as_what_is_plain() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tls.sock");
    let (path, certificate) = (path.to_str().unwrap(), certificate(directory.path()));
    let _server = Host::serving(30, &["-c", SERVER, path, &certificate]);
    let mut up = Up::start(&TRACED);
    let sql = format!(
        "SELECT observation_point, toString(protocol), trace_key, attributes['unix.client'], req_tcp_seq FROM l7_log \
         WHERE attributes['unix.name'] = '{path}' AND signal = 'tls' AND session = 'complete' \
         ORDER BY start_time DESC LIMIT 2"
    );
    // Until the libraries of both are probed.
    up.wait_for("both ends in plaintext", |up| {
        let mut curl = Command::new("curl");
        curl.args(["-sk", "--unix-socket", path, "https://web/over-tls"]);
        curl.status().unwrap().success() && up.ask(&sql).len() == 2
    });
    let mut rows = rows(&up, 2, &sql);
    rows.sort();
    up.stop();
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["c-p", "s-p"], "{rows:?}");
    assert_eq!(rows[0][1..], rows[1][1..], "{rows:?}");
    assert_eq!(rows[0][1], "other");
}

/// Asks for a name over a UNIX socket that takes datagrams, which has an address of its own for the answer.
const ASKS_BY_DATAGRAM: &str = "
import socket, sys, threading
path = sys.argv[1]
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(path)
def answer():
    while True:
        asked, client = server.recvfrom(512)
        server.sendto(asked[:2] + b'\\x81\\x80' + asked[4:6] + b'\\0\\1\\0\\0\\0\\0' + asked[12:]
            + b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x0a\\0\\0\\1', client)
threading.Thread(target=answer, daemon=True).start()
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.bind(path + '.client')
client.connect(path)
for id in range(1, 4):
    client.send(bytes([0, id]) + b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + b'\\4unix\\4test\\0' + b'\\0\\1\\0\\1')
    client.recv(512)
";

#[test]
fn unix_sockets_for_datagrams_are_named_at_both_ends() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("datagrams.sock");
    let path = path.to_str().unwrap();
    let mut up = Up::start(&TRACED);
    assert!(Command::new("python3").args(["-c", ASKS_BY_DATAGRAM, path]).status().unwrap().success());
    let sql = format!(
        "SELECT observation_point, toString(protocol), l7_protocol, response_result FROM l7_log \
         WHERE attributes['unix.name'] = '{path}' ORDER BY observation_point, start_time"
    );
    let rows = rows(&up, 6, &sql);
    up.stop();
    let expected = |end: &'static str| [end, "other", "DNS", "A 10.0.0.1 ttl=60"];
    assert_eq!(rows, [["c-p"; 3], ["s-p"; 3]].concat().into_iter().map(expected).collect::<Vec<_>>());
}

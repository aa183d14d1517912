//! `wirespan up` with sockets that addresses do not tell apart: of network namespaces, and UNIX sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use support::{Host, Up, is_root, text, wirespan};

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

/// Answers on port 8000, and on the UNIX socket that it is told of.
const SERVER: &str = "
import http.server, socketserver, sys, threading
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

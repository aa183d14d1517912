//! Real TLS servers and clients, whose plaintext comes out of the tracer: who said what to whom, in which session, how long
//! it was. Each pair is watched from before it begins, and from when it runs already.
//!
//! Needs root for eBPF, and the programs of the test group of `.ci/packages.sh`.

#![allow(clippy::unwrap_used, reason = "only tests run this")]

mod amount;
mod files;
mod go;
mod ktls;
mod node;
mod python;
mod watch;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use watch::{Heard, Watch, needs};
use wirespan_event::{Kind, Source};
use wirespan_syscalls::tls::Coverage;
use wirespan_syscalls::tls::plan::Library;

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::piped()).spawn().unwrap())
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn wait_for_port(port: u16) {
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory with `cert.pem` and `key.pem` for localhost.
fn certificate() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}

/// What a session's both ends must have said: the request, and the answer's end, each with its whole length somewhere.
struct Expected<'a> {
    source: Source,
    server: u32,
    client: Option<(u32, Source)>,
    request: &'a str,
    answer: &'a str,
}

/// Waits until all that is expected was heard, and checks that it fits together.
fn check(watch: &mut Watch, expected: &Expected<'_>) {
    check_end(watch, expected.server, expected.source, (expected.request, expected.answer));
    if let Some((client, source)) = expected.client {
        check_end(watch, client, source, (expected.answer, expected.request));
    }
}

fn check_end(watch: &mut Watch, tgid: u32, source: Source, (received, sent): (&str, &str)) {
    let told = |heard: &[Heard], text: &str, ingress: bool| {
        heard
            .iter()
            .find(|heard| {
                let header = &heard.header;
                header.tgid == tgid
                    && header.is_ingress() == ingress
                    && header.source().is_some_and(Source::is_tls)
                    && heard.has(text)
            })
            .cloned()
    };
    watch.until(&format!("{tgid} received {received} and sent {sent}"), |heard| {
        told(heard, received, true).is_some() && told(heard, sent, false).is_some()
    });
    let [from, to] = [told(&watch.heard, received, true).unwrap(), told(&watch.heard, sent, false).unwrap()];
    for heard in [&from, &to] {
        let header = &heard.header;
        assert_eq!(header.kind(), Some(Kind::Data));
        assert_eq!(header.source(), Some(source));
        assert!(header.enter_ns <= header.exit_ns && header.process_start_ns != 0);
        assert_eq!(heard.payload.len(), header.captured as usize);
        assert!(header.length >= header.captured);
    }
    assert_ne!(from.header.tls, 0);
    assert_eq!(from.header.tls, to.header.tls, "one session");
    assert_ne!(from.header.conn_event, to.header.conn_event);
}

fn http_request(client: &mut Command) -> Running {
    Running(client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
}

fn curl(port: u16, path: &str) -> Running {
    let url = format!("https://127.0.0.1:{port}{path}");
    http_request(Command::new("curl").args(["-sSk", "--http1.1", "--max-time", "20", &url]))
}

fn output_of(mut running: Running) -> String {
    let mut text = String::new();
    for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
        text += &line.unwrap();
        text += "\n";
    }
    text
}

/// Runs `test` watched from before a server starts, and from when it runs.
fn before_and_after(server: impl Fn(u16) -> Running, mut test: impl FnMut(&mut Watch, &mut Running, u16)) {
    for watched_first in [true, false] {
        let port = free_port();
        let watch = watched_first.then(Watch::start);
        let mut server = server(port);
        let mut watch = match watch {
            Some(mut watch) => {
                // It may execute several programs, the last of which listens.
                wait_for_port(port);
                watch.until("the server executes", |heard| {
                    heard.iter().any(|heard| {
                        heard.header.kind() == Some(Kind::Exec) && heard.header.tgid == server.0.id()
                    })
                });
                watch.look();
                watch
            }
            None => {
                wait_for_port(port);
                Watch::start()
            }
        };
        test(&mut watch, &mut server, port);
    }
}

#[test]
fn openssl_and_curl_are_heard() {
    needs!("openssl", "curl");
    let directory = certificate();
    let answer = "answer-of-openssl";
    before_and_after(
        |port| {
            spawn(
                Command::new("openssl")
                    .args(["s_server", "-quiet", "-naccept", "3", "-accept", &port.to_string()])
                    .args(["-cert", "cert.pem", "-key", "key.pem"])
                    .current_dir(&directory)
                    .stdout(Stdio::null()),
            )
        },
        |watch, server, port| {
            let client = curl(port, "/request-of-curl");
            let (server_id, client_id) = (server.0.id(), client.0.id());
            watch.until("the request", |heard| {
                heard.iter().any(|heard| heard.header.tgid == server_id && heard.has("/request-of-curl"))
            });
            let text = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
                answer.len()
            );
            server.0.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
            check(
                watch,
                &Expected {
                    source: Source::OpenSsl,
                    server: server_id,
                    client: Some((client_id, Source::OpenSsl)),
                    request: "GET /request-of-curl HTTP/1.1\r\n",
                    answer,
                },
            );
            assert!(output_of(client).contains(answer));
            // The lengths are those of what was said, and the socket is known, as it is used within the calls.
            let written = watch.find(server_id, answer, false);
            assert_eq!(written.header.length as usize, text.len());
            assert_eq!((written.header.local_port, written.header.fd), (port, -1));
            assert_ne!(written.header.conn, 0);
            assert_eq!(watch.libraries.coverage(server_id), Coverage::Plaintext(Library::OpenSsl));
            watch.until("the end of curl's session", |heard| {
                heard
                    .iter()
                    .any(|heard| heard.header.kind() == Some(Kind::TlsFree) && heard.header.tgid == client_id)
            });
        },
    );
}

/// Where the programs of the tests are.
fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/peers").join(name)
}

/// A server and its client say what they should, and the plaintext of both comes out.
fn pair_is_heard(
    source: Source,
    answer: &str,
    server: impl Fn(&mut Command, u16),
    client: impl Fn(u16, &str) -> (Running, Source),
) {
    let directory = certificate();
    let mut number = 0;
    before_and_after(
        |port| {
            // What it is run with is set by `server`; `env` only finds it.
            let mut command = Command::new("env");
            command.current_dir(&directory).stdout(Stdio::null());
            server(&mut command, port);
            spawn(&mut command)
        },
        |watch, server, port| {
            number += 1;
            let path = format!("/request-{number}-of-{port}");
            let (client, client_source) = client(port, &path);
            check(
                watch,
                &Expected {
                    source,
                    server: server.0.id(),
                    client: Some((client.0.id(), client_source)),
                    request: &format!("GET {path} HTTP/1.1\r\n"),
                    answer,
                },
            );
            assert!(output_of(client).contains(answer));
        },
    );
}

#[test]
fn gnutls_is_heard() {
    needs!("openssl", "gnutls-serv", "gnutls-cli");
    let directory = certificate();
    before_and_after(
        |port| {
            spawn(
                Command::new("gnutls-serv")
                    .args(["--echo", "--quiet", "--port", &port.to_string()])
                    .args(["--x509certfile", "cert.pem", "--x509keyfile", "key.pem"])
                    .current_dir(&directory)
                    .stdout(Stdio::null()),
            )
        },
        |watch, server, port| {
            let mut client = spawn(
                Command::new("gnutls-cli")
                    .args(["--insecure", "--logfile=/dev/null", "--port", &port.to_string(), "127.0.0.1"])
                    .stdout(Stdio::piped()),
            );
            client.0.stdin.as_mut().unwrap().write_all(b"request-of-gnutls\n").unwrap();
            let (server, client) = (server.0.id(), client.0.id());
            let said = "request-of-gnutls\n";
            check(
                watch,
                &Expected {
                    source: Source::GnuTls,
                    server,
                    client: Some((client, Source::GnuTls)),
                    request: said,
                    answer: said,
                },
            );
            assert_eq!(watch.find(client, said, false).header.length as usize, said.len());
            assert_eq!(watch.find(server, said, true).header.length as usize, said.len());
            assert_ne!(watch.find(client, said, false).header.conn, 0);
        },
    );
}

/// Builds a Go program, with more flags of `go build`.
fn go_program(directory: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let program = directory.join("peer");
    let output = Command::new("go")
        .arg("build")
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg(peer(source))
        .current_dir(directory)
        // The libraries of Debian's packages.
        .envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOPATH", "/usr/share/gocode")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn go_is_heard(flags: &[&str]) {
    needs!("openssl", "go");
    let directory = tempfile::tempdir().unwrap();
    let program = go_program(directory.path(), "main.go", flags);
    pair_is_heard(
        Source::GoTls,
        "answer-of-go",
        |command, port| {
            command.arg(&program).args(["server", &port.to_string()]);
        },
        |port, path| {
            let mut command = Command::new(&program);
            command.args(["client", &port.to_string(), path]);
            (http_request(&mut command), Source::GoTls)
        },
    );
}

#[test]
fn go_with_symbols_is_heard() {
    go_is_heard(&[]);
}

#[test]
fn stripped_go_is_heard() {
    go_is_heard(&["-ldflags", "-s -w"]);
}

#[test]
fn position_independent_stripped_go_is_heard() {
    go_is_heard(&["-buildmode", "pie", "-ldflags", "-s -w"]);
}

/// Goroutines have the numbers that Go says they have; who makes another one, and who has a request sent, is told.
#[test]
fn goroutines_are_told_apart() {
    needs!("openssl", "go", "curl");
    let directory = certificate();
    let program = go_program(directory.path(), "main.go", &[]);
    before_and_after(
        |port| {
            let mut command = Command::new(&program);
            spawn(command.args(["server", &port.to_string()]).current_dir(&directory))
        },
        |watch, server, port| {
            let tgid = server.0.id();
            let answer = output_of(curl(port, "/goroutines"));
            let number = |name: &str| -> u64 {
                let (_, rest) = answer.split_once(name).unwrap_or_else(|| panic!("{answer}"));
                rest.split_whitespace().next().unwrap().parse().unwrap()
            };
            let (handler, child) = (number("handler="), number("child="));
            watch.until("the answer", |heard| {
                heard
                    .iter()
                    .any(|heard| heard.header.tgid == tgid && heard.header.tls != 0 && heard.has(" child="))
            });
            assert_eq!(watch.find(tgid, "/goroutines", true).header.coroutine, handler);
            assert_eq!(watch.find(tgid, " child=", false).header.coroutine, handler);
            let work = |kind: Kind| {
                let is_work = move |heard: &&Heard| {
                    heard.header.tgid == tgid
                        && heard.header.kind() == Some(kind)
                        && heard.header.coroutine == handler
                };
                watch.heard.iter().filter(is_work).filter_map(|heard| heard.header.other_coroutine())
            };
            assert!(work(Kind::Fork).any(|other| other == child));
            // The inner request is written by the goroutine of its connection, right after it was handed over.
            let [writer] = work(Kind::Wake).collect::<Vec<_>>()[..] else {
                panic!("one request, one handover")
            };
            let written = watch.heard.iter().find(|heard| {
                let header = &heard.header;
                header.tgid == tgid
                    && header.source() == Some(Source::Syscall)
                    && !header.is_ingress()
                    && heard.has("GET /inner")
            });
            assert_eq!(written.unwrap().header.coroutine, writer);
        },
    );
}

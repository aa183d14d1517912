//! A server over a real, empty store in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use wirespan_analyzer::{Ingest, IngestOptions, IngestReport, Registry, Server, ServerOptions};
use wirespan_controller::Names;
use wirespan_records::Span;
use wirespan_store::{Client, Retention, ServeOptions, Writer, WriterOptions, migrate, serve};

const DATA_VARIABLE: &str = "WIRESPAN_TEST_STORE";

/// The body of the test `store_process`, which each test file declares: this program again, as the store.
pub fn store_process() {
    let Some(data) = std::env::var_os(DATA_VARIABLE) else { return };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServeOptions { data: data.into(), listen, library: None, supervised: true };
    serve(options).unwrap();
}

/// A store, ended when this is dropped.
struct Store {
    child: Child,
    stdin: Option<ChildStdin>,
    url: String,
    /// Kept open: the child writes a last word.
    _stdout: Lines<BufReader<ChildStdout>>,
    _data: tempfile::TempDir,
}

impl Store {
    /// `None`, with a word why, when the engine is not there; in CI it must be.
    fn start() -> Option<Self> {
        let library = wirespan_store::engine::locate();
        if !library.is_file() {
            assert!(
                std::env::var_os("CI").is_none(),
                "the ClickHouse engine {} is missing",
                library.display()
            );
            eprintln!("skipped: needs the ClickHouse engine {}; run `make setup`", library.display());
            return None;
        }
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store_process", "--nocapture"])
            .env(DATA_VARIABLE, data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|l| l.split("ready ").nth(1).map(str::to_owned))
            .unwrap();
        let stdin = child.stdin.take();
        Some(Self { child, stdin, url, _stdout: lines, _data: data })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// What a test asks.
pub struct Site {
    pub client: Client,
    address: SocketAddr,
    _server: Server,
    _store: Store,
}

impl Site {
    /// `None` when the engine is not there.
    pub async fn start() -> Option<Self> {
        let store = Store::start()?;
        let client = Client::new(&store.url).unwrap();
        migrate(&client, &Retention::default()).await.unwrap();
        let mut names = Names::default();
        names.add_text(super::HOSTS);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = ServerOptions { listen, names, ..ServerOptions::default() };
        let server = Server::start(options, client.clone(), Registry::default()).await.unwrap();
        Some(Self { address: server.address(), client, _server: server, _store: store })
    }

    /// Takes requests with their flows and ticks the whole way into the store.
    pub async fn ingest(&self, spans: Vec<Span>) -> IngestReport {
        let writer = Writer::start(self.client.clone(), WriterOptions::default());
        let ingest = Ingest::start(writer, &IngestOptions::default(), &Registry::default()).unwrap();
        assert!(ingest.sink().send(super::batch(spans)));
        let report = ingest.stop(Duration::from_secs(30)).await;
        assert!(report.closes() && report.dropped() == 0, "{report:?}");
        report
    }

    /// Status and text of an answer.
    pub async fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let host = if headers.to_ascii_lowercase().contains("host:") {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let text = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let address = self.address;
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The JSON of a good answer.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.request("GET", path, "", "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Status and sentence of a bad one.
    pub async fn error(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, body) = self.request(method, path, "", body).await;
        let json: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        (status, json["error"].as_str().unwrap().to_owned())
    }
}

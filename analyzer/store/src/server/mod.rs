//! ClickHouse's HTTP interface over the embedded engine: takes in HTTP, hands on answers of [`crate::engine`].
//!
//! | module | what |
//! |---|---|
//! | [`request`] | URL, headers and body into a query |
//! | `confine` | rights that the process gives up |
//! | [`compress`] | ClickHouse's compressed blocks and HTTP content encodings |
//! | `sql` | what must be known of a query before it runs |
//! | `respond` | answers and errors with ClickHouse's headers |
//! | `lifetime` | lock on the data directory, signals, the parent's pipe |

pub mod compress;
mod confine;
mod lifetime;
pub mod request;
mod respond;
mod sql;

use crate::StoreError;
use crate::engine::{Engine, Query};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, ORIGIN,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use request::{MAX_BODY, ParsedRequest, Parts};
use respond::Identity;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What `wirespan store` is told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Data directory; made when it is not there.
    pub data: PathBuf,
    /// Where to listen; `127.0.0.1:8123` is ClickHouse's own port. Port 0 takes any, and after a crash the same again.
    pub listen: SocketAddr,
    /// `libchdb.so`, when it is not to be looked for.
    pub library: Option<PathBuf>,
    /// Stop when standard input closes, as it does when a supervising parent dies.
    pub supervised: bool,
}

/// The environment variable that tells a child that is started again where it was, since its clients look there.
pub(crate) const ADDRESS_BEFORE: &str = "WIRESPAN_STORE_ADDRESS_BEFORE";

/// Queries that run at once; more wait.
const MAX_RUNNING: usize = 32;
/// Connections that stay open at once.
const MAX_CONNECTIONS: usize = 1024;

/// Runs until SIGTERM, SIGINT or, when supervised, the end of standard input; then ends what runs and closes the engine.
/// Prints one line `ready http://ADDRESS` to standard output once queries are answered. Confines the whole process to its
/// data directory first, so it is for a process of its own that has no threads yet.
pub fn serve(mut options: ServeOptions) -> Result<(), StoreError> {
    if let Some(before) = std::env::var(ADDRESS_BEFORE).ok().and_then(|address| address.parse().ok()) {
        options.listen = before;
    }
    let library = crate::engine::library(options.library.as_deref())?;
    confine::confine(&options, &library)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StoreError::io("cannot start threads"))?;
    runtime.block_on(run(options, library))
}

async fn run(options: ServeOptions, library: PathBuf) -> Result<(), StoreError> {
    let _lock = lifetime::lock(&options.data)?;
    let stop = lifetime::stop_signal(options.supervised)?;
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|source| StoreError::Listen { address: options.listen, source })?;
    let address = listener.local_addr().map_err(StoreError::io("cannot read the address listened on"))?;
    let data = options.data.clone();
    let engine = run_blocking(move || Engine::open(&library, &data)).await??;
    let server = Arc::new(Server::new(engine).await?);
    lifetime::announce(address);
    server.accept_until(listener, stop).await;
    run_blocking(move || drop(server)).await
}

async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| StoreError::Child { reason: format!("a query thread ended early: {e}") })
}

struct Server {
    engine: Arc<Engine>,
    identity: Identity,
    running: Semaphore,
    queries: AtomicU64,
    started: u64,
}

impl Server {
    async fn new(engine: Engine) -> Result<Self, StoreError> {
        let engine = Arc::new(engine);
        let asked = Arc::clone(&engine);
        let answer = run_blocking(move || {
            asked.query(&Query { sql: b"SELECT hostName(), timezone(), version()", ..Query::default() })
        })
        .await?
        .map_err(|message| StoreError::Query { code: 0, status: 0, message })?;
        let line = String::from_utf8_lossy(&answer.data);
        let mut fields = line.trim_end().split('\t').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let identity = Identity { host: next(), timezone: next(), version: next() };
        let started = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
        Ok(Self {
            engine,
            identity,
            running: Semaphore::new(MAX_RUNNING),
            queries: AtomicU64::new(0),
            started,
        })
    }

    /// Accepts connections until `stop`; then lets the requests in work end.
    async fn accept_until(self: &Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let (closing, closed) = tokio::sync::watch::channel(false);
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(Arc::clone(self).connection(stream, closed.clone()));
                }
                // Out of file descriptors: the ones in use will be given back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        drop(listener);
        let _ = closing.send(true);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(
        self: Arc<Self>,
        stream: tokio::net::TcpStream,
        mut closed: tokio::sync::watch::Receiver<bool>,
    ) {
        let service = hyper::service::service_fn(|request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.respond(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(30))
            .max_buf_size(1 << 20)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            // A broken connection concerns its client only.
            _ = connection.as_mut() => return,
            _ = closed.wait_for(|&c| c) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if is_cross_site(request.headers()) {
            return respond::text(
                StatusCode::FORBIDDEN,
                "Requests from web pages of other hosts are refused.\n",
            );
        }
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        let has_query = request.uri().query().is_some_and(|q| !q.is_empty());
        match request.uri().path() {
            "/ping" | "/replicas_status" => respond::text(StatusCode::OK, "Ok.\n"),
            "/" if is_get && !has_query => respond::text(StatusCode::OK, "Ok.\n"),
            "/" | "/query" if is_get || *request.method() == Method::POST => {
                self.query(request, is_get).await
            }
            "/" | "/query" => respond::text(StatusCode::METHOD_NOT_ALLOWED, "Use GET or POST.\n"),
            _ => respond::text(
                StatusCode::NOT_FOUND,
                "There is no handle for this path. Use / or /ping for health checks. Or /?query=... or POST / to query.\n",
            ),
        }
    }

    async fn query(&self, request: Request<Incoming>, is_get: bool) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let header = |name: HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok());
        let own_id =
            format!("wirespan-{:x}-{:x}", self.started, self.queries.fetch_add(1, Ordering::Relaxed));
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => {
                let message = format!(
                    "Code: 307. DB::Exception: The request body cannot be read: {e} (QUERY_IS_TOO_LARGE)"
                );
                return respond::error(&message, &self.identity, &own_id);
            }
        };
        let parts = Parts {
            is_get,
            query_string: head.uri.query().unwrap_or_default(),
            content_type: header(CONTENT_TYPE),
            content_encoding: header(CONTENT_ENCODING),
            accept_encoding: header(ACCEPT_ENCODING),
            database: header(HeaderName::from_static("x-clickhouse-database")),
            format: header(HeaderName::from_static("x-clickhouse-format")),
        };
        let parsed = match request::parse(&parts, &body) {
            Ok(parsed) => parsed,
            Err(e) => return respond::error(&e.to_string(), &self.identity, &own_id),
        };
        drop(body);
        let id = parsed.query_id.clone().unwrap_or(own_id);
        self.run(parsed, &id).await
    }

    async fn run(&self, parsed: ParsedRequest, id: &str) -> Response<Full<Bytes>> {
        let started = Instant::now();
        // The semaphore is never closed, so a permit always comes.
        let permit = self.running.acquire().await;
        let engine = Arc::clone(&self.engine);
        let done = tokio::task::spawn_blocking(move || {
            let result = engine.query(&Query {
                sql: parsed.statement(),
                data: parsed.data(),
                format: parsed.format(),
                database: parsed.database.as_deref(),
                settings: &parsed.settings,
                params: &parsed.params,
                readonly: parsed.readonly,
            });
            (parsed, result)
        })
        .await;
        drop(permit);
        let response = match done {
            Ok((parsed, Ok(answer))) => {
                respond::answer(&parsed, answer, started.elapsed(), &self.identity, id)
                    .map_err(|e| e.to_string())
            }
            Ok((_, Err(message))) => Err(message),
            Err(e) => Err(format!("Code: 1002. DB::Exception: The query thread ended early: {e}")),
        };
        response.unwrap_or_else(|message| respond::error(&message, &self.identity, id))
    }
}

/// A browser sends `Origin` with requests that a page makes; pages of other hosts must not reach a store on loopback.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    if headers.contains_key(AUTHORIZATION) {
        return false;
    }
    let origin = origin.to_str().unwrap_or_default();
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    !matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_host_are_served() {
        let with = |origin: &'static str| {
            HeaderMap::from_iter([(ORIGIN, hyper::header::HeaderValue::from_static(origin))])
        };
        assert!(!is_cross_site(&HeaderMap::new()));
        assert!(!is_cross_site(&with("http://127.0.0.1:7700")));
        assert!(!is_cross_site(&with("http://localhost:3000")));
        assert!(is_cross_site(&with("https://evil.example")));
        assert!(is_cross_site(&with("null")));
    }
}

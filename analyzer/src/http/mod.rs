//! Answers over HTTP: the API, `/metrics` and the page.
//!
//! | module | what |
//! |---|---|
//! | `api` | `/api/...` |
//! | `page` | `/` and its files |
//! | `guard` | who may ask, and the headers of every answer |
//! | `error` | errors as JSON |

mod api;
mod error;
mod guard;
mod page;

use crate::answers::Answers;
use crate::registry::Registry;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use error::ApiError;
use guard::AllowedHosts;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wirespan_controller::Names;
use wirespan_store::{Client, WriterWatch};

/// An SQL text is at most so long.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Requests that are being answered when the server stops have so long.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Where and under which names to answer.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host names, besides addresses and `localhost`, under which browsers may ask.
    pub allowed_hosts: Vec<String>,
    /// Names of addresses.
    pub names: Names,
    /// Whose rows are stored, for `/api/health`.
    pub writer: Option<WriterWatch>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            allowed_hosts: Vec::new(),
            names: Names::default(),
            writer: None,
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; stop what listens there or choose another address with --listen"
    )]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct AppState {
    answers: Answers,
    registry: Registry,
    writer: Option<WriterWatch>,
    started: Instant,
}

/// A server that runs until it is stopped.
pub struct Server {
    address: SocketAddr,
    answers: Answers,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Listens and answers from `client`'s store; `/metrics` shows `registry`. Needs a tokio runtime.
    pub async fn start(
        options: ServerOptions,
        client: Client,
        registry: Registry,
    ) -> Result<Self, ServerError> {
        let address = options.listen;
        let fail = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let answers = Answers::new(client, options.names);
        let writer = options.writer;
        let state = AppState { answers: answers.clone(), registry, writer, started: Instant::now() };
        let app = router(state, options.allowed_hosts.into());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(
            axum::serve(listener, app).with_graceful_shutdown(async { _ = stopped.await }).into_future(),
        );
        Ok(Self { address, answers, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same answers without HTTP, and the place to replace names.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Ends after the requests that are being answered.
    pub async fn stop(mut self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(STOP_PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

fn router(state: AppState, allowed_hosts: AllowedHosts) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/metrics", get(metrics))
        .route("/api/health", get(api::health))
        .route("/api/sql", post(api::sql))
        .route("/api/services", get(api::services))
        .route("/api/map", get(api::map))
        .route("/api/spans", get(api::spans))
        .route("/api/flows", get(api::flows))
        .route("/api/taps", get(api::taps))
        .route("/api/traces", get(api::traces))
        .route("/api/traces/{id}", get(api::trace))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .with_state(state)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(allowed_hosts, guard::guard))
}

async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.registry.render())
}

async fn unknown_path(uri: Uri) -> ApiError {
    let hint = match uri.path() {
        p if p.starts_with("/prom/") => "PromQL is not answered yet: ask with SQL at /api/sql",
        p if p.starts_with("/tempo/") => "Tempo's API is not answered yet: ask for /api/traces/TRACE_ID",
        _ => {
            "the page is at /, the answers are at /api/services, /api/map, /api/spans, /api/flows, /api/taps, /api/traces and /api/sql"
        }
    };
    ApiError::new(StatusCode::NOT_FOUND, format!("there is nothing at {}: {hint}", uri.path()))
}

async fn wrong_method(uri: Uri) -> ApiError {
    let method = if uri.path() == "/api/sql" { "POST" } else { "GET" };
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} is asked with {method}", uri.path()))
}

//! The page over a small shop that never closes: `cargo run -p wirespan-analyzer --example page [LISTEN]`. Prints the page's
//! address once it can be opened; ends when standard input closes. Needs the ClickHouse engine (`make setup`).

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Exchange, endpoint};
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};
use wirespan_analyzer::{Ingest, IngestOptions, Registry, Server, ServerOptions, Sink, push_names};
use wirespan_controller::Names;
use wirespan_records::{
    Endpoint, L7Protocol, ObservationPoint, Parent, Process, ResponseStatus, Rule, Signal, Span, next_id,
};
use wirespan_store::{
    Client, Retention, ServeOptions, Supervisor, SupervisorOptions, Writer, WriterOptions, migrate, serve,
};

/// Page views per second.
const RATE: u64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if let (Some("store"), Some(data)) = (first.as_deref(), arguments.next()) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        return Ok(serve(ServeOptions { data: data.into(), listen, library: None, supervised: true })?);
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    tokio::runtime::Runtime::new()?.block_on(show(first.as_deref()))
}

async fn show(listen: Option<&str>) -> Result<(), Box<dyn Error>> {
    let listen = listen.unwrap_or("127.0.0.1:7700").parse()?;
    let data = tempfile::tempdir()?;
    let argv = vec![std::env::current_exe()?.into(), "store".into(), data.path().into()];
    let store = Supervisor::start(SupervisorOptions::new(argv)).await?;
    let client = Client::new(store.url())?;
    migrate(&client, &Retention::default()).await?;

    let mut names = Names::default();
    names.add_text(common::HOSTS);
    push_names(&client, &names).await?;
    let registry = Registry::default();
    let writer = Writer::start(client.clone(), WriterOptions::default());
    let ingest = Ingest::start(writer, &IngestOptions::default(), &registry)?;
    let server =
        Server::start(ServerOptions { listen, names, ..ServerOptions::default() }, client, registry).await?;
    let views = tokio::spawn(keep_shopping(ingest.sink()));
    println!("http://{}", server.address());

    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    views.abort();
    server.stop().await;
    let report = ingest.stop(Duration::from_secs(10)).await;
    eprintln!("{report:?}, everything accounted for: {}", report.closes());
    store.stop().await;
    Ok(())
}

/// Page views of the last ten minutes at once, then as they come.
async fn keep_shopping(sink: Sink) {
    let now_ns = || UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
    let step_ns = 1_000_000_000 / RATE;
    let mut n = 0;
    let mut next_ns = now_ns() - 600_000_000_000;
    loop {
        let mut spans = Vec::new();
        while next_ns < now_ns() {
            // Busier and quieter minutes.
            if n % 7 != 0 || next_ns / 60_000_000_000 % 3 != 0 {
                spans.extend(page_view(n, next_ns));
            }
            n += 1;
            next_ns += step_ns;
        }
        sink.send(common::batch(spans));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the shop does with its `n`th page view at `start_ns`: one HTTP request and what it leads to.
fn page_view(n: u64, start_ns: u64) -> Vec<Span> {
    let port = 40_000 + (n % 20_000) as u16;
    let (status, code) = match n % 50 {
        7 | 31 => (ResponseStatus::ServerError, Some(503)),
        11 => (ResponseStatus::ClientError, Some(404)),
        _ => (ResponseStatus::Ok, Some(200)),
    };
    let paths = ["/", "/cart", "/api/items?page=2", "/api/orders/1842", "/static/app.css"];
    let at = |us: u64| start_ns + us * 1000;
    let wave = n * 37 % 23;
    let from_web = |server: Endpoint, l7_protocol, us, duration_us, status, request| {
        Exchange {
            l7_protocol,
            client: endpoint(2, port),
            server,
            start_ns: at(us),
            duration_us,
            status,
            code: None,
            request,
        }
        .span()
    };
    let mut spans = vec![
        Exchange {
            l7_protocol: L7Protocol::Http,
            client: endpoint(1, port),
            server: endpoint(2, 80),
            start_ns,
            duration_us: 4_000 + wave * 900,
            status,
            code,
            request: ("GET", paths[(n % 5) as usize].into()),
        }
        .span(),
        from_web(
            endpoint(3, 6379),
            L7Protocol::Redis,
            300,
            90 + wave * 7,
            ResponseStatus::Ok,
            ("GET", format!("GET session:{n}")),
        ),
    ];
    if n.is_multiple_of(2) {
        let status = if n.is_multiple_of(40) { ResponseStatus::Timeout } else { ResponseStatus::Ok };
        let statement = "SELECT id, name, price FROM items WHERE shop = ? ORDER BY price LIMIT ?".to_owned();
        spans.push(from_web(
            endpoint(4, 3306),
            L7Protocol::MySql,
            900,
            1_200 + wave * 400,
            status,
            ("QUERY", statement),
        ));
    }
    if n.is_multiple_of(5) {
        let name = "db.shop.example".to_owned();
        spans.push(from_web(endpoint(53, 53), L7Protocol::Dns, 100, 310, ResponseStatus::Ok, ("A", name)));
    }
    // As the tracer tells it: what the web server asked, it asked for this view.
    let view = next_id();
    for span in spans.iter_mut().skip(1) {
        span.parent = Some(Parent { span: view, rule: Rule::Turn, confidence: 0.95 });
    }
    let process = Process { pid: 80, name: "nginx".into(), ..Process::default() };
    spans.push(Span {
        id: view,
        signal: Signal::Syscall,
        observation_point: ObservationPoint::ServerProcess,
        process: Some(process.into()),
        ..spans[0].clone()
    });
    spans
}

//! The page over a small shop that never closes: `cargo run -p wirespan-analyzer --example page [LISTEN]`. Prints the page's
//! address once it can be opened; ends when standard input closes. Needs the ClickHouse engine (`make setup`).

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};
use wirespan_analyzer::{Ingest, IngestOptions, Registry, Server, ServerOptions, Sink, push_names};
use wirespan_controller::Names;
use wirespan_store::{
    Client, Retention, ServeOptions, Supervisor, SupervisorOptions, Writer, WriterOptions, migrate, serve,
};

/// Page views per second.
const RATE: u64 = 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if let (Some("store"), Some(data)) = (first.as_deref(), arguments.next()) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        return Ok(serve(ServeOptions { data: data.into(), listen, library: None, supervised: true }).await?);
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let listen = first.as_deref().unwrap_or("127.0.0.1:7700").parse()?;
    let data = tempfile::tempdir()?;
    let argv = vec![std::env::current_exe()?.into(), "store".into(), data.path().into()];
    let store = Supervisor::start(SupervisorOptions::new(argv)).await?;
    let client = Client::new(store.url())?;
    migrate(&client, &Retention::default()).await?;

    let mut names = Names::default();
    names.add_text(common::HOSTS);
    push_names(&client, &names).await?;
    let registry = Registry::default();
    let writer = Writer::start(client.clone(), WriterOptions { batch_rows: 4096, ..WriterOptions::default() });
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
                spans.extend(common::page_view(n, next_ns));
            }
            n += 1;
            next_ns += step_ns;
        }
        sink.send(common::batch(spans));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

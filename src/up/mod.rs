//! `wirespan up`: capture, analysis, store, answers and page in one command.

mod capture;
mod counters;
mod filter;
mod sources;
mod tracer;
mod tracer_counters;

use crate::analysis::AnalysisArgs;
use crate::database::{Database, Place};
use crate::store;
use anyhow::Context;
use capture::CaptureThread;
use filter::LiveFilter;
use sources::{SourceArgs, Sources, Wanted, local_addresses, seed};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracer::{TracerArgs, TracerThread};
use wirespan_analyzer::{Ingest, IngestOptions, Server, ServerOptions, push_names, push_taps};
use wirespan_capture::ShuntMode;
use wirespan_controller::Names;
use wirespan_dataplane::decode::MirrorConfig;
use wirespan_dataplane::flow::ShuntPolicy;
use wirespan_dataplane::{Sample, Taps, WorkerConfig};
use wirespan_host::HostConfig;
use wirespan_l7::Config;
use wirespan_offload::Applied;
use wirespan_records::Endpoint;
use wirespan_store::{Writer, WriterOptions};

/// How long the end waits for the store to take what was seen.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
/// A step of the end that takes longer is told of.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// What `wirespan up` is asked for.
#[derive(clap::Args)]
pub struct UpArgs {
    #[command(flatten)]
    sources: SourceArgs,

    /// File with the networks, ports, protocols, VLANs and tunnel ids that are wanted or not; SIGHUP has it read again
    #[arg(long, value_name = "FILE")]
    filter: Option<PathBuf>,

    /// Part of the flows to look at, such as 0.1; a flow is wholly in or out
    #[arg(long, value_name = "PART", value_parser = part)]
    sample: Option<f64>,

    /// Let the XDP program or the NIC count flows that have so many bytes and whose payload is not parsed (any more), instead of
    /// delivering their packets
    #[arg(long, value_name = "BYTES")]
    shunt_after: Option<u64>,

    /// Have the headers of such flows delivered, for everything that TCP's numbers tell, and only their payload kept back
    #[arg(long, requires = "shunt_after")]
    shunt_headers: bool,

    /// Data directory of the embedded store
    #[arg(long, value_name = "DIR", default_value_os_t = store::data_dir())]
    data: PathBuf,

    /// Address of the page and the API
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7700")]
    listen: SocketAddr,

    /// Host names, beside addresses and localhost, under which browsers may open the page
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    allow_host: Vec<String>,

    /// Address of ClickHouse's HTTP interface over the embedded store
    #[arg(long, value_name = "ADDRESS", default_value = store::CLICKHOUSE_LISTEN)]
    clickhouse_listen: SocketAddr,

    /// Use this ClickHouse server instead of the embedded store
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "clickhouse_listen"])]
    clickhouse_url: Option<String>,

    /// libchdb.so, when it is not where `make setup` puts it
    #[arg(long, value_name = "FILE", env = "WIRESPAN_LIBCHDB")]
    libchdb: Option<PathBuf>,

    /// Names of addresses, in the format of /etc/hosts, which is read too
    #[arg(long, value_name = "FILE")]
    hosts: Vec<PathBuf>,

    /// Keep literals in SQL, values in Redis commands and in URL queries as they are
    #[arg(long)]
    show_values: bool,

    #[command(flatten)]
    tracer: TracerArgs,

    #[command(flatten)]
    analysis: AnalysisArgs,
}

/// Runs the command.
pub fn run(args: UpArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(up(args))
}

/// What the process is told from outside. Taken over before a NIC is set up, which a process that just dies does not put back.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { interrupt: interrupt?, terminate: terminate?, hangup: hangup? })
    }
}

async fn up(args: UpArgs) -> anyhow::Result<()> {
    let signals = Signals::take()?;
    // What cannot work is told before anything is started.
    let taps = args.analysis.taps()?;
    let filter = LiveFilter::load(args.filter.as_deref())?;
    let names = Names::load(&args.hosts)?;
    if names.skipped_lines() > 0 {
        eprintln!("wirespan: {} lines of hosts files give no address a name", names.skipped_lines());
    }
    let wanted = Wanted {
        filter: args.filter.is_some().then(|| filter.now()),
        sample: args.sample,
        seed: seed(),
        shunt: args.shunt_after.is_some(),
        without_interfaces: args.tracer.is_enough(),
    };
    let sources = args.sources.open(&wanted)?;
    for note in &sources.notes {
        eprintln!("wirespan: {note}");
    }
    let unseen = unseen(&taps, &sources.names);
    if !unseen.is_empty() {
        eprintln!("wirespan: taps ask for interfaces that are not watched: {}", unseen.join(", "));
    }
    let place = match args.clickhouse_url.clone() {
        Some(url) => Place::Url(url),
        None => {
            let (data, listen) = (args.data.clone(), args.clickhouse_listen);
            Place::Embedded { data, listen, libchdb: args.libchdb.clone() }
        }
    };
    let database = Database::start(place).await?;
    let result = watch(&args, signals, sources, filter, names, taps, &database).await;
    told("waits for the store process to end", database.stop()).await;
    result
}

/// Waits for a step of the end, and says what it is when it takes long.
async fn told<T>(what: &str, step: impl Future<Output = T>) -> T {
    let mut step = std::pin::pin!(step);
    match tokio::time::timeout(SAY_AFTER, &mut step).await {
        Ok(done) => done,
        Err(_) => {
            eprintln!("wirespan {what}");
            step.await
        }
    }
}

/// Captures, stores and answers until it is told to stop.
async fn watch(
    args: &UpArgs,
    mut signals: Signals,
    sources: Sources,
    filter: LiveFilter,
    names: Names,
    taps: Taps,
    database: &Database,
) -> anyhow::Result<()> {
    push_names(&database.client, &names).await?;
    push_taps(&database.client, &taps.taps).await?;
    let registry = sources.registry.clone();
    let writer = Writer::start(database.client.clone(), WriterOptions::default());
    let (listen, allowed_hosts, writer_watch) = (args.listen, args.allow_host.clone(), Some(writer.watch()));
    let options = ServerOptions { listen, allowed_hosts, names, writer: writer_watch };
    let server = Server::start(options, database.client.clone(), registry.clone()).await?;
    let ingest = Ingest::start(writer, &IngestOptions::default(), &registry)?;
    let stop = Arc::new(AtomicBool::new(false));
    let local = local_addresses();
    let ours = database.addresses().await.into_iter().chain([server.address()]);
    let own: Vec<Endpoint> = ours.flat_map(|address| endpoints_of(address, &local)).collect();
    // Before capture begins: where it must be had and cannot, nothing starts.
    let traced = tokio::task::block_in_place(|| args.tracer.open(args.sources.mode(), &own))?;
    let Sources { workers, names: interfaces, nics, seed, .. } = sources;
    let mut threads = Vec::new();
    for (index, source) in workers.into_iter().enumerate() {
        let mut config = worker_config(args, index as u16, &local, &own);
        config.decode.mirror = MirrorConfig { taps: taps.clone(), interfaces: interfaces.clone() };
        config.sample = args.sample.map(|part| Sample { part, seed, by_source: source.samples });
        let (sink, stop) = (ingest.sink(), Arc::clone(&stop));
        threads.push(CaptureThread::start(source, config, filter.clone(), sink, &registry, stop)?);
    }
    let mut watched = interfaces.clone();
    let tracer = match traced {
        Some(source) => {
            watched.push("the processes of this host".to_owned());
            let (sink, stop) = (ingest.sink(), Arc::clone(&stop));
            Some(TracerThread::start(source, host_config(args), sink, &registry, stop)?)
        }
        None => None,
    };
    eprintln!(
        "wirespan watches {}; the page is at http://{}/, ClickHouse's interface at {}; Ctrl-C stores what was seen and ends",
        watched.join(", "),
        server.address(),
        database.client.url(),
    );
    let mut poll = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
            _ = signals.hangup.recv() => reload(&filter),
            _ = poll.tick() => if threads.iter().any(CaptureThread::is_finished) { break },
        }
    }
    stop.store(true, Ordering::Relaxed);
    let join = move || {
        let captures = threads.into_iter().map(CaptureThread::join);
        captures.chain(tracer.map(TracerThread::join)).collect::<Vec<_>>()
    };
    let joined = told("hands on the flows that are open", tokio::task::spawn_blocking(join));
    let results = joined.await.context("the end of the capture threads was not seen")?;
    for note in nics.into_iter().flat_map(Applied::restore) {
        eprintln!("wirespan: {note}");
    }
    let storing =
        format!("stores what was seen; it waits for the store at most {} s", STORE_PATIENCE.as_secs());
    let report = told(&storing, ingest.stop(STORE_PATIENCE)).await;
    server.stop().await;
    eprintln!("wirespan stored {} rows and lost {}", report.writer.rows_stored, report.dropped());
    results.into_iter().collect()
}

/// Interfaces that taps ask for and that nothing comes from, each once.
fn unseen<'a>(taps: &'a Taps, watched: &[String]) -> Vec<&'a str> {
    let mut asked: Vec<&str> = taps.interfaces().collect();
    asked.sort_unstable();
    asked.dedup();
    asked.retain(|name| !watched.iter().any(|watched| watched == name));
    asked
}

fn reload(filter: &LiveFilter) {
    match filter.reload() {
        Ok(true) => eprintln!("wirespan: the filter file was read again"),
        Ok(false) => {}
        Err(error) => eprintln!("wirespan: {error:#}; the filter stays as it was"),
    }
}

fn part(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|part| (0.0..=1.0).contains(part))
        .ok_or_else(|| "give a number from 0 to 1, such as 0.1".to_owned())
}

/// Where something that listens on `address` is reached: watching the own connections would make records of records.
fn endpoints_of(address: SocketAddr, local: &[IpAddr]) -> Vec<Endpoint> {
    let all = |ip: &IpAddr| address.is_ipv6() || ip.is_ipv4();
    let ips = match address.ip() {
        ip if ip.is_unspecified() => local.iter().copied().filter(all).collect(),
        ip => vec![ip],
    };
    ips.into_iter().map(|ip| Endpoint { ip, port: address.port() }).collect()
}

fn worker_config(args: &UpArgs, index: u16, local: &[IpAddr], own: &[Endpoint]) -> WorkerConfig {
    let mut config = args.analysis.worker_config(index);
    config.flow.ticks = true;
    config.flow.report_interval_ms = Some(60_000);
    config.flow.local_addresses = local.to_vec();
    config.ignored = own.to_vec();
    let mode = if args.shunt_headers { ShuntMode::Headers } else { ShuntMode::Count };
    config.shunt =
        args.shunt_after.map(|bytes_min| ShuntPolicy { bytes_min, mode, ..ShuntPolicy::default() });
    config.l7.obfuscate = !args.show_values;
    config
}

fn host_config(args: &UpArgs) -> HostConfig {
    let l7 = Config { obfuscate: !args.show_values, ..args.analysis.worker_config(0).l7 };
    HostConfig { l7, ..HostConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_taps_that_are_not_watched_are_told_once() {
        let tap = |name: &str, interface: &str| {
            format!("- {{name: {name}, kind: nic, match: {{interface: {interface}}}}}\n")
        };
        let file = ["taps:\n".to_owned(), tap("a", "eth1"), tap("b", "eth9"), tap("c", "eth9")].concat();
        assert_eq!(unseen(&Taps::parse(&file).unwrap(), &["eth1".to_owned()]), ["eth9"]);
    }

    #[test]
    fn what_listens_on_all_addresses_is_reached_at_each_of_the_host() {
        let local: [IpAddr; 2] = [[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()];
        let of = |address: &str| {
            let ends = endpoints_of(address.parse().unwrap(), &local);
            ends.iter().map(|end| SocketAddr::new(end.ip, end.port).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("127.0.0.1:7700"), ["127.0.0.1:7700"]);
        assert_eq!(of("0.0.0.0:7700"), ["10.0.0.1:7700"]);
        assert_eq!(of("[::]:7700"), ["10.0.0.1:7700", "[fd00::1]:7700"]);
    }
}

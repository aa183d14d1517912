//! Sequence numbers of process spans beside the streams in captures of every link between the processes.

use super::load::Requests;
use super::network::{Lab, NETWORKS, Network};
use super::recording::{SETTLE, spans_of};
use super::scenario::Load;
use super::service::{Place, Program, Running, Service, Workshop};
use super::streams;
use super::tracing::Tracing;
use super::truth::find_id;
use anyhow::{Context, bail};
use serde::Serialize;
use std::time::{Duration, Instant};
use wirespan_host::context::Rules;
use wirespan_records::{ObservationPoint, Span};

/// Exchanges of a run beside one capture.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// How client and server were joined.
    pub network: &'static str,
    /// Where was captured.
    pub tap: &'static str,
    /// Exchanges between the namespaces; those of either process count.
    pub exchanges: u64,
    /// Of them, those whose request and response begin where the capture's streams say.
    pub equal: u64,
}

impl Compared {
    /// The part that is equal.
    pub fn equal_rate(&self) -> f64 {
        if self.exchanges == 0 { 0.0 } else { self.equal as f64 / self.exchanges as f64 }
    }
}

/// Asked of the client's service: two files, sent by `sendfile`; two answers that are sent bit by bit under `TCP_CORK` and with
/// `MSG_MORE`; five values at once.
const PATHS: [(&str, u64); 3] = [("/seq.2.files/leaf", 2), ("/seq.2.corked/leaf", 2), ("/pipe.5.redis", 5)];
const CONCURRENCY: usize = 8;

/// The services of both sides: the server's, then the client's.
fn services() -> [Vec<Service>; 2] {
    [
        vec![
            Service::new("redis", Program::Redis),
            Service::new("files", Program::Python("files")),
            Service::new("corked", Program::Python("corked")),
        ],
        vec![Service::new("app", Program::Python("threads"))],
    ]
}

/// Tries every network.
pub fn compare(
    requests: usize,
    tracing: &Tracing,
    mut each: impl FnMut(&Compared) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Compared>> {
    let services = services();
    let workshop = Workshop::new(&services.iter().flatten().collect::<Vec<_>>())?;
    let mut all = Vec::new();
    for network in NETWORKS {
        // A thread of its own, which the namespaces end with.
        let compared = std::thread::scope(|scope| {
            let thread = scope.spawn(|| compare_in(network, requests, &services, &workshop, tracing));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        for compared in compared.with_context(|| network.name)? {
            each(&compared)?;
            all.push(compared);
        }
    }
    Ok(all)
}

fn compare_in(
    network: Network,
    requests: usize,
    [servers, clients]: &[Vec<Service>; 2],
    workshop: &Workshop,
    tracing: &Tracing,
) -> anyhow::Result<Vec<Compared>> {
    let directory = tempfile::Builder::new().prefix("wirespan-sequence").tempdir()?;
    let events = directory.path().join("events");
    let lab = Lab::new(network)?;
    let taps = lab.capture(directory.path())?;
    let tags: Vec<_> = (0..PATHS.len()).map(|path| format!("p{}s{path}", std::process::id())).collect();
    tracing.record(&events)?;
    lab.enter_server()?;
    let place = Place { listen: "0.0.0.0", called: lab.server_address(), known: &[] };
    let servers = Running::start(servers, workshop, &place)?;
    lab.enter_client()?;
    let place = Place { known: &servers.urls, ..Place::default() };
    let clients = Running::start(clients, workshop, &place)?;
    for ((path, _), tag) in PATHS.iter().zip(&tags) {
        let requests = Requests {
            path,
            load: Load::KeepAlive,
            tls: false,
            port: clients.entry,
            tag,
            count: requests,
            concurrency: CONCURRENCY,
            wire_ids: false,
            certificate: &workshop.certificate(),
        };
        requests.make().with_context(|| clients.said() + &servers.said())?;
    }
    std::thread::sleep(SETTLE);
    tracing.finish()?;

    let spans = spans_of(&events, Rules::BLIND)?;
    let id = |text: &str| tags.iter().find_map(|tag| find_id(text, tag)).map(str::to_owned);
    // Calls, not the requests that they were made for, which come over loopback.
    let calls: Vec<(String, &Span)> = spans
        .iter()
        .filter(|span| {
            matches!(
                span.observation_point,
                ObservationPoint::ClientProcess | ObservationPoint::ServerProcess
            )
        })
        .filter_map(|span| Some((id(span.request_resource.as_deref()?)?, span)))
        .filter(|(id, _)| id.contains('.'))
        .collect();
    let expected = 2 * requests as u64 * PATHS.iter().map(|(_, calls)| calls).sum::<u64>();
    let mut compared = Vec::new();
    for mut tap in taps {
        let name = tap.name;
        // tcpdump is behind while the machine is busy, and reads no more once it is told to stop.
        let end = Instant::now() + Duration::from_secs(20);
        let places = loop {
            let places = streams::exchanges(&tap.file, id)?;
            let shown = places.keys().filter(|id| id.contains('.')).count() as u64;
            if 2 * shown == expected {
                break places;
            }
            if Instant::now() > end {
                bail!("the capture at {name} shows {shown} exchanges, {} were made", expected / 2);
            }
            std::thread::sleep(SETTLE);
        };
        tap.stop()?;
        let equal = calls.iter().filter(|(id, span)| {
            let place = span.req_tcp_seq.zip(span.resp_tcp_seq);
            place.is_some() && places.get(id) == place.as_ref()
        });
        let equal = equal.count() as u64;
        compared.push(Compared { network: network.name, tap: name, exchanges: expected, equal });
    }
    Ok(compared)
}

use super::exporter::Rows;
use super::*;
use crossbeam_channel::{Receiver, bounded};
use std::net::IpAddr;
use std::sync::Mutex;
use wirespan_records::{
    CloseType, Endpoint, Flow, FlowMetrics, FlowTick, L4Protocol, L7Protocol, Merge, ObservationPoint,
    PerDirection, Records, ResponseStatus, Session, Signal, Span, TraceKey,
};
use wirespan_store::{NetMetrics, Stat};

fn endpoint(last: u8, port: u16) -> Endpoint {
    Endpoint { ip: IpAddr::from([10, 0, 0, last]), port }
}

fn span(n: u64) -> Span {
    Span {
        id: 0,
        signal: Signal::Packet,
        observation_point: ObservationPoint::Rest,
        flow_id: n,
        start_ns: n,
        end_ns: n,
        client: endpoint(1, 40_000),
        server: endpoint(2, 80),
        protocol: L4Protocol::Tcp,
        tunnel: None,
        tap: 0,
        l7_protocol: L7Protocol::Http,
        version: None,
        request_type: None,
        request_domain: None,
        request_resource: None,
        endpoint: None,
        request_id: None,
        response_status: ResponseStatus::Ok,
        response_code: None,
        response_exception: None,
        response_result: None,
        request_bytes: 0,
        response_bytes: 0,
        affected_rows: None,
        trace_id: None,
        span_id: None,
        x_request_id: None,
        req_tcp_seq: None,
        resp_tcp_seq: None,
        session: Session::Complete,
        truncated: false,
        attributes: Vec::new(),
        process: None,
        parent: None,
    }
}

fn flow(n: u64) -> Flow {
    Flow {
        flow_id: n,
        start_ns: n,
        end_ns: n,
        observation_point: ObservationPoint::Rest,
        client: endpoint(1, 40_000),
        server: endpoint(2, 80),
        protocol: L4Protocol::Tcp,
        tunnel: None,
        tap: 0,
        vlan: None,
        tcp_flags: PerDirection::default(),
        metrics: FlowMetrics::default(),
        close_type: CloseType::Finish,
        is_new: true,
        l7_protocol: None,
    }
}

fn tick(second: u32) -> FlowTick {
    FlowTick {
        second,
        observation_point: ObservationPoint::Rest,
        client: endpoint(1, 40_000),
        server: endpoint(2, 80),
        protocol: L4Protocol::Tcp,
        tunnel: None,
        tap: 0,
        metrics: FlowMetrics::default(),
        is_new: true,
        closed: None,
    }
}

fn spans(n: u64) -> Records {
    Records { spans: (0..n).map(span).collect(), ..Records::default() }
}

#[derive(Clone, Default)]
struct Fake {
    counts: Arc<Mutex<WriterCounters>>,
    spans: Arc<Mutex<usize>>,
    /// Each call with spans waits for a message, where there is a channel.
    gate: Option<Receiver<()>>,
}

impl Fake {
    fn count(&self, rows: usize) {
        let mut counts = self.counts.lock().unwrap();
        counts.rows_in += rows as u64;
        counts.rows_stored += rows as u64;
    }
}

impl Rows for Fake {
    fn spans(&self, rows: &[Span], traces: &[TraceKey]) -> usize {
        assert_eq!(rows.len(), traces.len());
        *self.spans.lock().unwrap() += rows.len();
        let traced = traces.iter().filter(|trace| trace.traced).count();
        self.count(rows.len() + traced);
        traced
    }
    fn merges(&self, rows: &[Merge]) {
        self.count(2 * rows.len());
    }
    fn flows(&self, rows: &[Flow]) {
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        self.count(rows.len());
    }
    fn net_metrics(&self, rows: &[NetMetrics]) {
        self.count(rows.len());
    }
    fn stats(&self, rows: &[Stat]) {
        self.count(rows.len());
    }
    fn counters(&self) -> WriterCounters {
        *self.counts.lock().unwrap()
    }
}

fn start(fake: &Fake, queue_records: usize, registry: &Registry) -> Running<Fake> {
    let options = IngestOptions { queue_records, ..IngestOptions::default() };
    Running::start(fake.clone(), &options, registry).unwrap()
}

fn stop(running: Running<Fake>) -> IngestReport {
    let shared = Arc::clone(&running.sink.shared);
    let counters = running.stop().unwrap().counters();
    report(&shared.counters, counters)
}

#[test]
fn everything_taken_in_is_stored_when_it_stops() {
    let (fake, registry) = (Fake::default(), Registry::default());
    let ingest = start(&fake, 100_000, &registry);
    std::thread::scope(|scope| {
        for worker in 0..4u32 {
            let sink = ingest.sink.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    let ticks = vec![tick(100), tick(100 + worker)];
                    assert!(sink.send(Records { flows: vec![flow(1)], ticks, ..spans(3) }));
                }
            });
        }
    });
    let late = ingest.sink.clone();
    let report = stop(ingest);
    assert!(report.closes(), "{report:?}");
    assert_eq!((report.spans.taken, report.flows.taken, report.ticks.taken), (600, 200, 400));
    assert_eq!((report.dropped(), *fake.spans.lock().unwrap()), (0, 600));
    assert!(report.rows_made >= 4, "{report:?}");

    assert!(!late.send(spans(2)));
    assert!(registry.render().contains("wirespan_ingest_dropped_total{kind=\"span\"} 2\n"));
}

#[test]
fn a_full_queue_drops_the_newest_batch_and_counts_it() {
    let (open, gate) = bounded(1000);
    let fake = Fake { gate: Some(gate), ..Fake::default() };
    let ingest = start(&fake, 10, &Registry::default());
    let taken: u64 = (0..20).filter(|_| ingest.sink.send(spans(5))).count() as u64 * 5;
    assert_eq!(taken, 10, "records count as waiting until they are handed on");
    for _ in 0..100 {
        open.send(()).unwrap();
    }
    let report = stop(ingest);
    assert!(report.closes(), "{report:?}");
    assert_eq!((report.spans.taken, report.spans.dropped), (100, 90));
    assert_eq!(*fake.spans.lock().unwrap(), 10);
}

#[test]
fn a_batch_larger_than_the_queue_is_taken_when_nothing_waits() {
    let fake = Fake::default();
    let ingest = start(&fake, 10, &Registry::default());
    assert!(ingest.sink.send(spans(25)));
    assert_eq!((stop(ingest).dropped(), *fake.spans.lock().unwrap()), (0, 25));
}

//! The store with the real engine, run as the child process it is in production.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A helper outside #[test] functions fails a test by panicking.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use wirespan_records::*;
use wirespan_store::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// An address where nobody listens at the moment.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn argv(data: &Path, address: &str) -> Vec<std::ffi::OsString> {
    // Test binaries are in target/<profile>/deps, examples beside it.
    let program = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join("serve");
    assert!(program.is_file(), "build it first: cargo build -p wirespan-store --example serve");
    vec![program.into(), data.into(), address.into(), "--supervised".into()]
}

struct Store {
    supervisor: Supervisor,
    client: Client,
    directory: TempDir,
}

async fn bare_store() -> Store {
    let directory = tempfile::tempdir().unwrap();
    let options = SupervisorOptions::new(argv(&directory.path().join("data"), "127.0.0.1:0"));
    let supervisor =
        Supervisor::start(options).await.expect("the store starts; without the engine run make setup");
    let client = Client::new(supervisor.url()).unwrap();
    Store { supervisor, client, directory }
}

async fn store() -> Store {
    let store = bare_store().await;
    migrate(&store.client, &Retention::default()).await.unwrap();
    store
}

async fn ask(client: &Client, sql: &str) -> String {
    let answer = client.query_text(sql, "TabSeparated").await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap().trim_end().to_owned()
}

fn span(i: u64) -> Span {
    let start_ns = 1_700_000_000_000_000_000 + i * 1_000_000;
    Span {
        id: 0,
        signal: Signal::Packet,
        observation_point: ObservationPoint::Rest,
        flow_id: i,
        start_ns,
        end_ns: start_ns + (100 + i * i % 900_000) * 1000,
        client: Endpoint { ip: Ipv4Addr::new(10, 0, 0, (i % 3) as u8).into(), port: 40_000 },
        server: Endpoint { ip: "2001:db8::1".parse::<IpAddr>().unwrap(), port: 80 },
        protocol: L4Protocol::Tcp,
        tunnel: i.is_multiple_of(2).then(|| Tunnel {
            kind: TunnelKind::Vxlan,
            id: 42,
            outer_src: Ipv4Addr::LOCALHOST.into(),
            outer_dst: Ipv4Addr::LOCALHOST.into(),
        }),
        tap: 3,
        l7_protocol: L7Protocol::Http,
        version: Some("1.1".into()),
        request_type: Some("GET".into()),
        request_domain: Some(format!("host{}", i % 7).into()),
        request_resource: Some(format!("/a;\n{i}").into()),
        endpoint: Some("/a".into()),
        request_id: None,
        response_status: if i.is_multiple_of(10) { ResponseStatus::ServerError } else { ResponseStatus::Ok },
        response_code: Some(200),
        response_exception: None,
        response_result: None,
        request_bytes: i,
        response_bytes: 2 * i,
        affected_rows: None,
        trace_id: Some(format!("{i:032x}").into()),
        span_id: None,
        x_request_id: None,
        req_tcp_seq: Some(i as u32),
        resp_tcp_seq: None,
        session: Session::Complete,
        truncated: false,
        attributes: if i.is_multiple_of(2) { vec![("user_agent", "curl;\n".into())] } else { Vec::new() },
        process: None,
        parent: None,
    }
}

fn flow(i: u64) -> Flow {
    Flow {
        flow_id: i,
        start_ns: 1_700_000_000_000_000_000,
        end_ns: 1_700_000_001_500_000_000,
        observation_point: ObservationPoint::Client,
        client: Endpoint { ip: Ipv4Addr::new(10, 0, 0, 1).into(), port: 40_000 },
        server: Endpoint { ip: Ipv4Addr::new(10, 0, 0, 2).into(), port: 443 },
        protocol: L4Protocol::Udp,
        tunnel: None,
        tap: 4,
        vlan: Some(7),
        tcp_flags: PerDirection { tx: 2, rx: 18 },
        metrics: FlowMetrics { packets: PerDirection { tx: 3, rx: 4 }, ..FlowMetrics::default() },
        close_type: CloseType::Evicted,
        is_new: true,
        l7_protocol: None,
    }
}

#[tokio::test]
async fn migrations_run_once_and_a_newer_schema_is_refused() {
    let store = store().await;
    let tables = ask(&store.client, "SELECT count() FROM system.tables WHERE database = 'wirespan'").await;
    // The last migration again, as after one that ended just before its end.
    forget_migrations(&store.client, 11).await;
    let retention = Retention { logs_days: 9, ..Retention::default() };
    assert_eq!(migrate(&store.client, &retention).await.unwrap(), 11);
    assert_eq!(
        ask(&store.client, "SELECT count() FROM system.tables WHERE database = 'wirespan'").await,
        tables
    );
    assert_eq!(ask(&store.client, "SELECT count() FROM schema_migrations").await, "11");
    let engine = ask(&store.client, "SELECT engine_full FROM system.tables WHERE name = 'l7_log'").await;
    for part in ["toIntervalDay(9)", "auto_statistics_types", "merge_selector_base = 10"] {
        assert!(engine.contains(part), "{engine} has no {part}");
    }
    store
        .client
        .execute("INSERT INTO schema_migrations (version, name) VALUES (99, 'future')")
        .await
        .unwrap();
    let error = migrate(&store.client, &retention).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 11 }), "{error}");
    store.supervisor.stop().await;
}

#[tokio::test]
async fn every_field_arrives() {
    let store = store().await;
    let writer =
        Writer::start(store.client.clone(), WriterOptions { agent_id: 5, ..WriterOptions::default() });
    writer.spans(&(0..1000).map(span).collect::<Vec<_>>(), &[]);
    writer.flows(&[flow(1), flow(2)]);
    let tick = FlowTick {
        second: 1_700_000_000,
        observation_point: ObservationPoint::Client,
        client: flow(1).client,
        server: flow(1).server,
        protocol: L4Protocol::Tcp,
        tunnel: None,
        tap: 5,
        metrics: FlowMetrics { syn_count: 1, ..flow(1).metrics },
        is_new: true,
        closed: Some(CloseType::ServerRefused),
    };
    let mut net = NetMetrics::of(&tick);
    net.add(&tick);
    writer.net_metrics(&[net]);
    writer.stats(&[Stat {
        time_ms: 1,
        name: "drops".into(),
        labels: vec![("reason", "arp".into())],
        value: 3.0,
    }]);
    let counters = writer.close(PATIENCE).await;
    assert_eq!((counters.rows_in, counters.rows_stored), (1004, 1004));

    let c = &store.client;
    assert_eq!(
        ask(c, "SELECT client, server, server_port, protocol, tunnel_type, tunnel_id, l7_protocol, request_domain, endpoint, \
            request_resource, response_status, response_code, request_id, trace_id, attributes, agent_id, duration_us, \
            toUnixTimestamp64Nano(start_time) FROM l7_log WHERE flow_id = 10").await,
        "10.0.0.1\t2001:db8::1\t80\ttcp\tvxlan\t42\tHTTP\thost3\t/a\t/a;\\n10\tserver_error\t200\t\\N\t\
            0000000000000000000000000000000a\t{'user_agent':'curl;\\n'}\t5\t200\t1700000000010000000"
    );
    assert_eq!(
        ask(c, "SELECT count(), uniq(id), countIf(client_ip = '10.0.0.1') FROM l7_log").await,
        "1000\t1000\t333"
    );
    assert_eq!(
        ask(c, "SELECT count(), any(close_type), any(vlan), any(rtt_us), sum(packet_rx), any(duration_us), any(protocol) FROM flow_log").await,
        "2\tevicted\t7\t\\N\t8\t1500000\tudp"
    );
    assert_eq!(
        ask(c, "SELECT sum(syn_count), sum(packet_tx), sum(new_flow), sum(closed_flow), sum(server_establish_fail) FROM net_metrics_1m").await,
        "2\t6\t2\t2\t2"
    );
    assert_eq!(
        ask(c, "SELECT any(tap_id), (SELECT any(tap_id) FROM app_metrics_1s), (SELECT any(tap_id) FROM app_metrics_1m), \
            (SELECT any(tap_id) FROM path_metrics_1s), (SELECT any(tap_id) FROM path_metrics_1m), (SELECT any(tap_id) FROM flow_log), \
            (SELECT any(tap_id) FROM net_metrics_1s), (SELECT any(tap_id) FROM net_metrics_1m) FROM l7_log").await,
        "3\t3\t3\t3\t3\t4\t5\t5"
    );
    assert_eq!(ask(c, "SELECT name, labels, value FROM agent_stats").await, "drops\t{'reason':'arp'}\t3");
    store.supervisor.stop().await;
}

#[tokio::test]
async fn rows_of_a_trace_are_once_more_by_trace() {
    let store = store().await;
    let writer = Writer::start(store.client.clone(), WriterOptions::default());
    let process = Process {
        pid: 7,
        start_ns: 5_000_000_000,
        name: "nginx".into(),
        executable: "/usr/sbin/nginx".into(),
        command: "nginx: worker process".into(),
        container_id: Some("c0ffee".into()),
        pod_uid: None,
    };
    let in_process = Span {
        id: 77,
        signal: Signal::Syscall,
        observation_point: ObservationPoint::ClientProcess,
        process: Some(process.into()),
        parent: Some(Parent { span: 76, rule: Rule::Turn, confidence: 0.75 }),
        ..span(1)
    };
    let wire = (1 << 63) | 5;
    let keys = [TraceKey { key: wire, traced: true }, TraceKey { key: wire, traced: true }];
    let unanswered = Span { response_status: ResponseStatus::Timeout, request_id: Some(9), ..span(2) };
    assert_eq!(writer.spans(&[in_process, unanswered, span(3)], &keys), 2);
    writer.merges(&[Merge { from: 3, to: wire }]);
    assert_eq!(writer.close(PATIENCE).await.rows_stored, 3 + 2 + 2);
    let c = &store.client;
    let columns = "pid, toUnixTimestamp(process_start), process_name, executable, command, container_id, pod_uid, parent_id, \
                   parent_rule, parent_confidence, trace_key, traced";
    let expected = format!(
        "7\t5\tnginx\t/usr/sbin/nginx\tnginx: worker process\tc0ffee\t\t76\tturn\t0.75\t{wire}\ttrue"
    );
    assert_eq!(ask(c, &format!("SELECT {columns} FROM l7_log WHERE id = 77")).await, expected);
    // What trace_log has is what l7_log has; each row begins with its id.
    let columns = "ingested, trace_key, start_time, end_time, server_ip, server_port, tap_id, trace_id";
    let of_spans = format!(
        "SELECT id, toBool(response_status NOT IN ('ok', 'unknown')), {columns} FROM l7_log WHERE traced ORDER BY id"
    );
    let of_spans = ask(c, &of_spans).await;
    let of_traces = format!(
        "SELECT reinterpretAsUInt64(substring(row, 1, 8)) AS id, is_error, {columns} FROM trace_log ORDER BY id"
    );
    assert_eq!(ask(c, &of_traces).await, of_spans);
    assert_eq!(of_spans.lines().count(), 2);
    // A store of an earlier version gets the same from its spans.
    let row = "SELECT hex(row) FROM trace_log ORDER BY row";
    let before = ask(c, row).await;
    forget_migrations(c, 7).await;
    migrate(c, &Retention::default()).await.unwrap();
    assert_eq!((ask(c, &of_traces).await, ask(c, row).await), (of_spans, before));
    assert_eq!(
        ask(c, "SELECT flow_id, pid, parent_id, trace_key, traced FROM l7_log WHERE NOT traced").await,
        "3\t0\t0\t0\tfalse"
    );
    assert_eq!(
        ask(c, "SELECT trace_key, other FROM trace_merges ORDER BY trace_key").await,
        format!("3\t{wire}\n{wire}\t3")
    );
    assert_eq!(
        ask(c, "SELECT sorting_key, engine FROM system.tables WHERE name = 'trace_log'").await,
        "trace_key, start_time\tMergeTree"
    );
    assert_eq!(
        ask(c, "SELECT count() FROM system.data_skipping_indices WHERE table = 'trace_log'").await,
        "0"
    );
    store.supervisor.stop().await;
}

/// Takes the store for one with an older schema.
async fn forget_migrations(c: &Client, from: u32) {
    let sql =
        format!("ALTER TABLE schema_migrations DELETE WHERE version >= {from} SETTINGS mutations_sync = 2");
    c.execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_span_alone_in_a_named_trace_is_there_by_its_id() {
    let store = store().await;
    let writer = Writer::start(store.client.clone(), WriterOptions::default());
    let wire = (1 << 63) | 5;
    let spans = [Span { id: 7, ..span(1) }, Span { id: 8, ..span(2) }];
    let keys = [TraceKey { key: wire, traced: false }, TraceKey { key: 8, traced: false }];
    assert_eq!(writer.spans(&spans, &keys), 1);
    writer.close(PATIENCE).await;
    assert_eq!(
        ask(&store.client, "SELECT id, trace_key, traced FROM l7_log ORDER BY id").await,
        format!("7\t{wire}\tfalse\n8\t0\tfalse")
    );
    assert_eq!(
        ask(
            &store.client,
            "SELECT trace_key, start_time, reinterpretAsUInt64(row), length(row) FROM trace_log"
        )
        .await,
        format!("{wire}\t2023-11-14 22:13:20.001000000\t7\t8")
    );
    store.supervisor.stop().await;
}

/// In a store of version 7, a view made the rows of traces.
#[tokio::test]
async fn a_store_whose_view_made_rows_of_traces_keeps_them_and_gets_each_once() {
    let store = store().await;
    let c = &store.client;
    forget_migrations(c, 8).await;
    let version_7 = include_str!("../schema/0007_trace_rows.sql");
    for statement in version_7.split(";\n").map(str::trim).filter(|s| !s.is_empty()) {
        c.execute(statement).await.unwrap();
    }
    let today = ask(c, "SELECT today()").await;
    c.execute(&format!(
        "INSERT INTO l7_log (ingested, id, start_time, trace_id, trace_key, traced) FORMAT TSV\n\
         {today}\t1\t1700000000\tabc\t5\ttrue\n{today}\t2\t1700000000\t\t0\tfalse\n"
    ))
    .await
    .unwrap();
    let rows = "SELECT trace_key, trace_id, hex(row) FROM trace_log ORDER BY row";
    let before = ask(c, rows).await;
    assert_eq!(before.lines().count(), 1);
    for _ in 0..2 {
        migrate(c, &Retention::default()).await.unwrap();
        assert_eq!(ask(c, rows).await, before);
    }
    let writer = Writer::start(c.clone(), WriterOptions::default());
    writer.spans(&[span(1), span(2)], &[TraceKey { key: 5, traced: true }; 2]);
    writer.close(PATIENCE).await;
    assert_eq!(ask(c, "SELECT count(), uniq(row) FROM trace_log WHERE trace_key = 5").await, "3\t3");
    store.supervisor.stop().await;
}

/// Every number of the Enum8 columns stands for the name that the records use.
#[tokio::test]
async fn enum_numbers_match_the_records() {
    let store = store().await;
    let writer = Writer::start(store.client.clone(), WriterOptions::default());
    let closes = [
        CloseType::Unknown,
        CloseType::Finish,
        CloseType::ServerReset,
        CloseType::ClientReset,
        CloseType::Timeout,
        CloseType::ForcedReport,
        CloseType::ServerSynMissing,
        CloseType::ServerHalfClose,
        CloseType::ClientHalfClose,
        CloseType::ClientAckMissing,
        CloseType::ClientPortReuse,
        CloseType::ServerRefused,
        CloseType::ServerQueueOverflow,
        CloseType::ClientHandshakeReset,
        CloseType::ServerHandshakeReset,
        CloseType::ClientResetRegular,
        CloseType::Evicted,
    ];
    let flows: Vec<_> = (0..).zip(closes).map(|(i, close_type)| Flow { close_type, ..flow(i) }).collect();
    writer.flows(&flows);
    assert_eq!(writer.close(PATIENCE).await.rows_stored, 17);
    let names: Vec<_> = closes.iter().map(|c| c.as_str()).collect();
    let stored = ask(&store.client, "SELECT close_type FROM flow_log ORDER BY flow_id").await;
    assert_eq!(stored.lines().collect::<Vec<_>>(), names);
    store.supervisor.stop().await;
}

#[tokio::test]
async fn a_batch_sent_twice_is_stored_once_also_in_the_views() {
    let store = store().await;
    let c = &store.client;
    let today = ask(c, "SELECT today()").await;
    let rows = format!(
        "INSERT INTO l7_log (ingested, start_time, l7_protocol, server_port, session) SETTINGS async_insert = 0, \
         insert_deduplication_token = 'T' FORMAT TSV\n{today}\t1700000000\tHTTP\t80\tcomplete\n"
    );
    c.execute(&rows).await.unwrap();
    c.execute(&rows).await.unwrap();
    c.execute(&rows.replace("'T'", "'U'")).await.unwrap();
    assert_eq!(ask(c, "SELECT count() FROM l7_log").await, "2");
    assert_eq!(ask(c, "SELECT sum(request) FROM app_metrics_1s").await, "2");
    assert_eq!(ask(c, "SELECT sum(request) FROM app_metrics_1m").await, "2");
    assert_eq!(ask(c, "SELECT sum(request) FROM path_metrics_1s").await, "2");
    assert_eq!(ask(c, "SELECT sum(request) FROM path_metrics_1m").await, "2");
    store.supervisor.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_engine_is_killed() {
    let store = store().await;
    let options = WriterOptions { batch_rows: 500, queue_bytes: 1 << 30, ..WriterOptions::default() };
    let writer = Writer::start(store.client.clone(), options);
    for round in 0..20u64 {
        writer.spans(&(round * 1000..(round + 1) * 1000).map(span).collect::<Vec<_>>(), &[]);
        if round % 8 == 4 {
            // 0 while the child is being started again, which `kill` would take for this test's own group.
            while store.supervisor.pid() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let pid = store.supervisor.pid().to_string();
            std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let counters = writer.close(PATIENCE).await;
    assert_eq!((counters.rows_in, counters.rows_stored), (20_000, 20_000), "{counters:?}");
    assert!(store.supervisor.restarts() >= 1);
    assert_eq!(ask(&store.client, "SELECT count(), uniqExact(flow_id) FROM l7_log").await, "20000\t20000");
    assert_eq!(ask(&store.client, "SELECT sum(request) FROM app_metrics_1m").await, "20000");
    store.supervisor.stop().await;
}

#[tokio::test]
async fn quantiles_of_a_minute_agree_with_the_raw_rows() {
    let store = store().await;
    let writer =
        Writer::start(store.client.clone(), WriterOptions { batch_rows: 700, ..WriterOptions::default() });
    writer.spans(&(0..5000).map(span).collect::<Vec<_>>(), &[]);
    assert_eq!(writer.close(PATIENCE).await.rows_stored, 5000);
    let numbers = |text: String| -> Vec<f64> {
        text.trim_matches(['[', ']']).split(',').map(|n| n.parse().unwrap()).collect()
    };
    let exact =
        numbers(ask(&store.client, "SELECT quantilesExact(0.5, 0.95, 0.99)(duration_us) FROM l7_log").await);
    for table in ["app_metrics_1s", "app_metrics_1m", "path_metrics_1s", "path_metrics_1m"] {
        let sql = format!("SELECT quantilesBFloat16Merge(0.5, 0.95, 0.99)(rrt_us_quantiles) FROM {table}");
        for (sketch, exact) in numbers(ask(&store.client, &sql).await).into_iter().zip(&exact) {
            assert!((sketch - exact).abs() <= exact / 128.0 + 1.0, "{table}: {sketch} is not {exact}");
        }
    }
    store.supervisor.stop().await;
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_counts_them() {
    let nobody = Client::new(&format!("http://{}", free_address())).unwrap();
    let options = WriterOptions { batch_rows: 100, queue_bytes: 100_000, ..WriterOptions::default() };
    let writer = Writer::start(nobody, options);
    writer.spans(&(0..5000).map(span).collect::<Vec<_>>(), &[]);
    assert!(!writer.flush(Duration::from_millis(200)).await);
    let c = writer.counters();
    assert!(c.rows_dropped_full > 0 && c.rows_waiting > 0, "{c:?}");
    assert_eq!(c.rows_in, c.rows_stored + c.rows_dropped_full + c.rows_dropped_refused + c.rows_waiting);
    writer.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_second_instance_says_what_to_do() {
    let store = bare_store().await;
    let argv = argv(&store.directory.path().join("data"), &free_address());
    let output = std::process::Command::new(&argv[0]).args(&argv[1..]).output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("in use by another wirespan") && message.contains("--data"), "{message}");
    store.supervisor.stop().await;
}

/// The engine's `default` database takes any name for that of a file; the kernel keeps the store away from it.
#[tokio::test]
async fn files_of_the_machine_are_no_tables() {
    let store = bare_store().await;
    let c = store.client.clone().with_setting("database", "default");
    let secret = store.directory.path().join("secret.csv");
    std::fs::write(&secret, "k3y\n").unwrap();
    std::os::unix::fs::symlink(&secret, store.directory.path().join("data/link.csv")).unwrap();
    let outside = [
        secret.to_str().unwrap(),
        "/etc/passwd",
        "/proc/self/environ",
        "/etc/*",
        "../secret.csv",
        "link.csv",
        store.directory.path().join("data/link.csv").to_str().unwrap(),
    ]
    .map(str::to_owned);
    for name in &outside {
        for sql in ["SELECT * FROM default.`{}` FORMAT LineAsString", "SELECT * FROM `{}`", "DESCRIBE `{}`"] {
            let answer = c.query_text(&sql.replace("{}", name), "TabSeparated").await;
            assert!(answer.is_err(), "{name}: {answer:?}; this kernel needs Landlock (Linux 5.19 or newer)");
        }
    }
    let new = store.directory.path().join("new.csv");
    assert!(c.execute(&format!("INSERT INTO `{}` SELECT 1", new.display())).await.is_err());
    assert!(!new.exists());
    store.supervisor.stop().await;
}

#[tokio::test]
async fn params_settings_formats_and_errors() {
    let store = bare_store().await;
    let c = store.client.clone().with_setting("database", "default");
    let tricky = "it's\ta \\ line\nbreak";
    let table =
        c.query_json("SELECT {x:String} AS x, {n:UInt64} AS n", &[("x", tricky), ("n", "7")]).await.unwrap();
    assert_eq!(table.rows, [[serde_json::json!(tricky), serde_json::json!(7)]]);
    assert_eq!(table.columns[1].type_name, "UInt64");
    assert_eq!(
        ask(&c.clone().with_setting("max_threads", "1"), "SELECT getSetting('max_threads')").await,
        "1"
    );
    assert_ne!(ask(&c, "SELECT getSetting('max_threads')").await, "");
    let nice = "SELECT value FROM system.server_settings WHERE name = 'os_threads_nice_value_merge_mutate'";
    assert_eq!(ask(&c, nice).await, "10");
    for (sql, code, status) in [
        ("SELECT * FROM nowhere", 60, 404),
        ("SELECT 1 +", 62, 400),
        ("SELECT {missing:UInt8}", 456, 400),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')", 497, 403),
        ("SELECT throwIf(1)", 395, 500),
    ] {
        let error = c.query_json(sql, &[]).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Query { code: c, status: s, .. } if (c, s) == (code, status)),
            "{sql}: {error}"
        );
        assert!(error.to_string().starts_with(&format!("Code: {code}. DB::Exception")), "{error}");
    }
    let read_only = c.clone().with_setting("readonly", "2");
    assert!(read_only.execute("CREATE TABLE t (x Int8) ENGINE = Memory").await.is_err());
    store.supervisor.stop().await;
}

#[derive(Row, Serialize, Deserialize, Debug, PartialEq)]
struct Item {
    id: u64,
    name: String,
    tags: Vec<String>,
}

/// The official client, with its default LZ4 both ways.
#[tokio::test]
async fn the_clickhouse_crate_inserts_and_queries() {
    let store = bare_store().await;
    let client = clickhouse::Client::default().with_url(store.supervisor.url());
    client
        .query(
            "CREATE TABLE item (id UInt64, name String, tags Array(String)) ENGINE = MergeTree ORDER BY id",
        )
        .execute()
        .await
        .unwrap();
    let items: Vec<_> = (0..50_000)
        .map(|id| Item { id, name: format!("n;\n{id}"), tags: vec!["a".into(), "b".into()] })
        .collect();
    let mut insert = client.insert::<Item>("item").await.unwrap();
    for item in &items {
        insert.write(item).await.unwrap();
    }
    insert.end().await.unwrap();
    let back = client.query("SELECT ?fields FROM item ORDER BY id").fetch_all::<Item>().await.unwrap();
    assert!(back == items);
    let one = client
        .query("SELECT name FROM item WHERE id = {id:UInt64}")
        .param("id", 7)
        .fetch_one::<String>()
        .await
        .unwrap();
    assert_eq!(one, "n;\n7");
    let error = client.query("SELECT * FROM nowhere").execute().await.unwrap_err().to_string();
    assert!(error.contains("Code: 60"), "{error}");
    store.supervisor.stop().await;
}

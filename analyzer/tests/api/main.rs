//! The API over a real store: known records in, exact answers out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "../common/mod.rs"]
mod common;
mod traces;

use common::server::Site;
use common::{Exchange, endpoint};
use serde_json::{Value, json};
use wirespan_records::{L7Protocol, ObservationPoint, Process, ResponseStatus, Session, Span};

/// Where the known records begin, seconds since the epoch; a full minute.
const BASE_S: u64 = 1_700_000_040;

#[test]
#[ignore = "this program again, as the store of the other tests"]
fn store_process() {
    common::server::store_process();
}

/// 100 HTTP requests in 10 s that take 1, 2, ... 100 ms.
fn http(i: u64) -> Span {
    let (status, code) = match i {
        _ if i % 10 == 3 => (ResponseStatus::ServerError, 500),
        _ if i % 50 == 4 => (ResponseStatus::ClientError, 404),
        _ => (ResponseStatus::Ok, 200),
    };
    Exchange {
        l7_protocol: L7Protocol::Http,
        client: endpoint(1, 40_000 + i as u16),
        server: endpoint(2, 80),
        start_ns: BASE_S * 1_000_000_000 + i * 100_000_000,
        duration_us: (i + 1) * 1000,
        status,
        code: Some(code),
        request: ("GET", format!("/items/{i}?q=1")),
    }
    .span()
}

/// 40 Redis commands in the same 10 s, 4 of them without an answer.
fn redis(i: u64) -> Span {
    let status = if i.is_multiple_of(10) { ResponseStatus::Timeout } else { ResponseStatus::Ok };
    Exchange {
        l7_protocol: L7Protocol::Redis,
        client: endpoint(2, 50_000),
        server: endpoint(3, 6379),
        start_ns: BASE_S * 1_000_000_000 + i * 250_000_000,
        duration_us: 100,
        status,
        code: None,
        request: ("SET", "SET key ?".into()),
    }
    .span()
}

/// All of them, half of the HTTP requests seen a second time at the server, one in a trace.
fn records() -> Vec<Span> {
    let mut spans: Vec<_> = (0..100).map(http).collect();
    spans.extend((0..50).map(|i| Span { observation_point: ObservationPoint::Server, ..http(i) }));
    spans.extend((0..40).map(redis));
    for i in [7, 160] {
        spans[i].trace_id = Some("4bf92f3577b34da6a3ce929d0e0e4736".into());
    }
    spans
}

async fn site() -> Option<Site> {
    let site = Site::start().await?;
    let report = site.ingest(records()).await;
    assert_eq!((report.spans.taken, report.flows.taken, report.ticks.taken), (190, 190, 190));
    Some(site)
}

fn range() -> String {
    format!("from={BASE_S}&to={}", BASE_S + 10)
}

/// Equal but for the error of the quantile sketch, below 1/128.
fn about(value: &Value, expected: f64) -> bool {
    (value.as_f64().unwrap() - expected).abs() <= expected / 128.0
}

#[tokio::test(flavor = "multi_thread")]
async fn services_have_rate_errors_and_durations() {
    let Some(site) = site().await else { return };
    // By second, and by minute: the sketches merge to the same.
    for range in [range(), format!("from={}&to={}", BASE_S - 20 * 3600, BASE_S + 10)] {
        let answer = site.get(&format!("/api/services?{range}")).await;
        let [http, redis] = answer["services"].as_array().unwrap().as_slice() else { panic!("{answer}") };
        assert_eq!((&http["server_ip"], &http["name"]), (&json!("10.0.0.2"), &json!("web")));
        assert_eq!((&http["server_port"], &http["port_name"]), (&json!(80), &json!("http")));
        assert_eq!((&http["l7_protocol"], &http["protocol"]), (&json!("HTTP"), &json!("tcp")));
        assert_eq!(http["requests"], 100, "each request counts once, wherever it was seen");
        assert_eq!(http["rate"], 10.0);
        assert_eq!(
            (&http["server_errors"], &http["client_errors"], &http["timeouts"]),
            (&json!(10), &json!(2), &json!(0))
        );
        assert_eq!(http["error_ratio"], 0.12);
        assert!(about(&http["p50_us"], 50_000.0) && about(&http["p95_us"], 95_000.0), "{http}");
        assert!(about(&http["p99_us"], 99_000.0), "{http}");
        assert_eq!(http["max_us"], 100_000);
        assert_eq!(
            (&redis["name"], &redis["requests"], &redis["timeouts"]),
            (&json!("cache"), &json!(40), &json!(4))
        );
        let sum =
            |series: &Value| series.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum(&http["requests_series"]), sum(&http["errors_series"])), (100, 12));
    }
    let answer = site.get(&format!("/api/services?{}", range())).await;
    assert_eq!(answer["step_s"], 1);
    assert_eq!(answer["services"][0]["requests_series"], json!([10, 10, 10, 10, 10, 10, 10, 10, 10, 10]));

    let empty = site.get("/api/services?last=1h").await;
    assert_eq!((&empty["services"], &empty["newest_s"]), (&json!([]), &json!(BASE_S + 9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_answers_is_listed() {
    let Some(site) = Site::start().await else { return };
    site.ingest(vec![redis(0)]).await;
    for (what, list) in [("services", "services"), ("map", "edges")] {
        let answer = site.get(&format!("/api/{what}?{}", range())).await;
        let silent = &answer[list][0];
        assert_eq!(
            (&silent["requests"], &silent["timeouts"], &silent["p99_us"]),
            (&json!(1), &json!(1), &json!(0))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_has_requests_and_traffic() {
    let Some(site) = site().await else { return };
    let map = site.get(&format!("/api/map?{}", range())).await;
    let nodes: Vec<_> =
        map["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["browser", "web", "cache"]);
    let [http, redis] = map["edges"].as_array().unwrap().as_slice() else { panic!("{map}") };
    assert_eq!((&http["client_name"], &http["server_name"]), (&json!("browser"), &json!("web")));
    assert_eq!(
        (&http["l7_protocols"], &http["requests"], &http["errors"]),
        (&json!(["HTTP"]), &json!(100), &json!(12))
    );
    assert_eq!((&http["byte_tx"], &http["byte_rx"]), (&json!(50_000), &json!(150_000)));
    assert_eq!(
        (&http["retrans"], &http["new_flows"], &http["rtt_us"]),
        (&json!(100), &json!(100), &json!(250))
    );
    assert_eq!((&redis["requests"], &redis["byte_tx"]), (&json!(40), &json!(20_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_listed_latest_first_and_filtered() {
    let Some(site) = site().await else { return };
    let count = async |filter: &str| {
        let answer = site.get(&format!("/api/spans?{}&limit=1000{filter}", range())).await;
        answer["spans"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 190);
    assert_eq!(count("&l7_protocol=redis").await, 40);
    assert_eq!(count("&status=timeout").await, 4);
    assert_eq!(count("&status=error&l7_protocol=HTTP").await, 12 + 6);
    assert_eq!(count("&service=cache").await, 40);
    assert_eq!(count("&service=web:80").await, 150);
    assert_eq!(count("&service=web:81").await, 0);
    assert_eq!(count("&service=10.0.0.3:6379&status=ok").await, 36);
    assert_eq!(count("&min_duration_us=99000").await, 2);
    assert_eq!(count("&text=ITEMS%2F99").await, 1);
    assert_eq!(count("&text=%27%20OR%20%271%27=%271").await, 0);
    assert_eq!(count("&trace_id=4bf92f3577b34da6a3ce929d0e0e4736").await, 2);

    let slowest = &site.get(&format!("/api/spans?{}&min_duration_us=100000", range())).await["spans"][0];
    assert_eq!(
        (&slowest["start_ns"], &slowest["duration_us"]),
        (&json!(BASE_S * 1_000_000_000 + 9_900_000_000), &json!(100_000))
    );
    assert_eq!(
        (&slowest["request_type"], &slowest["request_resource"]),
        (&json!("GET"), &json!("/items/99?q=1"))
    );
    assert_eq!((&slowest["client_name"], &slowest["server_name"]), (&json!("browser"), &json!("web")));
    assert_eq!((&slowest["tunnel"], &slowest["response_exception"]), (&Value::Null, &Value::Null));
    assert_eq!((&slowest["tap_id"], &slowest["tap"]), (&Value::Null, &Value::Null));
    assert_eq!(slowest["attributes"], json!({"user_agent": "curl/8"}));

    // Pages: every row once, in order.
    let (mut starts, mut ids, mut cursor) = (Vec::new(), std::collections::HashSet::new(), String::new());
    loop {
        let page = site.get(&format!("/api/spans?{}&limit=37{cursor}", range())).await;
        for span in page["spans"].as_array().unwrap() {
            starts.push(span["start_ns"].as_u64().unwrap());
            assert!(ids.insert(span["id"].as_str().unwrap().to_owned()));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(starts.len(), 190);
    assert!(starts.is_sorted_by(|a, b| a >= b));
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_flows_and_sql_are_answered() {
    let Some(site) = site().await else { return };
    let trace = site.get("/api/traces/4bf92f3577b34da6a3ce929d0e0e4736").await;
    let spans = trace["spans"].as_array().unwrap();
    assert_eq!(
        spans.iter().map(|s| s["l7_protocol"].as_str().unwrap()).collect::<Vec<_>>(),
        ["HTTP", "HTTP", "Redis"],
        "the exchange was seen twice"
    );
    assert_eq!((&spans[1]["parent_id"], &spans[1]["parent_rule"]), (&spans[0]["id"], &json!("path")));
    assert_eq!((&spans[1]["observation_point"], &spans[1]["depth"]), (&json!("s"), &json!(1)));
    assert_eq!((&trace["truncated"], trace["paths"].as_array().unwrap().len()), (&Value::Null, 2));
    for id in [&spans[1]["id"], &spans[2]["id"]] {
        assert_eq!(site.get(&format!("/api/traces?span={}", id.as_str().unwrap())).await, trace);
    }
    let by_key = site.get(&format!("/api/traces/{}", trace["trace_key"].as_str().unwrap())).await;
    assert_eq!(by_key, trace);
    assert_eq!(site.get("/api/traces/4BF92F3577B34DA6A3CE929D0E0E4736").await, trace);

    let flows = site.get(&format!("/api/flows?{}&service=cache&limit=1000", range())).await;
    let flows = flows["flows"].as_array().unwrap();
    assert_eq!(flows.len(), 40);
    assert_eq!(
        (&flows[0]["byte_rx"], &flows[0]["rtt_us"], &flows[0]["vlan"]),
        (&json!(1500), &json!(250), &json!(7))
    );
    assert_eq!((&flows[0]["close_type"], &flows[0]["l7_protocol"]), (&json!("finish"), &json!("Redis")));

    let sql =
        json!({"sql": "SELECT l7_protocol, count() AS n FROM l7_log GROUP BY 1 ORDER BY n DESC"}).to_string();
    let (status, body) = site.request("POST", "/api/sql", "", &sql).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["columns"][1]), (200, &json!({"name": "n", "type": "UInt64"})));
    assert_eq!(answer["rows"].as_array().unwrap().len(), 2);
    assert_eq!(answer["rows"][0][0], "HTTP");

    let mut names = wirespan_controller::Names::default();
    names.add_text(common::HOSTS);
    for _ in 0..2 {
        wirespan_analyzer::push_names(&site.client, &names).await.unwrap();
    }
    let sql = json!({"sql": "SELECT DISTINCT dictGet('wirespan.names', 'name', server_ip) AS name FROM l7_log ORDER BY name"});
    let (_, body) = site.request("POST", "/api/sql", "", &sql.to_string()).await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["rows"], json!([["cache"], ["web"]]));
}

/// A hop path that two taps see, the second only in part.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_taps_see_is_shown_twice_and_counted_once() {
    let Some(site) = Site::start().await else { return };
    let file = "taps:\n- {name: core, kind: physical-port, device: core-1, match: {interface: eth1}}\n\
                - {name: edge, id: 9, kind: nic, match: {interface: eth2}}\n\
                - {name: idle, kind: nic, match: {interface: eth3}}\n";
    let taps = wirespan_dataplane::Taps::parse(file).unwrap().taps;
    for _ in 0..2 {
        wirespan_analyzer::push_taps(&site.client, &taps).await.unwrap();
    }
    let at = |tap, n| (0..n).map(move |i| Span { tap, ..http(i) });
    site.ingest(at(1, 100).chain(at(9, 60)).chain(at(77, 1)).collect()).await;

    let services = site.get(&format!("/api/services?{}", range())).await;
    assert_eq!(services["services"][0]["requests"], 100, "the tap that saw most of the path");
    let map = site.get(&format!("/api/map?{}", range())).await;
    assert_eq!((&map["edges"][0]["requests"], &map["edges"][0]["new_flows"]), (&json!(100), &json!(100)));

    for (what, filter, rows, tap) in [
        ("spans", "", 161, None),
        ("spans", "&tap=core", 100, Some(json!([1, "core"]))),
        ("spans", "&tap=9", 60, Some(json!([9, "edge"]))),
        ("spans", "&tap=77", 1, Some(json!([77, null]))),
        ("spans", "&tap=nowhere", 0, None),
        ("flows", "&tap=edge", 60, Some(json!([9, "edge"]))),
    ] {
        let answer = site.get(&format!("/api/{what}?{}&limit=1000{filter}", range())).await;
        let found = answer[what].as_array().unwrap();
        assert_eq!(found.len(), rows, "{what}{filter}");
        if let Some(tap) = tap {
            assert!(found.iter().all(|row| json!([row["tap_id"], row["tap"]]) == tap), "{what}{filter}");
        }
    }

    let answer = site.get(&format!("/api/taps?{}", range())).await;
    let [core, idle, edge, unknown] = answer["taps"].as_array().unwrap().as_slice() else {
        panic!("{answer}")
    };
    assert_eq!(
        (&core["name"], &core["kind"], &core["device"]),
        (&json!("core"), &json!("physical-port"), &json!("core-1"))
    );
    assert_eq!(
        (&core["packet_tx"], &core["byte_rx"], &core["requests"]),
        (&json!(500), &json!(150_000), &json!(100))
    );
    assert_eq!((&idle["id"], &idle["name"], &idle["packet_tx"]), (&json!(3), &json!("idle"), &json!(0)));
    assert_eq!((&edge["id"], &edge["new_flows"]), (&json!(9), &json!(60)));
    assert_eq!((&unknown["id"], &unknown["name"], &unknown["requests"]), (&json!(77), &json!(""), &json!(1)));

    let sql = json!({"sql": "SELECT dictGet('wirespan.taps', 'name', tap_id) AS tap, sum(request) FROM path_metrics_1m GROUP BY tap ORDER BY tap"});
    let (_, body) = site.request("POST", "/api/sql", "", &sql.to_string()).await;
    let rows = &serde_json::from_str::<Value>(&body).unwrap()["rows"];
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{body}");
}

/// Both ends of requests over three UNIX sockets, two of which have one name in two namespaces.
#[tokio::test(flavor = "multi_thread")]
async fn servers_behind_unix_sockets_are_told_apart_by_name_and_namespace() {
    let Some(site) = Site::start().await else { return };
    let nowhere = wirespan_records::Endpoint::default();
    let over = |name: &'static str, netns: &'static str, process: &str, count: u64| {
        let server = std::sync::Arc::new(Process { pid: 7, name: process.into(), ..Process::default() });
        let at_client = move |i: u64| Span {
            client: nowhere,
            server: nowhere,
            protocol: wirespan_records::L4Protocol::Other(0),
            signal: wirespan_records::Signal::Syscall,
            observation_point: ObservationPoint::ClientProcess,
            attributes: vec![("netns", netns.into()), ("unix.name", name.into())],
            ..http(i)
        };
        let at_server = move |i| Span {
            observation_point: ObservationPoint::ServerProcess,
            process: Some(server.clone()),
            ..at_client(i)
        };
        (0..count).flat_map(move |i| [at_client(i), at_server(i)])
    };
    let php = over("/run/php.sock", "11", "php-fpm", 30);
    let other = over("/run/php.sock", "12", "php-fpm8", 20);
    let spans: Vec<_> = php.chain(other).chain(over("/run/db.sock", "11", "mariadbd", 10)).collect();
    // The flows that the site makes of requests have nothing over UNIX sockets.
    let report = site.ingest(spans).await;
    assert_eq!(report.spans.taken, 120);

    let expected = [
        ("/run/php.sock", 11, "php-fpm", 30),
        ("/run/php.sock", 12, "php-fpm8", 20),
        ("/run/db.sock", 11, "mariadbd", 10),
    ];
    for range in [range(), format!("from={}&to={}", BASE_S - 20 * 3600, BASE_S + 10)] {
        for (what, list, name) in [("services", "services", "name"), ("map", "edges", "server_name")] {
            let answer = site.get(&format!("/api/{what}?{range}")).await;
            let with_requests = answer[list].as_array().unwrap().iter().filter(|row| row["requests"] != 0);
            let found: Vec<_> = with_requests
                .map(|row| json!([row[name], row["unix"]["netns"], row["unix"]["process"], row["requests"]]))
                .collect();
            let expected =
                expected.map(|(name, netns, process, requests)| json!([name, netns, process, requests]));
            assert_eq!(found, expected, "{what}");
        }
    }
    for (what, rows) in [("spans", 20), ("flows", 0)] {
        let answer = site.get(&format!("/api/{what}?{}&limit=1000&service=/run/db.sock", range())).await;
        assert_eq!(answer[what].as_array().unwrap().len(), rows, "{what}");
    }
    let traces = site.get(&format!("/api/traces?{}&service=/run/db.sock", range())).await;
    assert!(traces["traces"].is_array(), "{traces}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_answered_with_what_to_do() {
    let Some(site) = Site::start().await else { return };
    for (method, path, body, status, part) in [
        ("GET", "/api/spans?status=bad", "", 400, "give ok, client_error"),
        ("GET", "/api/spans?service=nobody", "", 400, "IP:PORT"),
        ("GET", "/api/spans?limit=many", "", 400, "limit"),
        ("GET", "/api/spans?before=x", "", 400, "cursor"),
        ("GET", "/api/services?last=soon", "", 400, "last="),
        ("GET", "/api/map?from=9&to=3", "", 400, "must be before"),
        ("GET", "/api/traces?span=x", "", 400, "span"),
        ("GET", "/api/traces?service=nobody", "", 400, "IP:PORT"),
        ("GET", "/api/traces/00000000000000ff", "", 404, "/api/spans"),
        ("GET", "/api/traces?span=1", "", 404, "row id 1"),
        ("GET", "/api/traces/none", "", 404, "/api/spans"),
        ("GET", "/api/sql", "", 405, "POST"),
        ("POST", "/api/services", "", 405, "GET"),
        ("GET", "/prom/api/v1/query", "", 404, "/api/sql"),
        ("GET", "/tempo/api/search", "", 404, "/api/traces"),
        ("GET", "/nothing", "", 404, "/api/services"),
        ("GET", "/assets/../Cargo.toml", "", 404, "/"),
        ("POST", "/api/sql", "SELECT 1", 400, "{\"sql\""),
        ("POST", "/api/sql", r#"{"sql":"SELEC 1"}"#, 400, "Syntax error"),
        ("POST", "/api/sql", r#"{"sql":"DROP TABLE l7_log"}"#, 403, "only queries that read"),
        ("POST", "/api/sql", r#"{"sql":"SELECT 1 SETTINGS readonly = 0"}"#, 403, "only queries that read"),
        (
            "POST",
            "/api/sql",
            r#"{"sql":"SELECT * FROM file('/etc/passwd', 'LineAsString')"}"#,
            403,
            "only queries",
        ),
        ("POST", "/api/sql", r#"{"sql":"SELECT 1 FORMAT CSV"}"#, 400, "leave FORMAT out"),
        ("POST", "/api/sql", r#"{"sql":"SELECT number FROM numbers(1000000)"}"#, 400, "LIMIT"),
    ] {
        let (found, sentence) = site.error(method, path, body).await;
        assert_eq!(found, status, "{method} {path} {body}: {sentence}");
        assert!(sentence.contains(part), "{method} {path} {body}: {sentence}");
    }
    let long = json!({ "sql": "x".repeat(2 << 20) }).to_string();
    let (status, sentence) = site.error("POST", "/api/sql", &long).await;
    assert!(status == 413 && sentence.contains("1 MiB"), "{status} {sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_guard() {
    let Some(site) = Site::start().await else { return };
    let (status, page) = site.request("GET", "/", "", "").await;
    assert_eq!(status, 200);
    for file in ["/assets/app.js", "/assets/charts.js", "/assets/index.css", "/assets/logo.svg"] {
        assert!(page.contains(file) || file.ends_with("charts.js"), "the page does not load {file}");
        assert_eq!(site.request("GET", file, "", "").await.0, 200, "{file}");
    }
    assert_eq!(site.get("/api/health").await["status"], "ok");
    assert_eq!(site.request("GET", "/metrics", "", "").await.0, 200);
    assert_eq!(site.request("GET", "/api/health", "Host: evil.example\r\n", "").await.0, 403);
    assert_eq!(site.request("GET", "/api/health", "Origin: http://evil.example\r\n", "").await.0, 403);
}

#[test]
fn records_are_what_the_tests_say() {
    let spans = records();
    assert_eq!(spans.iter().filter(|s| s.session == Session::RequestOnly).count(), 4);
    assert_eq!(spans.len(), 190);
}

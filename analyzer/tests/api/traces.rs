//! Traces: which rows are found, and how they are put together.

use crate::common::server::Site;
use crate::{http, range};
use serde_json::{Value, json};
use wirespan_records::{
    L4Protocol, Merge, ObservationPoint, Parent, Process, ResponseStatus, Rule, Session, Signal, Span,
    TraceKey, Tunnel, TunnelKind,
};
use wirespan_stitch::wire_key;
use wirespan_store::{Writer, WriterOptions};

/// A call from process to process, its packets between, and the call that was made for it.
fn calls() -> Vec<Span> {
    let process = |pid, name: &str| {
        let container_id = (pid == 20).then(|| "c0ffee".into());
        Some(std::sync::Arc::new(Process {
            pid,
            start_ns: 5,
            name: name.into(),
            container_id,
            ..Process::default()
        }))
    };
    let seen = |id, point, process: Option<std::sync::Arc<Process>>, span: &Span| Span {
        id,
        observation_point: point,
        signal: if process.is_some() { Signal::Syscall } else { Signal::Packet },
        process,
        ..span.clone()
    };
    let (outer, mut inner) = (http(99), http(10));
    (inner.start_ns, inner.end_ns) = (outer.start_ns + 1_000_000, outer.end_ns - 1_000_000);
    let parent = Parent { span: 3, rule: Rule::Socket, confidence: 0.9 };
    vec![
        seen(1, ObservationPoint::ClientProcess, process(10, "browser"), &outer),
        seen(2, ObservationPoint::Rest, None, &outer),
        seen(3, ObservationPoint::ServerProcess, process(20, "web"), &outer),
        Span { parent: Some(parent), ..seen(4, ObservationPoint::ClientProcess, process(20, "web"), &inner) },
        seen(5, ObservationPoint::ServerProcess, process(30, "db"), &inner),
    ]
}

fn ids(trace: &Value) -> Vec<&str> {
    trace["spans"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_and_what_requests_were_made_for_make_a_tree() {
    let Some(site) = Site::start().await else { return };
    let mut spans = calls();
    spans.push(http(50));
    site.ingest(spans).await;
    let trace = site.get("/api/traces?span=5").await;
    assert_eq!(ids(&trace), ["1", "2", "3", "4", "5"]);
    let fourth = &trace["spans"][3];
    assert_eq!(
        (&fourth["parent_id"], &fourth["parent_rule"], &fourth["parent_confidence"]),
        (&json!("3"), &json!("socket"), &json!(0.9))
    );
    assert_eq!(fourth["parent"], json!({"span": "3", "rule": "socket", "confidence": 0.9}));
    assert_eq!(
        fourth["process"],
        json!({"pid": 20, "start_ns": 5, "name": "web", "executable": "", "command": "", "container_id": "c0ffee"})
    );
    assert_eq!(trace["spans"][1]["process"], Value::Null);
    assert_eq!(trace["paths"][0]["spans"], json!(["1", "2", "3"]));
    assert_eq!(trace["breakdown"]["server_process_us"], 2000 + 98_000);

    let list = site.get(&format!("/api/traces?{}", range())).await;
    let [listed] = list["traces"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&listed["spans"], &listed["duration_us"]), (&json!(5), &json!(100_000)));
    assert_eq!((&listed["trace_id"], &listed["services"]), (&trace["trace_id"], &json!(["web:80"])));
    assert_eq!((&listed["root"]["id"], &listed["root"]["endpoint"]), (&json!("1"), &json!("/items/99")));
    for (filter, count) in [
        ("&service=web", 1),
        ("&service=cache", 0),
        ("&min_duration_us=99000", 1),
        ("&min_duration_us=100001", 0),
    ] {
        let list = site.get(&format!("/api/traces?{}{filter}", range())).await;
        assert_eq!(list["traces"].as_array().unwrap().len(), count, "{filter}");
    }
    let alone = site.get(&format!("/api/spans?{}&min_duration_us=51000&text=items/50", range())).await;
    let (id, key) = (&alone["spans"][0]["id"], &alone["spans"][0]["trace_key"]);
    let trace = site.get(&format!("/api/traces/{}", key.as_str().unwrap())).await;
    assert_eq!(ids(&trace), [id.as_str().unwrap()]);
}

/// The rows of a trace are stored in one piece, those of a list in columns: both say the same, with every kind of value.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_traces_say_what_rows_of_lists_say() {
    let Some(site) = Site::start().await else { return };
    let mut spans = calls();
    let statuses = [
        ResponseStatus::Ok,
        ResponseStatus::ClientError,
        ResponseStatus::ServerError,
        ResponseStatus::Timeout,
        ResponseStatus::Unknown,
    ];
    let tunnels = [
        TunnelKind::Vxlan,
        TunnelKind::Geneve,
        TunnelKind::Gre,
        TunnelKind::Erspan,
        TunnelKind::Ipip,
        TunnelKind::Gtpu,
    ];
    for (n, kind) in tunnels.into_iter().enumerate() {
        spans.push(Span {
            id: 10 + n as u64,
            signal: [Signal::Packet, Signal::Syscall, Signal::Tls][n % 3],
            tunnel: Some(Tunnel {
                kind,
                id: 7,
                outer_src: "2001:db8::1".parse().unwrap(),
                outer_dst: [192, 0, 2, 9].into(),
            }),
            tap: n as u16,
            protocol: [L4Protocol::Tcp, L4Protocol::Udp, L4Protocol::Sctp][n % 3],
            request_id: (n > 2).then_some(u64::MAX),
            response_status: statuses[n % 5],
            response_code: Some(-1),
            response_exception: Some("a\tb\n'\u{fc}'".into()),
            response_result: Some("r".repeat(300).into()),
            affected_rows: Some(3),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
            span_id: Some("00f067aa0ba902b7".into()),
            x_request_id: (n == 1).then(|| "f058ebd6".into()),
            session: [Session::Complete, Session::RequestOnly, Session::ResponseOnly][n % 3],
            truncated: n % 2 == 0,
            attributes: vec![("db.name", "shop".into()), ("http.user_agent", format!("curl/{n}").into())],
            parent: (n == 2).then_some(Parent { span: 3, rule: Rule::Handoff, confidence: 0.25 }),
            ..http(n as u64)
        });
    }
    let taps = [(1, "edge", "nfv-gateway"), (2, "core", "physical")];
    for (id, name, kind) in taps {
        let sql = format!(
            "INSERT INTO tap_list (id, name, kind, site) VALUES ({id}, '{name}', '{kind}', 'berlin')"
        );
        site.client.execute(&sql).await.unwrap();
    }
    site.client.execute("SYSTEM RELOAD DICTIONARY wirespan.taps").await.unwrap();
    let key = TraceKey { key: 3, traced: true };
    let writer = Writer::start(site.client.clone(), WriterOptions::default());
    writer.spans(&spans, &vec![key; spans.len()]);
    let counters = writer.close(std::time::Duration::from_secs(30)).await;
    assert_eq!(counters.rows_stored, 2 * spans.len() as u64);

    let list = site.get(&format!("/api/spans?{}&limit=100", range())).await;
    let trace = site.get("/api/traces/0000000000000003").await;
    let rows = trace["spans"].as_array().unwrap();
    assert_eq!((rows.len(), list["spans"].as_array().unwrap().len()), (spans.len(), spans.len()));
    for of_list in list["spans"].as_array().unwrap() {
        let of_trace = rows.iter().find(|row| row["id"] == of_list["id"]).unwrap();
        for (name, value) in of_list.as_object().unwrap() {
            // What the trace corrects by what its paths prove.
            if !["observation_point", "start_ns", "end_ns"].contains(&name.as_str()) {
                assert_eq!(&of_trace[name], value, "{name}");
            }
        }
    }
    let edge = rows.iter().find(|row| row["id"] == "11").unwrap();
    assert_eq!(
        (&edge["tap"], &edge["tap_kind"], &edge["tap_site"]),
        (&json!("edge"), &json!("nfv-gateway"), &json!("berlin"))
    );
}

/// Rows were written under several keys, one of them when it was alone, before it was known that they are one trace.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_were_merged_lead_to_the_whole_trace() {
    let Some(site) = Site::start().await else { return };
    let writer = Writer::start(site.client.clone(), WriterOptions::default());
    let key = |key, traced| TraceKey { key, traced };
    writer.spans(&calls(), &[key(1, false), key(2, true), key(2, true), key(4, true), key(4, true)]);
    writer.merges(&[Merge { from: 1, to: 2 }, Merge { from: 4, to: 2 }]);
    let counters = writer.close(std::time::Duration::from_secs(30)).await;
    assert_eq!((counters.rows_in, counters.rows_stored), (5 + 4 + 4, 13));
    let trace = site.get("/api/traces/0000000000000002").await;
    assert_eq!(ids(&trace), ["1", "2", "3", "4", "5"]);
    for other in ["/0000000000000001", "/0000000000000004", "?span=1", "?span=3", "?span=5"] {
        assert_eq!(site.get(&format!("/api/traces{other}")).await, trace, "{other}");
    }
    let list = site.get(&format!("/api/traces?{}", range())).await;
    assert_eq!(list["traces"].as_array().unwrap().len(), 1, "{list}");
}

/// The first span of a trace was alone for so long that it was written by its id only; what came later was not.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_has_the_span_that_was_alone_at_first() {
    let Some(site) = Site::start().await else { return };
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let named = |span: Span| Span { trace_id: Some(trace_id.into()), ..span };
    let [first, second, third, _, _] = calls().try_into().unwrap();
    let key = wire_key(trace_id);
    let hex = format!("{key:016x}");
    let write = async |spans: &[Span], traced| {
        let writer = Writer::start(site.client.clone(), WriterOptions::default());
        writer.spans(spans, &vec![TraceKey { key, traced }; spans.len()]);
        writer.close(std::time::Duration::from_secs(30)).await;
    };
    let list = async || site.get(&format!("/api/traces?{}", range())).await["traces"].clone();

    let start_ns = first.start_ns - 1000;
    write(&[named(Span { start_ns, ..first })], false).await;
    assert_eq!(ids(&site.get(&format!("/api/traces/{trace_id}")).await), ["1"]);
    assert_eq!(list().await, json!([]), "it is no trace of several spans");

    write(&[named(second), named(third)], true).await;
    let trace = site.get(&format!("/api/traces/{trace_id}")).await;
    assert_eq!(ids(&trace), ["1", "2", "3"]);
    for other in [format!("/{hex}"), "?span=1".into(), "?span=3".into()] {
        assert_eq!(site.get(&format!("/api/traces{other}")).await, trace, "{other}");
    }
    let list = list().await;
    let [listed] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&listed["spans"], &listed["trace_id"]), (&json!(3), &json!(trace_id)));
    assert_eq!((&listed["root"]["id"], &listed["root"]["endpoint"]), (&json!("1"), &json!("/items/99")));
}

/// The parent came so late that its trace has another key and nothing says so but the row itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_completed_with_the_parents_that_its_rows_name() {
    let Some(site) = Site::start().await else { return };
    let mut spans = calls();
    let late = spans.drain(..3).collect();
    site.ingest(spans).await;
    site.ingest(late).await;
    assert_eq!(ids(&site.get("/api/traces?span=4").await), ["1", "2", "3", "4", "5"]);
}

/// Each call's parent has a key of its own that only the call's row leads to.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_traces_that_is_not_followed_to_its_end_says_so() {
    let Some(site) = Site::start().await else { return };
    let parent = |id| Parent { span: id, rule: Rule::Thread, confidence: 0.9 };
    for id in 1..=8 {
        let parent = (id > 1).then(|| parent(id - 1));
        site.ingest(vec![Span { id, parent, ..http(id) }]).await;
    }
    let near = site.get("/api/traces?span=3").await;
    assert_eq!((ids(&near), &near["truncated"]), (vec!["1", "2", "3"], &Value::Null));
    let far = site.get("/api/traces?span=8").await;
    assert_eq!(ids(&far), ["5", "6", "7", "8"]);
    let said = far["truncated"].as_str().unwrap_or_default();
    assert!(said.contains("4 other traces"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_joined_of_too_many_says_so() {
    let Some(site) = Site::start().await else { return };
    let writer = Writer::start(site.client.clone(), WriterOptions::default());
    let keys = [TraceKey { key: 1, traced: true }, TraceKey { key: 1, traced: true }];
    writer.spans(&calls()[..2], &keys);
    let key = "/api/traces/0000000000000001";
    writer.merges(&(10..4000).map(|from| Merge { from, to: 1 }).collect::<Vec<_>>());
    writer.close(std::time::Duration::from_secs(30)).await;
    assert_eq!(site.get(key).await["truncated"], Value::Null);

    let writer = Writer::start(site.client.clone(), WriterOptions::default());
    writer.merges(&(4000..6000).map(|from| Merge { from, to: 1 }).collect::<Vec<_>>());
    writer.close(std::time::Duration::from_secs(30)).await;
    let trace = site.get(key).await;
    assert_eq!(ids(&trace), ["1", "2"]);
    let said = trace["truncated"].as_str().unwrap_or_default();
    assert!(said.contains("more than 4096 traces"), "{said}");
}

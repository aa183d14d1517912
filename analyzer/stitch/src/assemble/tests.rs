use super::*;
use crate::row::ParentRow;
use crate::sample::{Exchange, Random, endpoint, in_tunnel, process, random_trace, row};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use wirespan_records::ObservationPoint::{ClientProcess, Rest, ServerProcess};
use wirespan_records::{Rule, Span};

/// A browser asks nginx on host 1, which asks an application on host 2 through VXLAN, which asks a cache there. The clock of
/// host 2 is 5 ms ahead.
fn shop() -> Vec<SpanRow> {
    let nginx = process(10, "nginx");
    let app = process(20, "app");
    let ahead =
        |span: Span| Span { start_ns: span.start_ns + 5_000_000, end_ns: span.end_ns + 5_000_000, ..span };
    let front = Exchange {
        client: endpoint(9, 9, 5000),
        server: endpoint(1, 1, 80),
        from_us: 0,
        to_us: 3000,
        seq: 1,
        path: "/",
    };
    let middle = Exchange {
        client: endpoint(1, 1, 40_000),
        server: endpoint(2, 1, 8080),
        from_us: 500,
        to_us: 2700,
        seq: 2,
        path: "/items",
    };
    let back = Exchange {
        client: endpoint(2, 1, 40_001),
        server: endpoint(2, 2, 6379),
        from_us: 1000,
        to_us: 1600,
        seq: 3,
        path: "GET item",
    };
    let mirrored = SpanRow {
        tap_id: Some(3),
        tap: Some("core".into()),
        tap_kind: Some("physical-port".into()),
        tap_site: Some("fra1".into()),
        ..row(&in_tunnel(middle.seen(6, Rest, 60)), 1)
    };
    vec![
        row(&front.seen(1, Rest, 0), 1),
        row(&front.process(2, ServerProcess, 40, &nginx, 0), 1),
        row(&middle.process(3, ClientProcess, 0, &nginx, 2), 1),
        row(&middle.seen(4, Rest, 20), 1),
        row(&in_tunnel(middle.seen(5, Rest, 30)), 1),
        mirrored,
        row(&ahead(in_tunnel(middle.seen(7, Rest, 100))), 2),
        row(&ahead(middle.seen(8, Rest, 110)), 2),
        row(&ahead(middle.process(9, ServerProcess, 130, &app, 0)), 2),
        row(&ahead(back.process(10, ClientProcess, 0, &app, 9)), 2),
        row(&ahead(back.seen(11, Rest, 10)), 2),
        row(&ahead(back.process(12, ServerProcess, 30, &process(30, "cache"), 0)), 2),
    ]
}

/// A trace as text: a line per span, then the paths and the breakdown.
fn text(trace: &Trace) -> String {
    let mut out = String::new();
    let parent = |s: &TraceSpan| match (&s.parent_id, s.parent_rule, s.parent_confidence) {
        (Some(id), Some(rule), Some(sure)) => format!(" <- {id} {} {sure}", rule.as_str()),
        _ => String::new(),
    };
    for s in &trace.spans {
        let _ = writeln!(
            out,
            "{:indent$}{} {} +{} {} us, self {}, shift {}, path {}{}",
            "",
            s.row.id,
            s.row.observation_point,
            (s.row.start_ns - trace.start_ns) / 1000,
            (s.row.end_ns - s.row.start_ns) / 1000,
            s.self_us,
            s.clock_shift_us,
            s.path,
            parent(s),
            indent = s.depth as usize
        );
    }
    for path in &trace.paths {
        let _ = writeln!(out, "path {}", path.spans.join(" "));
        for hop in &path.hops {
            let _ = writeln!(
                out,
                "  {} to {}: {:?} = {} + {:?}",
                hop.from, hop.to, hop.latency_us, hop.request_us, hop.response_us
            );
        }
    }
    let _ = writeln!(out, "{:?}\n{:?}, {} us", trace.breakdown, trace.truncated, trace.duration_us);
    out
}

#[test]
fn a_request_through_two_hosts_a_tunnel_and_a_mirror() {
    insta::assert_snapshot!(text(&assemble(shop(), 0x2a, None)));
}

#[test]
fn the_answer_is_read_back() {
    let trace = assemble(shop(), 0x2a, None);
    let json = serde_json::to_string(&trace).unwrap();
    assert_eq!(serde_json::from_str::<Trace>(&json).unwrap(), trace);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&value["trace_id"], &value["trace_key"]),
        (&"000000000000002a".into(), &"000000000000002a".into())
    );
    assert_eq!(value["spans"][3]["parent_rule"], "path");
    assert_eq!(value["spans"][2]["process"]["name"], "nginx");
}

#[test]
fn packets_alone_are_linked_by_request_ids_and_trace_ids() {
    let proxy = |id, from_us, to_us, seq, client, server, request: Option<&str>, trace: Option<&str>| Span {
        x_request_id: request.map(Into::into),
        trace_id: trace.map(Into::into),
        span_id: trace.map(|_| format!("span-{seq}").into()),
        ..Exchange { client, server, from_us, to_us, seq, path: "/" }.seen(id, Rest, 0)
    };
    let (web, api, db) = (endpoint(1, 1, 80), endpoint(1, 2, 80), endpoint(1, 3, 80));
    let from = |of: wirespan_records::Endpoint, port| wirespan_records::Endpoint { port, ..of };
    let request = Some("f058ebd6-02f7-4d3f-942e-904344e8cde5");
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let trace = Some(id);
    let spans = [
        proxy(1, 0, 1000, 1, endpoint(9, 9, 1), web, request, None),
        proxy(2, 100, 900, 2, from(web, 2), api, request, trace),
        // Two at once: each is the other's neighbour, not its parent.
        proxy(3, 200, 700, 3, from(api, 3), db, None, trace),
        proxy(4, 300, 600, 4, from(api, 4), db, None, trace),
        // Its client answered nothing of this trace.
        proxy(5, 350, 360, 5, endpoint(7, 7, 7), db, None, trace),
        // After its would-be parent.
        proxy(6, 850, 950, 6, from(api, 6), db, None, trace),
    ];
    let answer = assemble(spans.iter().map(|s| row(s, 1)).collect(), 1, None);
    let parents: BTreeMap<_, _> = answer
        .spans
        .iter()
        .map(|s| (s.row.id.as_str(), s.parent_id.as_deref().zip(s.parent_rule).zip(s.parent_confidence)))
        .collect();
    assert_eq!(parents["1"], None);
    assert_eq!(parents["2"], Some((("1", Rule::RequestId), 1.0)));
    assert_eq!(parents["3"], Some((("2", Rule::WireId), 0.9)));
    assert_eq!(parents["4"], Some((("2", Rule::WireId), 0.9)));
    assert_eq!((parents["5"], parents["6"]), (None, None));
    assert_eq!(answer.trace_id, id);
    assert_eq!(answer.breakdown.beyond_us, 200 + 300 + 500 + 300 + 10 + 100);
}

#[test]
fn nat_splits_a_path_into_sides_and_gateways_are_told_apart() {
    let front = Exchange {
        client: endpoint(1, 1, 9),
        server: endpoint(5, 5, 80),
        from_us: 0,
        to_us: 1000,
        seq: 9,
        path: "/",
    };
    let behind = Exchange { server: endpoint(2, 2, 8080), ..front };
    let gateway =
        |span: &Span| SpanRow { tap_id: Some(1), tap_kind: Some("nfv-gateway".into()), ..row(span, 3) };
    let rows = vec![
        gateway(&behind.seen(4, Rest, 20)),
        // Its clock and its duration say less than the addresses that it saw.
        gateway(&front.seen(3, Rest, 20)),
        row(&front.process(1, ClientProcess, 0, &process(1, "a"), 0), 1),
        row(&front.seen(2, Rest, 10), 1),
        row(&behind.process(6, ServerProcess, 40, &process(2, "b"), 0), 2),
        row(&behind.seen(5, Rest, 30), 2),
    ];
    let answer = assemble(rows, 1, None);
    let points: Vec<_> =
        answer.spans.iter().map(|s| (s.row.id.as_str(), s.row.observation_point.as_str())).collect();
    assert_eq!(points, [("1", "c-p"), ("2", "c"), ("3", "c-gw"), ("4", "s-gw"), ("5", "s"), ("6", "s-p")]);
}

#[test]
fn hypervisors_are_told_apart_by_what_lies_between_them() {
    let exchange = Exchange {
        client: endpoint(1, 1, 9),
        server: endpoint(2, 2, 80),
        from_us: 0,
        to_us: 1000,
        seq: 9,
        path: "/",
    };
    let behind = Exchange { server: endpoint(3, 3, 8080), ..exchange };
    let tap = |tap, kind: &str, span: &Span| SpanRow {
        tap_id: Some(tap),
        tap_kind: Some(kind.into()),
        ..row(span, 3)
    };
    let points = |server: Exchange, taps: Vec<SpanRow>| {
        let processes = [
            row(&exchange.process(1, ClientProcess, 0, &process(1, "a"), 0), 1),
            row(&server.process(90, ServerProcess, 400, &process(2, "b"), 0), 2),
        ];
        let answer = assemble(processes.into_iter().chain(taps).collect(), 1, None);
        let spans = answer.spans.iter().filter(|s| s.row.tap_id.is_some());
        spans.map(|s| s.row.observation_point.as_str()).collect::<Vec<_>>().join(" ")
    };
    let seen = |id, kind: &str| tap(id as u16, kind, &exchange.seen(id, Rest, id * 10));
    let (hypervisor, port) = ("hypervisor", "physical-port");
    assert_eq!(
        points(exchange, vec![seen(2, hypervisor), seen(3, port), seen(4, hypervisor)]),
        "c-hv rest s-hv"
    );
    assert_eq!(points(exchange, vec![seen(2, hypervisor), seen(3, port)]), "c-hv rest");
    assert_eq!(points(exchange, vec![seen(2, port), seen(3, hypervisor)]), "rest s-hv");
    assert_eq!(points(exchange, vec![seen(2, hypervisor)]), "rest", "it may be either's");
    let around = vec![seen(2, port), seen(3, hypervisor), seen(4, port)];
    assert_eq!(points(exchange, around), "rest rest rest");

    let beyond = |id, kind: &str| tap(id as u16, kind, &behind.seen(id, Rest, id * 10));
    let nat = vec![
        seen(2, hypervisor),
        seen(3, hypervisor),
        seen(4, "nfv-gateway"),
        beyond(5, "nfv-gateway"),
        beyond(6, hypervisor),
        beyond(7, hypervisor),
    ];
    assert_eq!(points(behind, nat), "c-hv c-gw-hv c-gw s-gw s-gw-hv s-hv");
}

#[test]
fn wrong_parents_make_no_loop() {
    let span = |id: u64, parent: u64| {
        let exchange = Exchange {
            client: endpoint(1, 1, id as u16),
            server: endpoint(1, 2, 80),
            from_us: id,
            to_us: 100,
            seq: id as u32,
            path: "/",
        };
        SpanRow {
            parent: Some(ParentRow {
                span: parent.to_string(),
                rule: Rule::Turn,
                confidence: if id == 2 { 0.5 } else { 0.9 },
            }),
            ..row(&exchange.seen(id, Rest, 0), 1)
        }
    };
    let answer =
        assemble(vec![span(1, 3), span(2, 1), span(3, 2), span(4, 4), span(5, 99), span(6, 3)], 1, None);
    let parents: BTreeMap<_, _> =
        answer.spans.iter().map(|s| (s.row.id.as_str(), s.parent_id.as_deref())).collect();
    assert_eq!(
        parents.into_iter().collect::<Vec<_>>(),
        [("1", Some("3")), ("2", None), ("3", Some("2")), ("4", None), ("5", None), ("6", Some("3"))]
    );
}

#[test]
fn what_is_left_out_is_said() {
    let exchange = |id: u64, from_us: u64| Exchange {
        client: endpoint(1, 1, 9),
        server: endpoint(1, 2, 80),
        from_us,
        to_us: from_us + 10,
        seq: id as u32,
        path: "/",
    };
    let many: Vec<_> =
        (1..=MAX_SPANS as u64 + 5).map(|id| row(&exchange(id, id).seen(id, Rest, 0), 1)).collect();
    let answer = assemble(many, 1, None);
    assert_eq!(answer.spans.len(), MAX_SPANS);
    assert!(answer.truncated.unwrap().contains("5 of 10005 spans"));

    let late =
        [row(&exchange(1, 0).seen(1, Rest, 0), 1), row(&exchange(2, 3_600_000_001).seen(2, Rest, 0), 1)];
    let answer = assemble(late.to_vec(), 1, None);
    assert_eq!((answer.spans.len(), answer.duration_us), (1, 10));
    assert!(answer.truncated.unwrap().contains("1 spans that began more than an hour"));

    let deep: Vec<_> = (1..=400u64)
        .map(|id| row(&exchange(id, id).process(id, ServerProcess, 0, &process(1, "a"), id - 1), 1))
        .collect();
    let answer = assemble(deep, 1, Some("what the reader left out".into()));
    assert_eq!(answer.spans.len(), 257);
    assert_eq!(
        answer.truncated.unwrap(),
        "Left out: what the reader left out; 143 spans lie deeper than 256 levels."
    );
    assert_eq!(assemble(Vec::new(), 1, None).spans.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The tree holds every span once, parents first; each path is in order; it is the same whatever the order of the rows.
    #[test]
    fn trees_are_whole_and_do_not_depend_on_the_order_of_rows(seed: u64) {
        let mut random = Random(seed);
        let spans = random_trace(&mut random, 1, 3);
        let mut rows: Vec<_> = spans.iter().map(|s| row(s, 1)).collect();
        let answer = assemble(rows.clone(), 1, None);
        random.shuffle(&mut rows);
        prop_assert_eq!(&assemble(rows, 1, None), &answer);
        prop_assert_eq!(answer.spans.len(), spans.len());
        prop_assert_eq!(answer.truncated, None);
        let roots = answer.spans.iter().filter(|s| s.parent_id.is_none()).count();
        prop_assert_eq!(roots, 1);
        let mut seen = BTreeMap::new();
        for span in &answer.spans {
            if let Some(parent) = &span.parent_id {
                let depth: Option<&u32> = seen.get(parent);
                prop_assert_eq!(depth.map(|d| d + 1), Some(span.depth));
            }
            prop_assert!(seen.insert(span.row.id.clone(), span.depth).is_none());
            prop_assert!(span.self_us <= span.row.duration_us);
        }
        for path in &answer.paths {
            prop_assert!(path.hops.iter().all(|hop| hop.latency_us >= Some(0) && hop.request_us >= 0));
        }
    }

    /// Clocks that are apart are brought together: every call is inside what it was made for.
    #[test]
    fn clocks_are_corrected(seed: u64, ahead_us in -40_000i64..40_000) {
        let mut random = Random(seed);
        let spans = random_trace(&mut random, 1, 3);
        // Servers of one level are clients of the next: hosts alternate.
        let level = |s: &Span| u32::from(s.observation_point == ServerProcess);
        let rows: Vec<_> = spans.iter().filter(|s| s.observation_point != Rest).map(|s| {
            let agent = level(s);
            let mut row = row(s, agent);
            if agent == 1 {
                row.start_ns = row.start_ns.saturating_add_signed(ahead_us * 1000);
                row.end_ns = row.end_ns.saturating_add_signed(ahead_us * 1000);
            }
            row
        }).collect();
        let answer = assemble(rows, 1, None);
        for path in &answer.paths {
            for hop in &path.hops {
                prop_assert!(hop.request_us >= 0 && hop.response_us >= Some(0), "{:?}", hop);
            }
        }
    }

    /// Several hosts call one server, each with a clock of its own, and the ways there and back take different times: after
    /// the correction every point is inside the one before it, and no clock is further off than the exchanges leave open.
    #[test]
    fn clocks_of_many_hosts_are_corrected(
        seed: u64,
        ahead_us in prop::collection::vec(-900_000i64..900_000, 2..7),
        exchanges in 1u64..20,
    ) {
        let mut random = Random(seed);
        let server_host = ahead_us.len() as u32;
        let mut rows = Vec::new();
        // What the exchanges leave open between each host and the server's: the least time of each way.
        let mut least = vec![(i64::MAX, i64::MAX); ahead_us.len()];
        let ahead = |mut row: SpanRow, by_us: i64| {
            row.start_ns = row.start_ns.saturating_add_signed(by_us * 1000);
            row.end_ns = row.end_ns.saturating_add_signed(by_us * 1000);
            row
        };
        for (host, &by_us) in ahead_us.iter().enumerate() {
            for _ in 0..exchanges {
                let id = rows.len() as u64 + 1;
                let from_us = 1_000_000 + random.below(1_000_000);
                let exchange = Exchange {
                    client: endpoint(host as u8, 1, 1024 + id as u16),
                    server: endpoint(99, 1, 80),
                    from_us,
                    to_us: from_us + 10_000,
                    seq: random.next() as u32,
                    path: "/",
                };
                let (there, back) = (1 + random.below(500), 1 + random.below(4000));
                let asked = exchange.process(id, ClientProcess, 0, &process(host as u32, "client"), 0);
                let answered = exchange.process(id + 1, ServerProcess, 0, &process(99, "server"), 0);
                let answered =
                    Span { start_ns: asked.start_ns + there * 1000, end_ns: asked.end_ns - back * 1000, ..answered };
                rows.push(ahead(row(&asked, host as u32), by_us));
                rows.push(row(&answered, server_host));
                let (known_there, known_back) = least[host];
                least[host] = (known_there.min(there as i64), known_back.min(back as i64));
            }
        }
        let answer = assemble(rows, 1, None);
        prop_assert_eq!(answer.paths.len() as u64, exchanges * ahead_us.len() as u64);
        for hop in answer.paths.iter().flat_map(|path| &path.hops) {
            prop_assert!(hop.request_us >= 0 && hop.response_us >= Some(0), "{:?}", hop);
        }
        let of_server = answer.spans.iter().find(|s| s.row.agent_id == server_host).unwrap().clock_shift_us;
        for (host, (&by_us, &(there, back))) in ahead_us.iter().zip(&least).enumerate() {
            let of_host = answer.spans.iter().find(|s| s.row.agent_id == host as u32).unwrap().clock_shift_us;
            let error = of_host + by_us - of_server;
            prop_assert!((-back..=there).contains(&error), "{error} is not in -{back}..{there}");
        }
    }

    /// Rows that say anything at all are no trap.
    #[test]
    fn hostile_rows_are_survived(seed: u64, count in 0usize..60) {
        let mut random = Random(seed);
        let points = wirespan_records::ObservationPoint::ALL;
        let rows: Vec<_> = (0..count).map(|_| {
            let few = |random: &mut Random| random.below(6);
            let edge = [0, 1, 1000, u64::MAX / 2, u64::MAX - 1, u64::MAX];
            SpanRow {
                id: few(&mut random).to_string(),
                agent_id: few(&mut random) as u32,
                observation_point: points[random.below(14) as usize].as_str().into(),
                start_ns: edge[few(&mut random) as usize],
                end_ns: edge[few(&mut random) as usize],
                protocol: "tcp".into(),
                session: ["complete", "request_only", ""][random.below(3) as usize].into(),
                req_tcp_seq: Some(few(&mut random) as u32),
                resp_tcp_seq: Some(few(&mut random) as u32),
                trace_id: Some(format!("trace-of-{}", few(&mut random))),
                span_id: Some(few(&mut random).to_string()),
                x_request_id: Some(format!("request-{}", few(&mut random))),
                parent: Some(ParentRow { span: few(&mut random).to_string(), rule: Rule::Turn, confidence: f32::NAN }),
                ..SpanRow::default()
            }
        }).collect();
        let answer = assemble(rows, 1, None);
        prop_assert!(answer.spans.len() <= 6);
    }
}

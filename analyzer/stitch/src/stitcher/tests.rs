use super::*;
use crate::sample::{Exchange, Random, endpoint, in_namespace, in_tunnel, process, random_trace, row};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use wirespan_records::ObservationPoint::{ClientProcess, Rest, ServerProcess};
use wirespan_records::Session;

fn exchange(seq: u32) -> Exchange {
    Exchange {
        client: endpoint(1, 1, 999),
        server: endpoint(1, 2, 80),
        from_us: 0,
        to_us: 900,
        seq,
        path: "/",
    }
}

/// Which spans end in one trace, when every span is written `wait` spans after it came.
fn traces(spans: &[Span], wait: usize) -> BTreeSet<BTreeSet<u64>> {
    let mut stitcher = Stitcher::new(Limits::default());
    let (mut keys, mut merges) = (Vec::new(), Vec::new());
    let mut open = std::collections::VecDeque::new();
    for span in spans {
        open.push_back((stitcher.add(span), span.id));
        if open.len() > wait {
            let (ticket, id) = open.pop_front().unwrap();
            keys.push((id, stitcher.settle(ticket, id)));
        }
        merges.extend(stitcher.take_merges());
    }
    for (ticket, id) in open {
        keys.push((id, stitcher.settle(ticket, id)));
    }
    merges.extend(stitcher.take_merges());
    // As a reader does: keys lead to keys until there are no more.
    let mut least: BTreeMap<u64, u64> = keys.iter().map(|(_, key)| (key.key, key.key)).collect();
    loop {
        let before = least.clone();
        for Merge { from, to } in &merges {
            let both = (*least.entry(*from).or_insert(*from)).min(*least.entry(*to).or_insert(*to));
            least.insert(*from, both);
            least.insert(*to, both);
        }
        if least == before {
            break;
        }
    }
    let mut traces: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (id, key) in keys {
        assert!(key.traced || key.key == id || is_wire_key(key.key), "a lone row is found by its id");
        traces.entry(least[&key.key]).or_default().insert(id);
    }
    traces.into_values().collect()
}

fn one(ids: impl IntoIterator<Item = u64>) -> BTreeSet<BTreeSet<u64>> {
    BTreeSet::from([ids.into_iter().collect()])
}

#[test]
fn points_of_one_exchange_are_one_trace_whatever_nat_and_tunnels_do() {
    let seen = exchange(7);
    let behind_nat = Exchange { server: endpoint(9, 9, 8080), client: endpoint(9, 8, 5), ..seen };
    let spans = [
        seen.process(1, ClientProcess, 0, &process(1, "a"), 0),
        in_tunnel(seen.seen(2, Rest, 10)),
        behind_nat.seen(3, Rest, 20),
        behind_nat.process(4, ServerProcess, 30, &process(2, "b"), 0),
    ];
    assert_eq!(traces(&spans, 9), one(1..=4));
    assert_eq!(traces(&spans, 0), one(1..=4));
}

#[test]
fn one_number_is_enough_only_with_the_same_request_and_an_address_in_common() {
    let seen = exchange(7).seen(1, Rest, 0);
    let half = |other: Span| Span { session: Session::RequestOnly, resp_tcp_seq: None, ..other };
    let joined = |other: Span| traces(&[seen.clone(), other], 9).len() == 1;
    let dnat = Exchange { server: endpoint(9, 9, 8080), ..exchange(7) };
    assert!(joined(half(dnat.seen(2, Rest, 10))));
    assert!(!joined(half(Exchange { client: endpoint(9, 8, 5), ..dnat }.seen(2, Rest, 10))));
    assert!(!joined(half(Exchange { path: "/other", ..dnat }.seen(2, Rest, 10))));
    assert!(!joined(half(Exchange { from_us: 200_000, to_us: 201_000, ..dnat }.seen(2, Rest, 0))));
    // The same numbers again, an hour later, are another exchange.
    let later = exchange(7).seen(2, Rest, 0);
    let hour = 3_600_000_000_000;
    assert!(!joined(Span { start_ns: later.start_ns + hour, end_ns: later.end_ns + hour, ..later }));
}

#[test]
fn datagrams_are_joined_by_id_and_question() {
    let dns = |id, request_id, server: u8| Span {
        protocol: wirespan_records::L4Protocol::Udp,
        l7_protocol: wirespan_records::L7Protocol::Dns,
        request_id: Some(request_id),
        req_tcp_seq: None,
        resp_tcp_seq: None,
        server: endpoint(3, server, 53),
        ..exchange(1).seen(id, Rest, 0)
    };
    assert_eq!(traces(&[dns(1, 77, 1), dns(2, 77, 9)], 9), one(1..=2));
    assert_eq!(traces(&[dns(1, 77, 1), dns(2, 78, 1)], 9).len(), 2);
}

#[test]
fn both_ends_of_a_unix_socket_are_joined() {
    let end = |id, point, start_us: u64, seq, inodes: [&str; 2]| {
        let seen = Exchange { from_us: start_us, to_us: start_us + 100, ..exchange(seq) };
        let [client, server] = inodes.map(Into::into);
        Span {
            protocol: wirespan_records::L4Protocol::Other(0),
            req_tcp_seq: Some(seq),
            attributes: vec![("unix.client", client), ("unix.server", server)],
            ..seen.process(id, point, 0, &process(id as u32, "a"), 0)
        }
    };
    let sent = end(1, ClientProcess, 1_000, 40, ["7", "8"]);
    let joined = |other: Span| traces(&[sent.clone(), other], 9).len() == 1;
    assert!(joined(end(2, ServerProcess, 1_300, 40, ["7", "8"])));
    assert!(joined(end(2, ServerProcess, 1_300, 40, ["7", "0"])), "the server's end was closed");
    assert!(!joined(end(2, ServerProcess, 1_300, 40, ["9", "8"])), "another socket");
    assert!(!joined(end(2, ServerProcess, 1_300, 60, ["7", "8"])), "another request");
    assert!(!joined(end(2, ClientProcess, 1_300, 40, ["7", "8"])), "the same end");
    assert!(!joined(end(2, ServerProcess, 900, 40, ["7", "8"])), "it came before it was sent");
    assert!(!joined(exchange(40).process(2, ServerProcess, 0, &process(2, "b"), 0)), "a TCP connection");
    // As they are read back from the store: of one host only.
    let received = end(2, ServerProcess, 1_300, 40, ["7", "8"]);
    let facts = |span: &Span, host| Facts::of_row(&row(span, host), host);
    assert_eq!(facts(&sent, 1).same(&facts(&received, 1)), Some(1.0));
    assert_eq!(facts(&sent, 1).same(&facts(&received, 2)), None);
}

/// Both ends of an exchange, of processes in these network namespaces.
fn ends(first_id: u64, seen: Exchange, [client, server]: [u32; 2]) -> [Span; 2] {
    let end = |id, point, nearer_us| seen.process(id, point, nearer_us, &process(id as u32, "a"), 0);
    let [asked, answered] = [end(first_id, ClientProcess, 0), end(first_id + 1, ServerProcess, 10)];
    [in_namespace(client, asked), in_namespace(server, answered)]
}

fn loopback(seq: u32) -> Exchange {
    let endpoint = |port| wirespan_records::Endpoint { ip: [127, 0, 0, 1].into(), port };
    Exchange { client: endpoint(999), server: endpoint(80), ..exchange(seq) }
}

#[test]
fn the_same_addresses_and_numbers_in_two_namespaces_are_two_exchanges() {
    // Both alike but for the namespace, also where only one number is seen, and over UDP.
    let request = |span: Span| Span { session: Session::RequestOnly, resp_tcp_seq: None, ..span };
    let datagram = |span: Span| Span {
        protocol: wirespan_records::L4Protocol::Udp,
        request_id: Some(7),
        req_tcp_seq: None,
        resp_tcp_seq: None,
        ..span
    };
    let (one, two) = (ends(1, loopback(7), [11, 11]), ends(3, loopback(7), [12, 12]));
    let expected = BTreeSet::from([BTreeSet::from([1, 2]), BTreeSet::from([3, 4])]);
    let all: Vec<Span> = one.into_iter().chain(two).collect();
    for order in 0..24 {
        let mut left = all.clone();
        let spans: Vec<Span> = [order / 6, order / 2 % 3, order % 2, 0].map(|at| left.remove(at)).into();
        for change in [|span| span, request, datagram] {
            let spans: Vec<Span> = spans.iter().cloned().map(change).collect();
            for wait in [0, 9] {
                assert_eq!(traces(&spans, wait), expected, "order {order}");
            }
            let facts: Vec<Facts> = spans.iter().map(|span| Facts::of_row(&row(span, 1), 1)).collect();
            for (a, one) in spans.iter().zip(&facts) {
                for (b, other) in spans.iter().zip(&facts) {
                    let apart = (a.id - 1) / 2 != (b.id - 1) / 2;
                    assert_eq!(one.same(other).is_none(), apart, "{} and {}", a.id, b.id);
                }
            }
        }
    }
}

#[test]
fn ends_in_two_namespaces_are_joined_where_a_network_may_be_between_them() {
    let joined = |spans: &[Span]| traces(spans, 9).len() == 1;
    let [asked, answered] = ends(1, exchange(7), [11, 12]);
    let between = exchange(7).seen(3, Rest, 5);
    assert!(joined(&[asked.clone(), between.clone(), answered.clone()]), "over veth");
    assert!(joined(&[asked.clone(), answered.clone()]));
    assert!(!joined(&[
        asked.clone(),
        in_namespace(12, exchange(7).process(4, ClientProcess, 0, &process(4, "a"), 0))
    ]));
    // What is known of an end stays known.
    let other = in_namespace(13, exchange(7).process(4, ServerProcess, 10, &process(4, "a"), 0));
    assert_eq!(traces(&[asked, answered, other, between], 9), BTreeSet::from([[1, 2, 3].into(), [4].into()]));
    let [asked, answered] = ends(1, loopback(7), [11, 12]);
    assert!(!joined(&[asked.clone(), answered]), "loopback of two namespaces");
    // A port of the host that leads into a pod: the client alone sees a loopback address.
    let behind = Exchange { client: endpoint(1, 1, 5), server: endpoint(1, 2, 8080), ..exchange(7) };
    let [_, answered] = ends(1, behind, [11, 12]);
    assert!(joined(&[asked.clone(), answered]));
    // Packets, and recordings that do not say, have any.
    assert!(joined(&[asked.clone(), loopback(7).seen(2, Rest, 5)]));
    assert!(joined(&[asked.clone(), loopback(7).process(2, ServerProcess, 5, &process(2, "b"), 0)]));
    // Loopback addresses of two hosts, whose first namespaces have the same number.
    let [asked, answered] = ends(1, loopback(7), [11, 11]);
    let facts = |span: &Span, host| Facts::of_row(&row(span, host), host);
    assert!(facts(&asked, 1).same(&facts(&answered, 1)).is_some());
    assert_eq!(facts(&asked, 1).same(&facts(&answered, 2)), None);
}

#[test]
fn ids_in_headers_join_and_name_the_trace() {
    let with = |id, seq, trace: Option<&str>, request: Option<&str>| Span {
        trace_id: trace.map(Into::into),
        x_request_id: request.map(Into::into),
        ..exchange(seq).seen(id, Rest, 0)
    };
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let trace = Some(id);
    let request = Some("f058ebd6-02f7-4d3f-942e-904344e8cde5");
    let spans = [with(1, 1, None, request), with(2, 2, trace, None), with(3, 3, trace, request)];
    for wait in 0..3 {
        assert_eq!(traces(&spans, wait), one(1..=3), "written after {wait}");
    }
    let mut stitcher = Stitcher::new(Limits::default());
    let ticket = stitcher.add(&spans[1]);
    let key = stitcher.settle(ticket, 2);
    assert_eq!(key, TraceKey { key: wire_key(id), traced: false });
    // What cannot be unique joins nothing.
    for id in [Some("1"), Some("0000000000000000"), Some("")] {
        assert_eq!(traces(&[with(1, 1, id, id), with(2, 2, id, id)], 9).len(), 2);
    }
}

#[test]
fn a_guess_joins_nothing() {
    let mut call = exchange(1).process(2, ClientProcess, 0, &process(1, "a"), 1);
    let served = exchange(2).process(1, ServerProcess, 0, &process(1, "a"), 0);
    assert_eq!(traces(&[call.clone(), served.clone()], 9), one(1..=2));
    call.parent.as_mut().unwrap().rule = Rule::Guess;
    assert_eq!(traces(&[call, served], 9).len(), 2);
}

#[test]
fn a_second_trace_id_is_merged_once_and_not_with_every_span() {
    let with = |id, trace: &str| Span {
        trace_id: Some(trace.into()),
        x_request_id: Some("request-1".into()),
        ..exchange(id as u32).seen(id, Rest, 0)
    };
    let mut stitcher = Stitcher::new(Limits::default());
    for id in 0..100 {
        stitcher.add(&with(id, if id % 2 == 0 { "trace-one" } else { "trace-two" }));
    }
    assert_eq!(stitcher.take_merges(), [Merge { from: wire_key("trace-two"), to: wire_key("trace-one") }]);
}

#[test]
fn it_is_bounded_and_counts_what_it_gives_up() {
    let limits = Limits { exchanges: 100, names: 100, sets: 100, trace_spans: 50 };
    let mut stitcher = Stitcher::new(limits);
    for id in 0..10_000 {
        let request = (id % 2 == 0).then(|| "the same everywhere".into());
        let ticket =
            stitcher.add(&Span { x_request_id: request, ..exchange(id as u32).seen(id + 1, Rest, 0) });
        let key = stitcher.settle(ticket, id + 1);
        assert!(key.key != 0);
    }
    let stats = stitcher.stats();
    assert_eq!((stats.spans, stats.too_large), (10_000, 10_000 / 2 / 50 - 1));
    assert!(stats.remembered <= 2 * 100 + 2 * 100 + 100, "{stats:?}");
    assert!(stats.forgotten > 19_000, "{stats:?}");
    stitcher.turn();
    stitcher.turn();
    assert!(stitcher.stats().remembered <= 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order, each trace's spans are one trace and no two traces are one, also when rows are written at once.
    #[test]
    fn the_order_of_arrival_does_not_matter(seed: u64, count in 1u64..6, wait in 0usize..200) {
        let mut random = Random(seed);
        let made: Vec<_> = (0..count).map(|n| random_trace(&mut random, 1 + n * 10_000, 3)).collect();
        let expected: BTreeSet<BTreeSet<u64>> =
            made.iter().map(|trace| trace.iter().map(|span| span.id).collect()).collect();
        let mut spans: Vec<_> = made.into_iter().flatten().collect();
        random.shuffle(&mut spans);
        prop_assert_eq!(traces(&spans, wait), expected);
    }

    /// Spans that are missing may split a trace, but join no strangers.
    #[test]
    fn lost_spans_join_no_strangers(seed: u64, lost in 1u64..60) {
        let mut random = Random(seed);
        let mut spans: Vec<_> = (0..8).flat_map(|n| random_trace(&mut random, 1 + n * 10_000, 3)).collect();
        spans.retain(|_| random.below(100) >= lost);
        random.shuffle(&mut spans);
        for trace in traces(&spans, 50) {
            let of: BTreeSet<_> = trace.iter().map(|id| id / 10_000).collect();
            prop_assert_eq!(of.len(), 1, "{:?}", trace);
        }
    }
}

#[test]
fn times_at_the_end_of_time_are_no_trap() {
    let mut span = exchange(1).seen(1, Rest, 0);
    (span.start_ns, span.end_ns) = (u64::MAX, u64::MAX);
    assert_eq!(traces(&[span, exchange(1).seen(2, Rest, 0)], 9).len(), 2);
}

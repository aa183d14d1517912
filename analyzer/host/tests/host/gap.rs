//! What a tracer that was switched off did not see is not made up.

use crate::common::*;
use std::sync::Arc;
use wirespan_event::{Event, Flags, Header, ProcessKey};
use wirespan_host::Host;
use wirespan_records::{Process, Span};

/// A worker takes a request; `meanwhile`; it asks another server, from a new connection.
fn spans(meanwhile: impl FnOnce(&mut Host)) -> Vec<Span> {
    let mut worker = Thread::new(200, 200);
    let mut taken = Socket::tcp(10, Flags::SERVER, ([10, 0, 0, 2], 80), ([10, 0, 0, 1], 40_000));
    let mut asked = Socket::tcp(20, Flags::CLIENT, ([10, 0, 0, 2], 50_000), ([10, 0, 0, 3], 80));
    let mut script = Script::default();
    script.open(&mut worker, &taken);
    script.receive(&mut worker, &mut taken, &get("/first"));
    let before = script.log.len();
    script.open(&mut worker, &asked);
    script.send(&mut worker, &mut asked, &get("/later"));
    script.receive(&mut worker, &mut asked, &ok("answer"));

    let mut host = Host::new(config());
    let mut spans = Vec::new();
    let key = ProcessKey { tgid: 200, start_ns: PROCESS_START_NS };
    host.process(key, Arc::new(Process { pid: 200, ..Process::default() }));
    let tell = |host: &mut Host, spans: &mut Vec<Span>, log: &[(Header, Vec<u8>)]| {
        for (header, payload) in log {
            host.event(&Event { header, payload });
            host.advance(header.exit_ns, spans);
        }
    };
    tell(&mut host, &mut spans, &script.log[..before]);
    meanwhile(&mut host);
    tell(&mut host, &mut spans, &script.log[before..]);
    host.finish(&mut spans);
    spans
}

#[test]
fn nothing_is_linked_across_a_gap() {
    let later = |spans: &[Span]| {
        spans.iter().find(|span| span.request_resource.as_deref() == Some("/later")).cloned().unwrap()
    };
    let told = spans(|_| {});
    assert!(later(&told).parent.is_some(), "{told:#?}");

    let untold = spans(Host::gap);
    let later = later(&untold);
    assert_eq!(later.parent, None);
    assert_eq!(later.process.map(|process| process.pid), Some(200), "who it is does not change");
    assert_eq!(untold.len(), 2, "{untold:#?}");
}

//! HTTP/2 and gRPC, recorded conversations of real programs, to which the tracer attached before or after they began, or of which
//! it lost events: what it says of a request is right, or it says that it does not know.

use crate::common::*;
use proptest::prelude::*;
use std::collections::HashMap;
use wirespan_records::{Session, Span};

const NGINX: &str = include_str!("../../../l7/tests/fixtures/http2/nginx.hex");
const GRPC: &str = include_str!("../../../l7/tests/fixtures/http2/grpc.hex");

/// Both ends' events of a recorded conversation.
fn conversation(text: &str, captured: usize) -> Log {
    let mut script = Script::default();
    let (mut client, mut server) = (Thread::new(100, 100), Thread::new(200, 200));
    let [mut client_end, mut server_end] = Socket::pair(10);
    script.open(&mut client, &client_end);
    script.open(&mut server, &server_end);
    for line in text.lines() {
        let hex: Vec<u8> = line[2..].bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = hex.chunks(2).map(byte).collect();
        if line.starts_with('>') {
            script.cut(&mut client, &mut client_end, &bytes, false, captured);
            script.cut(&mut server, &mut server_end, &bytes, true, captured);
        } else {
            script.cut(&mut server, &mut server_end, &bytes, false, captured);
            script.cut(&mut client, &mut client_end, &bytes, true, captured);
        }
    }
    script.close(&client_end);
    script.close(&server_end);
    script.log
}

type Key = (&'static str, Option<u64>);

fn by_stream(spans: Vec<Span>) -> HashMap<Key, Span> {
    spans.into_iter().map(|span| ((span.observation_point.as_str(), span.request_id), span)).collect()
}

/// Every field that is known is right.
fn agrees(span: &Span, truth: &HashMap<Key, Span>) -> Result<(), TestCaseError> {
    if span.session != Session::Complete {
        return Ok(());
    }
    let whole = truth.get(&(span.observation_point.as_str(), span.request_id));
    let Some(whole) = whole else { return Err(TestCaseError::fail(format!("made up: {span:?}"))) };
    let texts = |span: &Span| {
        [&span.request_type, &span.request_domain, &span.request_resource, &span.endpoint, &span.trace_id]
            .map(Clone::clone)
    };
    for (found, right) in texts(span).into_iter().zip(texts(whole)) {
        prop_assert!(found.is_none() || found == right, "{:?} is not {:?}", found, right);
    }
    let codes = (span.response_code, whole.response_code);
    prop_assert!(
        span.truncated || codes.0.is_none() || codes.0 == codes.1,
        "{:?} {:?} {:?}",
        codes,
        span,
        whole
    );
    prop_assert_eq!(span.req_tcp_seq, whole.req_tcp_seq);
    prop_assert!(span.truncated || span.resp_tcp_seq == whole.resp_tcp_seq, "{:?} {:?}", span, whole);
    Ok(())
}

#[test]
fn both_ends_see_every_call() {
    for text in [NGINX, GRPC] {
        let spans = run(&conversation(text, usize::MAX));
        let (client, server): (Vec<_>, Vec<_>) =
            spans.iter().partition(|span| span.observation_point.as_str() == "c-p");
        assert_eq!(client.len(), server.len());
        assert!(client.len() >= 4);
        for (client, server) in client.iter().zip(&server) {
            assert_eq!(client.request_resource, server.request_resource);
            assert_eq!((client.req_tcp_seq, client.resp_tcp_seq), (server.req_tcp_seq, server.resp_tcp_seq));
        }
    }
}

#[test]
fn attached_late_every_later_call_has_its_times_and_status() {
    let log = conversation(GRPC, usize::MAX);
    let truth = by_stream(run(&log));
    for start in 2..log.len() {
        let after = log[start].0.enter_ns + BOOT_NS;
        let late = by_stream(run(&log[start..]));
        for (key, whole) in
            truth.iter().filter(|(_, span)| span.start_ns > after && span.session == Session::Complete)
        {
            let span = late.get(key).unwrap_or_else(|| panic!("{start}: no {key:?}"));
            assert_eq!(
                (span.start_ns, span.end_ns, span.session),
                (whole.start_ns, whole.end_ns, Session::Complete)
            );
            assert_eq!(span.response_status, whole.response_status, "{start} {key:?}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_said_after_a_late_start_and_losses_is_right(
        is_grpc in any::<bool>(),
        start in 0..30usize,
        captured in prop_oneof![Just(usize::MAX), 20..200usize],
        lost in prop::collection::vec(prop::bool::weighted(0.1), 1..60),
    ) {
        let text = if is_grpc { GRPC } else { NGINX };
        let truth = by_stream(run(&conversation(text, usize::MAX)));
        let log = conversation(text, captured);
        let kept: Log = log
            .iter()
            .zip(lost.iter().cycle())
            .skip(start)
            .filter(|(_, lost)| !**lost)
            .map(|(event, _)| event.clone())
            .collect();
        for span in run(&kept) {
            agrees(&span, &truth)?;
        }
    }
}

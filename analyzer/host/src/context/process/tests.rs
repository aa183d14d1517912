//! Whatever a process does, and for how long, what is remembered of it is bounded.

use super::*;
use crate::context::Rules;
use crate::context::happening::Wait;
use crate::context::tests::Script;
use wirespan_records::Rule;

const SECOND_NS: u64 = 1_000_000_000;

fn script(max_requests: usize) -> Script {
    Script::of(ContextConfig { rules: Rules::BLIND, max_requests, ..ContextConfig::default() })
}

fn process(script: &Script) -> &ProcessState {
    script.process().unwrap()
}

/// Thread `tid` asks, and hears.
fn ask(script: &mut Script, tid: u32, span: u64) {
    script.ask((tid, 0, Wait::Unknown), span, 900);
    script.hear((tid, 0, Wait::Unknown), span, 900);
}

#[test]
fn a_process_that_ended_is_not_remembered_for_what_is_closed_after_it() {
    let mut script = script(16);
    script.serve((1, 0, Wait::Unknown), 10, 10);
    let at = script.at(1, 0, Wait::Unknown);
    script.happen(at, Happening::Exit);
    let over = [Happening::Gap { conn: 10 }, Happening::Over { span: 10 }, Happening::Close { conn: 10 }];
    for what in over {
        script.happen(at, what);
    }
    assert!(script.process().is_none());
}

#[test]
fn a_request_that_is_open_for_days_remembers_few_of_those_that_were_made_for_it() {
    let mut script = script(4096);
    script.serve((1, 0, Wait::Unknown), 1, 10);
    for span in 2..2000 {
        ask(&mut script, 1, span);
        script.now_ns += SECOND_NS;
    }
    let clients = process(&script).servers[&1].clients.len();
    assert!((1..=128).contains(&clients), "{clients}");
    assert!(script.parents().iter().all(|(_, parent)| *parent == Some(1)));
}

#[test]
fn many_requests_at_once_leave_few_checks() {
    let mut script = script(16);
    script.serve((2, 0, Wait::Unknown), 1, 10);
    for span in 2..2000 {
        ask(&mut script, 1, span);
    }
    let checks = process(&script).checks.len();
    assert!(checks <= 4 * 16 + 1, "{checks}");
    assert_eq!(script.parents().len(), 1998);
}

#[test]
fn a_request_that_is_forgotten_does_not_stay_open_on_its_connection() {
    let mut script = script(4);
    for (tid, span) in (1..).zip(10..20) {
        script.serve((tid, 0, Wait::Unknown), span, span);
    }
    script.answer((1, 0, Wait::Unknown), 10, 10);
    assert!(process(&script).conns[&10].open.is_empty());
}

#[test]
fn a_connection_with_a_number_that_was_known_begins_anew() {
    let mut script = script(16);
    let at = script.at(1, 0, Wait::Unknown);
    script.happen(at, Happening::Unseen { conn: 10, open: true });
    for what in [Happening::Accept { conn: 10 }, Happening::Connect { conn: 10 }] {
        script.happen(at, what);
    }
    assert_eq!(process(&script).unseen, 0);
}

#[test]
fn of_thousands_that_are_open_each_answer_looks_at_few() {
    let mut handovers = Handovers::default();
    let looked: usize = (0..10_000).map(|_| if handovers.is_due(4096) { 4096 } else { 0 }).sum();
    assert!(looked > 0 && looked <= 256 * 10_000, "{looked}");
    assert!((0..100).all(|_| handovers.is_due(64)));
}

#[test]
fn ids_are_forgotten_with_the_requests_that_carry_them() {
    let mut script =
        Script::of(ContextConfig { rules: Rules::ALL, max_requests: 4, ..ContextConfig::default() });
    for span in 10..30 {
        let at = script.at(1, 0, Wait::Unknown);
        script.happen(
            at,
            Happening::ServerRequest {
                span,
                conn: span,
                stream: 0,
                beside: false,
                trace_id: Some("trace"),
                x_request_id: Some(&span.to_string()),
            },
        );
        if span % 2 == 0 {
            script.answer(at, span, span);
        }
    }
    let carriers = &process(&script).carriers;
    let open = process(&script).servers.values().filter(|server| server.closed_ns.is_none()).count();
    assert!((1..=5).contains(&open));
    assert_eq!(carriers.of(Rule::WireId)["trace"].len(), open);
    assert_eq!(carriers.of(Rule::RequestId).len(), open);
}

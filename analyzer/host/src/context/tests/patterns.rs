//! One test for each way in which programs go on from a request to their own.

use super::*;
use wirespan_records::Rule;

#[test]
fn a_thread_that_waits_for_each_answer() {
    let mut s = Script::new();
    for (thread, base) in [(1, 10), (2, 20)] {
        let at = s.at(thread, 0, Wait::Unknown);
        s.serve(at, base, base);
        // With a time limit, Python polls before each call: that is a turn each.
        for call in 1..3 {
            s.ask((thread, call as u32, Wait::Until(5000)), base + call, base + 5);
            s.hear((thread, call as u32, Wait::Until(5000)), base + call, base + 5);
        }
    }
    assert_eq!(s.parents(), [(11, Some(10)), (12, Some(10)), (21, Some(20)), (22, Some(20))]);
}

#[test]
fn a_loop_with_callbacks_and_connections_that_open_later() {
    let mut s = Script::new();
    let at = s.at(1, 1, Wait::Forever);
    s.serve(at, 10, 100);
    s.happen(at, Happening::Connect { conn: 200 });
    let at = s.at(1, 1, Wait::Forever);
    s.serve(at, 20, 101);
    s.happen(at, Happening::Connect { conn: 201 });
    // The second is open first, in a turn that began with another request.
    s.serve((1, 2, Wait::Forever), 30, 102);
    s.ask((1, 2, Wait::Forever), 21, 201);
    s.ask((1, 3, Wait::Forever), 11, 200);
    s.hear((1, 4, Wait::Forever), 11, 200);
    // What goes on after a response is for what its request was for.
    s.ask((1, 4, Wait::Forever), 12, 200);
    let at = s.at(1, 5, Wait::Forever);
    s.hear(at, 21, 201);
    s.answer(at, 20, 101);
    assert_eq!(s.parents(), [(11, Some(10)), (12, Some(10)), (21, Some(20))]);
}

#[test]
fn a_pool_whose_worker_wakes_who_waits() {
    let mut s = Script::new();
    for (thread, span) in [(1, 10), (2, 20)] {
        s.serve((thread, 0, Wait::Unknown), span, span);
    }
    // Both were queued; the worker takes one after the other, and nobody wakes it.
    for (thread, span) in [(2, 20), (1, 10)] {
        s.ask((3, 0, Wait::Unknown), span + 1, span + 5);
        s.hear((3, 0, Wait::Unknown), span + 1, span + 5);
        s.happen(
            (3, 0, Wait::Unknown),
            Happening::Wake { tid: thread, coroutine: 0, futex: 0x1000 * span, timed: false },
        );
        s.answer((thread, 0, Wait::Unknown), span, span);
    }
    assert_eq!(s.parents(), [(11, Some(10)), (21, Some(20))]);
}

/// A worker that has heard wakes these threads, of requests 10 and 20, each at a place to wait; the call is for 10.
fn wakes_after_an_answer(wakes: &[(u32, u64, bool)]) -> Vec<(u64, Option<u64>)> {
    let mut s = Script::new();
    for (thread, span) in [(1, 10), (2, 20)] {
        s.serve((thread, 0, Wait::Unknown), span, span);
    }
    s.ask((3, 0, Wait::Unknown), 11, 900);
    let at = s.at(3, 0, Wait::Unknown);
    s.hear(at, 11, 900);
    for &(tid, futex, timed) in wakes {
        s.happen((3, 0, Wait::Unknown), Happening::Wake { tid, coroutine: 0, futex, timed });
    }
    for (thread, span) in [(1, 10), (2, 20)] {
        s.answer((thread, 0, Wait::Unknown), span, span);
    }
    s.parents()
}

#[test]
fn a_lock_that_a_waiting_thread_looks_at_again_is_no_answer() {
    // As a monitor of Java: threads wait for it for some time, then for ever.
    let (monitor, answer) = ((2, 0x9278, true), (1, 0x7d08, false));
    assert_eq!(wakes_after_an_answer(&[monitor, answer]), [(11, Some(10))]);
    assert_eq!(wakes_after_an_answer(&[monitor, (2, 0x927c, false), answer, answer]), [(11, Some(10))]);
    // Where answers are always waited for with a limit, that is one.
    assert_eq!(wakes_after_an_answer(&[(1, 0x7d08, true)]), [(11, Some(10))]);
}

#[test]
fn what_a_thread_with_a_request_lets_go_is_a_lock() {
    let mut s = Script::new();
    for (thread, span) in [(1, 10), (2, 20)] {
        s.serve((thread, 0, Wait::Unknown), span, span);
    }
    let wake = |s: &mut Script, waker, tid| {
        s.happen(
            (waker, 0, Wait::Unknown),
            Happening::Wake { tid, coroutine: 0, futex: 0x9000, timed: false },
        );
    };
    s.ask((3, 0, Wait::Unknown), 11, 900);
    s.hear((3, 0, Wait::Unknown), 11, 900);
    // It is known to be one only later.
    wake(&mut s, 3, 2);
    wake(&mut s, 1, 2);
    assert_eq!(s.parents(), [(11, None)]);
}

#[test]
fn who_reads_for_others_gives_each_answer_to_one_of_them() {
    let mut s = Script::new();
    for (thread, span) in [(1, 10), (2, 20)] {
        s.serve((thread, 0, Wait::Unknown), span, span);
    }
    for (worker, call) in [(3, 11), (4, 21)] {
        s.ask((worker, 0, Wait::Unknown), call, call);
    }
    let wake = |s: &mut Script, at, tid, futex| {
        s.happen(at, Happening::Wake { tid, coroutine: 0, futex, timed: false });
    };
    s.hear((9, 1, Wait::Forever), 11, 11);
    let at = s.at(9, 1, Wait::Forever);
    wake(&mut s, at, 3, 0x3000);
    // Something else; the worker is at it when 21 is heard, and need not be woken for that.
    let at = s.at(9, 1, Wait::Forever);
    wake(&mut s, at, 4, 0x4000);
    let at = s.at(9, 2, Wait::Forever);
    s.hear(at, 21, 21);
    for (worker, handler) in [(3, 1), (4, 2)] {
        let at = s.at(worker, 0, Wait::Unknown);
        wake(&mut s, at, handler, 0x10_0000 * u64::from(handler));
    }
    assert_eq!(s.parents(), [(11, Some(10)), (21, None)]);
}

/// Two requests put work into a queue, an item each; a worker takes these, and asks.
fn queued(serves: bool, items: [u64; 2]) -> Vec<(u64, Option<u64>)> {
    let mut s = Script::new();
    if serves {
        let at = s.at(3, 0, Wait::Unknown);
        s.serve(at, 500, 500);
        s.answer(at, 500, 500);
    }
    for (thread, item) in [1, 2].into_iter().zip(items) {
        let at = s.at(thread, 0, Wait::Unknown);
        s.serve(at, 10 * u64::from(thread), u64::from(thread));
        s.happen(at, Happening::Put { item });
    }
    for (span, item) in [11, 21].into_iter().zip(items) {
        let at = s.at(3, 0, Wait::Unknown);
        s.happen(at, Happening::Take { item });
        s.ask(at, span, 900);
        s.hear((3, 0, Wait::Unknown), span, 900);
    }
    s.parents()
}

#[test]
fn a_queue_tells_for_whom_work_is() {
    assert_eq!(queued(false, [71, 72]), [(11, Some(10)), (21, Some(20))]);
    // The same object from both: nobody knows which of them is taken first.
    assert_eq!(queued(false, [71, 71]), [(11, None), (21, None)]);
    // Who answers requests itself takes other things from queues as well.
    assert_eq!(queued(true, [71, 72]), [(11, None), (21, None)]);
}

#[test]
fn a_lock_that_all_wait_for_hands_on_nothing() {
    let mut s = Script::new();
    for thread in 1..5 {
        s.happen(
            (9, 0, Wait::Unknown),
            Happening::Wake { tid: thread, coroutine: 0, futex: 0x5000, timed: true },
        );
    }
    s.serve((1, 0, Wait::Unknown), 10, 10);
    s.happen((1, 0, Wait::Unknown), Happening::Wake { tid: 7, coroutine: 0, futex: 0x5008, timed: true });
    s.ask((7, 0, Wait::Unknown), 11, 200);
    s.hear((7, 0, Wait::Unknown), 11, 200);
    assert_eq!(s.parents(), [(11, None)]);
}

#[test]
fn a_task_is_known_by_what_it_answers() {
    let mut s = Script::new();
    // One callback reads for all; tasks 71 and 72 answer on their connections, and made 81 and 82. 90 is there for no request.
    let coroutine = |at: Moment, coroutine| Moment { coroutine, ..at };
    let make = |s: &mut Script, task, made| {
        let at = s.at(1, 0, Wait::Forever);
        s.happen(coroutine(at, task), Happening::Fork { tid: 0, coroutine: made, place: 0 });
    };
    make(&mut s, 71, 90);
    for span in [10, 20] {
        let at = s.at(1, 1, Wait::Forever);
        s.serve(coroutine(at, 5), span, span);
    }
    make(&mut s, 71, 81);
    make(&mut s, 72, 82);
    let at = s.at(1, 2, Wait::Look);
    s.ask(coroutine(at, 90), 30, 35);
    for (made, span) in [(82, 20), (81, 10)] {
        let at = s.at(1, 2, Wait::Look);
        s.ask(coroutine(at, made), span + 1, span + 5);
    }
    for (task, span) in [(71, 10), (72, 20)] {
        let at = s.at(1, 4, Wait::Look);
        s.answer(coroutine(at, task), span, span);
    }
    assert_eq!(s.parents(), [(11, Some(10)), (21, Some(20)), (30, None)]);
}

#[test]
fn responses_that_come_together_go_on_in_their_order() {
    let mut s = Script::new();
    for span in [10, 20, 30] {
        let at = s.at(1, 1, Wait::Forever);
        s.serve(at, span, span);
        s.ask(at, span + 1, 900);
    }
    let at = s.at(1, 2, Wait::Forever);
    s.happen(at, Happening::Data { conn: 900, ingress: true, ahead: false });
    for span in [11, 21, 31] {
        s.happen(at, Happening::ClientResponse { span });
    }
    // 20 is answered after the others went on.
    for span in [12, 32] {
        s.ask((1, 2, Wait::Forever), span, 900);
    }
    s.answer((1, 2, Wait::Forever), 20, 20);
    let parents = s.parents();
    assert_eq!(parents, [(11, Some(10)), (12, Some(10)), (21, Some(20)), (31, Some(30)), (32, Some(30))]);
}

#[test]
fn ids_decide_at_once_and_rules_can_be_off() {
    let ask = |rules| {
        let mut s = Script::with(rules);
        let at = s.at(1, 1, Wait::Forever);
        let request = |span, trace_id| Happening::ServerRequest {
            span,
            conn: span,
            stream: 0,
            beside: false,
            trace_id,
            x_request_id: None,
        };
        s.happen(at, request(10, Some("a")));
        s.happen(at, request(20, Some("b")));
        let began = s.at(2, 1, Wait::Forever);
        let (conn, peer, trace_id) = (5, PEER, Some("b"));
        s.happen(
            began,
            Happening::ClientRequest { span: 21, conn, stream: 0, peer, began, trace_id, x_request_id: None },
        );
        s.decisions
    };
    let parent = Some(Parent { span: 20, rule: Rule::WireId, confidence: 1.0 });
    assert_eq!(ask(Rules::ALL), [Decision { client: 21, parent }]);
    assert_eq!(ask(Rules::BLIND), []);
}

#[test]
fn what_was_lost_leaves_no_context() {
    let mut s = Script::new();
    s.serve((1, 1, Wait::Forever), 10, 10);
    let at = s.at(1, 1, Wait::Forever);
    s.happen(at, Happening::Lost);
    s.ask(at, 11, 200);
    assert_eq!(s.parents(), [(11, None)]);
}

#[test]
fn responses_to_what_was_not_seen_bring_work_for_what_is_not_known() {
    for seen_last in [true, false] {
        let mut s = Script::new();
        let mut turn = 0;
        for span in [10, 20] {
            turn += 1;
            s.serve((1, turn, Wait::Forever), span, span);
        }
        s.ask((1, turn, Wait::Forever), 21, 200);
        // One read brings the response to that, and three to requests from before the tracer began.
        let at = s.at(1, turn + 1, Wait::Forever);
        s.happen(at, Happening::Data { conn: 200, ingress: true, ahead: false });
        let mut came = [Happening::UnseenAnswer; 4];
        came[if seen_last { 3 } else { 0 }] = Happening::ClientResponse { span: 21 };
        came.into_iter().for_each(|what| s.happen(at, what));
        for span in 31..35 {
            s.ask((1, turn + 1, Wait::Forever), span, 200);
        }
        let wrong = |(span, parent): &&(u64, Option<u64>)| {
            let right = if seen_last { 34 } else { 31 };
            *span > 30 && parent.is_some() && (*span, *parent) != (right, Some(20))
        };
        let parents = s.parents();
        assert_eq!(parents.iter().find(wrong), None, "{parents:?}");
    }
}

/// Nothing was told of the connection before, as its opening was lost.
#[test]
fn what_is_opened_for_bytes_that_wait_is_for_nothing_that_came_later() {
    let mut s = Script::new();
    s.happen((1, 1, Wait::Forever), Happening::Lost);
    let at = s.at(1, 2, Wait::Forever);
    s.happen(at, Happening::Data { conn: 10, ingress: true, ahead: true });
    s.happen(at, Happening::Held { conn: 10, held: true });
    s.happen((1, 2, Wait::Forever), Happening::Connect { conn: 200 });
    s.serve((1, 3, Wait::Forever), 10, 11);
    s.ask((1, 3, Wait::Forever), 11, 200);
    assert_eq!(s.parents(), [(11, None)]);
}

#[test]
fn threads_that_answer_what_others_heard_prove_nothing() {
    let mut s = Script::new();
    for n in 0..20 {
        let span = 10 * n;
        s.serve((1, n as u32, Wait::Forever), span + 1, span + 1);
        let at = s.at(2, n as u32, Wait::Forever);
        s.serve(at, span + 2, span + 2);
        s.ask(at, span + 3, span + 3);
        // Each thread answers for the other.
        for (tid, answered) in [(1, span + 2), (2, span + 1)] {
            s.answer((tid, n as u32 + 1, Wait::Forever), answered, answered);
        }
    }
    assert!(s.parents().iter().all(|(_, parent)| parent.is_none()));
}

#[test]
fn requests_of_one_connection_that_are_read_one_by_one_go_on_in_their_order() {
    let mut s = Script::new();
    for span in [10, 20, 30] {
        s.serve((1, 1, Wait::Forever), span, 1);
    }
    // The second needs a new connection, which is there later.
    let ask = |s: &mut Script, turn, span| {
        s.ask((1, turn, Wait::Forever), span, span);
    };
    ask(&mut s, 1, 11);
    s.happen((1, 1, Wait::Forever), Happening::Connect { conn: 21 });
    ask(&mut s, 1, 31);
    ask(&mut s, 2, 21);
    assert_eq!(s.parents(), [(11, Some(10)), (21, Some(20)), (31, Some(30))]);
}

#[test]
fn answers_that_are_collected_prove_nothing() {
    let mut s = Script::new();
    for (turn, [first, second]) in [(1, [10, 20]), (5, [30, 40])] {
        for span in [first, second] {
            s.serve((1, turn, Wait::Forever), span, 1);
        }
        for span in [first, second] {
            s.ask((1, turn, Wait::Forever), span + 1, span + 1);
        }
        for span in [first, second] {
            s.hear((1, turn + 1, Wait::Forever), span + 1, span + 1);
        }
        // Both leave with one event, in the turn of the second one's response.
        let at = s.at(1, turn + 1, Wait::Forever);
        s.answer(at, first, 1);
        s.happen(at, Happening::ServerResponse { span: second });
    }
    assert_eq!(s.parents(), [(11, Some(10)), (21, Some(20)), (31, Some(30)), (41, Some(40))]);
}

#[test]
fn pipelined_requests_are_worked_on_one_after_the_other_by_who_waits_for_answers() {
    let mut s = Script::new();
    let at = s.at(1, 1, Wait::Unknown);
    for span in [10, 20] {
        s.serve(at, span, 1);
    }
    for span in [10, 20] {
        for call in [span + 1, span + 2] {
            s.ask((1, 1, Wait::Unknown), call, 900);
            s.hear((1, 1, Wait::Unknown), call, 900);
        }
        s.answer((1, 1, Wait::Unknown), span, 1);
    }
    assert_eq!(s.parents(), [(11, Some(10)), (12, Some(10)), (21, Some(20)), (22, Some(20))]);
}

#[test]
fn who_does_not_wait_for_answers_is_not_at_the_first_of_pipelined_requests() {
    let mut s = Script::new();
    let at = s.at(1, 1, Wait::Forever);
    for span in [10, 20] {
        s.serve(at, span, 1);
    }
    for span in [10, 20] {
        s.ask((1, 1, Wait::Forever), span + 1, 900);
    }
    for span in [10, 20] {
        s.hear((1, 2, Wait::Forever), span + 1, 900);
        s.answer((1, 2, Wait::Forever), span, 1);
    }
    assert_eq!(s.parents(), [(11, Some(10)), (21, Some(20))]);
}

#[test]
fn a_woken_thread_works_for_the_only_request_or_proves_nothing() {
    let parents = |others: u64| {
        let mut s = Script::new();
        for other in 0..others {
            s.serve((50 + other as u32, 1, Wait::Unknown), 500 + other, 500 + other);
        }
        let at = s.at(1, 1, Wait::Unknown);
        s.serve(at, 10, 10);
        s.happen(at, Happening::Wake { tid: 2, coroutine: 0, futex: 4096, timed: false });
        s.ask((2, 1, Wait::Unknown), 11, 900);
        s.parents()
    };
    assert_eq!(parents(0), [(11, Some(10))]);
    assert_eq!(parents(1), [(11, None)]);
}

#[test]
fn the_ends_of_responses_that_come_beside_each_other_are_what_is_gone_on_with() {
    let mut s = Script::new();
    for (turn, span) in [(1, 10), (2, 20)] {
        s.serve((1, turn, Wait::Forever), span, span);
        s.ask((1, turn, Wait::Forever), span + 1, 900);
    }
    s.hear((1, 3, Wait::Forever), 11, 900);
    let at = s.at(1, 4, Wait::Forever);
    s.happen(at, Happening::Data { conn: 900, ingress: true, ahead: false });
    s.happen(at, Happening::ClientDone { span: 11 });
    s.ask((1, 4, Wait::Forever), 12, 900);
    // The head of the second's response and the end of the first's come together; the end is what is answered for.
    s.hear((1, 5, Wait::Forever), 12, 900);
    let at = s.at(1, 6, Wait::Forever);
    s.hear(at, 21, 900);
    s.happen(at, Happening::ClientDone { span: 12 });
    s.answer((1, 6, Wait::Forever), 10, 10);
    let at = s.at(1, 7, Wait::Forever);
    s.happen(at, Happening::Data { conn: 900, ingress: true, ahead: false });
    s.happen(at, Happening::ClientDone { span: 21 });
    s.answer((1, 7, Wait::Forever), 20, 20);
    assert_eq!(s.parents(), [(11, Some(10)), (12, Some(10)), (21, Some(20))]);
}

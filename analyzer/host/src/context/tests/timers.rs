//! What timers of a loop do is not for what came before them, nor is what was put off until its turn.

use super::*;

#[test]
fn a_timer_in_the_turn_of_other_bytes_is_told_by_the_answer() {
    let mut s = Script::new();
    // Timers are seen to begin requests by themselves.
    for k in 0..4 {
        let (span, turn) = (1000 + 10 * k, 10 * k as u32);
        s.serve((1, turn, Wait::Until(5)), span, 900);
        s.serve((1, turn, Wait::Until(5)), span + 1, 901);
        s.ask((1, turn + 1, Wait::Until(5)), span + 2, 902);
        let at = s.at(1, turn + 2, Wait::Until(50));
        s.hear(at, span + 2, 902);
        s.answer(at, span, 900);
        s.answer((1, turn + 3, Wait::Until(50)), span + 1, 901);
    }
    s.serve((1, 91, Wait::Until(50)), 10, 100);
    s.now_ns += 60_000_000;
    s.serve((1, 92, Wait::Until(1)), 20, 101);
    // The timer of 10, not of 20.
    s.ask((1, 92, Wait::Until(1)), 11, 200);
    let at = s.at(1, 93, Wait::Until(50));
    s.hear(at, 11, 200);
    s.answer(at, 10, 100);
    let parents = s.parents();
    assert!(parents.contains(&(11, Some(10))), "{parents:?}");
}

#[test]
fn timers_that_are_told_ask_for_nobody() {
    let mut s = Script::new();
    let at = s.at(1, 1, Wait::Look);
    s.serve(at, 10, 100);
    s.ask(at, 11, 900);
    s.serve((1, 1, Wait::Look), 20, 101);
    s.ask((1, 1, Wait::Look), 21, 900);
    s.ask((1, 2, Wait::Timers), 1, 900);
    // One read brings all responses. That to the timer's request is none of those that are gone on from.
    let at = s.at(1, 3, Wait::Look);
    s.hear(at, 11, 900);
    s.happen(at, Happening::ClientResponse { span: 1 });
    s.happen(at, Happening::ClientResponse { span: 21 });
    for call in [12, 22] {
        s.ask((1, 3, Wait::Look), call, 900);
    }
    for (turn, call) in [(4, 12), (5, 22)] {
        s.hear((1, turn, Wait::Look), call, 900);
        s.answer((1, turn, Wait::Look), call - 2, 100 + call / 20);
    }
    let own = [(11, Some(10)), (12, Some(10)), (21, Some(20)), (22, Some(20))];
    assert_eq!(s.parents(), [&[(1, None)], &own[..]].concat());
}

#[test]
fn what_follows_a_timers_response_is_not_for_the_only_open_request() {
    let mut s = Script::new();
    for tick in 1..4 {
        s.ask((1, tick, Wait::Timers), tick.into(), 900);
        s.hear((1, tick, Wait::Look), tick.into(), 900);
    }
    s.serve((1, 10, Wait::Look), 10, 100);
    s.ask((1, 11, Wait::Timers), 4, 900);
    s.hear((1, 12, Wait::Look), 4, 900);
    s.ask((1, 12, Wait::Look), 5, 900);
    s.answer((1, 13, Wait::Look), 10, 100);
    assert!(s.parents().iter().all(|(_, parent)| parent.is_none()));
}

#[test]
fn a_timer_that_runs_while_nothing_is_open_is_no_requests_work() {
    let mut s = Script::new();
    for n in 0..20 {
        let span = 10 * n;
        let at = s.at(1, 4 * n as u32, Wait::Until(1));
        s.serve(at, span + 1, 1);
        // The timer is due in the turn of the request too.
        s.ask(at, span + 2, 900);
        s.answer((1, 4 * n as u32 + 1, Wait::Until(1)), span + 1, 1);
        s.ask((1, 4 * n as u32 + 2, Wait::Until(1)), span + 3, 900);
    }
    assert!(s.parents().iter().all(|(_, parent)| parent.is_none()));
}

#[test]
fn what_is_made_before_other_bytes_of_a_turn_is_no_timers_and_what_is_more_than_usual_may_be() {
    let mut s = Script::new();
    let mut turn = 0;
    // A timer makes a request at the end of turns, of which two in a row come by themselves often enough to be noticed.
    for round in 0..10 {
        let [first, second] = [100 + round * 40, 120 + round * 40];
        turn += 1;
        for span in [first, second] {
            s.serve((1, turn, Wait::Look), span, span);
            s.ask((1, turn, Wait::Look), span + 1, span + 1000);
        }
        let at = s.at(1, turn, Wait::Look);
        s.ask(at, second + 2, 3000);
        turn += 1;
        for span in [first, second] {
            s.hear((1, turn, Wait::Look), span + 1, span + 1000);
            s.answer((1, turn, Wait::Look), span, span);
        }
        turn += 1;
        s.hear((1, turn, Wait::Look), second + 2, 3000);
    }
    for (client, parent) in s.parents() {
        match client % 20 {
            1 => assert_eq!(parent, Some(client - 1)),
            _ => assert_eq!(parent, None, "{client}"),
        }
    }
}

#[test]
fn timers_at_the_end_of_a_turn_are_not_for_what_came_last_where_nothing_follows_at_once() {
    let mut s = Script::new();
    for round in 0..3 {
        let spans: Vec<u64> = (0..6).map(|n| 100 + round * 120 + n * 20).collect();
        for (turn, span) in (round as u32 * 10..).zip(&spans) {
            s.happen((1, turn, Wait::Look), Happening::Accept { conn: *span + 20 });
            s.serve((1, turn, Wait::Look), *span, *span);
        }
        // The timers of all are due in the turn of the last one.
        for span in &spans {
            s.ask((1, round as u32 * 10 + 5, Wait::Look), span + 1, 900);
        }
        for span in &spans {
            s.hear((1, round as u32 * 10 + 6, Wait::Look), span + 1, 900);
            s.answer((1, round as u32 * 10 + 6, Wait::Look), *span, *span);
        }
    }
    for (client, parent) in s.parents() {
        assert!(parent.is_none_or(|parent| parent + 1 == client), "{client} is not for {parent:?}");
    }
}

/// A loop with one connection for two requests at a time: what waits for it goes out when another's response came.
#[test]
fn what_waited_for_a_connection_is_not_for_the_response_that_freed_it() {
    let mut s = Script::new();
    let mut turn = 0;
    for round in 1..=40 {
        let [first, second] = [round * 100, round * 100 + 50];
        turn += 1;
        s.serve((1, turn, Wait::Forever), first, 1);
        s.ask((1, turn, Wait::Forever), first + 1, 900);
        turn += 1;
        s.serve((1, turn, Wait::Forever), second, 2);
        // What came for the first sends what the second waits with, and the other way round.
        for (heard, sent) in [(first + 1, second + 1), (second + 1, first + 2), (first + 2, second + 2)] {
            turn += 1;
            s.hear((1, turn, Wait::Forever), heard, 900);
            if heard == first + 2 {
                s.answer((1, turn, Wait::Forever), first, 1);
            }
            s.ask((1, turn, Wait::Forever), sent, 900);
        }
        turn += 1;
        s.hear((1, turn, Wait::Forever), second + 2, 900);
        s.answer((1, turn, Wait::Forever), second, 2);
        s.now_ns += 100_000_000;
    }
    let later: Vec<_> = s.parents().into_iter().filter(|(client, _)| *client >= 700).collect();
    for (client, parent) in &later {
        assert!(parent.is_none_or(|parent| parent == client / 50 * 50), "{client} is not for {parent:?}");
    }
    // What was sent as the request came, and what its response came for, is still known.
    let known = later.iter().filter(|(_, parent)| parent.is_some()).count();
    assert!(known * 4 >= later.len() * 2, "{known} of {}", later.len());
}

/// A loop that reads in one turn and sends in a later one, beside what came by then. `waits` is how it waits before that.
fn sends_later(waits: Wait) {
    let mut s = Script::new();
    let mut turn = 0;
    for round in 1..=60 {
        let [first, second] = [round * 100, round * 100 + 50];
        turn += 1;
        s.serve((1, turn, Wait::Until(400)), first, 1);
        turn += 1;
        if round % 2 == 0 {
            s.serve((1, turn, waits), second, 2);
            s.ask((1, turn, waits), first + 1, 900);
        } else {
            s.ask((1, turn, waits), first + 1, 900);
            s.serve((1, turn, waits), second, 2);
        }
        // Nothing that timers do comes before other bytes of the turn.
        s.happen((1, turn, waits), Happening::Data { conn: 3, ingress: true, ahead: false });
        turn += 1;
        s.hear((1, turn, Wait::Until(400)), first + 1, 900);
        turn += 1;
        s.answer((1, turn, waits), first, 1);
        s.answer((1, turn, waits), second, 2);
        s.now_ns += 300_000_000;
    }
    for (client, parent) in s.parents().into_iter().filter(|(client, _)| *client >= 1000) {
        assert!(parent.is_none_or(|parent| parent + 1 == client), "{client} is not for {parent:?}");
    }
}

#[test]
fn what_is_sent_in_a_later_turn_is_not_for_what_came_in_that() {
    sends_later(Wait::Until(400));
}

#[test]
fn what_a_loop_sends_before_it_reads_is_no_timers_either() {
    sends_later(Wait::Look);
}

/// Timers that are told ask for nobody on the connections that requests use too: that says nothing of what comes before other calls.
#[test]
fn what_told_timers_send_leaves_the_links_of_others() {
    let mut s = Script::new();
    let mut turn = 0;
    for round in 1..=20 {
        let [first, second, ticked] = [round * 100, round * 100 + 50, round * 100 + 90];
        turn += 1;
        for (conn, span) in (1..).zip([first, second]) {
            turn += 1;
            s.serve((1, turn, Wait::Forever), span, conn);
            s.ask((1, turn, Wait::Forever), span + 1, 900 + conn);
        }
        s.ask((1, turn + 1, Wait::Timers), ticked, 910);
        turn += 2;
        s.hear((1, turn, Wait::Forever), ticked, 910);
        for (conn, span) in (1..).zip([first, second]) {
            turn += 1;
            s.hear((1, turn, Wait::Forever), span + 1, 900 + conn);
            s.ask((1, turn, Wait::Forever), span + 2, 900 + conn);
            turn += 1;
            s.hear((1, turn, Wait::Forever), span + 2, 900 + conn);
            s.answer((1, turn, Wait::Forever), span, conn);
        }
        s.now_ns += 300_000_000;
    }
    for (client, parent) in s.parents() {
        let asked = (client % 50 < 3).then_some(client / 50 * 50);
        assert_eq!(parent, asked, "{client}");
    }
}

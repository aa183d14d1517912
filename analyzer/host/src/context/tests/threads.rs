//! Threads that read for others, and tasks that threads take from each other.

use super::*;

const POLL: Wait = Wait::Forever;
const NOWHERE: Wait = Wait::Unknown;

/// What was linked is right; says how many there are.
fn right(parents: &[(u64, Option<u64>)]) -> usize {
    let linked = parents.iter().filter_map(|(client, parent)| Some((client, (*parent)?)));
    linked.inspect(|(client, parent)| assert_eq!(*client - *client % 10, *parent, "{client}")).count()
}

#[test]
fn a_loop_that_reads_all_that_came_before_it_does_anything() {
    let mut s = Script::new();
    let (mut turn, mut calls) = (0, 0);
    for round in 1..=20 {
        let spans = [round * 100, round * 100 + 10, round * 100 + 20];
        // Now and then one comes by itself.
        let spans = if round % 4 == 0 { &spans[..1] } else { &spans[..] };
        turn += 1;
        for span in spans {
            s.serve((1, turn, POLL), *span, span % 100);
        }
        for span in spans.iter().rev() {
            s.happen((1, turn, POLL), Happening::Connect { conn: 1000 + span });
        }
        turn += 1;
        for span in spans {
            s.ask((1, turn, POLL), span + 1, 1000 + span);
        }
        turn += 1;
        for span in spans {
            s.hear((1, turn, POLL), span + 1, 1000 + span);
        }
        for span in spans.iter().rev() {
            s.answer((1, turn, POLL), *span, span % 100);
        }
        calls += spans.len();
        s.now_ns += 1_000_000_000;
    }
    let parents = s.parents();
    assert_eq!(parents.len(), calls);
    // Before it has shown what it does, what came last counts.
    let later: Vec<_> = parents.into_iter().filter(|(client, _)| *client >= 400).collect();
    assert!(right(&later) >= 5);
}

#[test]
fn workers_answer_what_another_thread_has_read() {
    let mut s = Script::new();
    let mut next = 10;
    for turn in 1..=20 {
        let spans: Vec<u64> = (0..6).map(|nth| next + 10 * nth).collect();
        next += 60;
        for span in &spans {
            s.serve((1, turn, POLL), *span, *span);
        }
        // Each takes what is there, and is woken for none.
        for pair in spans.chunks(2) {
            for call in [1, 2] {
                for (worker, span) in (10..).zip(pair) {
                    s.ask((worker, 0, NOWHERE), span + call, u64::from(worker));
                }
                for (worker, span) in (10..).zip(pair) {
                    s.hear((worker, 0, NOWHERE), span + call, u64::from(worker));
                }
            }
            for (worker, span) in (10..).zip(pair) {
                s.answer((worker, 0, NOWHERE), *span, *span);
            }
        }
    }
    let parents = s.parents();
    assert_eq!(right(&parents), parents.len());
}

#[test]
fn what_a_worker_asked_before_a_loss_may_be_for_what_it_answered_then() {
    let mut s = Script::new();
    for span in [10, 20] {
        s.serve((1, 1, POLL), span, span);
    }
    s.ask((10, 0, NOWHERE), 11, 90);
    s.hear((10, 0, NOWHERE), 11, 90);
    s.happen((10, 0, NOWHERE), Happening::Lost);
    s.answer((10, 0, NOWHERE), 20, 20);
    assert_eq!(s.parents(), [(11, None)]);
}

#[test]
fn tasks_move_between_threads_that_go_on_at_once() {
    let mut s = Script::new();
    let (mut turn, mut stolen) = (0, 0);
    for round in 1..=40 {
        let spans = [round * 100, round * 100 + 10];
        for (thread, span) in (1..).zip(spans) {
            turn += 1;
            s.serve((thread, turn, POLL), span, span % 100);
            s.ask((thread, turn, POLL), span + 1, 1000 + span % 100);
        }
        // What a thread sends later may be a task's that it found in its queue.
        s.ask((2, turn, POLL), spans[0] + 2, 1050);
        turn += 1;
        s.hear((1, turn, POLL), spans[0] + 2, 1050);
        // Each hears what the other asked.
        for (thread, span) in [(2, spans[0]), (1, spans[1])] {
            s.hear((thread, turn, POLL), span + 1, 1000 + span % 100);
            if round % 5 != 0 {
                s.answer((thread, turn, POLL), span, span % 100);
            }
        }
        if round % 5 == 0 {
            // Or takes the task from it that goes on.
            for (thread, span) in (1..).zip(spans) {
                s.answer((thread, turn, POLL), span, span % 100);
            }
            stolen += 2;
        }
        s.now_ns += 1_000_000_000;
    }
    // Before it has shown what it does, what came last counts.
    let later: Vec<_> = s.parents().into_iter().filter(|(client, _)| *client >= 300).collect();
    let queued = later.iter().filter(|(client, _)| client % 10 == 2).count();
    assert!(right(&later) >= later.len() - queued - stolen);
}

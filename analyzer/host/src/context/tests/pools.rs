//! Threads that take connections from pools, and work from each other.

use super::*;

const NOWHERE: Wait = Wait::Unknown;

/// A connection that has answered a request, which thread 90 read.
fn used(s: &mut Script, span: u64, conn: u64) {
    s.ask((90, 0, NOWHERE), span, conn);
    s.hear((90, 0, NOWHERE), span, conn);
}

#[test]
fn who_takes_a_connection_has_the_request_that_another_sends() {
    let mut s = Script::new();
    used(&mut s, 1, 50);
    used(&mut s, 2, 51);
    for (span, tid, conn) in [(100, 10, 50), (200, 11, 51)] {
        s.serve((tid, 0, NOWHERE), span, tid.into());
        s.happen((tid, 0, NOWHERE), Happening::Look { conn });
    }
    s.ask((90, 0, NOWHERE), 201, 51);
    s.ask((91, 0, NOWHERE), 101, 50);
    assert_eq!(s.parents(), [(1, None), (2, None), (101, Some(100)), (201, Some(200))]);
}

/// Two requests at a time, each of which wakes a thread for a call of its own; `swapped` says when these threads take each other's
/// work. The one that came first is answered before the other's call is. Says how many are linked with the right request, and with the other.
fn pool(rounds: u64, swapped: impl Fn(u64) -> bool) -> (usize, usize) {
    let mut s = Script::new();
    used(&mut s, 1, 50);
    used(&mut s, 2, 51);
    for round in 1..=rounds {
        let spans = [round * 1000, round * 1000 + 500];
        for (worker, span) in (20..).zip(spans) {
            s.serve((worker - 10, 0, NOWHERE), span, u64::from(worker));
            let at = s.at(worker - 10, 0, NOWHERE);
            let futex = u64::from(worker) * 4096;
            s.happen(at, Happening::Wake { tid: worker, coroutine: 0, futex, timed: true });
        }
        let mut workers = [20, 21];
        if swapped(round) {
            workers.reverse();
        }
        for ((worker, conn), span) in workers.into_iter().zip([50, 51]).zip(spans) {
            s.happen((worker, 0, NOWHERE), Happening::Look { conn });
            s.ask((80, 0, NOWHERE), span + 1, conn);
        }
        for ((conn, span), tid) in [50, 51].into_iter().zip(spans).zip([10, 11]) {
            s.hear((90, 0, NOWHERE), span + 1, conn);
            s.answer((tid, 0, NOWHERE), span, u64::from(tid) + 10);
        }
        s.now_ns += 1_000_000_000;
    }
    s.linked()
}

#[test]
fn threads_that_do_what_they_are_woken_for_are_told_from_those_that_do_each_others_work() {
    let (right, wrong) = pool(100, |_| false);
    assert!(right > 100 && wrong == 0, "{right} {wrong}");
    let (right, wrong) = pool(100, |round| round % 5 == 2);
    assert_eq!((right, wrong), (0, 0));
}

//! Goroutines of servers of HTTP/2.

use super::*;

const SERVE: u64 = 1;
const READ: u64 = 2;

/// A goroutine does something.
fn by(s: &mut Script, coroutine: u64) -> Moment {
    Moment { coroutine, ..s.at(1, 0, Wait::Unknown) }
}

fn make(s: &mut Script, maker: u64, coroutine: u64, place: u32) {
    let at = by(s, maker);
    s.happen(at, Happening::Fork { tid: 0, coroutine, place });
}

fn hear(s: &mut Script, reader: u64, span: u64) {
    hear_on(s, reader, span, (5, 0));
}

fn hear_on(s: &mut Script, reader: u64, span: u64, (conn, stream): (u64, u32)) {
    let at = by(s, reader);
    s.happen(at, Happening::Data { conn, ingress: true, ahead: false });
    s.happen(
        at,
        Happening::ServerRequest { span, conn, stream, beside: true, trace_id: None, x_request_id: None },
    );
}

/// Each of these goroutines asks for its request, and one that it makes does too; the last one first.
fn ask(s: &mut Script, handlers: &[(u64, u64)]) {
    for &(coroutine, span) in handlers.iter().rev() {
        let at = by(s, coroutine);
        s.ask(at, span + 1, 1000 + span);
        make(s, coroutine, 50 + coroutine, 0x40);
        let at = by(s, 50 + coroutine);
        s.ask(at, span + 2, 2000 + span);
    }
}

const LINKED: [(u64, Option<u64>); 6] =
    [(11, Some(10)), (12, Some(10)), (21, Some(20)), (22, Some(20)), (31, Some(30)), (32, Some(30))];

#[test]
fn who_serves_makes_one_for_each_request_that_another_reads() {
    let mut s = Script::new();
    make(&mut s, 900, SERVE, 0x10);
    make(&mut s, SERVE, READ, 0x20);
    // It writes settings.
    make(&mut s, SERVE, 3, 0x30);
    hear(&mut s, READ, 10);
    hear(&mut s, READ, 20);
    make(&mut s, SERVE, 11, 0x38);
    make(&mut s, SERVE, 12, 0x38);
    make(&mut s, SERVE, 4, 0x30);
    hear(&mut s, READ, 30);
    make(&mut s, SERVE, 13, 0x38);
    ask(&mut s, &[(11, 10), (12, 20), (13, 30)]);
    assert_eq!(s.parents(), LINKED);
}

#[test]
fn who_reads_makes_one_for_each_request() {
    let mut s = Script::new();
    make(&mut s, 900, READ, 0x10);
    for span in [10, 20, 30] {
        hear(&mut s, READ, span);
    }
    for coroutine in [11, 12, 13] {
        make(&mut s, READ, coroutine, 0x38);
    }
    ask(&mut s, &[(11, 10), (12, 20), (13, 30)]);
    assert_eq!(s.parents(), LINKED);
}

#[test]
fn without_the_beginning_or_after_a_loss_the_order_tells_nothing() {
    for lost in [false, true] {
        let mut s = Script::new();
        if lost {
            make(&mut s, SERVE, READ, 0x20);
            let at = by(&mut s, READ);
            s.happen(at, Happening::Lost);
        }
        hear(&mut s, READ, 10);
        hear(&mut s, READ, 20);
        make(&mut s, SERVE, 11, 0x38);
        make(&mut s, SERVE, 12, 0x38);
        ask(&mut s, &[(11, 10), (12, 20)]);
        assert!(s.parents().iter().all(|(_, parent)| parent.is_none()));
    }
}

/// Whoever wrote first may have been made for one of the requests, and what it writes is for all.
#[test]
fn requests_that_one_writes_for_all_belong_to_those_who_asked() {
    const WRITER: u64 = 9;
    let mut s = Script::new();
    for (coroutine, span) in [(11, 10), (12, 20), (13, 30)] {
        let at = by(&mut s, coroutine);
        s.serve(at, span, span);
    }
    make(&mut s, 11, WRITER, 0x40);
    // The one for stream 3 was not told.
    for (coroutine, stream) in [(12, 1), (11, 5), (13, 7)] {
        let at = by(&mut s, coroutine);
        s.happen(at, Happening::Queues { writer: WRITER, stream });
    }
    for calls in [&[(21, 1), (11, 5)][..], &[(31, 7)]] {
        let at = by(&mut s, WRITER);
        s.happen(at, Happening::Data { conn: 900, ingress: false, ahead: false });
        for &(span, stream) in calls {
            let (trace_id, x_request_id) = (None, None);
            let request = Happening::ClientRequest {
                span,
                conn: 900,
                stream,
                peer: PEER,
                began: at,
                trace_id,
                x_request_id,
            };
            s.happen(at, request);
        }
    }
    assert_eq!(s.parents(), [(11, Some(10)), (21, Some(20)), (31, Some(30))]);
}

/// Workers are made before there are requests, and for some of them only when all others are busy.
#[test]
fn workers_that_say_what_they_answer_ask_for_that() {
    let mut s = Script::new();
    for worker in [11, 12] {
        make(&mut s, 900, worker, 0x10);
    }
    let at = by(&mut s, READ);
    s.happen(at, Happening::Reads { session: 0x500 });
    let answers = |s: &mut Script, coroutine, session, stream| {
        let at = by(s, coroutine);
        s.happen(at, Happening::Answers { session, stream });
    };
    for (span, stream) in [(10, 1), (20, 3), (30, 5)] {
        hear_on(&mut s, READ, span, (5, stream));
    }
    make(&mut s, READ, 13, 0x38);
    for (coroutine, stream) in [(12, 1), (13, 5), (11, 3)] {
        answers(&mut s, coroutine, 0x500, stream);
    }
    ask(&mut s, &[(12, 10), (13, 30), (11, 20)]);
    // The next, and one of a connection that was there before and brought the same streams.
    hear_on(&mut s, READ, 40, (5, 7));
    hear_on(&mut s, 700, 50, (6, 7));
    answers(&mut s, 11, 0x500, 7);
    answers(&mut s, 12, 0x600, 7);
    ask(&mut s, &[(11, 40), (12, 50)]);
    // There, only those tell the connection that are made by who reads it.
    make(&mut s, 700, 14, 0x38);
    answers(&mut s, 14, 0x600, 7);
    hear_on(&mut s, 700, 60, (6, 9));
    answers(&mut s, 13, 0x600, 9);
    ask(&mut s, &[(13, 60)]);
    // The first request comes with the beginning of its connection, before another reads it.
    hear_on(&mut s, 800, 70, (7, 1));
    make(&mut s, 800, 801, 0x40);
    let at = by(&mut s, 801);
    s.happen(at, Happening::Reads { session: 0x700 });
    answers(&mut s, 11, 0x700, 1);
    ask(&mut s, &[(11, 70)]);
    let mut linked = LINKED.to_vec();
    linked.extend([(41, Some(40)), (42, Some(40)), (51, None), (52, None), (61, Some(60)), (62, Some(60))]);
    linked.extend([(71, Some(70)), (72, Some(70))]);
    assert_eq!(s.parents(), linked);
}

/// A request has a worker made for its job, which does another's afterwards; as often as told the request is answered by then.
/// Says how many are linked with the right request, and with another.
fn pool(rounds: u64, outlives: impl Fn(u64) -> bool) -> (usize, usize) {
    let mut s = Script::new();
    for round in 1..=rounds {
        let (handlers, spans) = ([1, 2], [round * 1000, round * 1000 + 500]);
        for (handler, span) in handlers.into_iter().zip(spans) {
            let at = by(&mut s, handler);
            s.serve(at, span, handler);
        }
        let worker = 10 + round;
        make(&mut s, 1, worker, 0x40);
        let at = by(&mut s, worker);
        s.ask(at, spans[0] + 1, 50);
        s.hear(at, spans[0] + 1, 50);
        if outlives(round) {
            let at = by(&mut s, 1);
            s.answer(at, spans[0], 1);
        }
        let at = by(&mut s, worker);
        s.ask(at, spans[1] + 1, 50);
        s.hear(at, spans[1] + 1, 50);
        for (handler, span) in handlers.into_iter().zip(spans) {
            let at = by(&mut s, handler);
            s.answer(at, span, handler);
        }
    }
    s.linked()
}

#[test]
fn goroutines_that_outlive_the_request_that_they_were_made_for_tell_nothing() {
    assert_eq!(pool(100, |_| true), (0, 0));
    assert_eq!(pool(100, |round| round % 5 == 2), (0, 0));
}

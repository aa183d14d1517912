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
    let at = by(s, reader);
    s.happen(at, Happening::Data { conn: 5, ingress: true, ahead: false });
    s.happen(
        at,
        Happening::ServerRequest {
            span,
            conn: 5,
            stream: 0,
            beside: true,
            trace_id: None,
            x_request_id: None,
        },
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

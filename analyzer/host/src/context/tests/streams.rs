//! HTTP/2 sessions of which the process tells for which stream it does what.

use super::*;

/// Requests that go out with one event: their spans and streams.
fn ask(s: &mut Script, at: Moment, conn: u64, calls: &[(u64, u32)]) {
    s.happen(at, Happening::Data { conn, ingress: false, ahead: false });
    for &(span, stream) in calls {
        let (trace_id, x_request_id) = (None, None);
        let request =
            Happening::ClientRequest { span, conn, stream, peer: PEER, began: at, trace_id, x_request_id };
        s.happen(at, request);
    }
}

#[test]
fn streams_that_are_told_say_what_each_request_is_for_that_goes_out_with_others() {
    let mut s = Script::new();
    let (session, conn) = (0x900, 900);
    let begins = |stream| Happening::Begins { session, conn: Some(conn), stream };
    for (span, stream) in [(10, 1), (20, 3)] {
        s.serve((1, 1, Wait::Forever), span, span);
        s.happen((1, 1, Wait::Forever), begins(stream));
    }
    let at = s.at(1, 1, Wait::Forever);
    ask(&mut s, at, conn, &[(11, 1), (21, 3)]);
    // One read brings both responses; the second is gone on from first, and a request that comes then makes one too.
    let at = s.at(1, 2, Wait::Forever);
    s.hear(at, 21, conn);
    s.happen(at, Happening::ClientResponse { span: 11 });
    for (at_stream, stream) in [(3, 5), (1, 7), (1, 9)] {
        let at = s.at(1, 2, Wait::Forever);
        s.happen(Moment { stream: at_stream, ..at }, begins(stream));
    }
    s.serve((1, 2, Wait::Forever), 30, 30);
    s.happen((1, 2, Wait::Forever), begins(11));
    let at = s.at(1, 2, Wait::Forever);
    ask(&mut s, at, conn, &[(22, 5), (12, 7), (13, 9), (31, 11)]);
    // What is sent at once is told by the stream as well.
    let at = s.at(1, 3, Wait::Forever);
    s.hear(at, 12, conn);
    for span in [13, 22, 31] {
        s.happen(at, Happening::ClientResponse { span });
    }
    for (stream, span, own) in [(5, 23, 20), (11, 32, 30), (9, 14, 10)] {
        let at = s.at(1, 3, Wait::Forever);
        s.ask(Moment { stream, ..at }, span, 901);
        let at = s.at(1, 3, Wait::Forever);
        s.answer(Moment { stream, ..at }, own, own);
    }
    for (span, parent) in s.parents() {
        assert_eq!(parent, Some(span / 10 * 10), "{span}");
    }
}

/// The process was there before the tracer, or asks before anything came: where its sessions go is told by what is sent next.
#[test]
fn sessions_that_nothing_came_on_are_known_by_what_is_sent() {
    let mut s = Script::new();
    let (sessions, conns) = ([0x100, 0x200], [900, 901]);
    let begins = |session, stream| Happening::Begins { session, conn: None, stream };
    for (span, stream) in [(10, 1), (20, 3)] {
        s.serve((1, 1, Wait::Forever), span, span);
        for session in sessions {
            s.happen((1, 1, Wait::Forever), begins(session, stream));
        }
    }
    // Each goes out on its own connection. The first sends something else before, and the second has nothing that it may send yet.
    s.happen((1, 1, Wait::Forever), Happening::Sends { session: sessions[1] });
    for (conn, calls) in [(900, &[][..]), (900, &[(11, 1), (21, 3)]), (901, &[(12, 1), (22, 3)])] {
        let session = if conn == conns[0] { sessions[0] } else { sessions[1] };
        s.happen((1, 1, Wait::Forever), Happening::Sends { session });
        let at = s.at(1, 1, Wait::Forever);
        ask(&mut s, at, conn, calls);
    }
    // Still nothing came. What is sent on another connection is not of the session.
    for (span, stream) in [(30, 5), (40, 7)] {
        s.serve((1, 2, Wait::Forever), span, span);
        s.happen((1, 2, Wait::Forever), begins(sessions[0], stream));
    }
    s.happen((1, 2, Wait::Forever), Happening::Sends { session: sessions[0] });
    s.happen((1, 2, Wait::Forever), Happening::Data { conn: 902, ingress: false, ahead: false });
    let at = s.at(1, 2, Wait::Forever);
    ask(&mut s, at, conns[0], &[(31, 5), (41, 7)]);
    // Something comes before what was begun is sent.
    for (span, stream) in [(70, 13), (80, 15)] {
        s.serve((1, 3, Wait::Forever), span, span);
        s.happen((1, 3, Wait::Forever), begins(0x300, stream));
    }
    s.happen((1, 4, Wait::Forever), Happening::Carries { session: 0x300, conn: 904 });
    let at = s.at(1, 4, Wait::Forever);
    ask(&mut s, at, 904, &[(71, 13), (81, 15)]);
    // Another session is made at the address of one that is over, with a request that the other never sent.
    s.happen((1, 5, Wait::Forever), begins(sessions[0], 9));
    s.happen((1, 5, Wait::Forever), Happening::Close { conn: conns[0] });
    for (span, stream) in [(50, 9), (60, 11)] {
        s.serve((1, 5, Wait::Forever), span, span);
        s.happen((1, 5, Wait::Forever), begins(sessions[0], stream));
    }
    s.happen((1, 5, Wait::Forever), Happening::Sends { session: sessions[0] });
    let at = s.at(1, 5, Wait::Forever);
    ask(&mut s, at, 903, &[(51, 9), (61, 11)]);
    for (span, parent) in s.parents() {
        assert_eq!(parent, Some(span / 10 * 10), "{span}");
    }
}

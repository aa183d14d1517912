//! Node.js: its TLS, and what tells what its loop is at.

use std::collections::BTreeSet;
use std::process::Command;

use wirespan_event::{Header, Kind, Source};

use crate::watch::{Heard, Watch, needs};
use crate::{http_request, pair_is_heard, peer, spawn};

/// OpenSSL is a part of its program.
#[test]
fn node_is_heard() {
    needs!("openssl", "node");
    pair_is_heard(
        Source::OpenSsl,
        "answer-of-node",
        |command, port| {
            command.arg("node").arg(peer("node.js")).args(["server", &port.to_string()]);
        },
        |port, path| {
            let mut command = Command::new("node");
            command.arg(peer("node.js")).args(["client", &port.to_string(), path]);
            (http_request(&mut command), Source::OpenSsl)
        },
    );
}

#[test]
fn timers_of_node_are_turns_of_their_own() {
    needs!("node");
    let mut watch = Watch::start();
    let running = spawn(Command::new("node").arg(peer("timers.js")));
    let of = |heard: &[Heard], text: &str, by_timer: bool| {
        let said = heard.iter().filter(|heard| heard.header.tgid == running.0.id() && heard.has(text));
        said.filter(|heard| !heard.header.is_ingress() && (heard.header.other_tgid == u32::MAX) == by_timer)
            .map(|heard| heard.header.turn)
            .collect::<Vec<_>>()
    };
    watch.until("what timers do is told", |heard| of(heard, "for a timer", true).len() > 2);
    let (for_bytes, by_timer) = (of(&watch.heard, "for bytes", false), of(&watch.heard, "for a timer", true));
    assert_eq!(of(&watch.heard, "for bytes", true), []);
    assert!(by_timer.iter().all(|turn| !for_bytes.contains(turn)), "{for_bytes:?} {by_timer:?}");
}

/// Streams of the client are odd, and each is asked for when one before it was answered, but for the first two of each session: one
/// waited for the connection, so that nothing is told of it; of the other it is told when something comes, or it is sent before that.
#[test]
fn streams_of_node_are_told_with_those_that_they_follow() {
    needs!("node");
    let mut watch = Watch::start();
    let running = spawn(Command::new("node").arg(peer("streams.js")));
    let told = |heard: &[Heard]| {
        let header = |heard: &Heard| Some(heard.header).filter(|header| header.kind() == Some(Kind::Stream));
        heard.iter().filter_map(header).filter(|header| header.tgid == running.0.id()).collect::<Vec<_>>()
    };
    let begins = |header: &Header| header.conn == 0 && header.length == 3;
    watch.until("sessions begin", |heard| told(heard).iter().filter(|header| begins(header)).count() > 5);
    let told = told(&watch.heard);
    let starts: Vec<_> = (0..told.len()).filter(|at| begins(&told[*at])).collect();
    let mut conns = BTreeSet::new();
    for bounds in starts.windows(2) {
        let session = told[bounds[0]].tls;
        let of_session = told[bounds[0]..bounds[1]].iter().filter(|header| header.tls == session);
        let asked: Vec<_> = of_session.map(|header| (header.conn, header.length, header.stream())).collect();
        let (first, follow) = asked.split_at(asked.iter().position(|(conn, ..)| *conn != 0).unwrap());
        assert!(matches!(first, [(0, 3, 0)] | [(0, 3, 0), (0, 0, 0)]), "{asked:?}");
        let (came, follow) = follow.split_first().unwrap();
        assert_eq!(came.1, 0, "{asked:?}");
        assert!(follow.iter().all(|(conn, stream, _)| *conn == came.0 && stream % 2 == 1), "{asked:?}");
        assert!(follow.iter().all(|(_, stream, at)| at % 2 == 1 && at < stream), "{asked:?}");
        assert!(conns.insert(came.0), "{asked:?}");
        // No response is followed by two requests.
        let followed: BTreeSet<_> = follow.iter().map(|(.., at)| at).collect();
        assert_eq!(followed.len(), follow.len(), "{asked:?}");
    }
}

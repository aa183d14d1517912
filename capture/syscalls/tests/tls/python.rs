//! Python: its TLS, and what tells its tasks apart.

use std::process::{Command, Stdio};

use wirespan_event::{Kind, Source};

use crate::watch::{Heard, Watch, needs};
use crate::{curl, http_request, output_of, pair_is_heard, peer, spawn};

#[test]
fn python_is_heard() {
    needs!("openssl", "python3");
    pair_is_heard(
        Source::OpenSsl,
        "answer-of-python",
        |command, port| {
            command.args(["/usr/bin/python3"]).arg(peer("server.py")).args([&port.to_string(), "sync"]);
        },
        |port, path| {
            let mut command = Command::new("/usr/bin/python3");
            command.arg(peer("client.py")).args([&port.to_string(), path]);
            (http_request(&mut command), Source::OpenSsl)
        },
    );
}

/// Its TLS library never sees the socket.
#[test]
fn asyncio_is_heard() {
    needs!("openssl", "python3", "curl");
    pair_is_heard(
        Source::OpenSsl,
        "answer-of-python",
        |command, port| {
            command.args(["/usr/bin/python3"]).arg(peer("server.py")).args([&port.to_string(), "asyncio"]);
        },
        |port, path| (curl(port, path), Source::OpenSsl),
    );
}

/// Nobody waits for the other when work is queued already, so that only the queue tells.
#[test]
fn items_of_queues_of_python_are_told() {
    needs!("python3");
    let mut watch = Watch::start();
    let mut command = Command::new("/usr/bin/python3");
    let running = spawn(command.arg(peer("handover.py")).stdout(Stdio::piped()));
    let tgid = running.0.id();
    let said = output_of(running);
    let number = |name: &str| -> u64 {
        let (_, rest) = said.split_once(name).unwrap_or_else(|| panic!("{said}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (item, giver, taker) = (number("item="), number("giver="), number("taker="));
    let told = |heard: &[Heard], kind: Kind, tid: u64| {
        heard.iter().position(|Heard { header, .. }| {
            header.tgid == tgid
                && u64::from(header.tid) == tid
                && header.kind() == Some(kind)
                && header.item() == Some(item)
        })
    };
    watch.until("the item is taken", |heard| told(heard, Kind::Wake, taker).is_some());
    let put = told(&watch.heard, Kind::Fork, giver).unwrap();
    let taken = told(&watch.heard, Kind::Wake, taker).unwrap();
    assert!(watch.heard[put].header.time_ns() < watch.heard[taken].header.time_ns());
}

#[test]
fn tasks_of_a_process_that_was_forked_are_told_apart() {
    needs!("python3");
    let mut watch = Watch::start();
    let running = spawn(Command::new("/usr/bin/python3").arg(peer("fork.py")));
    let parent = running.0.id();
    let child = |heard: &[Heard]| {
        let made = heard.iter().map(|heard| heard.header).find(|header| {
            let is_process = header.other_tgid != header.tgid;
            header.kind() == Some(Kind::Fork) && header.tgid == parent && is_process
        });
        made.map(|header| header.other_tgid)
    };
    watch.until("a task says something", |heard| {
        child(heard).is_some_and(|child| {
            heard.iter().any(|heard| {
                heard.header.tgid == child && heard.has("text-of-a-task") && heard.header.coroutine != 0
            })
        })
    });
    // The child does not end with its parent.
    let child = child(&watch.heard).unwrap().to_string();
    drop(running);
    assert!(Command::new("kill").arg(child).status().unwrap().success());
}

//! How much of the plaintext is copied.

use std::path::Path;
use std::process::Command;

use wirespan_event::Flags;

use crate::files::{OPENSSL, speaker};
use crate::watch::{Heard, Watch, needs};

const MESSAGES: usize = 20;

/// Of the first messages of 1 KiB that go one way without an answer, how many come with their payload.
fn with_payload(text: &str) -> usize {
    let mut watch = Watch::start();
    let running = speaker(Command::new("env"), Path::new(OPENSSL), "0.3", text);
    let tgid = running.0.id();
    let said = |heard: &[Heard]| {
        let of_it = heard.iter().filter(|heard| heard.header.tgid == tgid && heard.header.length == 1024);
        of_it.filter(|heard| !heard.header.is_ingress()).cloned().collect::<Vec<_>>()
    };
    watch.until("so many messages", |heard| said(heard).len() >= MESSAGES);
    let said = said(&watch.heard);
    assert!(said.iter().all(|heard| heard.payload.is_empty() == heard.header.flags.has(Flags::NO_DATA)));
    said[..MESSAGES].iter().filter(|heard| heard.payload.len() == 1024).count()
}

#[test]
fn heads_of_http2_are_copied_beyond_what_is_copied_of_one_message() {
    needs!("python3");
    assert_eq!(with_payload(&"x".repeat(1024)), 4);
    assert_eq!(with_payload(&format!("{:x<1024}", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), MESSAGES);
}

//! Libraries that are not where, or when, they are looked for at first: each is a copy of this host's OpenSSL.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wirespan_event::Source;
use wirespan_syscalls::tls::Coverage;
use wirespan_syscalls::tls::plan::Library;

use crate::watch::{Watch, needs};
use crate::{Running, peer};

pub const OPENSSL: &str = "/usr/lib/x86_64-linux-gnu/libssl.so.3";

/// A copy that nobody else uses.
fn copy(directory: &Path) -> PathBuf {
    let path = directory.join("libssl.so.3");
    std::fs::copy(OPENSSL, &path).unwrap();
    path
}

/// Starts what says `text` through the library at `path`.
pub fn speaker(mut command: Command, path: &Path, seconds: &str, text: &str) -> Running {
    command.arg("/usr/bin/python3").arg(peer("memory.py")).arg(path).args([seconds, text]);
    Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
}

/// Waits until it has loaded the library.
fn ready(running: &mut Running) {
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

/// Both ends are heard.
fn is_heard(watch: &mut Watch, tgid: u32, text: &str) {
    for ingress in [false, true] {
        watch.until(&format!("{tgid} says {text}"), |heard| {
            heard.iter().any(|heard| {
                let header = &heard.header;
                header.tgid == tgid
                    && header.is_ingress() == ingress
                    && header.source() == Some(Source::OpenSsl)
                    && header.length as usize == text.len()
                    && heard.payload == text.as_bytes()
            })
        });
    }
    assert_eq!(watch.libraries.coverage(tgid), Coverage::Plaintext(Library::OpenSsl));
}

#[test]
fn a_library_that_is_loaded_later_is_heard() {
    needs!("python3");
    let directory = tempfile::tempdir().unwrap();
    let mut watch = Watch::start();
    let running = speaker(Command::new("env"), &copy(directory.path()), "0.3", "text-of-a-late-library");
    is_heard(&mut watch, running.0.id(), "text-of-a-late-library");
}

#[test]
fn a_library_that_was_deleted_is_heard() {
    needs!("python3");
    let directory = tempfile::tempdir().unwrap();
    let path = copy(directory.path());
    let mut running = speaker(Command::new("env"), &path, "0", "text-of-a-deleted-library");
    ready(&mut running);
    std::fs::remove_file(path).unwrap();
    is_heard(&mut Watch::start(), running.0.id(), "text-of-a-deleted-library");
}

/// As in a container: the file's name means nothing here.
#[test]
fn a_library_in_another_mount_namespace_is_heard() {
    needs!("python3", "unshare", "mount");
    let directory = tempfile::tempdir().unwrap();
    let [outside, inside] = ["outside", "inside"].map(|name| directory.path().join(name));
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(&inside).unwrap();
    copy(&outside);
    let path = inside.join("libssl.so.3");
    let start = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"", "sh"]);
        command.args([&outside, &inside]);
        speaker(command, &path, "0", "text-of-a-container")
    };
    let mut watch = Watch::start();
    let running = start();
    is_heard(&mut watch, running.0.id(), "text-of-a-container");
    assert!(!path.exists());
    drop((watch, running));

    let mut running = start();
    ready(&mut running);
    is_heard(&mut Watch::start(), running.0.id(), "text-of-a-container");
}

/// Each container has an overlay of its own over the image's files, which the kernel's probes are on.
#[test]
fn a_library_that_containers_share_is_probed_once() {
    needs!("python3", "unshare", "mount");
    let directory = tempfile::tempdir().unwrap();
    let [image, layer, root] = ["image", "layer", "root"].map(|name| directory.path().join(name));
    for path in [&image, &layer, &root] {
        std::fs::create_dir(path).unwrap();
    }
    copy(&image);
    let path = root.join("libssl.so.3");
    let start = |text: &str| {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs none \"$2\" && mkdir \"$2/upper\" \"$2/work\" && \
            mount -t overlay -o \"lowerdir=$1,upperdir=$2/upper,workdir=$2/work\" none \"$3\" && shift 3 && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh"]).args([&image, &layer, &root]);
        speaker(command, &path, "0", text)
    };
    let mut watch = Watch::start();
    let texts = ["text-of-one-container", "text-of-another-container"];
    let running = texts.map(&start);
    for (running, text) in running.iter().zip(texts) {
        is_heard(&mut watch, running.0.id(), text);
    }
    assert_eq!(watch.libraries.reports().filter(|report| report.file == path).count(), 1);
}

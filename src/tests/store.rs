//! `wirespan up` where its store cannot be had, or fails while it runs: nothing is lost silently.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::process::Command;
use support::{Host, Up, is_root, text, wirespan};

/// Mounts a small disk on the data directory, which nobody else sees, and becomes the command.
const ON_SMALL_DISK: &str = r#"
for argument; do
    [ "$before" = --data ] && mkdir -p "$argument" && mount -t tmpfs -o size=32m none "$argument"
    before=$argument
done
exec "$0" "$@""#;

/// Exchanges, by the paths that were asked for.
fn ask_for(host: &Host, paths: std::ops::Range<u32>) {
    for path in paths {
        assert!(host.get(&format!("no-such-file-{path}")).wait().unwrap().success());
    }
}

/// Requests that are stored, and how many different ones those are; 0 while the store does not answer.
fn paths_stored(up: &Up) -> (u64, u64) {
    let sql = "SELECT count(), uniqExact(request_resource) FROM l7_log WHERE session = 'complete'";
    let Ok(rows) = up.try_ask(sql) else { return (0, 0) };
    let number = |at: usize| rows[0][at].to_string().trim_matches('"').parse().unwrap();
    (number(0), number(1))
}

#[test]
fn rows_wait_for_a_disk_that_is_full_and_for_a_store_that_was_killed() {
    if !is_root() {
        return;
    }
    let host = Host::web(31);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", ON_SMALL_DISK, env!("CARGO_BIN_EXE_wirespan")]);
    let mut up = Up::start_by(command, &["-i", &host.veth, "--tracer", "off"]);
    let wire = up.wire(&host);
    ask_for(&host, 0..50);
    up.wait_for("the first requests", |up| paths_stored(up) == (50, 50));

    // The disk as the store sees it.
    let root = Path::new("/proc").join(up.child.id().to_string()).join("root");
    let filler = root.join(up.data.strip_prefix("/").unwrap()).join("filler");
    assert!(std::fs::write(&filler, vec![1; 64 << 20]).is_err(), "the disk is larger than it was made");
    ask_for(&host, 50..100);
    up.wait_for("a row that cannot be stored", |up| up.count("wirespan_store_retries_total") > 3);
    assert!(up.count("wirespan_store_waiting") > 0);
    up.wait_for("the metric that says so", |up| up.count("wirespan_store_failing") == 1);
    let health = up.get("/api/health");
    assert_eq!((&health["status"], &health["rows_dropped"]), (&"degraded".into(), &0.into()), "{health}");
    assert!(health["store"].as_str().unwrap().contains("not enough space"), "{health}");
    assert!(health["rows_waiting"].as_u64().unwrap() > 0, "{health}");
    let retries = up.count("wirespan_store_retries_total");
    std::fs::remove_file(&filler).unwrap();
    up.wait_for("the rows that waited", |up| paths_stored(up) == (100, 100));
    up.wait_for("the end of it", |up| up.count("wirespan_store_failing") == 0);
    assert_eq!(up.get("/api/health")["status"], "ok");

    let is_store = |pid: &&str| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text(&command).contains("store")
    };
    let children = Command::new("pgrep").args(["-P", &up.child.id().to_string()]).output().unwrap();
    let store: i32 = text(&children.stdout).lines().find(is_store).unwrap().parse().unwrap();
    // SAFETY: kill(2) on the store, which its parent has not waited for.
    unsafe { libc::kill(store, libc::SIGKILL) };
    ask_for(&host, 100..150);
    up.wait_for("the rows of the meantime", |up| {
        up.count("wirespan_store_waiting") == 0 && paths_stored(up) == (150, 150)
    });
    up.accounts_for_wire(&wire);
    let (status, said) = up.stop();
    assert!(status.success() && said.contains("lost 0"), "{said}");
    let times = |what: &str| said.lines().filter(|line| line.contains(what)).count() as u64;
    assert!((1..retries).contains(&times("The store takes no rows now")), "{said}");
    assert_eq!(times("The store takes no rows now"), times("The store takes rows again"), "{said}");
    assert!(said.contains("not enough space") && times("The store process ended") == 1, "{said}");
}

#[test]
fn a_host_without_ipv4_has_its_store() {
    if !is_root() {
        return;
    }
    // A mirror port has no more than an address of its link.
    let port = "ip link set lo up && ip link add m0 type veth peer name m1 && ip link set m0 up && ip link set m1 up \
                && ip address add fe80::5/64 dev m0 nodad && exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", port, env!("CARGO_BIN_EXE_wirespan")]);
    let (status, said) = Up::start_by(command, &["-i", "m0", "--tracer", "off"]).stop();
    assert!(status.success() && said.contains("and lost 0"), "{said}");
}

#[test]
fn a_store_that_cannot_be_had_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (file, data) = (file.to_str().unwrap(), directory.path().join("data"));
    let data = data.to_str().unwrap();
    // To watch a mirror on a UDP port needs no privilege. The port is free: its number was, for this socket.
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let watch = ["up", "--mode", "vpc-mirror", "--listen-vxlan", &free, "--listen"];
    let cases: [(&[&str], &str); 5] = [
        (&["127.0.0.1:0", "--data", data, "--clickhouse-listen", &taken], "--clickhouse-listen"),
        (&[&taken, "--data", data, "--clickhouse-listen", "127.0.0.1:0"], "another address with --listen"),
        (
            &["127.0.0.1:0", "--data", file, "--clickhouse-listen", "127.0.0.1:0"],
            "choose another with --data",
        ),
        (&["127.0.0.1:0", "--clickhouse-url", "http://127.0.0.1:1"], "--clickhouse-url cannot be used"),
        (&["127.0.0.1:0", "--data", data, "--libchdb", file], "make setup"),
    ];
    for (arguments, advice) in cases {
        let output = wirespan(&[&watch[..], arguments].concat());
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(advice), "{arguments:?}: {said}");
    }
}

//! `wirespan up` with the tracer: requests between real processes, seen at both ends and on the wire between them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use support::{
    Container, Host, PATIENCE, Refused, Up, certificate, is_root, objects, text, where_refused, wirespan,
};

/// The spans of one server in an event log.
fn spans(log: &Path, server: &str) -> Vec<Value> {
    let all = objects(&wirespan(&["replay", "--format", "jsonl", log.to_str().unwrap()]));
    all.into_iter().filter(|span| span["server_ip"] == server).collect()
}

#[test]
fn one_exchange_is_seen_by_both_processes_and_on_the_wire() {
    if !is_root() {
        return;
    }
    let host = Host::web(21);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("x.events");
    let record = ["--tracer", "on", "--tracer-cpu", "4", "--record-events", log.to_str().unwrap()];
    let mut up = Up::start(&[&["-i", &host.veth][..], &record].concat());
    let wire = up.wire(&host);
    assert!(host.get("dev").wait().unwrap().success());
    let sql = format!(
        "SELECT signal, req_tcp_seq, resp_tcp_seq, response_code FROM l7_log \
         WHERE server = '{}' AND session = 'complete' ORDER BY signal",
        host.address
    );
    let started = Instant::now();
    let rows = loop {
        let rows = up.ask(&sql);
        if rows.len() >= 3 || started.elapsed() > PATIENCE {
            break rows;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    let keys: Vec<_> = rows.iter().map(|row| &row[1..]).collect();
    assert!(rows.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{rows:?}");
    assert!(up.count("wirespan_tracer_events_total") > 0);
    assert_eq!(up.count("wirespan_tracer_lost_total"), 0);
    up.accounts_for_events();
    up.accounts_for_wire(&wire);
    up.stop();

    // The recording tells the same, and who it was.
    let spans = spans(&log, &host.address);
    let at = |point: &str| spans.iter().find(|span| span["observation_point"] == point).unwrap();
    let (client, server) = (at("c-p"), at("s-p"));
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for field in ["req_tcp_seq", "resp_tcp_seq", "client_ip", "client_port", "request_resource"] {
        assert_eq!(client[field], server[field]);
    }
    assert_eq!(client["signal"], "syscall");
    assert_eq!(client["process"]["name"], "curl");
    assert!(server["process"]["name"].as_str().unwrap().starts_with("python3"), "{server}");
    assert!(server["process"]["command"].as_str().unwrap().contains("-m http.server 8000"), "{server}");
    // The client's time holds the server's.
    let times = |span: &Value| (span["start_ns"].as_u64().unwrap(), span["end_ns"].as_u64().unwrap());
    let (outer, inner) = (times(client), times(server));
    assert!(outer.0 <= inner.0 && inner.1 <= outer.1, "{outer:?} {inner:?}");
}

/// Answers /half with half of a response, and then does nothing more.
const HALF: &str = "
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '1000')
        self.end_headers()
        self.wfile.write(b'x' * 500)
        self.wfile.flush()
        time.sleep(600)
http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()
";

#[test]
fn a_container_that_is_killed_during_its_response() {
    if !is_root() {
        return;
    }
    let container = Container::new();
    let (mut dying, living) = (Host::contained(22, &["-c", HALF], &container), Host::web(23));
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("x.events");
    let mut up =
        Up::start(&["--tracer", "on", "--tracer-cpu", "4", "--record-events", log.to_str().unwrap()]);
    let mut curl = dying.get("half");
    let of = |host: &Host| format!("SELECT count() FROM l7_log WHERE server = '{}'", host.address);
    let rows =
        |up: &Up, host: &Host| up.ask(&of(host))[0][0].to_string().trim_matches('"').parse::<u64>().unwrap();
    let started = Instant::now();
    while TcpStream::connect((dying.address.as_str(), 8000)).is_err() {
        assert!(started.elapsed() < PATIENCE);
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    // `ip netns exec` becomes the program that it runs: this is what the container ends with.
    dying.server.kill().unwrap();
    dying.server.wait().unwrap();
    assert_eq!(curl.wait().unwrap().code(), Some(18), "curl says that the response is not whole");
    up.wait_for("both ends of the response that was cut", |up| rows(up, &dying) >= 2);
    assert!(living.get("dev").wait().unwrap().success());
    up.wait_for("the next request", |up| rows(up, &living) >= 2);
    up.accounts_for_events();
    up.stop();
    let cut = spans(&log, &dying.address);
    let half: Vec<_> = cut.iter().filter(|span| span["request_resource"] == "/half").collect();
    assert_eq!(half.len(), 2, "{cut:#?}");
    assert!(half.iter().all(|span| span["response_code"] == 200 && span["parent"].is_null()), "{half:#?}");
    let server = half.iter().find(|span| span["observation_point"] == "s-p").unwrap();
    assert_eq!(server["process"]["container_id"], container.id, "{server:#?}");
}

#[test]
fn a_tracer_that_costs_too_much_is_stepped_down_and_packets_go_on() {
    if !is_root() {
        return;
    }
    let host = Host::web(24);
    let up = Up::start(&["-i", &host.veth, "--tracer", "on", "--tracer-cpu", "0.000001"]);
    up.wait_for("the last step", |up| up.count("wirespan_tracer_guard_level") == 3);
    assert_eq!(up.count("wirespan_tracer_guard_down_total"), 3);
    // Of those that waited when the programs were detached, too.
    up.accounts_for_events();
    let wire = up.wire(&host);
    assert!(host.get("dev").wait().unwrap().success());
    let sql = format!("SELECT signal FROM l7_log WHERE server = '{}'", host.address);
    up.wait_for("the packets' request", |up| !up.ask(&sql).is_empty());
    let signals = up.ask(&sql);
    assert!(signals.iter().all(|row| row[0] == "packet"), "{signals:?}");
    up.accounts_for_wire(&wire);
}

/// What a process holds in the kernel's part of eBPF: kinds and numbers, of programs, links and maps.
fn held_in_the_kernel(pid: u32) -> BTreeSet<(&'static str, u32)> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    let lines: Vec<_> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let held = lines.iter().filter_map(|line| line.split_once(":\t"));
    let known = |name| ["prog_id", "link_id", "map_id"].into_iter().find(|known| *known == name);
    held.filter_map(|(name, number)| Some((known(name)?, number.trim().parse().ok()?))).collect()
}

/// The kernel still has it, whoever holds it.
fn is_in_the_kernel((kind, number): (&str, u32)) -> bool {
    const GET_BY_ID: [(&str, libc::c_int); 3] = [("prog_id", 13), ("map_id", 14), ("link_id", 30)];
    let command = GET_BY_ID.into_iter().find(|(known, _)| *known == kind).unwrap().1;
    // The number, and flags.
    let attributes = [number, 0, 0];
    // SAFETY: the attributes live as long as the call.
    let file = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes) as libc::c_uint)
    };
    if file >= 0 {
        // SAFETY: the descriptor is new.
        drop(unsafe { OwnedFd::from_raw_fd(file as i32) });
    }
    file >= 0
}

#[test]
fn a_killed_tracer_leaves_nothing_in_the_kernel() {
    if !is_root() {
        return;
    }
    let mut up = Up::start(&["--tracer", "on", "--tracer-cpu", "4"]);
    let links = |held: &BTreeSet<(&str, u32)>| held.iter().filter(|(kind, _)| *kind == "link_id").count();
    // With probes on TLS libraries, which are attached after it began.
    let tracepoints = links(&held_in_the_kernel(up.child.id()));
    up.wait_for("probes", |up| links(&held_in_the_kernel(up.child.id())) > tracepoints);
    let held = held_in_the_kernel(up.child.id());
    assert!(held.iter().all(|held| is_in_the_kernel(*held)), "{held:?}");
    for kind in ["prog_id", "link_id", "map_id"] {
        assert!(held.iter().any(|held| held.0 == kind), "{held:?}");
    }
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    // The kernel waits until no CPU is in a program any more.
    let started = Instant::now();
    while let Some(left) = held.iter().find(|held| is_in_the_kernel(**held)) {
        assert!(started.elapsed() < PATIENCE, "{left:?} is left");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn without_type_information_packets_alone_are_watched() {
    if !is_root() {
        return;
    }
    let without_btf = || {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";
        command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_wirespan")]);
        command
    };
    let host = Host::web(25);
    let mut up = Up::start_by(without_btf(), &["-i", &host.veth]);
    let said: Vec<&str> = up.said.lines().filter(|line| line.contains("processes")).collect();
    let [line] = said[..] else { panic!("{}", up.said) };
    assert!(line.contains("processes are not traced, packets are") && line.contains("BTF"), "{line}");
    let wire = up.wire(&host);
    assert!(host.get("dev").wait().unwrap().success());
    let sql = format!("SELECT signal FROM l7_log WHERE server = '{}'", host.address);
    up.wait_for("the packets' request", |up| !up.ask(&sql).is_empty());
    up.accounts_for_wire(&wire);
    up.stop();

    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let mut insist = without_btf();
    let output = insist.args(["up", "--tracer", "on", "--data", data]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("BTF"), "{text}");

    let mut probe = without_btf();
    let output = probe.args(["probe", "-i", "lo", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["tracer"]["off"].as_str().unwrap().contains("BTF"), "{report}");
}

#[test]
fn without_tracefs_and_cgroups_mounted_all_is_traced() {
    if !is_root() {
        return;
    }
    let container = Container::new();
    let host = Host::contained(130, &["-m", "http.server", "8000"], &container);
    let mut command = Command::new("unshare");
    let hide = "for place in tracing debug; do mount -t tmpfs none /sys/kernel/$place || exit; done; umount -l -R /sys/fs/cgroup; \
                exec \"$0\" \"$@\"";
    command.args(["-m", "sh", "-c", hide, env!("CARGO_BIN_EXE_wirespan")]);
    let mut up = Up::start_by(command, &["--tracer", "on", "--tracer-cpu", "4"]);
    assert_eq!(up.said.lines().count(), 1, "{}", up.said);
    assert!(host.get("").wait().unwrap().success());
    let sql = format!(
        "SELECT observation_point, container_id FROM l7_log WHERE server = '{}' ORDER BY 1",
        host.address
    );
    up.wait_for("both ends", |up| up.ask(&sql) == [["c-p", ""], ["s-p", container.id.as_str()]]);
    up.stop();
}

#[test]
fn without_ebpf_packets_alone_are_watched() {
    if !is_root() {
        return;
    }
    let host = Host::web(26);
    for (error, reason) in [(libc::ENOSYS, "no eBPF program can be loaded"), (libc::EPERM, "run as root")] {
        let refused = [Refused { call: libc::SYS_bpf, arguments: &[], error }];
        let mut up = Up::start_by(where_refused(&refused), &["-i", &host.veth]);
        let said: Vec<&str> = up.said.lines().filter(|line| line.contains("processes")).collect();
        let [line] = said[..] else { panic!("{}", up.said) };
        assert!(line.contains("processes are not traced, packets are") && line.contains(reason), "{line}");
        let wire = up.wire(&host);
        assert!(host.get("dev").wait().unwrap().success());
        let sql = format!("SELECT signal FROM l7_log WHERE server = '{}'", host.address);
        up.wait_for("the packets' request", |up| !up.ask(&sql).is_empty());
        up.accounts_for_wire(&wire);
        up.stop();
        let output = where_refused(&refused).args(["probe", "-i", "lo", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["tracer"]["off"].as_str().unwrap().contains(reason), "{report}");
    }
}

#[test]
fn where_the_kernel_takes_no_probes_that_is_told_once_and_counted() {
    if !is_root() {
        return;
    }
    const LINK_CREATE: u32 = 28;
    let refused = [
        Refused { call: libc::SYS_bpf, arguments: &[(0, LINK_CREATE)], error: libc::EINVAL },
        Refused { call: libc::SYS_perf_event_open, arguments: &[], error: libc::ENOENT },
    ];
    let host = Host::web(27);
    let mut up = Up::start_by(where_refused(&refused), &["--tracer", "on", "--tracer-cpu", "4"]);
    up.wait_for("a file that cannot be probed", |up| up.count("wirespan_tracer_unprobed_files_total") > 0);
    // What needs no probes is traced.
    assert!(host.get("dev").wait().unwrap().success());
    let sql = format!("SELECT signal FROM l7_log WHERE server = '{}'", host.address);
    up.wait_for("both ends", |up| up.ask(&sql).len() == 2);
    up.accounts_for_events();
    let (_, said) = up.stop();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("takes no probe")).collect();
    assert!(lines.len() == 1 && lines[0].contains("`wirespan probe` lists"), "{said}");
}

/// Answers over TLS on port 8000.
const OVER_TLS: &str = "
import http.server, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server = http.server.ThreadingHTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// Asks for a page over TLS, whoever has it.
const ASKS_OVER_TLS: &str = "
import java.security.cert.X509Certificate;
import javax.net.ssl.*;
public class Ask {
    public static void main(String[] arguments) throws Exception {
        TrustManager trusting = new X509TrustManager() {
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
        };
        SSLContext context = SSLContext.getInstance(\"TLS\");
        context.init(null, new TrustManager[] { trusting }, null);
        HttpsURLConnection asked = (HttpsURLConnection) new java.net.URL(arguments[0]).openConnection();
        asked.setSSLSocketFactory(context.getSocketFactory());
        asked.setHostnameVerifier((name, session) -> true);
        System.exit(asked.getResponseCode() == 200 ? 0 : 1);
    }
}
";

#[test]
fn tls_that_no_probe_shows_says_so_on_its_spans_in_its_trace_and_once_in_the_log() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("Ask.java");
    std::fs::write(&source, ASKS_OVER_TLS).unwrap();
    let host = Host::serving(28, &["-c", OVER_TLS, &certificate(directory.path())]);
    let mut up = Up::start(&["--tracer", "on", "--tracer-cpu", "4"]);
    let url = format!("https://{}:8000/", host.address);
    let sql = |more: &str| {
        format!(
            "SELECT toString(id), attributes['tls.unseen'] FROM l7_log \
             WHERE server = '{}' AND process_name = 'java' AND {more} ORDER BY start_time DESC",
            host.address
        )
    };
    // More than once: it may answer before its program is looked into.
    let labelled = sql("attributes['tls.unseen'] != ''");
    up.wait_for("the label", |up| {
        let mut java = Command::new("java");
        assert!(java.arg(&source).arg(&url).status().unwrap().success());
        !up.ask(&labelled).is_empty()
    });
    let mut java = Command::new("java");
    assert!(java.arg(&source).arg(&url).status().unwrap().success());
    let rows = up.ask(&labelled);
    assert_eq!(rows[0][1], "TLS of Java: contents not visible");
    assert!(up.ask(&sql("signal = 'tls'")).is_empty(), "its contents are seen after all");
    // The other end's are.
    let seen = "SELECT countIf(signal = 'tls' AND process_name LIKE 'python%'), countIf(attributes['tls.unseen'] != '' \
                AND process_name LIKE 'python%') FROM l7_log";
    up.wait_for("the request at its server", |up| up.ask(seen)[0][0] != 0);
    assert_eq!(up.ask(seen)[0][1], 0);
    let shown = wirespan(&[
        "trace",
        "--span",
        rows[0][0].as_str().unwrap(),
        "--server",
        &format!("http://{}", up.page),
    ]);
    assert!(text(&shown.stdout).contains("(TLS of Java: contents not visible)"), "{}", text(&shown.stdout));
    let (_, said) = up.stop();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("TLS of Java")).collect();
    assert!(lines.len() == 1 && lines[0].contains("/java"), "{said}");
}

#[test]
fn without_the_right_to_look_into_processes_that_is_said() {
    if !is_root() {
        return;
    }
    let without_ptrace = || {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]);
        command.arg(env!("CARGO_BIN_EXE_wirespan"));
        command
    };
    let mut up = Up::start_by(without_ptrace(), &["--tracer", "on", "--tracer-cpu", "4"]);
    let said: Vec<&str> = up.said.lines().filter(|line| line.contains("CAP_SYS_PTRACE")).collect();
    assert!(said.len() == 1 && said[0].contains("not traced: programs and TLS libraries"), "{}", up.said);
    up.stop();
    let lacks = |mut command: Command| {
        let output = command.args(["probe", "-i", "lo", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["tracer"]["features"].to_string().contains("CAP_SYS_PTRACE")
    };
    assert!(lacks(without_ptrace()));
    assert!(!lacks(Command::new(env!("CARGO_BIN_EXE_wirespan"))));
}

#[test]
fn probe_says_what_can_be_traced() {
    if !is_root() {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_wirespan")).args(["probe", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let features = report["tracer"]["features"].as_array().unwrap();
    let on = |name: &str| features.iter().any(|feature| feature["name"] == name && feature["off"].is_null());
    assert!(on("system calls") && on("names of processes"), "{report}");
}

#[test]
fn cut_event_logs_are_read_up_to_the_cut() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cut.events");
    // The beginning of a log, and of a record that says it has 100 bytes.
    let bytes =
        [&b"\x89WSEVT\r\n"[..], &1u32.to_ne_bytes(), &100u32.to_ne_bytes(), &2u32.to_ne_bytes(), b"cut"];
    std::fs::write(&file, bytes.concat()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wirespan"))
        .args(["replay", "--format", "jsonl", "--emit", "stats", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success());
    let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&stats["events"], &stats["events_unreadable"]), (&0.into(), &1.into()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cut or damaged"));
}

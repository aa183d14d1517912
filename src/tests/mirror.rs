//! `wirespan up` where a mirror feeds it: the records are those of the capture that is mirrored, and no frame is unaccounted for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod mirror_port;
mod support;

use mirror_port::Mirror;
use serde_json::Value;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;
use support::{Refused, Up, fixture, is_root, objects, run, text, where_refused, wirespan};
use wirespan_capture::PacketSource;
use wirespan_capture::af_xdp::Transmitter;
use wirespan_capture::pcap_file::PcapFile;

fn frames() -> Vec<Vec<u8>> {
    let mut file = PcapFile::open(fixture()).unwrap();
    let mut frames = Vec::new();
    while let Some(batch) = file.next_batch().unwrap() {
        frames.extend(batch.frames().map(|frame| frame.data.to_vec()));
    }
    frames
}

/// What `replay` says of the same frames: complete requests by protocol.
fn requests_in_the_capture() -> Vec<(String, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for span in
        objects(&wirespan(&["replay", "--format", "jsonl", "--emit", "spans", fixture().to_str().unwrap()]))
    {
        if span["session"] == "complete" {
            *counts.entry(span["l7_protocol"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

impl Up {
    /// Complete requests by protocol.
    fn requests(&self) -> Vec<(String, u64)> {
        let sql = "SELECT l7_protocol, count() FROM l7_log WHERE session = 'complete' GROUP BY 1 ORDER BY 1";
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap();
        self.ask(sql).iter().map(|row| (row[0].as_str().unwrap().to_owned(), number(&row[1]))).collect()
    }

    /// No frame is unaccounted for, none was lost, and the requests are those of the capture.
    fn accounts_for(&self, sent: u64) {
        self.accounts_for_frames(sent);
        assert_eq!(self.count("wirespan_capture_lost_total"), 0);
        let expected = requests_in_the_capture();
        assert!(expected.len() >= 5, "{expected:?}");
        self.wait_for("the requests", |up| up.requests() == expected);
    }
}

#[test]
fn a_mirror_port_gives_the_requests_of_the_capture() {
    if !is_root() {
        return;
    }
    for (tag, more) in [
        ("a", &["--workers", "1"][..]),
        ("b", &["--workers", "2"]),
        ("c", &["--backend", "af-packet", "--workers", "2"]),
    ] {
        let mirror = Mirror::new(tag);
        let up = Up::start(&[&["--mode", "mirror", "-i", &mirror.port], more].concat());
        assert_eq!(up.said.contains("AF_XDP"), !more.contains(&"af-packet"), "{}", up.said);
        assert!(up.said.contains("promiscuous"), "{}", up.said);
        // veth has no zero-copy; what else is missing depends on the machine.
        let copies = format!("interface=\"{}\",kind=\"no_zero_copy\"", mirror.port);
        assert_eq!(up.fallbacks().contains(&copies), up.said.contains("AF_XDP"), "{:?}", up.fallbacks());
        let frames = frames();
        mirror.send(&frames);
        up.accounts_for(frames.len() as u64);
    }
}

/// A frame in VXLAN; the outer source port is another one in each direction, and another one for each flow.
fn tunnelled(frame: &[u8]) -> Vec<u8> {
    let flow: u16 =
        frame[26..38].iter().fold(0, |sum: u16, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let [[p0, p1], [l0, l1], [t0, t1]] =
        [flow | 0xc000, frame.len() as u16 + 16, frame.len() as u16 + 36].map(u16::to_be_bytes);
    let mut outer = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 4, 8, 0];
    outer.extend([0x45, 0, t0, t1, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    outer.extend([p0, p1, 0x12, 0xb5, l0, l1, 0, 0, 8, 0, 0, 0, 0, 0, 42, 0]);
    [&outer, frame].concat()
}

#[test]
fn workers_share_a_tunnelled_mirror() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::with_queues("q", 2);
    let up = Up::start(&["--mode", "mirror", "--workers", "2", "-i", &mirror.port]);
    // From two, the directions of a connection would come in no order.
    assert!(
        up.said.contains("2 rx, 2 tx -> 1 rx, 1 tx") && up.said.contains("AF_XDP on 1 queues"),
        "{}",
        up.said
    );
    let frames: Vec<_> = frames().iter().map(|frame| tunnelled(frame)).collect();
    mirror.send(&frames);
    up.accounts_for(frames.len() as u64);
    assert!(!up.said.contains("symmetric RSS"), "{}", up.said);
    for worker in ["0", "1"] {
        let frames = up.counts().of_label("wirespan_frames_total", "worker", worker);
        assert!(frames > 100, "worker {worker} had {frames}");
    }
}

#[test]
fn filters_change_while_it_runs_and_the_kernel_counts_what_it_keeps_back() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::new("f");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "deny: {protocols: [tcp]}").unwrap();
    let filter = file.path().to_str().unwrap();
    let up = Up::start(&["--mode", "mirror", "-i", &mirror.port, "--filter", filter]);
    let frames = frames();
    mirror.send(&frames);
    let sent = frames.len() as u64;
    up.accounts_for_frames(sent);
    let kept_back = "wirespan_capture_kept_back_total";
    let kept = up.count(kept_back);
    assert!(kept > sent / 2, "{kept}");
    up.wait_for("DNS", |up| up.requests().iter().any(|(protocol, _)| protocol == "DNS"));
    assert_eq!(up.requests().len(), 1, "{:?}", up.requests());

    std::fs::write(&file, "{}").unwrap();
    // SAFETY: kill(2) on a child of ours that was not waited for.
    unsafe { libc::kill(up.child.id() as i32, libc::SIGHUP) };
    std::thread::sleep(Duration::from_secs(1));
    mirror.send(&frames);
    up.wait_for("all protocols", |up| up.requests().len() >= 5);
    up.accounts_for_frames(2 * sent);
    assert_eq!(up.count(kept_back), kept);
}

/// By the program in the kernel and by the workers: the names of the reasons are the same.
#[test]
fn what_filters_and_samples_leave_out_is_accounted_for_by_whoever_leaves_it_out() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::new("s");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "deny: {protocols: [udp]}").unwrap();
    let left_out = ["--filter", file.path().to_str().unwrap(), "--sample", "0.5"];
    let frames = frames();
    for (backend, by) in
        [("af-xdp", "wirespan_capture_kept_back_total"), ("af-packet", "wirespan_frames_dropped_total")]
    {
        let watch = ["--mode", "mirror", "-i", &mirror.port, "--tracer", "off", "--backend", backend];
        let up = Up::start(&[&watch[..], &left_out].concat());
        mirror.send(&frames);
        up.accounts_for_frames(frames.len() as u64);
        let counts = up.counts();
        for reason in ["filtered_protocol", "sampled_out"] {
            assert!(counts.of_reason(by, reason) > 10, "{backend} {reason}");
        }
        assert!(counts.of("wirespan_packets_total") > 100, "{backend}");
    }
}

/// Bytes on the wire are the same wherever the tag is when the frame is counted.
#[test]
fn a_vlan_tag_counts_in_the_frame_beside_it_and_in_what_is_shunted() {
    if !is_root() {
        return;
    }
    const FRAMES: u64 = 1000;
    let mirror = Mirror::new("v");
    // Of a flow that nothing is understood of.
    let mut untagged = vec![2; 12];
    untagged.extend([8, 0, 0x45, 0, 0, 186, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    untagged.extend([0x9c, 0x40, 0x27, 0x0f, 0, 166, 0, 0]);
    untagged.resize(200, 0xee);
    let tagged = [&untagged[..12], &[0x81, 0, 0, 7], &untagged[12..]].concat();
    for is_beside in [false, true] {
        let tagging = is_beside.then(|| mirror.within(tag_beside));
        if let Some(Err(error)) = &tagging {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            return eprintln!("skipped: tags beside frames need Linux 6.8 ({error})");
        }
        let frame = if is_beside { &untagged } else { &tagged };
        for more in [&["--backend", "af-packet"][..], &["--backend", "af-xdp"], &["--shunt-after", "2000"]] {
            let watch = ["--mode", "mirror", "-i", &mirror.port, "--tracer", "off"];
            let up = Up::start(&[&watch[..], more].concat());
            // The flow is shunted for the first of them, before the others come.
            for (count, sum) in [(FRAMES / 10, FRAMES / 10), (FRAMES * 9 / 10, FRAMES)] {
                mirror.send(&vec![frame.clone(); count as usize]);
                up.accounts_for_frames(sum);
            }
            let kept_back = up.count("wirespan_capture_kept_back_total");
            assert_eq!(kept_back > 0, more[0] == "--shunt-after", "beside: {is_beside}, {more:?}");
            // A flow is told once a second what was counted of it.
            up.wait_for("what was shunted", |up| up.count("wirespan_shunt_packets_total") == kept_back);
            let bytes =
                ["frame_bytes", "shunt_bytes"].map(|name| up.count(&format!("wirespan_{name}_total")));
            assert_eq!(bytes[0] + bytes[1], FRAMES * 204, "beside: {is_beside}, {more:?}");
        }
    }
}

/// The program in the kernel does not know which tap a packet is of.
#[test]
fn packets_of_a_flow_that_two_taps_see_are_counted_by_each() {
    if !is_root() {
        return;
    }
    const FRAMES: u64 = 500;
    let mirror = Mirror::new("w");
    let file = tempfile::NamedTempFile::new().unwrap();
    let tap = |mac: u8| {
        format!("- {{name: tap {mac}, kind: nic, match: {{source_mac: '02:02:02:02:02:0{mac}'}}}}\n")
    };
    std::fs::write(&file, ["taps:\n".to_owned(), tap(1), tap(2)].concat()).unwrap();
    let frame = |mac: u8| {
        let mut frame = [[2; 6], [2, 2, 2, 2, 2, mac]].concat();
        frame.extend([8, 0, 0x45, 0, 0, 186, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x9c, 0x40, 0x27, 0x0f, 0, 166, 0, 0]);
        frame.resize(200, 0xee);
        frame
    };
    let taps = ["--taps", file.path().to_str().unwrap(), "--shunt-after", "2000"];
    let up = Up::start(&[&["--mode", "mirror", "--tracer", "off", "-i", &mirror.port], &taps[..]].concat());
    let frames: Vec<_> = (0..FRAMES).flat_map(|_| [frame(1), frame(2)]).collect();
    mirror.send(&frames);
    up.accounts_for_frames(2 * FRAMES);
    let packets =
        "SELECT toUInt32(sum(packet_tx + packet_rx)) FROM net_metrics_1s GROUP BY tap_id ORDER BY tap_id";
    up.wait_for("the packets of both", |up| up.ask(packets) == [[FRAMES], [FRAMES]]);
    assert_eq!(up.count("wirespan_flows_not_shunted_total"), 2);
}

/// Lets the kernel put the tag of VLAN 7 beside each frame that leaves `eth0`, as a VLAN interface does, until the result is
/// dropped.
fn tag_beside() -> io::Result<[OwnedFd; 2]> {
    const PROGRAM_LOAD: libc::c_int = 5;
    const LINK_CREATE: libc::c_int = 28;
    const CLASSIFIER: u64 = 3;
    const EGRESS: u64 = 47;
    // As in `struct bpf_insn`: code, register, number.
    let instruction = |code: u64, register: u64, number: u64| code | register << 8 | number << 32;
    let program = [
        instruction(0xb7, 2, u16::to_be(0x8100).into()),
        instruction(0xb7, 3, 7),
        // bpf_skb_vlan_push
        instruction(0x85, 0, 18),
        instruction(0xb7, 0, 0),
        instruction(0x95, 0, 0),
    ];
    let bpf = |command: libc::c_int, attributes: [u64; 3]| {
        // SAFETY: what the attributes point to lives as long as the call; the descriptor is new and owned.
        unsafe {
            match libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(OwnedFd::from_raw_fd(fd as i32)),
            }
        }
    };
    let count = (program.len() as u64) << 32;
    let loaded = bpf(PROGRAM_LOAD, [CLASSIFIER | count, program.as_ptr() as u64, c"GPL".as_ptr() as u64])?;
    // SAFETY: the name ends in zero.
    let interface = u64::from(unsafe { libc::if_nametoindex(c"eth0".as_ptr()) });
    let link = bpf(LINK_CREATE, [loaded.as_raw_fd() as u64 | interface << 32, EGRESS, 0])?;
    Ok([loaded, link])
}

#[test]
fn a_killed_capture_leaves_nothing_behind_after_the_next_start() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::new("k");
    let link = || {
        String::from_utf8(
            Command::new("ip").args(["-d", "link", "show", &mirror.port]).output().unwrap().stdout,
        )
        .unwrap()
    };
    let defer = || {
        let path = format!("/sys/class/net/{}/napi_defer_hard_irqs", mirror.port);
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    };
    let before = defer();
    let mut up = Up::start(&["--mode", "mirror", "--busy-poll", "-i", &mirror.port]);
    assert_ne!(defer(), before);
    assert!(link().contains("prog/xdp") && !link().contains("promiscuity 0"), "{}", link());
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    let _next = Up::start(&["-i", "lo"]);
    assert_eq!(defer(), before);
    assert!(!link().contains("prog/xdp") && link().contains("promiscuity 0"), "{}", link());
}

#[test]
fn where_a_kernel_has_no_af_xdp_a_mirror_is_captured_by_af_packet() {
    if !is_root() {
        return;
    }
    const LINK_CREATE: u32 = 28;
    let invalid = |call, arguments| Refused { call, arguments, error: libc::EINVAL };
    let kernels = [
        ("no eBPF program can be loaded", Refused { error: libc::ENOSYS, ..invalid(libc::SYS_bpf, &[]) }),
        ("takes no XDP program", invalid(libc::SYS_bpf, &[(0, LINK_CREATE)])),
        (
            "this kernel has no AF_XDP",
            Refused { error: libc::EAFNOSUPPORT, ..invalid(libc::SYS_socket, &[(0, libc::AF_XDP as u32)]) },
        ),
        ("cannot register memory", invalid(libc::SYS_setsockopt, &[(1, libc::SOL_XDP as u32)])),
    ];
    let mirror = Mirror::new("o");
    let frames = frames();
    let arguments = ["--mode", "mirror", "--tracer", "off", "--offload", "off", "-i", &mirror.port];
    for (reason, refused) in kernels {
        let refused = [refused];
        let up = Up::start_by(where_refused(&refused), &arguments);
        let told: Vec<_> = up.said.lines().filter(|line| line.contains("using AF_PACKET")).collect();
        assert!(told.len() == 1 && told[0].contains(reason), "{reason}: {}", up.said);
        assert_eq!(up.fallbacks(), [format!("interface=\"{}\",kind=\"no_af_xdp\"", mirror.port)]);
        mirror.send(&frames);
        up.accounts_for(frames.len() as u64);
        drop(up);
        // Where nothing else was asked for, nothing starts.
        let directory = tempfile::tempdir().unwrap();
        let mut insisting = where_refused(&refused);
        insisting.arg("up").args(arguments).args(["--backend", "af-xdp", "--data"]).arg(directory.path());
        let output = insisting.output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.lines().count() == 1 && said.contains(reason), "{said}");
    }
}

#[test]
fn probe_takes_as_many_workers_as_up() {
    let probe = |workers: &[&str]| {
        let output = wirespan(&[&["probe", "-i", "lo", "--json"], workers].concat());
        (output.status.success(), text(&output.stderr))
    };
    assert!(probe(&[]).0 && probe(&["--workers", "64"]).0);
    let (done, said) = probe(&["--workers", "0"]);
    assert!(!done && said.contains("0 is not in 1..=64"), "{said}");
}

#[test]
fn probe_says_what_the_system_refuses() {
    if !is_root() {
        return;
    }
    let refuses = |call, arguments| Refused { call, arguments, error: libc::EPERM };
    const AF_XDP: &[(u32, u32)] = &[(0, libc::AF_XDP as u32)];
    const AF_PACKET: &[(u32, u32)] = &[(0, libc::AF_PACKET as u32)];
    for (refused, expected) in [
        (vec![], ["", "", ""]),
        (vec![refuses(libc::SYS_bpf, &[])], ["", "", "no permission to load eBPF programs"]),
        (
            vec![refuses(libc::SYS_socket, AF_XDP), refuses(libc::SYS_socket, AF_PACKET)],
            ["no permission to open a packet socket", "no permission to open an AF_XDP socket", ""],
        ),
    ] {
        let output = where_refused(&refused).args(["probe", "-i", "lo", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let capture = report["capture"].as_array().unwrap();
        for ((way, name), why) in capture.iter().zip(["AF_PACKET", "AF_XDP", "XDP program"]).zip(expected) {
            assert_eq!(way["name"], name);
            let off = way["off"].as_str().unwrap_or_default();
            assert!(off.starts_with(why) && off.is_empty() == why.is_empty(), "{name}: {off}");
        }
        let rows = report["interfaces"][0]["plan"].as_array().unwrap();
        let row = rows.iter().find(|row| row["what"] == "AF_XDP").unwrap();
        let marked = row["possible"].as_str().unwrap().starts_with("refused to this process: ");
        assert_eq!(marked, !refused.is_empty(), "{row}");
        let output = where_refused(&refused).args(["probe", "-i", "lo"]).output().unwrap();
        assert!(expected.iter().all(|why| text(&output.stdout).contains(why)), "{}", text(&output.stdout));
    }
}

#[test]
fn where_another_program_has_the_queue_a_mirror_is_captured_by_af_packet() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::new("q");
    mirror.wait_until_up();
    let other = Transmitter::open(&mirror.port).unwrap();
    let arguments = ["--mode", "mirror", "--tracer", "off", "--offload", "off", "-i", &mirror.port];
    let up = Up::start(&[arguments.as_slice(), &["--shunt-after", "100000000"]].concat());
    let told: Vec<_> = up.said.lines().filter(|line| line.contains("using AF_PACKET")).collect();
    assert!(told.len() == 1 && told[0].contains("taken by another AF_XDP socket"), "{}", up.said);
    let kinds = ["no_af_xdp", "no_shunt"];
    assert_eq!(up.fallbacks(), kinds.map(|kind| format!("interface=\"{}\",kind=\"{kind}\"", mirror.port)));
    let frames = frames();
    mirror.send(&frames);
    up.accounts_for(frames.len() as u64);
    drop(up);
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wirespan"))
        .arg("up")
        .args(arguments)
        .args(["--backend", "af-xdp", "--data"])
        .arg(directory.path())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.lines().count() == 1 && said.contains("`ss --xdp -p`"),
        "{said}"
    );
    drop(other);
}

#[test]
fn a_full_flow_table_loses_no_packet() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::new("t");
    let frames = frames();
    let up = Up::start(&["--mode", "mirror", "-i", &mirror.port, "--max-flows", "8"]);
    mirror.send(&frames);
    up.accounts_for_frames(frames.len() as u64);
    assert_eq!(up.count("wirespan_capture_lost_total"), 0);
    assert!(up.count("wirespan_flows_evicted_total") > 10);
}

#[test]
fn a_capture_whose_interface_is_removed_ends_with_what_was_seen() {
    if !is_root() {
        return;
    }
    for mode in ["host", "mirror"] {
        let mirror = Mirror::new("r");
        let mut up = Up::start(&["--mode", mode, "--tracer", "off", "-i", &mirror.port]);
        let frames = frames();
        mirror.send(&frames);
        up.accounts_for_frames(frames.len() as u64);
        run(&format!("ip link set {} down", mirror.port));
        run(&format!("ip link set {} up", mirror.port));
        mirror.send(&frames);
        up.accounts_for_frames(2 * frames.len() as u64);
        run(&format!("ip link del {}", mirror.port));
        let status = up.child.wait().unwrap();
        let (_, said) = up.stop();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("interface {} was removed", mirror.port)), "{said}");
        assert!(said.contains("and lost 0"), "{said}");
    }
}

/// What a request is told by: kind, times to the microsecond, client, what was asked, size of the answer.
#[cfg(feature = "dpdk")]
fn replayed() -> Vec<String> {
    let capture = fixture();
    let arguments = ["replay", "--format", "jsonl", "--emit", "spans", capture.to_str().unwrap()];
    let told = |span: &Value| {
        let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str, unit: u64| (span[name].as_u64().unwrap() / unit).to_string();
        [
            text("l7_protocol"),
            number("start_ns", 1000),
            number("end_ns", 1000),
            text("client_ip"),
            number("client_port", 1),
            text("request_type"),
            text("request_resource"),
            number("response_bytes", 1),
        ]
        .join(" ")
    };
    let spans = objects(&wirespan(&arguments));
    let mut all: Vec<_> = spans.iter().filter(|span| span["session"] == "complete").map(told).collect();
    all.sort();
    all
}

#[cfg(feature = "dpdk")]
#[test]
fn a_capture_that_dpdk_reads_is_stored_as_replay_tells_it() {
    let eal = format!("--no-huge --no-pci --vdev=net_pcap0,rx_pcap={}", fixture().display());
    for workers in ["1", "2"] {
        let arguments = [
            "--mode",
            "mirror",
            "--backend",
            "dpdk",
            "-i",
            "net_pcap0",
            "--show-values",
            "--workers",
            workers,
        ];
        let mut up = Up::start(&[&arguments[..], &["--eal", &eal, "--shunt-after", "1000000000"]].concat());
        assert!(up.said.contains("net_pcap0: DPDK net_pcap, 1 queues"), "{}", up.said);
        // No such device takes rules.
        assert_eq!(up.fallbacks(), ["interface=\"net_pcap0\",kind=\"no_nic_shunt\""]);
        up.accounts_for(frames().len() as u64);
        let sql = "SELECT concatWithSeparator(' ', l7_protocol, toString(intDiv(toUnixTimestamp64Nano(start_time), 1000)), \
               toString(intDiv(toUnixTimestamp64Nano(end_time), 1000)), client, toString(client_port), request_type, \
               request_resource, toString(response_bytes)) AS told FROM l7_log WHERE session = 'complete' ORDER BY told";
        let stored: Vec<_> = up.ask(sql).iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
        assert_eq!(stored, replayed());
        let (status, said) = up.stop();
        assert!(status.success() && said.contains("and lost 0"), "{said}");
    }
}

#[cfg(feature = "dpdk")]
#[test]
fn options_that_the_backend_does_not_have_are_refused() {
    let dpdk = ["--backend", "dpdk", "-i", "net_null0"];
    let refused = [
        (&["-i", "lo", "--eal", "--no-huge"][..], "--eal goes with --backend dpdk"),
        (&["--mode", "vpc-mirror", "--listen-vxlan", "4789", "--eal", ""], "--eal goes with --backend dpdk"),
        (&[&dpdk[..], &["--offload", "rx-ring=max"]].concat(), "--offload sets NICs up through the kernel"),
    ];
    for (arguments, says) in refused {
        let data = tempfile::tempdir().unwrap();
        let data = data.path().join("data");
        let output = Command::new(env!("CARGO_BIN_EXE_wirespan"))
            .args([&["up", "--data", data.to_str().unwrap()], arguments].concat())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{said}");
    }
}

#[cfg(feature = "dpdk")]
#[test]
fn workers_share_one_queue_of_a_dpdk_device_that_does_not_keep_connections_together() {
    let eal = ["--eal", "--no-huge --no-pci -m 256 --vdev=net_ring0"];
    let up = Up::start(
        &[&["--mode", "mirror", "--backend", "dpdk", "-i", "net_ring0", "--workers", "2"], &eal[..]].concat(),
    );
    assert!(up.said.contains("net_ring0: DPDK net_ring, 1 queues"), "{}", up.said);
    assert_eq!(up.fallbacks(), [""; 0]);
}

#[test]
fn a_vpc_mirror_is_received_without_privileges_on_a_udp_port() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let up = Up::start(&["--mode", "vpc-mirror", "--listen-vxlan", &listen]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let frames = frames();
    for (number, frame) in frames.iter().enumerate() {
        // RFC 7348: the flag of a valid VNI, and the VNI 42.
        let datagram = [&[8, 0, 0, 0, 0, 0, 42, 0], &frame[..]].concat();
        socket.send_to(&datagram, &listen).unwrap();
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    up.accounts_for(frames.len() as u64);
    let tunnels = up.ask("SELECT DISTINCT tunnel_type, tunnel_id FROM l7_log");
    assert_eq!(tunnels.len(), 1, "{tunnels:?}");
}

#[test]
fn what_cannot_be_watched_is_told_with_what_to_do() {
    let says = |arguments: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_wirespan"))
            .arg("up")
            .args(arguments)
            .args(["--data", directory.path().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(says(&[]).contains("such as -i eth0"));
    assert!(says(&["--mode", "vpc-mirror"]).contains("such as --listen-vxlan 4789"));
    assert!(says(&["--mode", "vpc-mirror", "-i", "lo", "--listen-vxlan", "4789"]).contains("leave out -i"));
    let twice = ["--mode", "vpc-mirror", "--listen-vxlan", "4789", "--listen-geneve", "4789"];
    assert!(says(&twice).contains("0.0.0.0:4789 is given twice"));
    assert!(says(&["-i", "lo", "--listen-vxlan", "4789"]).contains("go with --mode vpc-mirror"));
    assert!(says(&["-i", "lo", "--offload", "rings=9"]).contains("rx-ring"));
    assert!(says(&["-i", "lo", "--sample", "2"]).contains("from 0 to 1"));
    assert!(says(&["-i", "lo", "--filter", "/nonexistent"]).contains("check the path"));
}

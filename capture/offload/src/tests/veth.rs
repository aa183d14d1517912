//! veth as it is in the running kernel: what it takes, what it refuses, and that all of it comes back.

use super::{run, with_veth};
use crate::ethtool;
use crate::{Channels, Nic, OffloadError, Plan, Report, restore_leftovers};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn report(name: &str) -> Report {
    Nic::open(name).unwrap().report()
}

/// What can be compared: everything the driver tells.
fn told(name: &str) -> String {
    serde_json::to_string_pretty(&report(name)).unwrap()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn auto_sets_up_what_veth_has_and_puts_it_back() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut nic = Nic::open("m0").unwrap();
        ethtool::set_feature(&mut nic.netlink, nic.link.index, "rx-gro", true).unwrap();
        let before = told("m0");
        let applied = Nic::open("m0").unwrap().apply(&Plan::parse("auto").unwrap(), 2, dir.path()).unwrap();
        let changes = [
            "promiscuous: on",
            "channels: 4 rx, 4 tx -> 1 rx, 1 tx",
            "rx-gro: on -> off",
            "rx-vlan-hw-parse: on -> off",
            "rx-vlan-stag-hw-parse: on -> off",
        ];
        assert_eq!(applied.changes(), changes);
        assert_eq!(applied.refused(), [""; 0]);
        let now = report("m0");
        assert_eq!(now.channels.get().unwrap().now, Channels { combined: 0, rx: 1, tx: 1 });
        assert!(!now.feature("rx-gro").on && !now.feature("rx-vlan-hw-parse").on);
        assert_eq!(now.link.promiscuity, 1);
        assert!(!is_empty(dir.path()));
        assert_eq!(applied.restore(), [""; 0]);
        assert_eq!(told("m0"), before);
        assert!(is_empty(dir.path()));
    });
}

#[test]
fn refusals_are_told_and_skipped() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let before = told("m0");
        let plan = "channels=9,rx-ring=max,rss=symmetric,tunnel-hash=on,lro=on,gro-hw=on,hw-timestamps=on,ntuple=on,\
                    tc-offload=on,busy-poll=on";
        let applied = Nic::open("m0").unwrap().apply(&Plan::parse(plan).unwrap(), 2, dir.path()).unwrap();
        let changes = ["napi_defer_hard_irqs: 0 -> 2", "gro_flush_timeout: 0 -> 200000"];
        assert_eq!(applied.changes(), changes);
        let refused = [
            "channels: 9 were asked for, the driver has at most 4",
            "rx ring: not supported",
            "RSS: not supported",
            "hash fields of udp4: not supported",
            "hash fields of udp6: not supported",
            "rx-lro: the driver cannot turn it on",
            "rx-gro-hw: the driver cannot turn it on",
            "rx-ntuple-filter: the driver cannot turn it on",
            "hw-tc-offload: the driver cannot turn it on",
            "hardware timestamps: not supported",
        ];
        assert_eq!(applied.refused(), refused);
        assert_eq!(report("m0").busy_poll.get(), Some(&(2, 200_000)));
        drop(applied);
        assert_eq!(told("m0"), before);
    });
}

#[test]
fn rules_in_the_nic_are_refused() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let before = told("m0");
        // Where the kernel has the flower classifier, it is veth that refuses.
        for (how, expected) in [("counted", "not in this kernel"), ("uncounted", "not supported")] {
            let plan = Plan::parse(&format!("hw-shunt={how}")).unwrap();
            let mut applied = Nic::open("m0").unwrap().apply(&plan, 2, dir.path()).unwrap();
            let refusal = applied.hardware_shunt(64).unwrap().err().unwrap().to_string();
            assert!(refusal.starts_with(expected) || refusal.starts_with("not supported"), "{refusal}");
        }
        assert_eq!(told("m0"), before);
        let disciplines = Command::new("tc").args(["qdisc", "show", "dev", "m0"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&disciplines.stdout).contains("clsact"));
        let mut applied =
            Nic::open("m0").unwrap().apply(&Plan::parse("auto").unwrap(), 2, dir.path()).unwrap();
        assert!(applied.hardware_shunt(64).is_none());
    });
}

#[test]
fn another_process_waits_for_its_turn() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::parse("auto").unwrap();
        let mut child = child(dir.path());
        let set_up = told("m0");
        assert!(matches!(
            Nic::open("m0").unwrap().apply(&plan, 2, dir.path()),
            Err(OffloadError::InUse { interface }) if interface == "m0"
        ));
        assert_eq!(restore_leftovers(dir.path()).unwrap(), [""; 0]);
        assert_eq!(told("m0"), set_up);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn the_next_start_restores_what_a_killed_process_left() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let before = told("m0");
        let mut child = child(dir.path());
        assert_ne!(told("m0"), before);
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel itself ends what depends on a process.
        let left = report("m0");
        assert_eq!(left.link.promiscuity, 0);
        assert_eq!(left.channels.get().unwrap().now.rx, 1);
        assert_eq!(
            restore_leftovers(dir.path()).unwrap(),
            ["m0: restored what a killed process had changed"]
        );
        assert_eq!(told("m0"), before);
        assert!(is_empty(dir.path()));
        assert_eq!(restore_leftovers(dir.path()).unwrap(), [""; 0]);
    });
}

#[test]
fn an_interface_that_has_another_name_by_now_is_restored_too() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        for line in ["ip link set m0 down", "ip link set m0 name renamed0", "ip link set renamed0 up"] {
            run(line);
        }
        assert_eq!(report("renamed0").channels.get().unwrap().now.rx, 1);
        assert_eq!(
            restore_leftovers(dir.path()).unwrap(),
            ["renamed0: restored what a killed process had changed"]
        );
        assert_eq!(report("renamed0").channels.get().unwrap().now.rx, 4);
        assert!(is_empty(dir.path()));
    });
}

#[test]
fn a_start_on_the_same_interface_restores_first() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let before = told("m0");
        let mut child = child(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        let plan = Plan::parse("busy-poll=on").unwrap();
        let applied = Nic::open("m0").unwrap().apply(&plan, 2, dir.path()).unwrap();
        assert_eq!(report("m0").channels.get().unwrap().now.rx, 4);
        drop(applied);
        assert_eq!(told("m0"), before);
    });
}

#[test]
fn a_file_of_an_interface_that_is_gone_is_dropped() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut child = child(dir.path());
        child.kill().unwrap();
        child.wait().unwrap();
        run("ip link delete m0");
        assert_eq!(restore_leftovers(dir.path()).unwrap(), ["m0 is gone; there is nothing to restore on it"]);
        assert!(is_empty(dir.path()));
    });
}

#[test]
fn a_file_of_another_boot_is_removed_and_one_of_another_namespace_kept() {
    with_veth(|| {
        let dir = tempfile::tempdir().unwrap();
        let before = told("m0");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let index = report("m0").link.index;
        for (file, boot) in [("old.json", "another"), ("elsewhere.json", boot.trim())] {
            let owner = format!(r#"{{"boot":"{boot}","namespace":1,"index":{index},"interface":"m0"}}"#);
            let change = r#"{"before":{"channels":{"combined":0,"rx":1,"tx":1}}}"#;
            std::fs::write(dir.path().join(file), format!("{owner}\n{change}\n")).unwrap();
        }
        assert_eq!(restore_leftovers(dir.path()).unwrap(), [""; 0]);
        assert_eq!(told("m0"), before);
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["elsewhere.json"]);
    });
}

#[test]
fn an_unknown_interface_is_answered_with_those_there_are() {
    with_veth(|| {
        let error = Nic::open("eth99").err().unwrap().to_string();
        assert_eq!(error, "no interface is called `eth99`; there are lo, m1, m0");
        let too_long = Nic::open("an-interface-name-that-is-too-long").err().unwrap().to_string();
        assert!(too_long.starts_with("no interface is called"));
    });
}

const CHILD_DIR: &str = "WIRESPAN_TEST_STATE_DIR";

/// A process that has set `m0` up and waits.
fn child(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::veth::sets_up_and_waits", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("set up")), "the child could not set m0 up");
    child
}

#[test]
#[ignore = "a part of the tests above, run by them as a process to be killed"]
fn sets_up_and_waits() {
    let dir = std::env::var_os(CHILD_DIR).unwrap();
    let plan = Plan::parse("auto").unwrap();
    let applied = Nic::open("m0").unwrap().apply(&plan, 1, Path::new(&dir)).unwrap();
    println!("set up");
    // Until the parent is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(applied);
}

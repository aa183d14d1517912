//! Recorded conversations with NICs that this machine may not have.

use super::conversation::{Recorder, Replay};
use crate::nic::Nic;
use crate::{Answer, Hashed, Plan, Report};
use std::path::Path;

#[test]
#[ignore = "records the driver of WIRESPAN_RECORD=IF into recordings/IF.txt: its report, and with WIRESPAN_PLAN=... also set and restore"]
fn record() {
    let name = std::env::var("WIRESPAN_RECORD").expect("WIRESPAN_RECORD names the interface");
    let (recorder, text) = Recorder::new();
    let mut nic = Nic::through(Box::new(recorder), &name).unwrap();
    match std::env::var("WIRESPAN_PLAN") {
        Ok(plan) => {
            let dir = tempfile::tempdir().unwrap();
            drop(nic.apply(&Plan::parse(&plan).unwrap(), 2, dir.path()).unwrap());
        }
        Err(_) => drop(nic.report()),
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    std::fs::write(dir.join(format!("{name}.txt")), text.lock().unwrap().as_str()).unwrap();
}

/// The report of the virtio NIC of a virtual machine, as Linux 6.18 told it.
#[test]
fn virtio_tells_what_it_has() {
    let replay = Replay::new(include_str!("../../recordings/virtio.txt"));
    let report = Nic::through(Box::new(replay.clone()), "eth0").unwrap().report();
    assert!(replay.is_finished());
    assert_eq!(report.driver.get().map(String::as_str), Some("virtio_net"));
    assert_eq!(report.channels.get().unwrap().max.combined, 1);
    assert_eq!(report.rx_ring.get().unwrap().now, 256);
    assert!(report.rss.get().unwrap().key.is_empty());
    assert!(report.feature("rx-gro-hw").on && !report.feature("rx-gro-hw").changeable);
    assert!(report.xdp.get().unwrap().zero_copy && !report.xdp.get().unwrap().hash);
    insta::assert_snapshot!("virtio_plan", planned(&report, "auto,tunnel-hash=on,rss=symmetric,gro-hw=off"));
}

/// What is planned, by row; rows without a plan are left out.
fn planned(report: &Report, plan: &str) -> String {
    let rows = report.rows(&Plan::parse(plan).unwrap(), 4);
    let rows = rows.iter().filter(|row| !row.plan.is_empty());
    rows.map(|row| format!("{} | {} | {} | {}\n", row.what, row.now, row.possible, row.plan)).collect()
}

#[test]
fn a_capable_nic_is_set_up_and_restored_message_by_message() {
    let replay = Replay::new(include_str!("../../recordings/capable-nic.txt"));
    let dir = tempfile::tempdir().unwrap();
    let nic = Nic::through(Box::new(replay.clone()), "eth7").unwrap();
    let plan = Plan::parse("auto,tunnel-hash=on,ntuple=on").unwrap();
    let applied = nic.apply_as(&plan, 4, dir.path(), &("boot".to_owned(), 1)).unwrap();
    let journal = std::fs::read_to_string(dir.path().join("eth7-7-1.json")).unwrap();
    assert_eq!(applied.refused(), ["rx-lro: still on; off was refused: the driver said yes, but it is on"]);
    insta::assert_snapshot!("capable_nic_changes", applied.changes().join("\n"));
    insta::assert_snapshot!("capable_nic_journal", journal);
    assert!(!replay.is_finished());
    assert_eq!(applied.restore(), [""; 0]);
    assert!(replay.is_finished());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_capable_nic_is_shown_with_what_auto_would_do() {
    let replay = Replay::new(include_str!("../../recordings/capable-nic.txt"));
    let mut report = Nic::through(Box::new(replay), "eth7").unwrap().report();
    let rows = report.rows(&Plan::parse("auto").unwrap(), 4);
    let rows: Vec<String> = rows
        .iter()
        .map(|row| format!("{} | {} | {} | {}", row.what, row.now, row.possible, row.plan))
        .collect();
    insta::assert_snapshot!("capable_nic_report", rows.join("\n"));
    // Ports that are hashed already are not any more.
    report.hash_fields = vec![(Hashed::Udp4, Answer::Is(Hashed::Udp4.best()))];
    let plan = planned(&report, "auto");
    assert!(plan.contains("hash fields of udp4 | sdfn |  | sd\n"), "{plan}");
}

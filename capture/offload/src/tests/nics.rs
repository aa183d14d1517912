//! Recorded conversations with NICs that this machine may not have.

use super::conversation::{Recorder, Replay};
use crate::Plan;
use crate::nic::Nic;
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

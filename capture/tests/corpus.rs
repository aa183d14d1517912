//! Every capture that others recorded must be readable to its end.

#![allow(clippy::unwrap_used, reason = "only tests run this")]

use std::path::{Path, PathBuf};

use wirespan_capture::pcap_file::PcapFile;
use wirespan_capture::{LinkType, PacketSource};

/// The folder lies beside the workspace root where it is present.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpus");

fn captures(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            captures(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
            found.push(path);
        }
    }
}

#[test]
fn every_capture_of_the_corpus_is_read_to_its_end() {
    let corpus = Path::new(CORPUS);
    if !corpus.is_dir() {
        eprintln!("skipped: needs the captures in ../shared/corpus beside the workspace");
        return;
    }
    let mut found = Vec::new();
    captures(corpus, &mut found);
    assert!(!found.is_empty());
    for path in found {
        let mut capture = PcapFile::open(&path).unwrap();
        while let Some(batch) = capture.next_batch().unwrap() {
            for frame in batch.frames() {
                assert!(frame.wire_len as usize >= frame.data.len());
                assert!(!matches!(frame.link, LinkType::Other(_)), "{}: {:?}", path.display(), frame.link);
            }
        }
        let stats = capture.stats();
        assert!(stats.received > 0, "{}", path.display());
        assert_eq!(stats.unreadable, [], "{}", path.display());
    }
}

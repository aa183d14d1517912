//! Capture files, one after the other, for several workers.

use std::path::PathBuf;
use std::sync::Arc;

use wirespan_frame::Descriptor;

use super::reading::{Read, Reader};
use super::{End, ends};
use crate::pcap_file::{BATCH_FRAMES, Buffer, PcapFile};
use crate::{CaptureError, SourceStats, Unreadable};

/// Read buffers beside those that the workers' parcels lie in.
const BUFFERS_BESIDE: usize = 4;
/// Read buffers for each worker.
const BUFFERS_EACH: usize = 8;
/// A capture cannot choose where it goes in memory, so the hash needs no secret.
const SEED: u64 = 0;

/// One worker's part of capture files.
pub type FileEnd = End<Files>;

/// Spreads the frames of capture files, read in this order, over `workers` workers. `-` is standard input.
///
/// Each file is opened when its turn comes; the worker that cannot open it returns the error, and the others end.
pub fn files(paths: Vec<PathBuf>, workers: usize) -> Vec<FileEnd> {
    let files = Files {
        paths: paths.into_iter(),
        current: None,
        buffers_max: BUFFERS_BESIDE + workers * BUFFERS_EACH,
        received: 0,
        unreadable: [0; Unreadable::ALL.len()],
    };
    ends(files, workers, SEED, std::time::Duration::from_millis(10))
}

/// Capture files that are read.
pub struct Files {
    paths: std::vec::IntoIter<PathBuf>,
    current: Option<PcapFile>,
    buffers_max: usize,
    received: u64,
    unreadable: [u64; Unreadable::ALL.len()],
}

impl Reader for Files {
    type Memory = Arc<Buffer>;

    const IS_LIVE: bool = false;

    fn read(&mut self, into: &mut Vec<Descriptor>) -> Result<Read<Arc<Buffer>>, CaptureError> {
        into.reserve(BATCH_FRAMES.saturating_sub(into.capacity()));
        loop {
            let file = match &mut self.current {
                Some(file) => file,
                None => {
                    let Some(path) = self.paths.next() else { return Ok(Read::Ended) };
                    let mut file = PcapFile::open(path)?;
                    file.share_buffers(self.buffers_max);
                    self.current.insert(file)
                }
            };
            if !file.has_room() {
                return Ok(Read::NoMemory);
            }
            if let Some(buffer) = file.describe(into) {
                let buffer = Arc::clone(buffer);
                return Ok(Read::Frames(buffer));
            }
            self.end_file();
        }
    }

    /// The memory is free when nobody shares it any more.
    fn give_back(&mut self, _: &[Descriptor]) {}

    fn stats(&mut self) -> SourceStats {
        let occurred = Unreadable::ALL.into_iter().zip(self.unreadable).filter(|(_, count)| *count > 0);
        SourceStats { received: self.received, unreadable: occurred.collect(), ..SourceStats::default() }
    }
}

impl Files {
    fn end_file(&mut self) {
        use crate::PacketSource;
        let Some(mut file) = self.current.take() else { return };
        let stats = file.stats();
        self.received += stats.received;
        for (reason, count) in stats.unreadable {
            if let Some(sum) = self.unreadable.get_mut(reason as usize) {
                *sum += count;
            }
        }
    }
}

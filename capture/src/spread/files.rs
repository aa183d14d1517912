//! Capture files for several workers: each reads all of them and keeps its part.
//!
//! Reading and hashing a frame costs a tenth of what is done with it then, and less than getting it from another core's cache.

use std::path::PathBuf;
use std::sync::Arc;

use wirespan_frame::{Batch, Descriptor};

use super::parcel::{Cursor, Portion};
use super::router::Router;
use crate::pcap_file::{BATCH_FRAMES, Buffer, PcapFile};
use crate::{CaptureError, PacketSource, SourceStats, Unreadable};

/// The one that is read, that of the portion, and that of fragments which wait for their first.
const BUFFERS: usize = 4;
/// A capture cannot choose where it goes in memory, so the hash needs no secret.
const SEED: u64 = 0;

/// One worker's part of capture files.
pub struct FileEnd {
    index: usize,
    /// Those that are still to be read, the next one last.
    paths: Vec<PathBuf>,
    file: Option<PcapFile>,
    router: Router<Arc<Buffer>>,
    descriptors: Vec<Descriptor>,
    current: Cursor<Arc<Buffer>>,
    received: u64,
    unreadable: [u64; Unreadable::ALL.len()],
}

/// Spreads the frames of capture files, read in this order, over `workers` workers.
///
/// Each file is opened when its turn comes.
pub fn files(paths: &[PathBuf], workers: usize) -> Vec<FileEnd> {
    let end = |index| FileEnd {
        index,
        paths: paths.iter().rev().cloned().collect(),
        file: None,
        router: Router::of_worker(index, workers, SEED),
        descriptors: Vec::with_capacity(BATCH_FRAMES),
        current: Cursor::default(),
        received: 0,
        unreadable: [0; Unreadable::ALL.len()],
    };
    (0..workers.max(1)).map(end).collect()
}

impl FileEnd {
    /// Lends the next frames, with the times that the worker has to hear of before.
    ///
    /// `None` is the end of the input. Either can be empty.
    pub fn next_portion(&mut self) -> Result<Option<Portion<'_>>, CaptureError> {
        while self.current.is_worked_off() {
            let next = self.router.full.get_mut(self.index).and_then(|full| full.pop_front());
            if let Some(next) = next {
                let mut used = self.current.replace(next);
                used.clear();
                self.router.free.push(used);
            } else if !self.read()? {
                return Ok(None);
            }
        }
        let portion = self.current.portion();
        self.received += portion.batch.len() as u64;
        Ok(Some(portion))
    }

    /// False when there is nothing left.
    fn read(&mut self) -> Result<bool, CaptureError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => match self.paths.pop() {
                Some(path) => {
                    let mut file = PcapFile::open(path)?;
                    file.share_buffers(BUFFERS);
                    self.file.insert(file)
                }
                None => {
                    self.router.finish();
                    return Ok(self.router.full.get(self.index).is_some_and(|full| !full.is_empty()));
                }
            },
        };
        match file.describe(&mut self.descriptors) {
            Some(buffer) => {
                self.router.route(buffer, &self.descriptors);
                // The buffer is read into again while it is in this core's cache.
                self.router.flush();
            }
            None => self.end_file(),
        }
        Ok(true)
    }

    fn end_file(&mut self) {
        let Some(mut file) = self.file.take() else { return };
        for (reason, count) in file.stats().unreadable {
            if let Some(sum) = self.unreadable.get_mut(reason as usize) {
                *sum += count;
            }
        }
    }
}

impl PacketSource for FileEnd {
    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, CaptureError> {
        Ok(self.next_portion()?.map(|portion| portion.batch))
    }

    /// Frames are those of this end. What could not be read is said by the first end alone.
    fn stats(&mut self) -> SourceStats {
        let occurred = Unreadable::ALL.into_iter().zip(self.unreadable).filter(|(_, count)| *count > 0);
        let unreadable = if self.index == 0 { occurred.collect() } else { Vec::new() };
        SourceStats { received: self.received, unreadable, ..SourceStats::default() }
    }
}

//! Sources that do not fit their workers: the frames of a flow all go to the same worker, in order, without being copied.
//!
//! Takes in a source that cannot be split (capture files), or the queues of a NIC that are fewer than the workers, do not keep
//! the directions of a connection together, or are chosen by a tunnel's outer addresses; hands on one end for each worker, which
//! is a [`PacketSource`] like any other. Which worker gets a frame is told by the [`inner_hash()`] of its innermost packet.
//!
//! A source has one reader at a time, but no thread for it: **a worker that has little left to do reads**, for all of them. Of
//! several queues each has a worker that looks into it beside its other work, so that frames for the others do not wait for
//! it. Descriptors travel in parcels through bounded lock-free rings, one to each worker, and the parcels come back through one
//! more ring for each source, with the memory that they shared. What a full ring means depends on the source: capture files,
//! [`files()`], wait, so that a replay loses nothing; [`live()`] sources drop the newest parcel and count it,
//! [`Loss::WorkerBehind`].
//!
//! - `inner_hash`: which packets belong together
//! - `router`, `followers`: which worker gets a frame, and the fragments that follow it
//! - `clock`: packet time that all workers hear of, so that time-outs do not depend on their number
//! - `parcel`: what travels
//! - `files`: capture files for several workers
//! - `live`, `reading`: live sources for several workers, and reading one of them for all
//! - `inbox`: a ring and its worker's sleep
//!
//! [`PacketSource`]: crate::PacketSource
//! [`Loss::WorkerBehind`]: crate::Loss::WorkerBehind

mod clock;
mod files;
mod followers;
mod inbox;
mod inner_hash;
mod live;
mod parcel;
mod reading;
mod router;

use std::io;

use crate::CaptureError;
pub use files::{FileEnd, files};
use inbox::Inbox;
pub use inner_hash::{Fragment, InnerHash, inner_hash};
pub use live::{LiveEnd, Sharing, live};

fn inboxes<M>(workers: usize, parcels: usize) -> Result<Vec<Inbox<M>>, CaptureError> {
    (0..workers).map(|_| Inbox::new(parcels)).collect::<io::Result<_>>().map_err(cannot_wait)
}

fn cannot_wait(source: io::Error) -> CaptureError {
    CaptureError::system("wait for frames", "a worker's ring", source)
}

#[cfg(test)]
mod tests;

//! Where events come from: the running tracer, or an event log. What is behind does not know the difference.
//!
//! | module | what |
//! |---|---|
//! | [`live`] | the tracer, with processes, TLS libraries and the guard |
//! | [`file`] | event logs |
//! | `clock` | the time of day |
//! | `counts` | what was lost or left out |
//! | `cost` | what the programs in the kernel take |
//! | `recording` | writes what is handed on to an event log |

mod clock;
mod cost;
mod counts;
pub mod file;
pub mod live;
mod recording;

pub use counts::Counts;
pub use file::LogFile;
pub use live::{Live, LiveOptions};
pub use wirespan_bpf::tracer::{Feature, TracerOptions};

use std::io;
use std::path::PathBuf;
use std::time::Duration;
use wirespan_bpf::BpfError;
use wirespan_event::Entry;
use wirespan_event::log::LogError;

/// Says what happens on a host.
pub trait EventSource {
    /// Hands on what there is, at the latest after `patience` when there is nothing. Gives a time, ns of CLOCK_BOOTTIME: what
    /// happened before it was handed on, unless it is late; `None` when there will be nothing more.
    fn next(
        &mut self,
        patience: Duration,
        each: &mut dyn FnMut(Entry<'_>),
    ) -> Result<Option<u64>, SourceError>;
}

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The tracer does not run.
    #[error(transparent)]
    Tracer(#[from] BpfError),
    /// There is no thread to attach probes on.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// An event log cannot be opened or made.
    #[error("cannot open {path}: {source}")]
    Open {
        /// Its name.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An event log cannot be read.
    #[error("cannot read {path}: {source}")]
    Log {
        /// Its name.
        path: PathBuf,
        /// Why.
        source: LogError,
    },
}

//! What can go wrong, and what to do about it.

use std::path::PathBuf;

/// Errors of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The engine's library is not where it was looked for.
    #[error(
        "the ClickHouse engine {path} is missing: run `make setup`, or name it with --libchdb or WIRESPAN_LIBCHDB"
    )]
    NoLibrary {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file is there but is not a library of a version that is understood.
    #[error("cannot load the ClickHouse engine {path} ({reason}): run `make setup` to fetch the right one")]
    BadLibrary {
        /// The file.
        path: PathBuf,
        /// The dynamic loader's message.
        reason: String,
    },
    /// The engine does not open its data directory.
    #[error("the ClickHouse engine does not open {path}: {reason}")]
    Open {
        /// The data directory.
        path: PathBuf,
        /// The engine's message.
        reason: String,
    },
    /// Another process holds the data directory.
    #[error(
        "the data directory {path} is in use by another wirespan: stop it, or choose another directory with --data"
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The address to listen on is taken or not ours.
    #[error(
        "cannot listen on {address} ({source}): stop what listens there, or choose another address with --clickhouse-listen (`wirespan store`: --listen)"
    )]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's message.
        source: std::io::Error,
    },
    /// ClickHouse refused a query; the message is its own.
    #[error("{message}")]
    Query {
        /// ClickHouse's error code, 0 when the answer had none.
        code: u32,
        /// HTTP status.
        status: u16,
        /// `Code: N. DB::Exception: ...`
        message: String,
    },
    /// No answer from ClickHouse.
    #[error("no answer from ClickHouse at {url}: {reason}")]
    Unreachable {
        /// Base URL.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// An address that is not an HTTP URL.
    #[error("{url} is not a URL of ClickHouse's HTTP interface: give one like http://127.0.0.1:8123")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// ClickHouse answered something that is not in the format asked for.
    #[error("ClickHouse's answer is not {format}: {reason}")]
    BadAnswer {
        /// The format.
        format: &'static str,
        /// The parser's message.
        reason: String,
    },
    /// A database written by a newer wirespan.
    #[error(
        "the store has schema version {found}, this wirespan knows {known}: update wirespan, or choose another data directory"
    )]
    NewerSchema {
        /// In the store.
        found: u32,
        /// Newest known.
        known: u32,
    },
    /// A migration failed.
    #[error("schema migration {version} ({name}) failed: {source}")]
    Migration {
        /// Its number.
        version: u32,
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<StoreError>,
    },
    /// The child process did not come up.
    #[error("the store process did not start: {reason}")]
    Child {
        /// What was seen.
        reason: String,
    },
    /// A file or pipe.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's message.
        source: std::io::Error,
    },
}

impl StoreError {
    /// Wraps an I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// True when the same request may succeed later: nobody answered, or the server was busy or out of room.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // TIMEOUT_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, NETWORK_ERROR, MEMORY_LIMIT_EXCEEDED, TABLE_IS_READ_ONLY,
            // NOT_ENOUGH_SPACE, TOO_MANY_PARTS, CANNOT_SCHEDULE_TASK
            Self::Query { code, status, .. } => {
                matches!(code, 159 | 202 | 210 | 241 | 242 | 243 | 252 | 439) || *status == 503
            }
            _ => false,
        }
    }
}

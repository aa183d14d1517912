//! The embedded ClickHouse engine: `libchdb.so`, loaded at run time.
//!
//! One engine per process and data directory. Each query runs on its own connection (0.3 ms to open), so settings and
//! parameters of one never reach another; queries of several threads run side by side.

mod ffi;
mod locate;

use crate::StoreError;
use bytes::Bytes;
use ffi::{Api, Connection};
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use ffi::Summary;
pub use locate::{LIBCHDB_VERSION, locate};

/// Threads that merge parts leave the CPU to queries and inserts (their nice value; without CAP_SYS_NICE they do not).
const MERGES_YIELD: &CStr = c"--os_threads_nice_value_merge_mutate=10";
/// It looks at the memory of its cgroup; where none is mounted, it would say so with a page of addresses.
const WITHOUT_CGROUP: &CStr = c"--memory_worker_use_cgroup=0";
/// Where it looks, with v2 and v1.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/memory"];

/// One query with everything that changes how it runs.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    /// SQL, without the data of an INSERT.
    pub sql: &'a [u8],
    /// The data of an INSERT, and the offset in `sql` at which `FROM INFILE` may stand. Data behind the text itself would be
    /// searched for the end of the statement and cut at `;` and a line break.
    pub data: Option<(usize, &'a [u8])>,
    /// Output format unless the query names one; empty means TabSeparated.
    pub format: &'a str,
    /// Current database.
    pub database: Option<&'a str>,
    /// Settings by name, applied in this order.
    pub settings: &'a [(String, String)],
    /// Values of `{name:Type}` placeholders, in the escaping of TabSeparated.
    pub params: &'a [(String, String)],
    /// Refuse everything that writes.
    pub readonly: bool,
}

/// A query's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// In the output format.
    pub data: Bytes,
    /// Counts.
    pub summary: Summary,
}

/// The running engine. Dropping it closes the last connection, which shuts the engine down cleanly.
pub struct Engine {
    _anchor: Connection,
    api: Arc<Api>,
    arguments: Vec<CString>,
}

impl Engine {
    /// Loads `library` and opens (or creates) the database files in `data`.
    pub fn open(library: &Path, data: &Path) -> Result<Self, StoreError> {
        let refused = |reason: &str| StoreError::Open { path: data.into(), reason: reason.into() };
        std::fs::create_dir_all(data).map_err(|e| refused(&e.to_string()))?;
        let mut path = b"--path=".to_vec();
        path.extend_from_slice(data.as_os_str().as_encoded_bytes());
        let path = CString::new(path).map_err(|_| refused("its name has a NUL byte"))?;
        let mut arguments = vec![CString::from(c"wirespan"), path, CString::from(MERGES_YIELD)];
        if !CGROUPS.iter().any(|place| Path::new(place).exists()) {
            arguments.push(CString::from(WITHOUT_CGROUP));
        }
        let api = Api::load(library)?;
        let anchor = Connection::open(&api, &arguments)
            .ok_or_else(|| refused("check that it can be written and that no other process uses it"))?;
        Ok(Self { _anchor: anchor, api, arguments })
    }

    /// Runs a query on a connection of its own; blocks until the whole answer is there. `Err` is ClickHouse's message.
    pub fn query(&self, query: &Query<'_>) -> Result<Answer, String> {
        let mut connection = Connection::open(&self.api, &self.arguments)
            .ok_or("Code: 210. DB::Exception: The engine opens no connection (NETWORK_ERROR)")?;
        if let Some(database) = query.database {
            connection.query(format!("USE {}", quote_identifier(database)).as_bytes(), "Null", &[])?;
        }
        for (name, value) in query.settings {
            let set = format!("SET {} = {}", quote_identifier(name), quote_string(value));
            connection.query(set.as_bytes(), "Null", &[])?;
        }
        if query.readonly {
            connection.query(b"SET readonly = 2", "Null", &[])?;
        }
        let format = if query.format.is_empty() { "TabSeparated" } else { query.format };
        let output = match query.data.and_then(|(at, data)| Some((query.sql.split_at_checked(at)?, data))) {
            None => connection.query(query.sql, format, query.params)?,
            Some(((before, behind), data)) => {
                let failed = |e| {
                    format!("Code: 74. DB::Exception: The data of an INSERT does not reach the engine: {e}")
                };
                let file = ffi::memory_file(data).map_err(failed)?;
                let source = format!(" FROM INFILE '/proc/self/fd/{}' ", file.as_raw_fd());
                let sql = [before, source.as_bytes(), behind].concat();
                connection.query(&sql, format, query.params)?
            }
        };
        let summary = output.summary();
        Ok(Answer { data: output.into_bytes(), summary })
    }
}

/// `name` as an SQL identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// `text` as an SQL string.
pub fn quote_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Loads `library` for good, with what it depends on; opens nothing and starts no thread.
pub(crate) fn preload(library: &Path) -> Result<(), StoreError> {
    Api::load(library).map(drop)
}

/// The library to load: `named`, else `WIRESPAN_LIBCHDB`, else the one that `make setup` put into the user's cache.
pub fn library(named: Option<&Path>) -> Result<PathBuf, StoreError> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => locate(),
    };
    if path.is_file() { Ok(path) } else { Err(StoreError::NoLibrary { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_leaves_no_way_out() {
        assert_eq!(quote_string(r"a'b\"), r"'a\'b\\'");
        assert_eq!(quote_identifier(r"a`b\"), r"`a\`b\\`");
    }

    #[test]
    fn a_missing_library_says_make_setup() {
        let error = library(Some(Path::new("nowhere/libchdb.so"))).unwrap_err().to_string();
        assert!(error.contains("make setup"), "{error}");
    }
}

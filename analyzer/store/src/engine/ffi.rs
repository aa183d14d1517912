//! The C functions of `libchdb.so` that are used (header `chdb.h` of chdb-core 26.5). All `unsafe` of the store is here.

use crate::StoreError;
use bytes::Bytes;
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::sync::Arc;

type Handle = *mut c_void;

/// The library's entry points. It stays loaded for good: its background threads outlive the last connection.
pub(super) struct Api {
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Handle,
    close: unsafe extern "C" fn(*mut Handle),
    query: QueryFn,
    buffer: unsafe extern "C" fn(Handle) -> *const u8,
    length: unsafe extern "C" fn(Handle) -> usize,
    error: unsafe extern "C" fn(Handle) -> *const c_char,
    rows_read: unsafe extern "C" fn(Handle) -> u64,
    bytes_read: unsafe extern "C" fn(Handle) -> u64,
    rows_written: unsafe extern "C" fn(Handle) -> u64,
    bytes_written: unsafe extern "C" fn(Handle) -> u64,
    storage_rows_read: unsafe extern "C" fn(Handle) -> u64,
    storage_bytes_read: unsafe extern "C" fn(Handle) -> u64,
    destroy: unsafe extern "C" fn(Handle),
}

type QueryFn = unsafe extern "C" fn(
    Handle,
    *const u8,
    usize,
    *const u8,
    usize,
    *const *const u8,
    *const usize,
    *const *const u8,
    *const usize,
    usize,
) -> Handle;

impl Api {
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, StoreError> {
        if !path.is_file() {
            return Err(StoreError::NoLibrary { path: path.into() });
        }
        let bad = |e: libloading::Error| StoreError::BadLibrary { path: path.into(), reason: e.to_string() };
        // SAFETY: the library's initialisers run; it is the engine that the user installed or named.
        let library = unsafe { Library::new(path) }.map_err(bad)?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type of each field is the one declared in chdb.h, and the library is never unloaded.
                *unsafe { library.get($name) }.map_err(bad)?
            };
        }
        let set_signal_handlers: unsafe extern "C" fn(c_int) = symbol!(b"chdb_set_signal_handlers_enabled\0");
        // SAFETY: no connection is open yet. The engine's own crash handlers would keep a dying process for minutes.
        unsafe { set_signal_handlers(0) };
        let api = Self {
            connect: symbol!(b"chdb_connect\0"),
            close: symbol!(b"chdb_close_conn\0"),
            query: symbol!(b"chdb_query_with_params_n\0"),
            buffer: symbol!(b"chdb_result_buffer\0"),
            length: symbol!(b"chdb_result_length\0"),
            error: symbol!(b"chdb_result_error\0"),
            rows_read: symbol!(b"chdb_result_rows_read\0"),
            bytes_read: symbol!(b"chdb_result_bytes_read\0"),
            rows_written: symbol!(b"chdb_result_rows_written\0"),
            bytes_written: symbol!(b"chdb_result_bytes_written\0"),
            storage_rows_read: symbol!(b"chdb_result_storage_rows_read\0"),
            storage_bytes_read: symbol!(b"chdb_result_storage_bytes_read\0"),
            destroy: symbol!(b"chdb_destroy_query_result\0"),
        };
        std::mem::forget(library);
        Ok(Arc::new(api))
    }
}

/// A file without a name that holds `data` in memory.
pub(super) fn memory_file(data: &[u8]) -> std::io::Result<File> {
    // SAFETY: the name is NUL-terminated; the descriptor that comes back is ours alone.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"wirespan-insert".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        File::from_raw_fd(descriptor)
    };
    file.write_all(data)?;
    Ok(file)
}

/// One connection: its own settings, parameters and current database; one statement at a time.
pub(super) struct Connection {
    api: Arc<Api>,
    handle: *mut Handle,
}

// SAFETY: the engine lets any thread use a connection as long as no two do at once, which `&mut self` in `query` ensures.
unsafe impl Send for Connection {}
// SAFETY: no method takes `&self`.
unsafe impl Sync for Connection {}

impl Connection {
    /// Opens a connection; `None` when the engine refuses (its reason goes to its log only).
    pub(super) fn open(api: &Arc<Api>, arguments: &[CString]) -> Option<Self> {
        let mut argv: Vec<*mut c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
        let argc = c_int::try_from(argv.len()).ok()?;
        // SAFETY: `argv` points to `argc` NUL-terminated strings that live through the call; the engine copies them.
        let handle = unsafe { (api.connect)(argc, argv.as_mut_ptr()) };
        // SAFETY: a non-null pointer from chdb_connect points to the connection's handle.
        if handle.is_null() || unsafe { *handle }.is_null() {
            return None;
        }
        Some(Self { api: Arc::clone(api), handle })
    }

    /// Runs the statements in `sql` (data may follow an INSERT); `Err` is the engine's message.
    pub(super) fn query(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &[(String, String)],
    ) -> Result<Output, String> {
        let names: Vec<_> = params.iter().map(|(name, _)| name.as_ptr()).collect();
        let name_lengths: Vec<_> = params.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<_> = params.iter().map(|(_, value)| value.as_ptr()).collect();
        let value_lengths: Vec<_> = params.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: the handle is open; every pointer goes with its length and lives through the call.
        let result = unsafe {
            (self.api.query)(
                *self.handle,
                sql.as_ptr(),
                sql.len(),
                format.as_ptr(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                params.len(),
            )
        };
        if result.is_null() {
            return Err("the engine gave no result".into());
        }
        let output = Output { api: Arc::clone(&self.api), result };
        match output.error() {
            Some(message) => Err(message),
            None => Ok(output),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, closed only here.
        unsafe { (self.api.close)(self.handle) }
    }
}

/// What a query produced; owns the engine's buffer.
pub(super) struct Output {
    api: Arc<Api>,
    result: Handle,
}

// SAFETY: a result is a plain buffer that is only read until it is destroyed once, in `drop`.
unsafe impl Send for Output {}
// SAFETY: reading it from several threads at once changes nothing.
unsafe impl Sync for Output {}

/// Row and byte counts of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows read by the query.
    pub read_rows: u64,
    /// Bytes read by the query.
    pub read_bytes: u64,
    /// Rows inserted, those of materialised views included.
    pub written_rows: u64,
    /// Bytes inserted.
    pub written_bytes: u64,
    /// Rows in the answer.
    pub result_rows: u64,
    /// Bytes of the answer.
    pub result_bytes: u64,
}

impl Output {
    fn error(&self) -> Option<String> {
        // SAFETY: the result is alive; the message is NUL-terminated and lives as long as the result.
        unsafe {
            let message = (self.api.error)(self.result);
            (!message.is_null()).then(|| CStr::from_ptr(message).to_string_lossy().into_owned())
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let api = &self.api;
        // SAFETY: the result is alive; these functions only read it.
        unsafe {
            Summary {
                read_rows: (api.storage_rows_read)(self.result),
                read_bytes: (api.storage_bytes_read)(self.result),
                written_rows: (api.rows_written)(self.result),
                written_bytes: (api.bytes_written)(self.result),
                result_rows: (api.rows_read)(self.result),
                result_bytes: (api.bytes_read)(self.result),
            }
        }
    }

    /// The answer without a copy; the engine's buffer is freed with the last clone.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Output {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the result is alive; buffer and length belong together and do not change until it is destroyed.
        unsafe {
            let (data, length) = ((self.api.buffer)(self.result), (self.api.length)(self.result));
            if data.is_null() || length == 0 { &[] } else { std::slice::from_raw_parts(data, length) }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: destroyed only here.
        unsafe { (self.api.destroy)(self.result) }
    }
}

//! Where `libchdb.so` is.

use std::path::PathBuf;

/// The version that `setup-libchdb.sh` installs.
pub const LIBCHDB_VERSION: &str = "26.5.3";

/// `WIRESPAN_LIBCHDB`, else `<cache>/wirespan/libchdb/<version>/libchdb.so` in the user's cache directory.
pub fn locate() -> PathBuf {
    if let Some(path) = std::env::var_os("WIRESPAN_LIBCHDB").filter(|p| !p.is_empty()) {
        return path.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|p| !p.is_empty()).map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
        PathBuf::from,
    );
    cache.join("wirespan/libchdb").join(LIBCHDB_VERSION).join("libchdb.so")
}

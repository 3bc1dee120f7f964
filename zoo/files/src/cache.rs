//! The cache folder, for files that can be downloaded or computed again.

use std::{env, path::PathBuf};

use crate::{Error, Result};

/// The path of the cache folder, which need not exist: `LAPS_ZOO_CACHE`, else `XDG_CACHE_HOME/laps-zoo`, else
/// `HOME/.cache/laps-zoo`. `None` if none of these variables is set.
pub fn path() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LAPS_ZOO_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("laps-zoo")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/laps-zoo")))
}

/// The cache folder, which is created if it does not exist.
///
/// # Errors
/// [`Error::Io`] if the environment names no folder, or if it cannot be created.
pub fn folder() -> Result<PathBuf> {
    let path = path().ok_or_else(|| Error::Io {
        action: "find a folder for",
        path: "the cache".into(),
        source: std::io::Error::other("neither `LAPS_ZOO_CACHE` nor `XDG_CACHE_HOME` nor `HOME` is set"),
    })?;
    fs_err::create_dir_all(&path).map_err(|source| Error::Io { action: "create", path: path.clone(), source })?;
    Ok(path)
}

//! Where files are kept that can be made or fetched again.

use std::{env, path::PathBuf};

use crate::{Error, Result};

/// The folder: `LAPS_ZOO_CACHE`, or `laps-zoo` below `XDG_CACHE_HOME` or `~/.cache`. It is made if it is not there.
pub fn folder() -> Result<PathBuf> {
    let path = place().ok_or_else(|| Error::Io {
        action: "find a folder for",
        path: "the cache".into(),
        source: std::io::Error::other("neither `LAPS_ZOO_CACHE` nor `XDG_CACHE_HOME` nor `HOME` is set"),
    })?;
    fs_err::create_dir_all(&path).map_err(|source| Error::Io { action: "make", path: path.clone(), source })?;
    Ok(path)
}

/// The folder, whether or not it is there; `None` where the environment names none.
pub fn place() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LAPS_ZOO_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("laps-zoo")))
        .or_else(|| variable("HOME").map(|path| path.join(".cache/laps-zoo")))
}

//! The cache folder, for files that can be downloaded or computed again.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use crate::{Error, IoError, Result, temporary};

/// Prefix of the names of the folders with features of frozen backbones.
pub const FEATURES: &str = "features-";

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
    let path = path().ok_or_else(|| {
        Error::Io(IoError::new(
            "find a folder for",
            "the cache",
            io::Error::other("neither `LAPS_ZOO_CACHE` nor `XDG_CACHE_HOME` nor `HOME` is set"),
        ))
    })?;
    fs_err::create_dir_all(&path).map_err(|source| Error::Io(IoError::new("create", &path, source)))?;
    Ok(path)
}

/// Folders of this user where temporary files go, in the order in which they are to be tried. They take the place of the
/// cache folder, for files that are computed again within seconds, on machines without a home or with a read-only one.
pub fn private_places() -> impl Iterator<Item = Result<PathBuf>> {
    temporary::places().into_iter().map(|place| {
        let path = place.join(private_name());
        match private_folder(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Io(IoError::new("create", path, source))),
        }
    })
}

#[cfg(unix)]
fn private_name() -> String {
    format!("laps-zoo-{}", rustix::process::geteuid().as_raw())
}

/// Creates a folder that only this user can use, or checks that the folder is one: anybody can create any name in a folder
/// for temporary files.
#[cfg(unix)]
fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};

    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs_err::symlink_metadata(path)?;
    let is_private = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    if metadata.is_dir() && is_private {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a folder of this user alone"))
}

#[cfg(not(unix))]
fn private_name() -> String {
    "laps-zoo".to_owned()
}

#[cfg(not(unix))]
fn private_folder(path: &Path) -> io::Result<()> {
    fs_err::create_dir_all(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::private_folder;

    #[test]
    fn folder_that_others_can_write_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let [own, open, link] = ["own", "open", "link"].map(|name| root.path().join(name));
        private_folder(&own).unwrap();
        private_folder(&own).unwrap();
        fs_err::create_dir(&open).unwrap();
        fs_err::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        symlink(&own, &link).unwrap();
        assert!(private_folder(&open).is_err());
        assert!(private_folder(&link).is_err());
    }
}

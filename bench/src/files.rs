//! Output files.

use std::path::Path;

use crate::{Error, Result};

/// Writes `bytes` to `path`, which then holds either its old content or `bytes`. See
/// [`OutputFile`](laps_files::OutputFile) for links, devices and standard output.
///
/// # Errors
/// [`Error::Write`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    laps_files::replace(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source: source.into() })
}

/// Checks that a file can be written to `path`, so that a run fails before its work and not after it.
///
/// # Errors
/// [`Error::Write`] if `path` is a folder, or its folder does not exist or is not writable.
pub fn check_writable(path: &Path) -> Result<()> {
    let attempt = || {
        if path.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        if path == Path::new("-") || path.exists() && !path.is_file() {
            // Standard output, a device or a FIFO: opening a FIFO would wait for its reader.
            return Ok(());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let text = format!("there is no folder `{}`", folder.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, text));
        }
        // Dropped without `persist`, it leaves nothing.
        laps_files::OutputFile::create(path)?;
        Ok(())
    };
    attempt().map_err(|source: std::io::Error| Error::Write { path: path.to_owned(), source: source.into() })
}

/// As [`check_writable`], for a writer that goes back in the file.
///
/// # Errors
/// As [`check_writable`], and [`laps_files::Error::NotSeekable`] for a device, a FIFO, an open descriptor and standard
/// output.
pub fn check_seekable(path: &Path) -> Result<()> {
    check_writable(path)?;
    laps_files::seekable_target(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_seekable, check_writable, write_atomic};

    #[test]
    fn unwritable_paths_are_rejected_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        check_writable(&path).unwrap();
        assert!(!path.exists());
        write_atomic(&path, b"{}").unwrap();
        check_writable(&path).unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "{}");
        for unwritable in [folder.path(), &folder.path().join("none/result.json")] {
            let error = check_writable(unwritable).unwrap_err().to_string();
            assert!(error.starts_with("cannot write `"), "{error}");
        }
        if cfg!(unix) {
            check_seekable(&path).unwrap();
            for stream in ["/dev/stdout", "/dev/null", "-"].map(std::path::Path::new) {
                check_writable(stream).unwrap();
                let error = check_seekable(stream).unwrap_err().to_string();
                assert!(error.contains("expected: a regular file"), "{error}");
            }
        }
    }
}

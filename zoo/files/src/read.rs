//! Reading files without waiting.

use std::{
    fs::{self, FileType},
    io,
    path::Path,
};

use crate::output::is_descriptor;

/// Reads the file `path`. A FIFO, a socket or a device is an error, because reading it could block forever. The descriptors
/// that a shell passes (`/dev/stdin`, `/dev/fd/N`) are read whatever they are.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for a path that is not a regular file; otherwise that of the operating system.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if let Some(reason) = irregular(kind)
        && !is_descriptor(path)
        && path != Path::new("/dev/stdin")
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    fs::read(path)
}

/// Description of a path that is neither a regular file nor a folder, otherwise `None`.
pub fn irregular(kind: FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_dir() { None } else { Some(describe(kind)) }
}

#[cfg(unix)]
fn describe(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_fifo() {
        "it is a FIFO, not a regular file"
    } else if kind.is_socket() {
        "it is a socket, not a regular file"
    } else if kind.is_symlink() {
        "it is a symbolic link, not a regular file"
    } else {
        "it is a device, not a regular file"
    }
}

#[cfg(not(unix))]
fn describe(_: FileType) -> &'static str {
    "it is not a regular file"
}

#[cfg(all(test, unix))]
mod tests {
    use std::{os::unix::net::UnixListener, path::Path, process::Command};

    use super::read_regular;

    #[test]
    fn files_without_an_end_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let [file, fifo, socket] = ["file", "fifo", "socket"].map(|name| folder.path().join(name));
        fs_err::write(&file, "x").unwrap();
        assert_eq!(read_regular(&file).unwrap(), b"x");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        let message = |path: &Path| read_regular(path).unwrap_err().to_string();
        assert_eq!(message(&fifo), "it is a FIFO, not a regular file");
        assert_eq!(message(&socket), "it is a socket, not a regular file");
        assert_eq!(message(Path::new("/dev/zero")), "it is a device, not a regular file");
    }
}

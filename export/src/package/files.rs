//! Writing the files of a package and hashing them on the way.
//!
//! Plain files suffice here: the package is written to a temporary folder, which is renamed when it is complete.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use fs_err as fs;
use laps_files::DigestWriter;

use super::FileEntry;
use crate::{Error, Result, file, graph::Graph};

/// Writes `bytes` to the file `name` in `folder`.
pub(super) fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry> {
    let path = folder.join(name);
    let mut file = HashedFile::create(&path).map_err(|error| Error::io("write", &path, error))?;
    file.write_all(bytes).map_err(|error| Error::io("write", &path, error))?;
    file.finish(&path, name)
}

/// Writes a graph to the file `name` in `folder`, one constant at a time.
pub(super) fn write_graph_file(
    folder: &Path,
    name: &str,
    graph: &Graph,
    metadata: &[(String, String)],
) -> Result<FileEntry> {
    let path = folder.join(name);
    let mut file = HashedFile::create(&path).map_err(|error| Error::io("write", &path, error))?;
    file::write(graph, metadata, &mut file)?;
    file.finish(&path, name)
}

/// A file and the hash of what was written to it.
struct HashedFile {
    file: BufWriter<fs::File>,
    digests: DigestWriter,
}

impl HashedFile {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(fs::File::create(path)?), digests: DigestWriter::sha256() })
    }

    fn finish(mut self, path: &Path, name: &str) -> Result<FileEntry> {
        self.flush().map_err(|error| Error::io("write", path, error))?;
        let digest = self.digests.finish();
        Ok(FileEntry { file: name.to_owned(), bytes: digest.bytes, sha256: digest.sha256 })
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.digests.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
